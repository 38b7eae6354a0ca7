"""The calls of a learner with actors: gather what came, store it, learn, publish the weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.cluster.blocks import read
from qhat.cluster.environment import ActorEnvironment
from qhat.cluster.queue import Packed, Queue
from qhat.cluster.slots import Cut
from qhat.engine.bridge import FailedError
from qhat.engine.compiler import Compiled
from qhat.engine.guard import NOTHING
from qhat.engine.state import Log, TrainState, no_metrics
from qhat.system.errors import QhatError, warn

PUBLISH = 0.25
"""Seconds between two publications of the weights, at least."""
CALL = 0.1
"""Seconds that a call takes about: weights go out between calls."""
PATIENCE = 0.05
"""Seconds of a wait for steps, after which the caller is asked whether to go on."""


class Session:
    """The calls of one training run."""

    def __init__(
        self, environment: ActorEnvironment, call: Compiled, weights: Any, queue: Queue, depth: int
    ):
        self._environment, self._call = environment, call
        self._weights, self._queue = weights, queue
        self._crew, self._E = environment.crew, environment.num_envs
        self._depth, self._published, self._seconds_per_turn = depth, 0.0, 0.0
        self._carry = 0
        """Steps stored beyond whole iterations."""
        self._cells: list[tuple[Any, ...]] = []
        """Log entries of steps, for iterations to come."""
        self._stack = environment.spec.stack
        E, names = self._E, len(environment.logs)
        no, info = jnp.zeros(E, bool), jnp.zeros((E, names)) if names else None
        self._blank = Log(no, jnp.zeros(E), jnp.zeros(E, jnp.int32), no, info, no_metrics())

    def advance(
        self, state: TrainState, count: int, pause: Callable[[], bool] = lambda: False
    ) -> tuple[TrainState, Log]:
        """Do up to `count` iterations; fewer if `pause` returns true."""
        done, pieces = 0, []
        if self._crew.version < 0:
            self._publish(state)
        try:
            while done < count and not pause():
                self._gather(state)
                if self._carry + self._queue.steps < self._E:
                    continue
                most = min((count - done) * self._E, self._pace() * self._E) - self._carry
                packed = self._queue.take(max(most, 1))
                if packed is None:
                    continue
                turns = min((self._carry + packed.steps) // self._E, count - done)
                began = time.perf_counter()
                counts = (np.int32(packed.depth), np.int32(turns))
                state, logs, metrics = self._call(state, dict(packed.rows.leaves()), *counts)
                self._keep(logs, packed, bool(np.any(state.seeds.guard.what != NOTHING)))
                pieces.append(self._log(turns, metrics))
                self._carry += packed.steps - turns * self._E
                done += turns
                self._took(turns, time.perf_counter() - began)
                if time.monotonic() - self._published > PUBLISH:
                    self._publish(state)
        except QhatError as error:
            raise FailedError(error, (state, self._joined(pieces))) from error
        return state, self._joined(pieces)

    def _gather(self, state: TrainState) -> None:
        """Take in what came, and ask for more."""
        crew, queue = self._crew, self._queue
        enough = self._carry + queue.steps >= self._E
        for found in crew.poll(0.0 if enough else PATIENCE):
            if isinstance(found, Cut):
                queue.cut(found.actor)
                warn(found.sentence, stacklevel=5)
            else:
                queue.add(found.actor, read(found, self._stack))
        self._environment.waiting = queue.steps
        crew.request(queue.steps, int(state.clock.iterations) * self._E)

    def _publish(self, state: TrainState) -> None:
        weights = np.asarray(self._weights(state.seeds.learner.online))
        self._crew.publish(weights, int(state.clock.updates))
        self._published = time.monotonic()

    def _pace(self) -> int:
        """Iterations of one call: about `CALL` seconds, and no more than its rows can be."""
        if not self._seconds_per_turn:
            return 1
        return int(np.clip(CALL / self._seconds_per_turn, 1, self._depth))

    def _took(self, turns: int, seconds: float) -> None:
        if turns:
            each = seconds / turns
            old = self._seconds_per_turn
            self._seconds_per_turn = each if not old else 0.8 * old + 0.2 * each

    def _keep(self, logs: tuple, packed: Packed, faulty: bool) -> None:
        """Keep the log of every transition, in order; episodes that broke off count with the first ones."""
        parts: list[Any] = [None if part is None else np.asarray(part)[: packed.depth] for part in logs]
        ended, returns, lengths, broken, info, stored = parts
        rows, lanes = np.nonzero(packed.rows.real[: packed.depth])
        environment, count = self._environment, int(np.count_nonzero(stored))
        environment.stored += count
        # What the guard leaves out is a fault of the environment's, and reported as one.
        environment.left_out += len(rows) - count if faulty else 0
        environment.waiting = self._queue.steps
        lost = np.arange(len(rows)) < np.count_nonzero(broken)
        cells = (part[rows, lanes] for part in (ended, returns, lengths))
        self._cells.append((*cells, lost, None if info is None else info[rows, lanes]))

    def _log(self, turns: int, metrics: Any) -> Log:
        """Return the log of whole iterations, `[1, turns, E, ...]`; the rest stays."""
        count = turns * self._E
        parts = [
            None if part[0] is None else np.concatenate(part) for part in zip(*self._cells, strict=True)
        ]
        self._cells = [tuple(None if part is None else part[count:] for part in parts)]
        shaped: list[Any] = [
            None if part is None else part[:count].reshape(1, turns, self._E, *part.shape[1:])
            for part in parts
        ]
        metrics = jax.tree.map(lambda leaf: np.asarray(leaf)[None, :turns], metrics)
        return jax.tree.unflatten(jax.tree.structure(self._blank), jax.tree.leaves((*shaped, metrics)))

    def _joined(self, pieces: list[Log]) -> Log:
        if not pieces:
            return self._none()
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)

    def _none(self) -> Log:
        """The log of no iterations."""
        return jax.tree.map(lambda leaf: np.zeros((1, 0, *leaf.shape), leaf.dtype), self._blank)
