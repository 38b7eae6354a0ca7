"""The compiled loop: environment step + iteration, for S seeds at once. It knows no algorithm."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from qhat.engine.compiler import Compiled, compiled
from qhat.engine.iteration import Program
from qhat.engine.logs import learn_from_logs
from qhat.engine.pace import SECONDS, Pace
from qhat.engine.state import Clock, Log, SeedState, TrainState
from qhat.environments.base import SEEDS, Environment
from qhat.system.devices import jit_fast_compile

Advance = Compiled
"""A function of a state, a number of iterations, and a function that says when to stop early."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """Runs a program in a compiled environment."""

    program: Program
    environment: Environment
    devices: int = 1
    """Devices that the seeds are spread over; it divides the number of seeds."""

    def init(self, keys: Array) -> TrainState:
        """Return a fresh state for the seeds of `keys` `[S]`; each has its weights, keys, environments."""
        environment_keys, seed_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        state, observation = self.environment.start(environment_keys)

        def one(key: Array, observation: Array, state: Any) -> SeedState:
            return self.program.init(key, observation, state, self.environment.legal(state))

        # Made in its final layout, so that there is no second copy.
        layout = None if self.devices == 1 else self._layout()[1]
        seeds = jit_fast_compile(jax.vmap(one), out_shardings=layout)(seed_keys, observation, state)
        return TrainState(Clock(jnp.int32(0), jnp.int32(0)), seeds)

    def restart(self, state: TrainState, keys: Array) -> TrainState:
        """Start new episodes in fresh environments; the open ones count as truncated.

        For environments whose state cannot be saved. `state` may come without it, and is donated.
        """
        environment, observation = self.environment.start(keys)
        steps = state.clock.iterations * self.program.recipe.num_envs

        def one(key: Array, seed: SeedState, observation: Array, environment: Any) -> SeedState:
            legal = self.environment.legal(environment)
            return self.program.begin(seed, observation, environment, legal, key, steps)

        again = jit_fast_compile(jax.vmap(one), donate_argnums=1)
        return TrainState(state.clock, again(keys, state.seeds, observation, environment))

    def compile(self, longest: int, like: TrainState | None = None) -> Advance:
        """Return a function that does up to `longest` iterations in one call.

        The function compiles at its first call, or now if `like` gives the shapes of the state.

        The returned log has leaves `[S, longest, ...]`; rows beyond the iterations done are zero.
        Results do not depend on how a run is split into calls. The state is donated.
        In a call of more than a second, the third argument is called about every second; when it returns
        true, the function stops early, and the log ends there.
        """

        def chunk(clock: Clock, seeds: SeedState, count: Array) -> tuple[SeedState, Log]:
            one_seed = next(iter(jax.tree.leaves(seeds))).shape[0] == 1
            if one_seed:
                squeezed = jax.tree.map(lambda leaf: leaf[0], seeds)
                out = self._run(clock, squeezed, count, longest)
                return jax.tree.map(lambda leaf: leaf[None], out)
            return jax.vmap(self._run, in_axes=(None, 0, None, None))(clock, seeds, count, longest)

        if self.devices > 1:
            whole, sharded = PartitionSpec(), PartitionSpec(SEEDS)
            chunk = jax.shard_map(
                chunk,
                mesh=self._mesh,
                in_specs=(whole, sharded, whole),
                out_specs=sharded,
                check_vma=False,
            )

        def run(state: TrainState, count: Array) -> tuple[TrainState, Log]:
            seeds, log = chunk(state.clock, state.seeds, count)
            return TrainState(self._advance(state.clock, count), seeds), log

        shapes = None if like is None else (self._laid(like), jax.ShapeDtypeStruct((), jnp.int32))
        whole_loop, calls = compiled(run, shapes, donate_argnums=0), 0
        pace = Pace.of(self.program.recipe)

        def call(state: TrainState, count: int) -> tuple[TrainState, Log]:
            nonlocal calls
            calls += 1
            # At every call: an array without elements comes back in another layout.
            return whole_loop(self._spread(state), jnp.int32(count))

        def advance(
            state: TrainState, count: int, pause: Callable[[], bool] | None = None
        ) -> tuple[TrainState, Log]:
            if pause is None:
                return call(state, count)
            logs, done, spent, at = [], 0, 0.0, int(state.clock.iterations)
            while done < count and not (spent > SECONDS and pause()):
                piece, compiles, began = pace.piece(at + done, count - done), not calls, time.perf_counter()
                state, log = call(state, piece)
                logs.append(jax.tree.map(lambda leaf, piece=piece: np.asarray(leaf)[:, :piece], log))
                seconds = time.perf_counter() - began
                pace.took(piece, seconds)
                done, spent = done + piece, 0.0 if compiles else spent + seconds
            return state, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *logs)

        return Compiled(advance, whole_loop.workspace)

    def zeros(self, like: Any) -> Any:
        """Return zeros for every seed, with the given shapes, laid out as the calls return them."""
        layout = None if self.devices == 1 else self._layout()[1]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=layout), like)

    @property
    def _mesh(self) -> Mesh:
        return Mesh(jax.local_devices()[: self.devices], (SEEDS,))

    def _spread(self, state: TrainState) -> TrainState:
        """Lay a state out as the calls return it: another layout would compile again."""
        if self.devices == 1:
            return state
        whole, sharded = self._layout()
        return TrainState(jax.device_put(state.clock, whole), jax.device_put(state.seeds, sharded))

    def _laid(self, like: TrainState) -> TrainState:
        """Return shapes with the layout that their arrays will have."""
        if self.devices == 1:
            return like

        def at(layout: NamedSharding) -> Callable[[Any], jax.ShapeDtypeStruct]:
            return lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)

        whole, sharded = self._layout()
        return TrainState(jax.tree.map(at(whole), like.clock), jax.tree.map(at(sharded), like.seeds))

    def _layout(self) -> tuple[NamedSharding, NamedSharding]:
        """Return the layout of what all seeds share, and the layout of what each seed has."""
        return NamedSharding(self._mesh, PartitionSpec()), NamedSharding(self._mesh, PartitionSpec(SEEDS))

    def _run(self, clock: Clock, seed: SeedState, count: Array, longest: int) -> tuple[SeedState, Log]:
        """Do `count` iterations of one seed."""

        def step(clock: Clock, seed: SeedState, goes_on: Array) -> tuple[SeedState, Log]:
            keys = self.program.keys(clock, seed)
            if not self.program.recipe.training.acts:
                return learn_from_logs(self.program, clock, seed, keys)
            if self.environment.is_async:
                state, timestep = self.environment.receive(seed.environment)
                begin_step = functools.partial(self._send, goes_on=goes_on)
            else:
                act = (seed.environment, seed.action, keys["environment"])
                state, timestep = self.environment.step(*act)
                begin_step = None
            seed = dataclasses.replace(seed, environment=state)
            return self.program.iterate(clock, seed, timestep, keys, begin_step)

        # So that one trace serves for the shapes of the log and for the loop.
        step = jax.jit(step, inline=True)

        def body(index: Array, carry: tuple[Clock, SeedState, Log]) -> tuple:
            clock, seed, logs = carry
            seed, log = step(clock, seed, index + 1 < count)
            logs = jax.tree.map(
                lambda all_, one: jax.lax.dynamic_update_index_in_dim(all_, one, index, 0),
                logs,
                log,
            )
            return self.program.tick(clock), seed, logs

        if self.environment.is_async:
            seed, _ = self._send(seed, count > 0)
        shapes = jax.eval_shape(step, clock, seed, jnp.bool(True))[1]
        logs = jax.tree.map(lambda leaf: jnp.zeros((longest, *leaf.shape), leaf.dtype), shapes)
        _, seed, logs = jax.lax.fori_loop(0, count, body, (clock, seed, logs))
        return seed, logs

    def _send(self, seed: SeedState, goes_on: Array) -> tuple[SeedState, Array]:
        """Begin the environment's next step, if the loop `goes_on`; return a token that depends on it."""

        def no(state: Any, _: Array) -> tuple[Any, Array]:
            return state, jnp.int32(0)

        state, token = jax.lax.cond(goes_on, self.environment.send, no, seed.environment, seed.action)
        return dataclasses.replace(seed, environment=state), token

    def _advance(self, clock: Clock, count: Array) -> Clock:
        return jax.lax.fori_loop(0, count, lambda _, now: self.program.tick(now), clock)
