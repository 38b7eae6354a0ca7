"""What `qhat benchmark` prints while a suite runs and at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from qhat.cli.stopping import StopOnSignal
from qhat.cluster.connection import connected
from qhat.evaluation.statistics.text import score_text
from qhat.runs.progress import Progress
from qhat.runs.train import Interrupted
from qhat.studies.benchmark import page, running
from qhat.studies.benchmark.results import Row
from qhat.studies.benchmark.tasks import Suite, Task
from qhat.system import devices

EVERY = 30.0
"""Seconds between two progress lines."""


class Session:
    """One call of `qhat benchmark`: trains task by task and reports progress on stderr."""

    def __init__(
        self,
        suite: Suite,
        tasks: Sequence[Task],
        base: Path,
        first: int | None,
        seeds: int | None,
        episodes: int,
        command: str,
        cluster: str | None = None,
    ):
        """Begin.

        Args:
            cluster: address of the Ray cluster to train on, one task after the other: the seeds of a single
                one take all of its cores.
        """
        self.cluster = cluster
        self.suite, self.tasks, self.base = suite, tasks, base
        self.first, self.seeds, self.episodes, self.command = first, seeds, episodes, command
        self.console = Console(stderr=True, highlight=False)
        self.stop: StopOnSignal | None = None
        self.exit_code = 0

    def _seeds(self, task: Task) -> range:
        first = task.first if self.first is None else self.first
        return range(first, first + (self.seeds or task.seeds))

    def measure(self, train: bool, check: bool) -> dict[str, list[Row]]:
        """Train unfinished tasks if `train`; return the rows of every task."""
        with connected(self.cluster) if self.cluster else contextlib.nullcontext():
            return self._measure(train, check)

    def _measure(self, train: bool, check: bool) -> dict[str, list[Row]]:
        devices.prepare(devices.devices_for(max(len(self._seeds(task)) for task in self.tasks)))
        stop = self.stop = StopOnSignal()
        for at, task in enumerate(self.tasks, 1):
            if train and not stop():
                self._train(task, self._seeds(task), f"{at} of {len(self.tasks)}: ", stop)
        self.exit_code = stop.exit_code
        # A check uses only its seeds; a table uses all reporting seeds, also of tasks trained earlier.
        tasks = self.tasks if check else self.suite.tasks
        rows = {}
        for task in tasks:
            seeds = self._seeds(task) if check else range(task.first, page.REPORTING[-1] + 1)
            rows[task.env] = running.gathered(
                self.base, task, seeds, self.episodes, self._say, judging=not stop()
            )
        return rows

    def _train(self, task: Task, seeds: range, at: str, stop: StopOnSignal) -> None:
        path = running.run_folder(self.base, task, seeds[0], len(seeds))
        config = dataclasses.replace(task.config(len(seeds), seeds[0], path), cluster=self.cluster)
        self._say(f"{at}{task.env}, seeds {seeds[0]} to {seeds[-1]}, {config.steps:,} steps")
        shown = 0.0

        def report(now: Progress) -> None:
            nonlocal shown
            if time.monotonic() - shown >= EVERY:
                shown = time.monotonic()
                greedy = score_text(now.evaluation)
                self._say(
                    f"  step {now.step:,} of {now.steps:,} · greedy {greedy} ·"
                    f" {now.steps_per_second:,.0f} steps/s"
                )

        try:
            run = running.trained(config, self.command, report, stop)
            running.judged(run, task, self.episodes, lambda words: self._say(f"  {words}"))
        except Interrupted:
            self._say("stopped after a checkpoint; run the same command again to resume")

    def _say(self, words: str) -> None:
        self.console.print(words, soft_wrap=True, markup=False)

    def close(self, outcome: dict[str, Any], failures: Sequence[str]) -> None:
        """Print the scores, the paths of the table, and the failures."""
        for name, scores in outcome["tasks"].items():
            if scores is None:
                continue
            best = scores["best"]
            interval = best["interval"]
            shown = f"[{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "one seed: no interval"
            self._say(f"{name:<22} IQM {best['iqm']:.4g} {shown}, {len(best['seeds'])} seeds")
        if outcome["page"] is None:
            self._say("no run has finished: no table was written")
        else:
            self._say(f"written: {outcome['page']} and {outcome['table']}")
        if "check" in outcome and not failures:
            self._say("check: no interval moved down")
        for sentence in failures:
            print(f"qhat: {sentence}", file=sys.stderr)
