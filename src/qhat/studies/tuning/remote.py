"""One trial as a task of a Ray cluster: it sends its evaluations, and asks whether to go on after each."""

from __future__ import annotations

import dataclasses
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, no_type_check

from qhat.recipes.config import TrainConfig
from qhat.runs.spread.task import ready_process
from qhat.studies.tuning.search import attempt
from qhat.studies.tuning.study import Trial
from qhat.system.errors import UsageError, described

LOOKS = 0.05
"""Seconds between two looks for an answer."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluation of a trial, which waits for an answer."""

    step: int
    score: float


@dataclasses.dataclass(frozen=True)
class Tried:
    """The end of a trial."""

    trial: Trial | None
    """None where an error ended the task."""
    sentence: str = ""
    """The error."""
    usage: bool = False
    """Whether it is of a setting, and so of every trial."""


class Answers:
    """The driver's answers, in an actor: for each trial the step that it was about, and whether to stop."""

    def __init__(self):
        self._answers: dict[int, tuple[int, bool]] = {}

    def give(self, number: int, step: int, stop: bool) -> None:
        """Answer a trial about its evaluation of `step`."""
        self._answers[number] = (step, stop)

    def get(self, number: int) -> tuple[int, bool]:
        """Return the newest answer to a trial."""
        return self._answers.get(number, (-1, False))


class _Proposal:
    """Stands for Optuna's proposal in the task."""

    def __init__(self, number: int, answers: Any, events: queue.Queue[Any]):
        self._number, self._answers, self._events = number, answers, events
        self._step = -1

    def report(self, score: float, step: int) -> None:
        """Send an evaluation."""
        self._step = step
        self._events.put(Evaluated(step, score))

    def should_prune(self) -> bool:
        """Wait for the answer."""
        import ray

        while True:
            step, stop = ray.get(self._answers.get.remote(self._number))
            if step >= self._step:
                return stop
            time.sleep(LOOKS)


@no_type_check  # A checker's wrapper would be no generator.
def run_trial(
    config: TrainConfig, params: dict[str, Any], number: int, answers: Any
) -> Iterator[Evaluated | Tried]:
    """Train a trial on this node; yield its evaluations and its end.

    Args:
        number: of the trial, by which its answers are found.
        answers: handle of the actor that has them.
    """
    ready_process()
    events: queue.Queue[Any] = queue.Queue()
    proposal = _Proposal(number, answers, events)

    def work(folder: Path) -> None:
        located = dataclasses.replace(config, run_dir=folder / "run")
        try:
            trial = attempt(located, params, proposal, lambda: False, lambda _: None)
            events.put(Tried(trial))
        except UsageError as error:
            events.put(Tried(None, error.sentence, usage=True))
        except BaseException as error:
            events.put(Tried(None, described(error)))

    with tempfile.TemporaryDirectory(prefix="qhat-trial-") as folder:
        threading.Thread(target=work, args=(Path(folder),), daemon=True).start()
        while True:
            event = events.get()
            yield event
            if isinstance(event, Tried):
                return
