"""From an id to an environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from qhat.axes.actions import BINS
from qhat.environments.base import Environment
from qhat.environments.catalogue import backend_of, find
from qhat.environments.host import HostEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.robot_mirrors import known_mirror
from qhat.environments.wrappers import Wrapper
from qhat.system.errors import UsageError


def make(
    env_id: str,
    num_envs: int,
    seeds: Sequence[int] = (0,),
    devices: int = 1,
    since: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Environment:
    """Make `num_envs` copies of an environment that compiles into the loop; see `MakeArgs`.

    Raises:
        UsageError: the id or an option is not known, its library is not installed, a wrapper does not fit
            around it, or it is stepped in Python.
    """
    made = make_any(env_id, num_envs, seeds, devices, since, options=options, wrap=wrap, bins=bins)
    if isinstance(made, Environment):
        return made
    made.close()
    raise UsageError(f"Environment '{env_id}' is stepped in Python; expected one that compiles.")


def make_any(
    env_id: str,
    num_envs: int,
    seeds: Sequence[int] = (0,),
    devices: int = 1,
    since: int = 0,
    vector: str = "sync",
    seconds: float = 60.0,
    restarts: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Environment | HostEnvironment:
    """Make an environment as `make` does, or one that Python steps."""
    stepped = (vector, seconds, restarts)
    return make_with(env_id, MakeArgs(num_envs, seeds, devices, since, *stepped, options or {}, wrap, bins))


def make_with(env_id: str, args: MakeArgs) -> Environment | HostEnvironment:
    """Make what an id means, by its backend."""
    entry = find(env_id, args.options)
    made = backend_of(entry.backend).make(entry, args)
    image = made.spec.mirror or known_mirror(entry.name, made.spec.shape)
    if image is not made.spec.mirror:
        made.spec = dataclasses.replace(made.spec, mirror=image)
    return made
