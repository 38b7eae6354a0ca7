"""Environments that a caller hands over, in place of an id."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from qhat.axes.actions import BINS
from qhat.environments.base import Environment, Spec
from qhat.environments.catalogue import marked
from qhat.environments.gymnasium import api as gymnasium_api
from qhat.environments.gymnasium.environment import SECONDS, GymnasiumEnvironment
from qhat.environments.gymnasium.probe import probed
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.reference import wrapped_up
from qhat.environments.spaces import episode_seeds
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Wrapper, around, require_unwrapped
from qhat.system.errors import UsageError, require

EnvLike = Environment | HostEnvironment | VectorEnv | gymnasium.Env | Callable[[], gymnasium.Env]
"""One that compiles, one of the host loop's, or Gymnasium's: a vector, a single one, a function that makes
one."""


def wrap_given(
    env: EnvLike,
    num_envs: int,
    seeds: Sequence[int] = (0,),
    since: int = 0,
    vector: str = "sync",
    seconds: float = SECONDS,
    restarts: int = 0,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Environment | HostEnvironment:
    """Make what the loops take of a caller's environment; the arguments are `make_any`'s.

    Raises:
        UsageError: it has another number of copies than the run, cannot be wrapped, or is nothing of the
            kind.
    """
    if isinstance(env, Environment):
        return wrapped(env, wrap)
    if isinstance(env, HostEnvironment | VectorEnv):
        require_unwrapped(name_of(env), wrap)
    if isinstance(env, HostEnvironment):
        return env
    if isinstance(env, VectorEnv):
        numbers = [number for seed in seeds for number in episode_seeds(int(seed), since, num_envs)]
        made = GymnasiumEnvironment(name_of(env), env, numbers, len(seeds), seconds=seconds, bins=bins)
        return probed(made)
    if isinstance(env, gymnasium.Env):
        require(
            num_envs * len(seeds) == 1,
            f"One environment was given for {len(seeds)} seed(s) with num_envs={num_envs}; expected a"
            " function that makes one.",
        )
        return GymnasiumEnvironment.of(
            name_of(env), lambda: around(env, wrap), 1, seeds, since, seconds=seconds, bins=bins
        )
    if callable(env):
        build = functools.partial(wrapped_up, env, tuple(wrap))
        stepped: dict[str, Any] = {"vector": vector, "seconds": seconds, "restarts": restarts}
        return GymnasiumEnvironment.of(name_of(env), build, num_envs, seeds, since, **stepped, bins=bins)
    raise UsageError(
        f"env is {env!r}; expected an id, an Environment, a Gymnasium environment or vector environment, or"
        " a function that makes one."
    )


def judge_of(env: EnvLike, wrap: Sequence[Wrapper] = ()) -> Environment | Callable[[], gymnasium.Env]:
    """What plays the scores of a caller's environment: others of the same kind.

    Raises:
        UsageError: no others can be made.
    """
    if isinstance(env, Environment):
        return wrapped(env, wrap)
    if isinstance(env, gymnasium.Env):
        if env.spec is None:
            raise UsageError(
                f"Environment '{name_of(env)}' cannot be made again for the run's evaluations; expected a"
                " function that makes one, or judge=."
            )
        env = functools.partial(gymnasium.make, env.spec)
    if isinstance(env, VectorEnv | HostEnvironment):
        raise UsageError(
            f"'{name_of(env)}' plays the training alone; expected judge=, a function that makes a single"
            " environment for the run's evaluations."
        )
    return functools.partial(wrapped_up, env, tuple(wrap))


def name_of(env: EnvLike) -> str:
    """What the run calls it: `own:` and its id or the name of its class."""
    if isinstance(env, Environment | HostEnvironment):
        return marked(env.spec.id)
    if not isinstance(env, gymnasium.Env | VectorEnv) and callable(env):
        made: Any = env()
        gymnasium_api.require_environment(made, getattr(env, "__name__", "env"))
        name = name_of(made)
        made.close()
        return name
    spec = getattr(env, "spec", None)
    return marked(getattr(spec, "id", None) or type(getattr(env, "unwrapped", env)).__name__)


def from_python(spec: Spec) -> Spec:
    """Mark a spec: no id makes its environment, and nothing else scores it."""
    return dataclasses.replace(spec, id=marked(spec.id), reference=None)


def spec_of(
    env: str | EnvLike,
    options: Mapping[str, Any] | None = None,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Spec:
    """Return the spec of an environment. Raises `UsageError` for one that there is not."""
    if isinstance(env, str):
        made = make_any(env, 1, options=options, wrap=wrap, bins=bins)
    else:
        made = wrap_given(env, 1, wrap=wrap, bins=bins)
    if isinstance(made, HostEnvironment) and not isinstance(env, HostEnvironment):
        made.close()
    return made.spec if isinstance(env, str) else from_python(made.spec)
