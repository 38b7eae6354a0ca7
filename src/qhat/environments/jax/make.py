"""Environments that gymnax has."""

from __future__ import annotations

from qhat.environments.base import Environment
from qhat.environments.catalogue import MINATAR, Entry
from qhat.environments.jax.gymnax import GymnaxEnvironment
from qhat.environments.jax.minatar import MinAtarEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.wrapped import wrapped


def make(entry: Entry, args: MakeArgs) -> Environment:
    """Make copies of a task of gymnax, or of a game of MinAtar, which has conventions beside gymnax's."""
    if entry.name.endswith(MINATAR):
        made: Environment = MinAtarEnvironment(entry, args.num_envs, options=args.options)
    else:
        made = GymnaxEnvironment(entry, args.num_envs, options=args.options, bins=args.bins)
    return wrapped(made, args.wrap)
