"""E copies of a run's environment, compiled or in Python, stepped one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from qhat.engine.compiler import COMPILER_OPTIONS
from qhat.environments.base import Environment, Spec
from qhat.environments.finite import sound
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.reference import lacks, reference_builder
from qhat.environments.user_envs import EnvLike, judge_of
from qhat.runs.run import Run
from qhat.system.errors import QhatError
from qhat.system.files import quote


class Seen(NamedTuple):
    """What there is to act on, and what the last step brought."""

    observation: Any
    """`[E, ...]`"""
    legal: Any
    """`[E, F, C]`; `None` is all."""
    scored: Any = None
    closed: Any = None
    """`[E]`, whether the episode ended."""


class Copies:
    """E copies. The reference plays where there is one, as in an evaluation."""

    def __init__(self, made: Environment | HostEnvironment, seed: int):
        self._made, self.num_envs, self._state = made, made.num_envs, None
        self._key = jax.random.key(seed)
        step = jax.vmap(self._one, (0, 0, None))
        self._step: Any = jax.jit(step, compiler_options=COMPILER_OPTIONS)

    def start(self) -> Seen:
        """Begin episodes everywhere."""
        made = self._made
        if isinstance(made, HostEnvironment):
            return _first(Seen(made.start(), made.legal()))
        self._state, observation = made.start(jax.random.split(self._key, 1))
        return _first(Seen(observation, jax.vmap(made.legal)(self._state)))

    @property
    def spec(self) -> Spec:
        return self._made.spec

    def step(self, action: np.ndarray, turn: int) -> Seen:
        """Step with the environment's own actions `[E, *shape]`. Raises `QhatError` where one is none."""
        made = self._made
        if isinstance(made, GymnasiumEnvironment):
            made.send_env_action(contained(action, made.action_space))
        else:
            choice = self._choices(action)[None].astype(np.int32)
            if not isinstance(made, HostEnvironment):
                key = jax.random.fold_in(self._key, turn)
                self._state, now = self._step(self._state, choice, key)
                return _first(now)
            made.send(choice)
        step = sound(made.receive(), np, made.spec.layout)
        return _first(Seen(step.observation, step.legal, step.scored, step.closed))

    def _choices(self, action: np.ndarray) -> np.ndarray:
        """Return choices `[E, F]`, where no space of Gymnasium's says what an action is."""
        actions = self.spec.actions
        flat = actions.flat(action, (len(action),))
        if flat is None or not actions.holds(flat).all():
            _refuse(action, actions.expected)
        return actions.nearest(flat)

    def _one(self, state: Any, action: Any, key: Any) -> tuple[Any, Seen]:
        """Step copies that compile."""
        state, now = self._made.step(state, action, key)  # pyright: ignore[reportAttributeAccessIssue]
        now = sound(now, jnp, self._made.spec.layout)
        return state, Seen(now.observation, now.legal, now.scored, now.closed)

    def close(self) -> None:
        if isinstance(self._made, HostEnvironment):
            self._made.close()


def contained(action: np.ndarray, space: gymnasium.Space) -> np.ndarray:
    """Return actions `[E, *shape]` in their space's type. Raises `QhatError` unless it contains them."""
    typed = action.astype(space.dtype)
    contains = all(space.contains(np.asarray(row)) for row in typed)
    if not contains or not np.allclose(typed, action):
        _refuse(action, f"actions of {space}")
    return typed


def _refuse(action: np.ndarray, expected: str) -> NoReturn:
    raise QhatError(
        f"Of the exported policy's actions {quote(action.tolist())} the environment has not all; expected"
        f" {expected}. Nothing was written."
    )


def _first(seen: Seen) -> Seen:
    """Return what the first, and only, of the seeds sees."""
    return Seen(*(None if part is None else np.asarray(part)[0] for part in seen))


def copies_of(run: Run, count: int, seed: int, env: EnvLike | None = None) -> Copies:
    """Make copies of a run's environment.

    Args:
        env: in place of the run's own id; what was trained in from Python has to be handed over again.
    """
    spec, bins = run.spec, run.spec.actions.choices
    if env is None:
        run.require_made_by_id("it again, as qhat.export(run, env=...)")
    build = builder_of(run, env)
    if isinstance(build, Environment):
        build.spec.require_fits(spec)
        made: Any = build
    elif build is not None:
        made = GymnasiumEnvironment.of(spec.id, build, count, (seed,), bins=bins, stack=spec.stack)
    else:
        task: Mapping[str, Any] = {"options": run.options, "wrap": run.wrap, "bins": bins}
        made = make_any(spec.id, count, (seed,), **task)
    made.spec.require_fits(spec)
    return Copies(made, seed)


def builder_of(run: Run, env: EnvLike | None = None) -> Callable[[], gymnasium.Env] | Environment | None:
    """What makes one of Gymnasium's environments, wrapped as in training; `None` where there is none."""
    if env is not None:
        return judge_of(env, run.wrap)
    spec = run.spec
    if spec.reference and not lacks(spec.reference):
        return reference_builder(spec, run.options, run.wrap)
    return None
