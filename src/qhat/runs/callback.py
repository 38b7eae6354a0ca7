"""What a user's function gets after each evaluation of a run, and how it stops the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np

from qhat.evaluation.outcomes import Played
from qhat.runs.run import Run
from qhat.runs.stop import Stop
from qhat.system.errors import UsageError, require
from qhat.system.files import quote


@final
class Evaluation:
    """One evaluation of a run in training, as the function `callback` gets it."""

    def __init__(self, step: int, played: Played, run: Run, save: Callable[[], None]):
        """Begin.

        Args:
            run: it may have no checkpoint yet.
            save: writes a checkpoint of this step.
        """
        self.step = step
        """Environment step of each seed."""
        self.scores: tuple[float, ...] = tuple(played.returns.mean(axis=1).tolist())
        """Mean return of each seed's greedy episodes."""
        tried = bool(played.attempts.sum())
        self.success_rates: tuple[float, ...] = tuple(played.success_rate(axis=1).tolist()) if tried else ()
        """Each seed's share of successful episodes; empty where the environment reports no success."""
        self._run, self._save = run, save

    def __repr__(self) -> str:
        """Return the step and the mean score."""
        return f"Evaluation(step={self.step}, mean={self.mean:.6g})"

    @property
    def mean(self) -> float:
        """Mean of `scores`, which `stop_at` is compared with."""
        return float(np.mean(self.scores))

    @property
    def run(self) -> Run:
        """The run. The first use within the callback writes a checkpoint of this step."""
        save, self._save = self._save, _nothing
        save()
        return self._run

    def close(self) -> None:
        """End the callback: from now on training continues, and this step cannot be saved any more."""
        self._save = _nothing


Callback = Callable[[Evaluation], bool | None]
"""Called after each evaluation; returns True to stop the run."""


def require_callback(callback: Any, progress: Any = None, should_stop: Any = None) -> None:
    """Raise `UsageError` for what cannot be called."""
    for name, given in (("progress", progress), ("should_stop", should_stop)):
        good = given is None or callable(given)
        require(good, f"{name} is {quote(given)}; expected a function, as help(qhat.train) says.")
    require(
        callback is None or callable(callback),
        f"callback is {quote(callback)}; expected a function of one argument, a qhat.Evaluation, that"
        " returns True to stop the run.",
    )


def answer(
    evaluation: Evaluation,
    stop: Stop,
    stop_at: float | None,
    callback: Callback | None,
    stop_below: float | None = None,
) -> None:
    """Record in `stop` whether the run ends after this evaluation, and what the callback raised."""
    if stop_at is not None and evaluation.mean >= stop_at:
        stop.reached = "stop_at"
    if stop_below is not None and min(evaluation.scores) < stop_below:
        stop.reached = "stop_below"
    if callback is None:
        return
    try:
        if _is_true(callback(evaluation)):
            stop.reached = stop.reached or "callback"
    except BaseException as error:
        stop.raised = error
    finally:
        evaluation.close()


def _is_true(given: Any) -> bool:
    """Read what a callback returned. Raises `UsageError` if it is neither a truth value nor None."""
    if given is None:
        return False
    value = np.asarray(given)
    if value.dtype != bool or value.size != 1:
        raise UsageError(
            f"callback returned {quote(given)}; expected True to stop the run, False or None to continue."
        )
    return bool(value)


def _nothing() -> None:
    return
