"""Ends a run before its last step: its time is up, a signal came, or its environment failed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from qhat.environments.catalogue import is_from_python
from qhat.runs.folder import RunFolder
from qhat.runs.tables import has_row
from qhat.system.errors import QhatError, in_python, setting, spelled

GRACE = 4.0
"""Seconds for which an evaluation may continue after a signal."""
AFTER_AN_EVALUATION = (
    " An evaluation of the run had just closed other copies in this process: if copies share something,"
    f" as a window, use {setting('vector', 'async')}, which keeps them in processes."
)


class StoppedError(QhatError):
    """The environment failed for good. The run was saved, and can be resumed."""

    def __init__(self, cause: Exception, folder: Path, env: str, step: int, why: str = ""):
        sentence = cause.sentence if isinstance(cause, QhatError) else cause
        super().__init__(f"{sentence}{why} {saved_at(folder, env, step)}")
        self.folder, self.step = folder, step


def saved_at(folder: Path, env: str, step: int) -> str:
    """Say where a run is saved, and how to continue it."""
    python = f"qhat.train(env, run_dir={str(folder)!r}, resume=True)"
    shell = f"qhat train --resume --run-dir {shlex.quote(str(folder))}"
    how = python if is_from_python(env) else spelled(python, shell)
    return f"The run is saved up to step {step:,}; to continue: {how}"


class Stop:
    """The clock and the stop signal of one call of `train`."""

    def __init__(self, should_stop: Callable[[], bool]):
        self.started = time.perf_counter()
        self.should_stop = should_stop
        self.max_seconds: float | None = None
        self.reached: str | None = None
        """What ended the run after an evaluation: `stop_at`, `stop_below` or `callback`."""
        self.failure: Exception | None = None
        """The exception of the environment."""
        self.raised: BaseException | None = None
        """The exception of the callback."""
        self.is_set = False
        """Whether the run stops with its next checkpoint."""
        self._evaluating = self.started

    @property
    def elapsed(self) -> float:
        """Seconds since the call of `train`."""
        return time.perf_counter() - self.started

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.max_seconds is not None and self.elapsed >= self.max_seconds

    @property
    def by(self) -> str | None:
        """The setting that ends the run: `stop_at`, `stop_below`, `callback` or `max_seconds`."""
        return self.reached or ("max_seconds" if self.is_set and self.late else None)

    def is_over(self) -> bool:
        """Whether the run has to end now."""
        ended = self.reached is not None or self.failure is not None or self.raised is not None
        return ended or self.late or self.should_stop()

    def begin_evaluation(self) -> None:
        """Record that an evaluation begins now."""
        self._evaluating = time.perf_counter()

    def cuts_evaluation(self) -> bool:
        """Whether an evaluation has to end early; when the run stops, only a signal cuts its last one."""
        if not self.is_set:
            return self.is_over()
        return time.perf_counter() > self._evaluating + GRACE and self.should_stop()

    def raise_failure(self, folder: RunFolder, env: str, step: int) -> None:
        """Raise what stopped the run, if the environment or the callback failed. The run is saved.

        Raises:
            StoppedError: the cause is an error that qhat knows, of the environment.
            BaseException: any other cause, with a note.
        """
        if self.raised is not None:
            self.raised.add_note(in_python(saved_at(folder.path, env, step)))
            raise self.raised
        if self.failure is None:
            return
        stopped = StoppedError(self.failure, folder.path, env, step, _after_an_evaluation(folder, step))
        if isinstance(self.failure, QhatError):
            raise stopped from self.failure
        self.failure.add_note(str(stopped))
        raise self.failure


def _after_an_evaluation(folder: RunFolder, step: int) -> str:
    """Name another possible cause if the step that failed came right after an evaluation."""
    config = folder.read_config()
    # A step that was sent before the evaluation began may have succeeded.
    steps = [step - taken * config["recipe"]["num_envs"] for taken in (0, 1)]
    beside = config.get("vector") == "sync" and any(has_row(folder.evaluations, at) for at in steps)
    return AFTER_AN_EVALUATION if beside else ""
