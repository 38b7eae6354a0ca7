"""From an id to an environment."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from qhat.environments.base import Environment
from qhat.environments.catalogue import find
from qhat.environments.host import HostEnvironment
from qhat.errors import UsageError, require


def make(
    env_id: str,
    num_envs: int,
    seeds: Sequence[int] = (0,),
    devices: int = 1,
    since: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
) -> Environment:
    """Make `num_envs` copies of an environment that compiles into the loop.

    Args:
        seeds: numbers of the seeds that will run side by side, spread evenly over `devices`. An
            environment that is part of the program serves any number; one that lives outside it makes
            copies for each.
        since: step that a run goes on from; where its episodes cannot be gone on with, others begin.
        options: for its constructor; MinAtar's games have some.

    Raises:
        UsageError: the id is not known, its library is not installed, or it is stepped in Python.
    """
    made = make_any(env_id, num_envs, seeds, devices, since, options=options)
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
    *,
    options: Mapping[str, Any] | None = None,
) -> Environment | HostEnvironment:
    """Do as `make`, also for an environment that Python steps."""
    entry = find(env_id)
    if entry.backend == "gymnax" and entry.name.endswith("-MinAtar"):
        from qhat.environments.minatar_env import MinAtarEnvironment

        return MinAtarEnvironment(entry, num_envs, options=options)
    require(
        not options,
        f"Environment '{env_id}' was given {', '.join(options or ())}; expected no options.",
    )
    if entry.backend == "envpool":
        from qhat.environments.envpool_env import EnvPoolEnvironment

        return EnvPoolEnvironment(entry, num_envs, seeds, devices, since)
    if entry.backend == "gym":
        import gymnasium

        from qhat.environments.gymnasium_env import GymnasiumEnvironment

        build = functools.partial(gymnasium.make, entry.name)
        return GymnasiumEnvironment(entry.id, build, num_envs, seeds, since, entry.reference)
    from qhat.environments.gymnax_env import GymnaxEnvironment

    return GymnaxEnvironment(entry, num_envs)
