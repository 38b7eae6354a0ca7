"""E copies of a run's environment that an exported policy acts in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from qhat.deploy.meaning import Meaning
from qhat.environments.base import Environment, Spec
from qhat.environments.finite import sound
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.make_args import MakeArgs
from qhat.environments.reference import lacks, reference_builder
from qhat.environments.stepped import stepped
from qhat.environments.term import Term
from qhat.environments.user_envs import EnvLike, source_of
from qhat.runs.run import Run
from qhat.system.errors import QhatError, UnfitActionError
from qhat.system.files import quote


class Situation(NamedTuple):
    """What there is to act on, and what the last step brought."""

    observation: np.ndarray
    """`[E, ...]`"""
    legal: np.ndarray | None
    """`[E, F, C]`; `None` is all."""
    scored: np.ndarray | None = None
    """`[E]`, the reward in the units of scores."""
    closed: np.ndarray | None = None
    """`[E]`, whether the episode ended."""


class Copies:
    """E copies. The reference plays where there is one, as in an evaluation."""

    def __init__(self, environment: HostEnvironment, closes: bool = True):
        self._environment, self.num_envs, self._closes = environment, environment.num_envs, closes

    @property
    def spec(self) -> Spec:
        return self._environment.spec

    @property
    def terms(self) -> tuple[Term, ...]:
        """What the robot's sensors give."""
        return self._environment.terms

    def named(self, meaning: Meaning) -> Meaning:
        """Return a meaning with what the environment says of its joints and clock, if that is new."""
        return dataclasses.replace(
            meaning,
            drives=meaning.drives or list(self._environment.drives) or None,
            action_names=meaning.action_names or list(self._environment.joints) or None,
            period=meaning.period or self._environment.period,
        )

    def start(self) -> Situation:
        """Begin episodes everywhere."""
        return _first(self._environment.start(), self._environment.legal())

    def step(self, action: np.ndarray) -> Situation:
        """Step with the environment's own actions `[E, *shape]`. Raises `QhatError` where one is none."""
        try:
            self._environment.send_env_action(action)
        except UnfitActionError as error:
            raise QhatError(
                f"Of the exported policy's actions {quote(action.tolist())} the environment does not have"
                f" all; expected {error}. Nothing was written."
            ) from None
        now = sound(self._environment.receive(), np, self.spec.layout)
        return _first(now.observation, now.legal, now.scored, now.closed)

    def close(self) -> None:
        if self._closes:
            self._environment.close()


def _first(observation: np.ndarray, *rest: np.ndarray | None) -> Situation:
    """Return what the first, and only, of the seeds meets."""
    return Situation(observation[0], *(None if part is None else part[0] for part in rest))


def copies_of(run: Run, count: int, seed: int, env: EnvLike | None = None) -> Copies:
    """Make copies of a run's environment.

    Args:
        env: in place of the run's own id; what was trained in from Python has to be handed over again.
    """
    spec, bins = run.spec, run.spec.actions.choices
    if env is None:
        run.require_made_by_id("it again, as qhat.export(run, env=...)")
    build = judge_of(run, env)
    if isinstance(build, Environment):
        build.spec.require_fits(spec)
        made: Any = build
    elif build is not None:
        made = GymnasiumEnvironment.of(spec.id, build, count, (seed,), bins=bins, stack=spec.stack)
    else:
        task: Mapping[str, Any] = {"options": run.env_kwargs, "wrap": run.wrap, "bins": bins}
        if env is None:
            made = make_any(spec.id, count, (seed,), **task)
        else:
            made = source_of(env).make(MakeArgs(count, (seed,), wrap=run.wrap, bins=bins))
    made.spec.require_fits(spec)
    return Copies(stepped(made, seed=seed), closes=made is not env)


def judge_of(run: Run, env: EnvLike | None = None) -> Callable[[], gymnasium.Env] | Environment | None:
    """What makes one of Gymnasium's environments, wrapped as in training; `None` where there is none.

    A batch that Python steps plays itself.
    """
    if isinstance(env, HostEnvironment):
        return None
    if env is not None:
        return source_of(env).judge(run.wrap)
    spec = run.spec
    if spec.reference and not lacks(spec.reference):
        return reference_builder(spec, run.env_kwargs, run.wrap)
    return None
