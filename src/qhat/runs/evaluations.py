"""The evaluations during a run: fresh greedy episodes, which choose each seed's best weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from qhat.engine.state import TrainState
from qhat.evaluation.outcomes import Played
from qhat.evaluation.play import Cut
from qhat.runs.folder import RunFolder
from qhat.runs.stop import Stop
from qhat.runs.tables import evaluation_rows
from qhat.runs.tracking import Tracking
from qhat.system.errors import QhatError
from qhat.system.host_memory import give_back


class Evaluations:
    """Plays evaluations, writes eval.csv, and keeps each seed's best weights."""

    def __init__(
        self,
        folder: RunFolder,
        play: Callable[[Any, Array], Played],
        key: Array,
        best: dict[str, Any],
        tracking: Tracking,
        stop: Stop,
        commanded: bool,
    ):
        """Begin.

        Args:
            key: random key of all evaluations; each one folds its iteration in.
            best: each seed's best weights so far, with their scores and steps.
            commanded: whether actions are joint commands.
        """
        self._folder, self._play, self._key = folder, play, key
        self._tracking, self._stop, self._commanded = tracking, stop, commanded
        self.best = best
        self.latest: Played | None = None
        """What the latest evaluation brought; `None` before the first, or if it was cut."""

    @property
    def every_seed_has_one(self) -> bool:
        """Whether each seed has been evaluated."""
        return bool(np.isfinite(self.best["score"]).all())

    def play(self, at: int, step: int, state: TrainState) -> dict[str, Any]:
        """Evaluate the weights of iteration `at`; return the fields of `Progress` that it changes.

        A failure of the environment is stored in the run's `Stop`, so that the run is saved first.
        """
        online = state.seeds.learner.online
        self._stop.begin_evaluation()
        self.latest = None
        try:
            if self._stop.failure is not None:
                raise Cut
            played = self._play(online, jax.random.fold_in(self._key, at))
        except (Cut, QhatError) as error:
            if isinstance(error, QhatError):
                self._stop.failure = error
            self._choose(~np.isfinite(self.best["score"]), -np.inf, step, online)
            return {}
        give_back()
        rows = evaluation_rows(step, played, self._commanded)
        self._folder.append(self._folder.evaluations, rows)
        self._tracking.rows(rows, "evaluation")
        scores = played.returns.mean(axis=1)
        # Of equal scores the latest counts: those weights have learned most.
        self._choose(scores >= self.best["score"], scores, step, online)
        self.latest = played
        return {"evaluation": float(played.returns.mean()), "cut": int(played.cut.sum())}

    def _choose(self, better: np.ndarray, scores: Any, step: int, online: Any) -> None:
        """Make these weights the best ones of the seeds for which they are `better`."""

        def chosen(old: np.ndarray, new: Any) -> np.ndarray:
            return np.where(better.reshape(-1, *[1] * (np.ndim(new) - 1)), np.asarray(new), old)

        self.best = {
            "score": np.where(better, scores, self.best["score"]),
            "step": np.where(better, step, self.best["step"]),
            "weights": jax.tree.map(chosen, self.best["weights"], online),
        }
