"""A run whose environment failed: stopped, saved, and told how it goes on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from qhat.engine.bridge import FailedError
from qhat.engine.loop import Advance
from qhat.engine.state import Log, TrainState
from qhat.environments.catalogue import is_from_python
from qhat.runs.folder import RunFolder
from qhat.runs.tables import has_row
from qhat.system.errors import QhatError

AFTER_AN_EVALUATION = (
    " An evaluation of the run had just closed others of its kind in this process: if they share something,"
    " as a window, --vector async keeps them apart (from Python vector='async')."
)


class StoppedError(QhatError):
    """The environment failed for good. The run was saved, and can be resumed."""

    def __init__(self, cause: Exception, folder: Path, env: str, step: int, why: str = ""):
        how = f"qhat train --resume --run-dir {shlex.quote(str(folder))}"
        if is_from_python(env):
            how = f"qhat.train(env, run_dir={str(folder)!r}, resume=True)"
        super().__init__(f"{cause}{why} The run is saved up to step {step:,}; to go on: {how}")
        self.folder, self.step = folder, step


def attempt(
    advance: Advance, state: TrainState, count: int, pause: Callable[[], bool]
) -> tuple[TrainState, Log, Exception | None]:
    """Return what `advance` does, and the failure of the environment that ended it, if there was one."""
    try:
        return *advance(state, count, pause), None
    except FailedError as failed:
        return *failed.reached, failed.cause


def stop(cause: Exception, folder: RunFolder, env: str, step: int) -> None:
    """Raise what stopped a run that is saved by now.

    Raises:
        StoppedError: qhat foresaw the cause.
        Exception: it did not: the cause itself, with a note.
    """
    stopped = StoppedError(cause, folder.path, env, step, _after_an_evaluation(folder, step))
    if isinstance(cause, QhatError):
        raise stopped from cause
    cause.add_note(str(stopped))
    raise cause


def _after_an_evaluation(folder: RunFolder, step: int) -> str:
    """Say what else may have done it, where the step that failed came right after an evaluation."""
    config = folder.read_config()
    # A step that was sent before the evaluation began may have come back well.
    steps = [step - taken * config["recipe"]["num_envs"] for taken in (0, 1)]
    beside = config.get("vector") == "sync" and any(has_row(folder.evaluations, at) for at in steps)
    return AFTER_AN_EVALUATION if beside else ""
