"""The mobile robot's arena."""

from __future__ import annotations

from qhat.environments.base import Environment
from qhat.environments.catalogue import Entry
from qhat.environments.make_args import MakeArgs
from qhat.environments.turtlebot3.compiled import TurtleBot3Environment
from qhat.environments.wrapped import wrapped


def make(entry: Entry, args: MakeArgs) -> Environment:
    """Make copies of the arena."""
    return wrapped(TurtleBot3Environment(entry, args.num_envs, options=args.options), args.wrap)
