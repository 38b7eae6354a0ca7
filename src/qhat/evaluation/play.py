"""Evaluation: the greedy policy, no exploration and no noise, in fresh environments."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import jax
import numpy as np
from jaxtyping import Array

from qhat.axes.actions import Actions
from qhat.engine.learner import Learner
from qhat.engine.recurrent import Recall
from qhat.environments.base import Environment
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.record import name_of
from qhat.environments.gymnasium.workers import vectorise
from qhat.environments.host import HostEnvironment
from qhat.environments.reference import make_reference
from qhat.evaluation.outcomes import Played
from qhat.evaluation.rollout import Gathering, ShowProgress, Turn, Watch, player

Playable = str | Callable[[], gymnasium.Env]
"""What Gymnasium plays: an id, or a function that makes an environment."""
Judge = Environment | HostEnvironment | Playable
"""What can play a run's evaluations."""

LONGEST_EPISODE = 100_000
"""Steps after which an evaluation's episode is over, whatever the environment says: some have no limit."""
SHORTEST_CUT = 1_000
"""Steps that a run's evaluations let an episode have at least."""
SILENCE, EVERY = 2.0, 1.0
"""Seconds of an evaluation after which progress is shown, and between two such sentences."""


class Cut(Exception):  # noqa: N818 - it is no error
    """An evaluation was asked to stop."""


@dataclasses.dataclass(frozen=True)
class Greedy(Gathering):
    """The greedy policy without exploration and noise, and what its episodes brought."""

    actions: Actions
    """The environment's."""

    def act(
        self,
        learner: Learner,
        parameters: Any,
        observation: Array,
        legal: Array | None,
        recall: Recall | None,
    ) -> tuple:
        action, recall = learner.greedy(parameters, observation, None, legal, recall)
        return action, None, recall

    def begin(self, shape: tuple[int, ...], details: Any, xp: Any) -> Played:
        return Played.nothing(shape, self.actions.factors, xp)

    def add(self, kept: Played, turn: Turn, xp: Any) -> Played:
        return kept.add(turn.now, turn.playing, turn.action, turn.before, self.actions, xp)


@runtime_checkable
class Play(Protocol):
    """Plays greedy episodes."""

    def __call__(self, parameters: Any, key: Array, first: Sequence[int] | None = None) -> Played:
        """Play one episode in every copy of an environment, or as many as asked of what Gymnasium makes.

        Args:
            parameters: leaves `[S, ...]`.
            key: of the episodes, where the environment was not seeded when it was made.
            first: number that seeds each seed's first episode in Gymnasium, where the others follow it;
                drawn by `key`, one for all seeds, unless given.

        Returns:
            `[S, E]`.
        """
        ...


def cut_of(limit: int, eval_every: int, steps: int) -> int:
    """Return the steps after which a run's evaluations cut an episode.

    Where the environment has no time limit, a stuck policy would play for ever. Such an episode gets no
    more steps than the training between two evaluations, or `SHORTEST_CUT`.

    Args:
        limit: the environment's own time limit; 0 where it declares none.
        steps: of the training.
    """
    if limit:
        return LONGEST_EPISODE
    return min(LONGEST_EPISODE, max(SHORTEST_CUT, min(eval_every, steps)))


class EvaluationProgress:
    """Says how far an evaluation is, if it takes long."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.begin()

    def begin(self) -> None:
        """Start the clock of an evaluation."""
        self._due = time.perf_counter() + SILENCE

    def __call__(self, turn: int, longest: int, playing: Any) -> None:
        """Say where it is, if a sentence is due.

        Args:
            playing: which episodes are not over.
        """
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + EVERY
            over = np.asarray(~playing)
            self._say(
                f"{over.sum():,} of {over.size:,} episodes over, step {turn:,} of at most {longest:,}"
            )


def play_of(
    learner: Learner,
    judge: Judge,
    episodes: int = 1,
    over: Callable[[], bool] = lambda: False,
    ready: Any = None,
    longest: int | None = None,
    watch: Watch = lambda _: None,
    show_progress: ShowProgress = lambda *_: None,
) -> Play:
    """Return what plays an evaluation. It raises `Cut` where `over` ended it.

    Args:
        judge: plays one episode in each of its copies where it is an environment already.
        episodes: of what Gymnasium makes, of every seed.
        over, ready, watch, show_progress: as `player`'s.
        longest: steps after which an episode is cut; `LONGEST_EPISODE` unless given.
    """
    most = LONGEST_EPISODE if longest is None else longest

    def playing(environment: Environment | HostEnvironment) -> Callable[[Any, Array], Played]:
        greedy = Greedy(environment.spec.actions)
        rollout = player(learner, environment, greedy, most, over, ready, watch, show_progress)

        def one(parameters: Any, key: Array) -> Played:
            played = rollout(parameters, key)
            if played.stopped:
                raise Cut
            return played.kept.ended(played.playing)

        return one

    if isinstance(judge, Environment | HostEnvironment):
        whole = playing(judge)
        return lambda parameters, key, first=None: whole(parameters, key)

    def in_gymnasium(parameters: Any, key: Array, first: Sequence[int] | None = None) -> Played:
        seeds = jax.tree.leaves(parameters)[0].shape[0]
        numbers = [int(jax.random.bits(key) >> 2)] * seeds if first is None else first
        played = []
        for at, number in enumerate(numbers):
            environment = _reference(learner, judge, range(number, number + episodes))
            try:
                one = jax.tree.map(lambda leaf, at=at: leaf[at : at + 1], parameters)
                played.append(playing(environment)(one, key))
            finally:
                environment.close()
        return jax.tree.map(lambda *parts: np.concatenate(parts), *played)

    return in_gymnasium


def _reference(learner: Learner, env: Playable, numbers: range) -> GymnasiumEnvironment:
    """Make one copy of an environment in Gymnasium for each of the `numbers` that seed them."""
    build = functools.partial(make_reference, env) if isinstance(env, str) else env
    envs = vectorise(build, len(numbers), "sync")
    return GymnasiumEnvironment(name_of(envs), envs, numbers, bins=learner.actions.choices)
