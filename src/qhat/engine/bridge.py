"""From a compiled loop to environments in Python and back."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array

from qhat.engine.worker_thread import WorkerThread
from qhat.environments.base import Spec, Timestep
from qhat.environments.host import HostEnvironment
from qhat.system.errors import QhatError

GRACE = 2.0
"""Seconds between the interrupt of a hanging step and giving the environment up."""
SLOW = 1e-3
"""Seconds of a step above which the next one runs on a thread that can be abandoned (about 50 µs more)."""
FAILED, GOES_ON, PAUSES = 0, 1, 2
"""Status of a step: the environment failed; continue; stop after this step."""
BROKEN = 6
"""Index of the flag `broken` in the numbers of a step."""
Rows = tuple[Array, ...]
"""Observation and successor `[S, E, ...]`, rewards and flags `[S, 7, E]`, two masks if there are any, and
the values `[S, E, K]` that a run logs, if it logs some."""
Result = TypeVar("Result")


class FailedError(QhatError):
    """The environment failed with `cause`; `reached` has what was learned before."""

    def __init__(self, cause: Exception, reached: Any):
        super().__init__(getattr(cause, "sentence", str(cause)))
        self.cause, self.reached = cause, reached


class Bridge:
    """Lets a compiled loop step host environments.

    The loop runs on a separate thread, so that the caller's thread can handle signals and time limits. An
    exception of the environment cannot pass through the compiled loop: the bridge keeps it, ends the loop,
    and raises it for the caller.
    """

    def __init__(self, environment: HostEnvironment):
        self.environment = environment
        self._failure: BaseException | None = None
        self._pausing = False
        self._began: float | None = None
        self._thread, self._took = 0, math.inf
        self._worker: WorkerThread | None = None
        spec, lead = environment.spec, (environment.seeds, environment.num_envs)
        observation = jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype)
        numbers = jax.ShapeDtypeStruct((lead[0], 7, lead[1]), np.float32)
        mask = jax.ShapeDtypeStruct((*lead, *_mask_shape(spec)), np.bool_)
        logged = jax.ShapeDtypeStruct((*lead, len(environment.logs)), np.float32)
        info = [logged] if environment.logs else []
        masks = [mask, mask] if spec.masked else []
        self._shapes = (observation, observation, numbers, *masks, *info)

    def step(self, action: Array) -> tuple[Array, Rows]:
        """Within a program: step with actions `[S, E, F]`; return the status and the rows."""
        return self._callback(lambda action: self._guarded(lambda: self._exchange(action)), action)

    def send(self, action: Array, wanted: Array) -> Array:
        """Within a program: begin a step if it is `wanted`; return the token for `receive`."""

        def begin(action: Any, wanted: Any) -> np.ndarray:
            if wanted:
                self._guarded(lambda: self.environment.send(np.asarray(action)))
            return np.zeros((), np.int32)

        return io_callback(begin, jax.ShapeDtypeStruct((), np.int32), action, wanted)

    def begin(self, action: np.ndarray) -> None:
        """Before a program: begin the step that the program receives first."""
        self._guarded(lambda: self.environment.send(action))

    def receive(self, token: Array) -> tuple[Array, Rows]:
        """Within a program: finish the step that was begun; return the status and the rows."""
        return self._callback(lambda _: self._guarded(self.environment.receive), token)

    def run(self, call: Callable[[], Result], pause: Callable[[], bool] = lambda: False) -> Result:
        """Make a call of the compiled loop and wait for it.

        Args:
            pause: called many times a second; when it returns true, the loop ends after its current step.

        Raises:
            FailedError: the environment raised an exception, or hung and could be abandoned. Nothing of
                that step is stored.
            Exception: the loop failed, or it hangs together with the environment.
        """
        outcome: list[Any] = []
        thread = threading.Thread(target=self._work, args=(call, outcome), daemon=True)
        self._failure, self._pausing = None, False
        if self.environment.seconds is not None:
            self._worker = WorkerThread()
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.05)
                self._watch(thread)
                self._pausing = self._pausing or pause()
        except BaseException as interruption:
            # The loop ends at its next step; do not wait for it.
            self._failure = self._failure or interruption
            raise
        finally:
            if self._worker is not None:
                self._worker.leave()
                self._worker = None
        failure = self._failure
        if isinstance(failure, Exception) and outcome:
            raise FailedError(failure, outcome[0]) from failure
        if failure is not None:
            raise failure
        return outcome[0]

    def _work(self, call: Callable[[], Result], outcome: list[Any]) -> None:
        try:
            outcome.append(jax.block_until_ready(call()))
        except BaseException as error:
            self._failure = self._failure or error

    def _watch(self, thread: threading.Thread) -> None:
        began, seconds = self._began, self.environment.seconds
        if began is None or seconds is None or time.monotonic() - began <= seconds:
            return
        # This interrupts Python code; a call that hangs in C goes on.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread), ctypes.py_object(TimeoutError)
        )
        thread.join(GRACE)
        if not thread.is_alive() or self._began != began:
            return
        try:
            self.environment.give_up(TimeoutError())
        except Exception as error:
            if self._worker is None or self._thread != self._worker.ident:
                raise
            self._worker.leave(error)

    def _exchange(self, action: Any) -> Timestep:
        self.environment.send(np.asarray(action))
        return self.environment.receive()

    def _guarded(self, act: Callable[[], Result]) -> Result | None:
        """Call `act`, unless the environment failed before; return `None` if it failed, now or before."""
        if self._failure is not None:
            return None
        worker = self._worker if self._took > SLOW and self.environment.seconds is not None else None
        self._thread = worker.ident if worker else threading.get_ident()
        self._began = began = time.monotonic()
        try:
            return worker.do(act) if worker else act()
        except BaseException as error:
            self._failure = self._failure or error
            return None
        finally:
            self._began, self._took = None, time.monotonic() - began

    def _callback(self, act: Callable[[Any], Timestep | None], *given: Array) -> tuple[Array, Rows]:
        def on_host(*given: Any) -> tuple[np.ndarray, ...]:
            step = act(*given)
            if step is None:
                nothing = [np.zeros(each.shape, each.dtype) for each in self._shapes]
                # The rows are not real, and their episodes are broken.
                nothing[2][:, BROKEN] = 1
                return np.array(FAILED, np.int32), *nothing
            return np.array(PAUSES if self._pausing else GOES_ON, np.int32), *_arrays(step)

        status, *rows = io_callback(on_host, (jax.ShapeDtypeStruct((), np.int32), *self._shapes), *given)
        return status, tuple(rows)


def timestep(rows: Rows) -> Timestep:
    """Return the rows of one seed as a timestep."""
    observation, successor, (reward, terminated, truncated, real, score, over, broken), *rest = rows
    flags = (terminated > 0, truncated > 0, successor, real > 0)
    masks, info = (rest[:-1], rest[-1]) if len(rest) % 2 else (rest, None)
    more = {"score": score, "over": over > 0, "broken": broken > 0, "info": info}
    return Timestep(observation, reward, *flags, *masks, **more)


def _mask_shape(spec: Spec) -> tuple[int, int]:
    return spec.actions.factors, spec.actions.width


def _arrays(step: Timestep) -> tuple[np.ndarray, ...]:
    broken = np.zeros_like(step.real) if step.broken is None else step.broken
    flags = (step.reward, step.terminated, step.truncated, step.real, step.scored, step.finished, broken)
    numbers = np.stack(flags, axis=1, dtype=np.float32, casting="unsafe")
    masks = [mask for mask in (step.legal, step.legal_successor) if mask is not None]
    info = [] if step.info is None else [step.info]
    return step.observation, step.successor, numbers, *masks, *info
