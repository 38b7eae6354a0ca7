"""Copies of a Gymnasium environment in separate processes, which can be lost and restarted."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from qhat.environments.gymnasium.main_guard import UNGUARDED, leave_copy

GRACE = 1.0
"""Seconds that a process has to end by itself, and that what it raised has to arrive."""
STARTING = 60.0
"""Seconds that fresh processes have to start, unless a step may take longer."""


class LostError(RuntimeError):
    """A process that steps a copy has ended, or hangs."""

    def __init__(self, text: str, *, hangs: bool, unguarded: bool = False):
        super().__init__(text)
        self.hangs = hangs
        self.unguarded = unguarded
        """Whether it was about to run the main script's training again."""


class Known(gymnasium.Env):
    """Stands in, where only its spaces are looked at, for an environment that was made before."""

    def __init__(self, envs: AsyncVectorEnv):
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space
        self.metadata, self.render_mode = dict(envs.metadata), envs.render_mode


class Processes(AsyncVectorEnv):
    """Copies that are reset in the step that ends an episode."""

    def __init__(self, make: Callable[[], gymnasium.Env], count: int):
        """Make a copy here, to see its spaces, and `count` in processes. Raises `LostError`."""
        leave_copy(f"Worker<{Processes.__name__}>")
        self._make = make
        self._start([make] * count, None)

    def again(self, seconds: float) -> Processes:
        """Return the same copies in fresh processes; none is made here. Raises `LostError`.

        Args:
            seconds: how long the processes may take to start, if that is more than `STARTING`.
        """
        fresh = object.__new__(Processes)
        fresh._make = self._make
        make = functools.partial(_known_or_made, Known(self), os.getpid(), self._make)
        fresh._start([make] * self.num_envs, max(seconds, STARTING))
        return fresh

    def _start(self, make: list[Callable[[], gymnasium.Env]], seconds: float | None) -> None:
        self.raised, self._seconds = False, seconds
        self.processes, self.parent_pipes = [], []
        # A fork of a process with JAX's threads may hang: the workers begin afresh.
        context = "spawn"
        if "forkserver" in multiprocessing.get_all_start_methods():
            context = "forkserver"
            # What every one of them would import for itself.
            forkserver.set_forkserver_preload(["__main__", "qhat.environments.gymnasium.workers"])
        try:
            super().__init__(make, copy=False, context=context, autoreset_mode=AutoresetMode.SAME_STEP)
        except BaseException:
            end(self)
            raise

    def _check_spaces(self) -> None:
        # Gymnasium waits for the answers without a limit: first see that there will be some.
        with losing(self):
            self.call_async("render_mode")
            self.call_wait(timeout=self._seconds)
            super()._check_spaces()

    def _raise_if_errors(self, successes: Any) -> None:
        if all(successes):
            return
        self.raised = True
        try:
            # Gymnasium waits for ever for an exception that cannot be pickled.
            _, _, error, _ = self.error_queue.get(timeout=GRACE)
        except queue.Empty:
            error = RuntimeError("an exception that cannot be sent from the environment's process")
        raise error


def _known_or_made(known: Known, owner: int, make: Callable[[], gymnasium.Env]) -> gymnasium.Env:
    return known if os.getpid() == owner else make()


@contextlib.contextmanager
def losing(envs: AsyncVectorEnv) -> Iterator[None]:
    """Raise `LostError` for what a process that ended or hangs causes, not for what its copy raised."""
    try:
        yield
    except (EOFError, OSError, multiprocessing.TimeoutError) as error:
        # Gymnasium takes away the pipe of a copy that raised.
        if None in envs.parent_pipes or getattr(envs, "raised", False):
            raise
        hangs = isinstance(error, multiprocessing.TimeoutError)
        text, codes = _how(envs), [process.exitcode for process in envs.processes]
        raise LostError(text, hangs=hangs, unguarded=UNGUARDED in codes) from error


def _how(envs: AsyncVectorEnv) -> str:
    """Say which processes ended, and how."""
    endings = []
    for index, process in enumerate(envs.processes):
        # A pipe is closed before its process has ended.
        process.join(0.05)
        if (code := process.exitcode) is None:
            continue
        known = -code in set(signal.Signals)
        endings.append(f"{index} ({signal.Signals(-code).name if known else f'exit status {code}'})")
    return f"lost the process of copy {', '.join(endings)}" if endings else "lost a process"


def end(envs: AsyncVectorEnv) -> None:
    """End the processes, also those that hang or were stopped."""
    started = [process for process in envs.processes if process.pid is not None]
    for process in started:
        if process.is_alive():
            process.terminate()
    until = time.monotonic() + GRACE
    for process in started:
        process.join(max(0.0, until - time.monotonic()))
    left = [process for process in started if process.is_alive()]
    for process in left:
        process.kill()
    for process in left:
        process.join(GRACE)
    for pipe in envs.parent_pipes:
        if pipe is not None:
            pipe.close()
    envs.closed = True
