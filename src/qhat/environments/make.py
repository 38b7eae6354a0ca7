"""From an id to an environment."""

from qhat.environments.base import Environment
from qhat.environments.catalogue import find


def make(env_id: str, num_envs: int) -> Environment:
    """Make `num_envs` copies of an environment. Raises `UsageError` for an id that is not known."""
    entry = find(env_id)
    from qhat.environments.gymnax_env import GymnaxEnvironment

    return GymnaxEnvironment(entry, num_envs)
