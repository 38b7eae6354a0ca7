"""The loop of a learner with actors: store what they send, do the updates that are due, publish weights.

An iteration is E environment steps, whichever copies they are of, and the updates that the recipe has for
them: the same numbers of both as in a loop that steps E copies itself. Steps that came and make up no whole
iteration wait for the next call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.cluster.actor import Behaviour
from qhat.cluster.blocks import Rows
from qhat.cluster.environment import ActorEnvironment
from qhat.cluster.playing import played
from qhat.cluster.queue import Queue, empty
from qhat.cluster.session import Session
from qhat.engine.bridge import timestep
from qhat.engine.compiler import Compiled, compiled
from qhat.engine.data_parallel import DataParallel
from qhat.engine.host import again, fresh, zeros
from qhat.engine.host_network import plan_of, tensors_of
from qhat.engine.iteration import Program
from qhat.engine.loop import Advance
from qhat.engine.state import SeedState, TrainState, no_metrics
from qhat.evaluation.outcomes import Played
from qhat.evaluation.play import Cut, Play
from qhat.evaluation.rollout import ShowProgress
from qhat.system.devices import jit_fast_compile
from qhat.system.errors import UsageError

DEPTH, CALL_BYTES = 64, 2**24
"""Most rows of one actor in a call, and bytes of observations of all of them."""


@dataclasses.dataclass(frozen=True)
class ActorLoop:
    """Runs a program on what actors send; one seed."""

    program: Program
    environment: ActorEnvironment
    devices: int = 1
    """Devices that share every batch; it divides the batch size."""

    def init(self, keys: Array) -> TrainState:
        """Return a fresh state for the seed of `keys` `[1]`."""
        observation, legal = self._nothing()
        return fresh(self.program, keys, observation, *legal, layout=self._parallel.layout)

    def restart(self, state: TrainState, keys: Array) -> TrainState:
        """Begin new episodes; the open ones count as truncated. `state` is donated."""
        observation, legal = self._nothing()
        return again(self.program, state, keys, observation, *legal, layout=self._parallel.layout)

    def zeros(self, like: Any) -> Any:
        """Return zeros with the given shapes."""
        return zeros(like, self._parallel.layout)

    def compile(self, longest: int, like: TrainState) -> Advance:
        """Return a function that does up to `longest` iterations in one call, as `HostLoop.compile` does.

        The actors begin to step here: they get the network, and with the first call its weights.

        Raises:
            UsageError: a part of the recipe does not describe itself, so that no actor can compute it.
        """
        rows = self._like()
        depth = _depth(rows, len(self.environment.crew.slots))
        call = self.compile_call(dict(empty(rows, depth, self.environment.num_envs).leaves()), like)
        self.environment.crew.behave(self._behaviour())
        weights = self._weights()
        queue = Queue(len(self.environment.crew.slots), self.environment.copies, depth, rows)
        session = Session(self.environment, call, weights, queue, depth)
        return Compiled(session.advance, call.workspace)

    def compile_call(self, packed: dict[str, Any], like: TrainState) -> Compiled:
        """Compile `_run` for rows and a state like these, over the devices. The state is donated."""
        parallel, number = self._parallel, jax.ShapeDtypeStruct((), jnp.int32)
        learner = dataclasses.replace(self.program.learner, parallel=parallel)
        run = dataclasses.replace(self, program=dataclasses.replace(self.program, learner=learner))._run
        shapes = parallel.shapes((like, packed, number, number))
        call = compiled(parallel.spread(run), shapes, donate_argnums=0)
        if self.devices == 1:
            return call
        return Compiled(lambda state, *rows: call(parallel.laid(state), *rows), call.workspace)

    @property
    def _parallel(self) -> DataParallel:
        return DataParallel(self.devices)

    def play(
        self,
        episodes: int,
        longest: int,
        over: Callable[[], bool],
        show_progress: ShowProgress,
    ) -> Play:
        """Return what lets the actors play an evaluation, as `play_of` does in this process.

        Args:
            episodes: shared evenly by the actors.
        """
        weights, crew = self._weights(), self.environment.crew

        def waiting(rest: np.ndarray) -> None:
            if over():
                raise Cut
            show_progress(0, longest, rest)

        def playing(parameters: Any, key: Array, first: Sequence[int] | None = None) -> Played:
            number = int(jax.random.bits(key) >> 2) if first is None else first[0]
            numbers = range(number, number + episodes)
            return played(crew, np.asarray(weights(parameters)), numbers, longest, waiting)

        return playing

    def _weights(self) -> Callable[[Any], Array]:
        """Return what joins the network of the parameters, leaves `[1, ...]`, to a vector."""
        learner, dtype = self.program.learner, self.program.dtype
        return jit_fast_compile(
            lambda online: tensors_of(learner, dtype, jax.tree.map(lambda leaf: leaf[0], online))
        )

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


def _rows_of(row: dict[str, Array]) -> tuple[Array, ...]:
    """Return one row as the bridge has it."""
    parts = [row["after"], row["successor"], row["numbers"]]
    parts += [row[name] for name in ("legal_after", "legal_successor", "info") if name in row]
    return tuple(parts)


def _depth(rows: Rows, actors: int) -> int:
    """Rows of one actor in a call: fewer where observations are large, or actors are many."""
    bytes_of_a_row = sum(
        value.dtype.itemsize * int(np.prod(value.shape[1:], dtype=np.int64)) for _, value in rows.leaves()
    )
    return int(np.clip(CALL_BYTES // max(bytes_of_a_row * actors, 1), 1, DEPTH))
