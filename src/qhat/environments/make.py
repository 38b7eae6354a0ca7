"""From an id to an environment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qhat.axes.actions import BINS
from qhat.environments.base import Environment
from qhat.environments.catalogue import Entry, find
from qhat.environments.host import HostEnvironment
from qhat.environments.reference import make_reference
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Wrapper, require_unwrapped
from qhat.system.errors import UsageError, require


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
    """Make `num_envs` copies of an environment that compiles into the loop.

    Args:
        seeds: numbers of the seeds that will run side by side, spread evenly over `devices`. An
            environment that is part of the program serves any number; one that lives outside it makes
            copies for each.
        since: step that a run resumes from; environments whose state cannot be restored begin new episodes.
        options: for its constructor.
        wrap: its wrappers, innermost first. Reward wrappers belong to the learner and are ignored here.
        bins: commands of every joint, or one number for all, where actions are continuous.

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
    """Make an environment as `make` does, or one that Python steps.

    Args:
        vector: `sync` or `async`, how Python steps the copies.
        seconds: how long a step in Python may take.
        restarts: how often its processes are restarted after they are lost.
    """
    options = options or {}
    entry = find(env_id, options)
    if entry.backend == "gym":
        from qhat.environments.gymnasium.environment import GymnasiumEnvironment

        if entry.batch:
            return _batch(entry, num_envs, seeds, since, vector, seconds, options, wrap, bins)
        build = functools.partial(make_reference, entry.name, options, tuple(wrap))
        task = (num_envs, seeds, since, entry.reference, vector, seconds)
        more = {"stack": _stack(build), "bins": bins, "restarts": restarts}
        return GymnasiumEnvironment.of(entry.id, build, *task, **more)
    if entry.backend == "envpool":
        from qhat.environments.envpool.hosted import make_pool

        made = make_pool(entry, num_envs, seeds, devices, since, options=options, bins=bins)
    elif entry.backend == "qhat":
        from qhat.environments.turtlebot3.compiled import TurtleBot3Environment

        made = TurtleBot3Environment(entry, num_envs, options=options)
    elif entry.name.endswith("-MinAtar"):
        from qhat.environments.jax.minatar import MinAtarEnvironment

        made = MinAtarEnvironment(entry, num_envs, options=options)
    else:
        from qhat.environments.jax.gymnax import GymnaxEnvironment

        made = GymnaxEnvironment(entry, num_envs, options=options, bins=bins)
    if isinstance(made, Environment):
        return wrapped(made, wrap)
    require_unwrapped(made.spec.id, wrap)
    return made


def _batch(
    entry: Entry,
    num_envs: int,
    seeds: Sequence[int],
    since: int,
    vector: str,
    seconds: float,
    options: Mapping[str, Any],
    wrap: Sequence[Wrapper],
    bins: Sequence[int],
) -> HostEnvironment:
    """Make one vector environment for all seeds, and look at what it does at episodes' ends."""
    from qhat.environments.gymnasium.environment import GymnasiumEnvironment
    from qhat.environments.gymnasium.probe import probed
    from qhat.environments.gymnasium.registry import make_batch
    from qhat.environments.spaces import episode_seeds

    require_unwrapped(entry.id, wrap)
    require(
        vector == "sync",
        f"--vector is {vector}, and '{entry.id}' steps all of its copies itself; expected sync.",
    )
    numbers = [number for seed in seeds for number in episode_seeds(int(seed), since, num_envs)]
    envs = make_batch(entry.name, len(numbers), options)
    made = GymnasiumEnvironment(entry.id, envs, numbers, len(seeds), seconds=seconds, bins=bins)
    return probed(made)


def _stack(build: Callable[[], Any]) -> int:
    from qhat.environments.envpool.atari import stack_of

    made = build()
    made.close()
    return stack_of(made)
