"""Scores weights in fresh episodes of an environment that a caller names or hands over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from qhat.axes.actions import Actions
from qhat.engine.learner import Learner
from qhat.environments.base import Spec
from qhat.environments.make_args import MakeArgs
from qhat.environments.reference import lacks, reference_builder
from qhat.environments.user_envs import EnvLike, source_of, spec_of
from qhat.environments.wrappers import Wrapper
from qhat.evaluation.outcomes import Played
from qhat.evaluation.play import EvaluationProgress, Judge, play_of
from qhat.evaluation.statistics import Score
from qhat.system.errors import require, setting


class Fresh(NamedTuple):
    """Fresh episodes, and where they were played."""

    spec: Spec
    """The environment's."""
    played: Played
    """`[S, episodes]`"""
    commanded: bool
    """Whether actions are commands of joints."""

    @property
    def score(self) -> Score:
        """What they come to."""
        return Score.of_played(self.spec.id, self.played, self.commanded)


def played_in(
    env: str | EnvLike,
    learner: Learner,
    weights: Any,
    fits: Callable[[Spec], None],
    *,
    actions: Actions,
    episodes: int,
    seed: int,
    env_kwargs: Mapping[str, Any],
    wrap: Sequence[Wrapper] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Fresh:
    """Play greedy episodes with every seed's weights, in the reference where there is one.

    Args:
        weights: online parameters, leaves `[S, ...]`.
        fits: raises `UsageError` for the spec of an environment in which they cannot play.
        actions: of the policy.
        seed: of the first episode; seed i's episodes are numbered on from seed + i·episodes.
    """
    require(episodes >= 1, f"{setting('episodes')} is {episodes}; expected 1 or more.")
    show_progress = EvaluationProgress(progress)
    task: dict[str, Any] = {"options": env_kwargs, "wrap": tuple(wrap)}
    seeds, bins = jax.tree.leaves(weights)[0].shape[0], actions.choices
    with contextlib.ExitStack() as made_here:
        source = source_of(env, env_kwargs)
        judge: Judge | None = source.judge(tuple(wrap))
        spec = spec_of(env, **task, bins=bins)
        fits(spec)
        if judge is None and spec.reference and not lacks(spec.reference):
            judge = reference_builder(spec, **task)
        elif judge is None:
            judge = source.make(MakeArgs(episodes, range(seed, seed + seeds), **task, bins=bins))
            made_here.callback(judge.close)
        first = [seed + index * episodes for index in range(seeds)]
        played = play_of(learner, judge, episodes, show_progress=show_progress)(
            weights, jax.random.key(seed), first
        )
    return Fresh(spec, played, actions.commands is not None)
