"""One group as the driver sees it: its task, its folder, and what it sent last."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.runs.progress import Progress
from qhat.runs.spread.events import (
    FAILED,
    Ended,
    Evaluated,
    Event,
    File,
    Saved,
    Shown,
    Started,
)
from qhat.runs.spread.groups import Group
from qhat.runs.spread.need import Need
from qhat.runs.spread.parcels import Inbox
from qhat.runs.spread.tables import read_rows
from qhat.runs.spread.task import Order, train_group
from qhat.system.errors import QhatError

DEATHS = 10
"""Number of times that a group's process may die without a checkpoint in between."""
UNREAD = 32
"""Number of events that a task may be ahead of the driver."""


class Died(Exception):  # noqa: N818 - it is caught: the task is submitted again
    """The process of a task ended without a word, or its node was lost."""


@dataclasses.dataclass(frozen=True)
class Shipment:
    """What every task of a run gets."""

    name: str
    """Of the run, unique on all nodes."""
    env: Any
    judge: Any
    board: Any
    config: TrainConfig
    """Of the whole run."""
    inputs: Mapping[str, Any]
    waits: bool
    options: Mapping[str, Any]
    """Ray's options of a task."""
    need: Need


class Member:
    """A group and its task."""

    def __init__(self, group: Group, folder: RunFolder, shipment: Shipment):
        self.group, self.folder = group, folder
        self._shipment = shipment
        self._inbox = Inbox(folder)
        self._attempts = self._deaths = 0
        self.stream: Any = None
        """Ray's generator of the running task; `None` where none runs."""
        self.node = ""
        """Where the task trains; empty until it does."""
        self.submitted = 0.0
        """When the task was, by `time.monotonic`."""
        self.progress: Progress | None = None
        self.ended: Ended | None = None
        self.scores: dict[int, tuple[float, ...]] = {}
        """Mean return of each seed, by the step of the evaluation."""
        self.success_rates: dict[int, tuple[float, ...]] = {}
        if self.has_checkpoint:
            self._read_evaluations()

    @property
    def has_checkpoint(self) -> bool:
        return (self.folder.path / "last").exists()

    @property
    def newest(self) -> int:
        """Step of the newest checkpoint; 0 before the first."""
        return int(self.folder.last().name) if self.has_checkpoint else 0

    @property
    def step(self) -> int:
        """Step of the newest progress or checkpoint."""
        return max(self.newest, self.progress.step if self.progress else 0)

    @property
    def rate(self) -> float:
        """Steps per second of one seed; NaN where it is unknown."""
        return self.progress.steps_per_second / self.group.count if self.progress else math.nan

    def submit(self) -> None:
        """Start a task, which continues from the newest checkpoint if there is one."""
        import ray

        resume = self.has_checkpoint
        sent, group = self._shipment, self.group
        files = {name: ray.put(data) for name, data in self._inbox.contents()} if resume else {}
        config = dataclasses.replace(
            sent.config, seed=group.first, seeds=group.count, resume=resume,
            **({"init_from": None, "demos": ()} if resume else {}),
        )  # fmt: skip
        inputs = {} if resume else sent.inputs
        self._attempts += 1
        name = f"{sent.name}-{group.first}"
        order = Order(config, name, self._attempts, sent.waits, files, inputs)
        options = {**sent.options, "memory": sent.need.of(group.count), "name": f"qhat {group}"}
        remote = ray.remote(train_group).options(**options)
        self.stream = remote.remote(order, sent.env, sent.judge, sent.board)
        self.node, self.ended, self.submitted = "", None, time.monotonic()

    def next(self) -> Event | None:
        """Return the next event; `None` where there is none, because the task has ended.

        Raises:
            Died: the process, or its node, is gone.
            QhatError: it died too often.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            event: Any = ray.get(next(self.stream))
        except StopIteration:
            self.stream = None
            if self.ended is None:
                return self._died("it ended without a result")
            return None
        except RayTaskError as error:
            # An error of this package, or of the libraries of the node.
            self.stream = None
            lines = str(error).strip().splitlines()
            return Ended(FAILED, f"The task of {self.group} failed: {lines[-1] if lines else error}")
        except RayError as error:
            return self._died(" ".join(str(error).split()).partition(". ")[0])
        self._take(event)
        return event

    def cancel(self) -> None:
        """Give up the task."""
        import ray

        if self.stream is not None:
            ray.cancel(self.stream, force=True)
            self.stream = None

    def prune(self, merged: int) -> None:
        """Remove checkpoints that the run has."""
        self._inbox.prune(merged)

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of `step`."""
        return step in self.folder.steps() and step <= self.newest

    def _died(self, why: str) -> None:
        self.stream, where = None, f" on {self.node}" if self.node else ""
        self._inbox.clear()
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise QhatError(
                f"The process of {self.group} died {DEATHS} times without a checkpoint in between, the last"
                f" time{where}: {why.rstrip('.')}."
            )
        raise Died(f"The process of {self.group} died{where}: {why.rstrip('.')}.")

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self.node = event.node
            case Shown():
                self.progress = event.progress
            case Evaluated():
                self.scores[event.step] = event.scores
                if event.success_rates:
                    self.success_rates[event.step] = event.success_rates
            case File():
                self._inbox.add(event)
            case Saved():
                self._inbox.close(event)
                self._deaths = 0
            case Ended():
                self.ended = event
            case _:
                pass

    def _read_evaluations(self) -> None:
        """Know the evaluations up to the newest checkpoint: the task does not play them again."""
        found: dict[int, dict[int, tuple[float, float | None]]] = {}
        for row in read_rows(self.folder.evaluations)[1]:
            rate = float(row["success_rate"]) if row.get("success_rate") else None
            at = found.setdefault(int(row["step"]), {})
            at[int(row["seed_index"])] = (float(row["mean_return"]), rate)
        for step, of_seed in found.items():
            if step <= self.newest and len(of_seed) == self.group.count:
                values = [of_seed[seed] for seed in sorted(of_seed)]
                self.scores[step] = tuple(score for score, _ in values)
                if all(rate is not None for _, rate in values):
                    self.success_rates[step] = tuple(rate or 0.0 for _, rate in values)
