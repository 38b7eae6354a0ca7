"""The task of one group: trains its seeds in a folder of its node, and sends what the driver needs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import queue
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, no_type_check

from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.progress import Progress
from qhat.runs.spread.board import Notice
from qhat.runs.spread.events import (
    DONE,
    FAILED,
    STOPPED,
    USAGE,
    Ended,
    Evaluated,
    Event,
    Shown,
    Started,
    Warned,
)
from qhat.runs.spread.parcels import Snapshot, unpack
from qhat.system.errors import QhatError, UsageError, described

EVERY = 0.2
"""Seconds between two looks at the board, and between two reports of progress."""
INPUTS = "inputs"
"""Folder of a task with what its configuration names by a path."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What a task does."""

    config: TrainConfig
    """Of the group; paths are names within `inputs`."""
    name: str
    """Of the run and the group: part of the name of the folder on the node."""
    attempt: int
    waits: bool
    """Whether the group waits after each evaluation for the driver's answer."""
    files: Mapping[str, Any]
    """References to the files of the folder to continue from, by their paths; empty for a new one."""
    inputs: Mapping[str, Any]
    """References to files that the configuration names."""


@no_type_check  # A checker's wrapper would be no generator.
def train_group(order: Order, env: Any, judge: Any, board: Any) -> Iterator[Event]:
    """Train a group; yield its events.

    Args:
        env: an id, or what a caller gave in its place.
        judge: of `qhat.train`.
        board: handle of the actor with the driver's `Notice`.
    """
    import ray

    ready_process()
    look = _Look(lambda: ray.get(board.read.remote()))
    if look.now().stop or look.now().ends is not None:
        yield Ended(STOPPED)
        return
    with _scratch(order) as scratch:
        files = _fetched(order.files)
        known = unpack(files, scratch / "run")
        unpack(_fetched(order.inputs), scratch / INPUTS)
        del files
        training = _Training(order, scratch, env, judge, look)
        look.watch()
        yield from training.events(known)


def _fetched(references: Mapping[str, Any]) -> dict[str, Any]:
    import ray

    return {name: ray.get(reference) for name, reference in references.items()}


class _Look:
    """Reads the board: now, or from time to time in a thread."""

    def __init__(self, read: Callable[[], Notice]):
        self._read, self._ended = read, threading.Event()
        self.stops = False
        """Whether the notice, as it was a moment ago, stops the group."""

    def now(self) -> Notice:
        return self._read()

    def watch(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self.stops = self._read().stop
            except Exception:
                # The board ends with the driver.
                self.stops = True


class _Training:
    """Runs `train` in a thread; its hooks put events into a queue."""

    def __init__(self, order: Order, scratch: Path, env: Any, judge: Any, look: _Look):
        self._order, self._scratch, self._env, self._judge = order, scratch, env, judge
        self._look = look
        self._folder = RunFolder(scratch / "run")
        self._queue: queue.Queue[Event | Snapshot] = queue.Queue()
        self._progress: Progress | None = None
        self._may_save = threading.Semaphore(1)
        self._saved: Any = None
        self._number = 0
        self._is_named = False

    def events(self, known: Mapping[str, str]) -> Iterator[Event]:
        """Start to train; yield what happens until the end.

        Args:
            known: files that the driver has, with their SHA-256.
        """
        threading.Thread(target=self._train, daemon=True).start()
        try:
            while True:
                try:
                    event = self._queue.get(timeout=EVERY)
                except queue.Empty:
                    event = None
                progress, self._progress = self._progress, None
                if progress is not None:
                    yield Shown(progress)
                if isinstance(event, Snapshot):
                    for parcel in event.parcels(known):
                        yield parcel
                        known = getattr(parcel, "digests", known)
                    self._may_save.release()
                elif event is not None:
                    yield event
                if isinstance(event, Ended):
                    return
        finally:
            self._look.stops = True
            self._look.close()
            self._may_save.release()

    def _train(self) -> None:
        with warnings.catch_warnings():
            # Others were shown by the driver's process, or are about this machine's Python.
            warnings.showwarning = self._warned
            ended = self._trained()
        with contextlib.suppress(UsageError):
            self._save()
        self._queue.put(ended)

    def _trained(self) -> Ended:
        from qhat.runs.stop import StoppedError
        from qhat.runs.train import Interrupted, train

        config = self._located()
        hooks: dict[str, Any] = {"callback": self._evaluated, "should_stop": lambda: self._look.stops}
        try:
            train(self._env, config, judge=self._judge, progress=self._show, **hooks)
        except Interrupted:
            return Ended(STOPPED)
        except UsageError as error:
            return Ended(USAGE, self._relative(error.sentence))
        except StoppedError as error:
            cause = error.__cause__
            return Ended(
                FAILED, cause.sentence if isinstance(cause, QhatError) else described(cause or error)
            )
        except QhatError as error:
            return Ended(FAILED, self._relative(error.sentence))
        except BaseException as error:
            return Ended(FAILED, self._relative(f"{described(error)}."))
        return Ended(DONE)

    def _located(self) -> TrainConfig:
        """Return the configuration with the paths of this node."""
        config, inputs = self._order.config, self._scratch / INPUTS
        given: dict[str, Any] = {"run_dir": self._folder.path}
        if config.init_from is not None:
            given["init_from"] = inputs / config.init_from
        given["demos"] = tuple(
            str(inputs / each) if (inputs / each).exists() else each for each in config.demos
        )
        return dataclasses.replace(config, **given)

    def _show(self, now: Progress) -> None:
        self._introduce()
        faults = tuple(self._relative(sentence) for sentence in now.faults)
        self._progress = dataclasses.replace(now, faults=faults)
        self._save()

    def _introduce(self) -> None:
        if not self._is_named and self._folder.evaluations.exists():
            self._is_named = True
            config = self._folder.config.read_text(encoding="utf-8")
            self._queue.put(Started(platform.node(), config))

    def _save(self) -> None:
        """Queue a copy of the folder if there is a new checkpoint."""
        self._introduce()
        if not (self._folder.path / "last").exists():
            return
        last = self._folder.last()
        about = (last / "manifest.json").stat()
        card = self._folder.path / "README.md"
        now = (last.name, about.st_mtime_ns, about.st_ino, card.exists() and card.stat().st_mtime_ns)
        if now == self._saved:
            return
        # One at a time: training waits for a slow network rather than filling the disk.
        self._may_save.acquire()
        self._number += 1
        self._queue.put(Snapshot(self._folder, self._scratch / f"sent-{self._number}"))
        self._saved = now

    def _evaluated(self, evaluation: Any) -> bool:
        """Send an evaluation; wait for the driver's answer where it compares the scores of all groups."""
        step = evaluation.step
        self._introduce()
        self._queue.put(Evaluated(step, evaluation.scores, evaluation.success_rates))
        notice = self._look.now()
        saves = True
        while self._order.waits and not notice.releases(step):
            if saves and notice.save == step:
                saves = False
                assert evaluation.run is not None
                self._save()
            time.sleep(EVERY / 10)
            notice = self._look.now()
        return notice.ends_at(step)

    def _warned(self, message: Any, category: Any, *_: Any) -> None:
        sentence = getattr(message, "sentence", str(message))
        if issubclass(category, UserWarning | RuntimeWarning):
            self._queue.put(Warned(self._relative(sentence)))

    def _relative(self, sentence: str) -> str:
        """Name the run's folder, which the driver fills in, in place of the one on this node."""
        return sentence.replace(str(self._folder.path), "{run}")


@contextlib.contextmanager
def _scratch(order: Order) -> Iterator[Path]:
    """Make a folder on this node; remove those of processes that were killed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob("qhat-group-*"):
        # One that is locked is in use.
        with contextlib.suppress(OSError, UsageError), sole(old):
            shutil.rmtree(old, ignore_errors=True)
    name = f"{order.name}-{order.attempt}"
    new, place = base / f"qhat-new-{name}", base / f"qhat-group-{name}"
    new.mkdir(mode=0o700)
    try:
        with sole(new):
            # The lock moves with the folder: nobody finds it without one.
            new = new.rename(place)
            yield place
    finally:
        shutil.rmtree(new, ignore_errors=True)


@functools.cache
def ready_process() -> None:
    """Let JAX choose its threads here: a driver's choice may have come with its environment variables.

    Only the first call in a process does it: later ones find the choice of the first task.
    """
    os.environ.pop("PJRT_NPROC", None)
