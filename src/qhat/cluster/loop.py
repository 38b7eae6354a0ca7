"""The loop of a learner with actors: store what they send, do the updates that are due, publish weights.

An iteration is E environment steps, whichever copies they are of, and the updates that the recipe has for
them: the same numbers of both as in a loop that steps E copies itself. Steps that came and make up no whole
iteration wait for the next call.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.cluster.actor import Behaviour
from qhat.cluster.blocks import Rows, read
from qhat.cluster.crew import Cut
from qhat.cluster.environment import ActorEnvironment
from qhat.cluster.queue import Packed, Queue, empty
from qhat.engine.bridge import FailedError, timestep
from qhat.engine.compiler import Compiled, compiled
from qhat.engine.guard import NOTHING
from qhat.engine.host_network import plan_of, tensors_of
from qhat.engine.iteration import Program
from qhat.engine.loop import Advance
from qhat.engine.state import Clock, Log, SeedState, TrainState, no_metrics
from qhat.system.devices import jit_fast_compile
from qhat.system.errors import QhatError, UsageError, warn

DEPTH, CALL_BYTES = 64, 2**24
"""Most rows of one actor in a call, and bytes of observations of all of them."""
PUBLISH = 0.1
"""Seconds between two publications of the weights, at least."""
CALL = 0.1
"""Seconds that a call takes about: weights go out between calls."""
PATIENCE = 0.05
"""Seconds of a wait for steps, after which the caller is asked whether to go on."""


@dataclasses.dataclass(frozen=True)
class ActorLoop:
    """Runs a program on what actors send; one seed."""

    program: Program
    environment: ActorEnvironment

    def init(self, keys: Array) -> TrainState:
        """Return a fresh state for the seed of `keys` `[1]`."""
        seed_keys = jax.vmap(jax.random.split)(keys)[:, 1]
        observation, legal = self._nothing()

        def one(key: Array, observation: Array, *legal: Array) -> SeedState:
            return self.program.init(key, observation, None, *legal)

        seeds = jit_fast_compile(jax.vmap(one))(seed_keys, observation, *legal)
        return TrainState(Clock(jnp.int32(0), jnp.int32(0)), seeds)

    def restart(self, state: TrainState, keys: Array) -> TrainState:
        """Begin new episodes; the open ones count as truncated. `state` is donated."""
        steps = state.clock.iterations * self.program.recipe.num_envs
        observation, legal = self._nothing()

        def one(key: Array, seed: SeedState, observation: Array, legal: Array | None = None) -> SeedState:
            return self.program.begin(seed, observation, None, legal, key, steps)

        again = jit_fast_compile(jax.vmap(one), donate_argnums=1)
        return TrainState(state.clock, again(keys, state.seeds, observation, *legal))

    def zeros(self, like: Any) -> Any:
        """Return zeros with the given shapes."""
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    def compile(self, longest: int, like: TrainState) -> Advance:
        """Return a function that does up to `longest` iterations in one call, as `HostLoop.compile` does.

        The actors begin to step here: they get the network, and with the first call its weights.

        Raises:
            UsageError: a part of the recipe does not describe itself, so that no actor can compute it.
        """
        rows = self._like()
        depth = _depth(rows)
        packed = empty(rows, depth, self.environment.num_envs)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        call = compiled(self._run, (like, dict(packed.leaves()), number, number), donate_argnums=0)
        self.environment.crew.behave(self._behaviour())
        weights = jit_fast_compile(
            lambda online: tensors_of(self.program.learner, self.program.dtype, _only(online))
        )
        queue = Queue(len(self.environment.crew.slots), self.environment.copies, depth, rows)
        session = Session(self, call, weights, queue, depth)
        return Compiled(session.advance, call.workspace)

    def _run(
        self, state: TrainState, packed: dict[str, Array], depth: Array, turns: Array
    ) -> tuple[TrainState, tuple, Any]:
        """Store `depth` rows, then do the updates of `turns` iterations."""
        program, seed = self.program, jax.tree.map(lambda leaf: leaf[0], state.seeds)
        D = packed["action"].shape[0]

        def store(index: Array, carried: tuple[SeedState, tuple]) -> tuple[SeedState, tuple]:
            seed, logs = carried
            row = {name: leaf[index] for name, leaf in packed.items()}
            legal = row.get("legal")
            now = timestep(_rows_of(row))
            acted = dataclasses.replace(
                seed, observation=row["observation"], action=row["action"], legal=legal
            )
            acted, now, ended = program.observe(state.clock, acted, now)
            entry = (*ended, now.real)
            return acted, jax.tree.map(lambda all_, one: all_.at[index].set(one), logs, entry)

        def learn(index: Array, carried: tuple) -> tuple:
            clock, seed, metrics = carried
            keys = program.keys(clock, seed)
            seed, latest = program.learn(clock, seed, keys["learn"], jnp.int32(0))
            metrics = jax.tree.map(lambda all_, one: all_.at[index].set(one), metrics, latest)
            return program.tick(clock), seed, metrics

        E, names = program.recipe.num_envs, len(self.environment.logs)
        no = jnp.zeros((D, E), bool)
        info = jnp.zeros((D, E, names)) if names else None
        logs = (no, jnp.zeros((D, E)), jnp.zeros((D, E), jnp.int32), no, info, no)
        seed, logs = jax.lax.fori_loop(0, depth, store, (seed, logs))
        metrics = jax.tree.map(lambda leaf: jnp.full(D + 2, leaf), no_metrics())
        clock, seed, metrics = jax.lax.fori_loop(0, turns, learn, (state.clock, seed, metrics))
        seeds = jax.tree.map(lambda leaf: leaf[None], seed)
        return TrainState(clock, seeds), logs, metrics

    def _behaviour(self) -> Behaviour:
        program, recipe = self.program, self.program.recipe
        plan = plan_of(program.learner, program.dtype)
        if plan is None:
            raise UsageError(
                "A part of the recipe does not describe what it computes, so that actors cannot act without"
                " JAX; expected parts with export methods (docs/extending.md)."
            )
        state = recipe.explore.init(self.environment.copies, program.actions)
        actors = len(self.environment.crew.slots)
        return Behaviour(plan, recipe.explore, actors, jax.tree.map(np.asarray, state))

    def _nothing(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Observations and masks before the first step, which nothing is learned from."""
        E, spec = self.environment.num_envs, self.environment.spec
        observation = np.zeros((1, E, *spec.shape), spec.dtype)
        legal = np.broadcast_to(
            np.asarray(spec.actions.all_legal), (1, E, spec.actions.factors, spec.actions.width)
        )
        return observation, [legal] if spec.masked else []

    def _like(self) -> Rows:
        """Rows of no steps, `[0, K, ...]`, with the shapes and types of all."""
        K, spec, names = self.environment.copies, self.environment.spec, len(self.environment.logs)
        observation = np.zeros((0, K, *spec.shape), spec.dtype)
        mask = np.zeros((0, K, spec.actions.factors, spec.actions.width), bool) if spec.masked else None
        info = np.zeros((0, K, names), np.float32) if names else None
        action, numbers = np.zeros((0, K, spec.actions.factors), np.int32), np.zeros((0, 7, K), np.float32)
        return Rows(observation, action, observation, observation, numbers, mask, mask, mask, info)


class Session:
    """The calls of one training run."""

    def __init__(self, loop: ActorLoop, call: Compiled, weights: Any, queue: Queue, depth: int):
        self._loop, self._call, self._weights, self._queue = loop, call, weights, queue
        self._crew, self._E = loop.environment.crew, loop.environment.num_envs
        self._depth, self._published, self._seconds_per_turn = depth, 0.0, 0.0
        self._carry = 0
        """Steps stored beyond whole iterations."""
        self._cells: list[tuple[Any, ...]] = []
        """Log entries of steps, for iterations to come."""
        self._stack = loop.environment.spec.stack
        E, names = self._E, len(loop.environment.logs)
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
                where = f" on {found.node}" if found.node else ""
                warn(
                    f"Actor {found.actor}{where} was lost ({found.why}); another takes its place, and its"
                    " open episodes were cut.",
                    stacklevel=5,
                )
            else:
                queue.add(found.actor, read(found, self._stack))
        self._loop.environment.waiting = queue.steps
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
        environment, count = self._loop.environment, int(np.count_nonzero(stored))
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


def _rows_of(row: dict[str, Array]) -> tuple[Array, ...]:
    """Return one row as the bridge has it."""
    parts = [row["after"], row["successor"], row["numbers"]]
    parts += [row[name] for name in ("legal_after", "legal_successor", "info") if name in row]
    return tuple(parts)


def _depth(rows: Rows) -> int:
    """Rows of one actor in a call: fewer where observations are large."""
    bytes_of_a_row = sum(
        value.dtype.itemsize * int(np.prod(value.shape[1:], dtype=np.int64)) for _, value in rows.leaves()
    )
    return int(np.clip(CALL_BYTES // max(bytes_of_a_row, 1), 4, DEPTH))


def _only(tree: Any) -> Any:
    """Return the leaves of the only seed."""
    return jax.tree.map(lambda leaf: leaf[0], tree)
