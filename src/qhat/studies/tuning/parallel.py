"""Trials side by side on a Ray cluster; Optuna stays in this process, and is asked and answered here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from qhat.cluster.connection import pinned
from qhat.runs.spread.member import DEATHS
from qhat.studies.tuning.remote import Answers, Evaluated, Tried, run_trial
from qhat.studies.tuning.search import Search
from qhat.studies.tuning.study import FAILED, Trial
from qhat.system.errors import UsageError

WAIT = 0.2
"""Seconds between two looks at signals and at the time."""


@dataclasses.dataclass
class _Running:
    """A trial that trains on the cluster."""

    number: int
    proposed: Any
    began: float
    stream: Any = None
    step: int = -1
    """Of the last evaluation that Optuna has."""
    deaths: int = 0


class Parallel:
    """A search with trials as tasks of a cluster, to which this process is connected."""

    def __init__(self, search: Search):
        """Begin; the cluster's free cores say how many trials train at once."""
        import ray

        self._search = search
        self._most = max(1, int(ray.available_resources().get("CPU", 1)))
        # On this node: the loss of another one must not end the search.
        here = pinned(ray.get_runtime_context().get_node_id())
        self._answers: Any = ray.remote(Answers).options(num_cpus=0, scheduling_strategy=here).remote()
        self._running: list[_Running] = []
        self._number = 0

    def run(
        self,
        trials: int,
        should_stop: Callable[[], bool],
        is_late: Callable[[], bool],
        done: Callable[[Trial], None],
    ) -> None:
        """Run trials until the study has as many.

        Args:
            should_stop: gives up what trains, which leaves nothing behind.
            is_late: whether no more trial starts.
            done: gets each trial.

        Raises:
            UsageError: a setting has no meaning on the nodes.
        """
        import ray

        try:
            while not should_stop():
                while len(self._running) < self._most and self._open(trials) and not is_late():
                    self._start()
                if not self._running:
                    return
                streams = [each.stream for each in self._running]
                ready, _ = ray.wait(streams, num_returns=1, timeout=WAIT, fetch_local=False)
                for each in [each for each in self._running if each.stream in ready]:
                    if (trial := self._take(each)) is not None:
                        done(trial)
        finally:
            for each in self._running:
                ray.cancel(each.stream, force=True)
                self._search.record(each.proposed, None)
            self._running.clear()
            ray.kill(self._answers)

    def _open(self, trials: int) -> bool:
        return len(self._search.trials) + len(self._running) < trials

    def _start(self) -> None:
        self._number += 1
        proposed = self._search.ask(len(self._running))
        each = _Running(self._number, proposed, time.perf_counter())
        self._submit(each)
        self._running.append(each)

    def _submit(self, each: _Running) -> None:
        import ray

        config = self._search.config_of(each.proposed)
        config = dataclasses.replace(config, cluster=None, threads=1, device="cpu")
        remote = ray.remote(run_trial).options(
            num_cpus=1, max_retries=0, num_returns="streaming", scheduling_strategy="SPREAD",
            name=f"qhat trial {each.number}",
        )  # fmt: skip
        each.stream = remote.remote(config, dict(each.proposed.params), each.number, self._answers)

    def _take(self, each: _Running) -> Trial | None:
        """Take the next event of a trial; return the trial if that was its end."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            event: Any = ray.get(next(each.stream))
        except (RayError, StopIteration) as error:
            each.deaths += 1
            if each.deaths < DEATHS and not isinstance(error, RayTaskError):
                # The process or its node is gone: the trial begins again.
                self._submit(each)
                return None
            event = Tried(None, f"its process died {each.deaths} times: {error}".splitlines()[0])
        if isinstance(event, Evaluated):
            self._answer(each, event)
            return None
        if event.usage:
            raise UsageError(event.sentence)
        self._running.remove(each)
        trial = event.trial
        if trial is None:
            seconds = round(time.perf_counter() - each.began, 2)
            trial = Trial(dict(each.proposed.params), FAILED, None, (), seconds, event.sentence)
        return self._search.record(each.proposed, trial)

    def _answer(self, each: _Running, event: Evaluated) -> None:
        """Report an evaluation to Optuna, and send its answer. A trial that began again repeats some."""
        import ray

        stop = False
        if event.step > each.step:
            each.step = event.step
            each.proposed.report(event.score, event.step)
            stop = bool(each.proposed.should_prune())
        ray.get(self._answers.give.remote(each.number, event.step, stop))
