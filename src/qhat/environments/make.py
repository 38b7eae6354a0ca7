"""From an id to an environment."""

import functools
from collections.abc import Sequence

from qhat.environments.base import Environment
from qhat.environments.catalogue import find
from qhat.environments.host import HostEnvironment
from qhat.errors import UsageError


def make(
    env_id: str, num_envs: int, seeds: Sequence[int] = (0,), devices: int = 1, since: int = 0
) -> Environment:
    """Make `num_envs` copies of an environment that compiles into the loop.

    Args:
        seeds: numbers of the seeds that will run side by side, spread evenly over `devices`. An
            environment that is part of the program serves any number; one that lives outside it makes
            copies for each.
        since: step that a run goes on from; where its episodes cannot be gone on with, others begin.

    Raises:
        UsageError: the id is not known, its library is not installed, or it is stepped in Python.
    """
    made = make_any(env_id, num_envs, seeds, devices, since)
    if isinstance(made, Environment):
        return made
    made.close()
    raise UsageError(f"Environment '{env_id}' is stepped in Python; expected one that compiles.")


def make_any(
    env_id: str, num_envs: int, seeds: Sequence[int] = (0,), devices: int = 1, since: int = 0
) -> Environment | HostEnvironment:
    """Do as `make`, also for an environment that Python steps."""
    entry = find(env_id)
    if entry.backend == "envpool":
        from qhat.environments.envpool_host import make_pool

        return make_pool(entry, num_envs, seeds, devices, since)
    if entry.backend == "gym":
        from qhat.environments import atari
        from qhat.environments.gymnasium_env import GymnasiumEnvironment

        build = functools.partial(atari.make, entry.name)
        return GymnasiumEnvironment(
            entry.id, build, num_envs, seeds, since, entry.reference, stack=entry.stack
        )
    from qhat.environments.gymnax_env import GymnaxEnvironment

    return GymnaxEnvironment(entry, num_envs)
