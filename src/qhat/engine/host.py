"""The host loop: the same iteration, compiled, around environments that Python steps.

Environments that step elsewhere (in processes, in a pool of threads) get the next actions as soon as these
are chosen, and step while the update runs. The host loop always chooses an action before the update
(`begin_step` of `Program.iterate`), so that results do not depend on where an environment steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from qhat.engine.bridge import GOES_ON, Bridge, timestep
from qhat.engine.compiler import Compiled, compiled
from qhat.engine.iteration import Program
from qhat.engine.loop import Advance
from qhat.engine.state import Clock, Log, SeedState, TrainState, no_metrics
from qhat.environments.host import HostEnvironment
from qhat.system.devices import jit_fast_compile


@dataclasses.dataclass(frozen=True)
class HostLoop:
    """Runs a program with environments on the host, all seeds on one device."""

    program: Program
    environment: HostEnvironment

    def init(self, keys: Array) -> TrainState:
        """Return a fresh state for the seeds of `keys` `[S]`."""
        return fresh(self.program, keys, self.environment.start(), *self._legal())

    def zeros(self, like: Any) -> Any:
        """Return zeros for every seed, with the given shapes."""
        return zeros(like)

    def restart(self, state: TrainState, keys: Array) -> TrainState:
        """Start new episodes; the open ones count as truncated. `state` is donated."""
        return again(self.program, state, keys, self.environment.start(), *self._legal())

    def _legal(self) -> list[np.ndarray]:
        legal = self.environment.legal()
        return [] if legal is None else [legal]

    def compile(self, longest: int, like: TrainState | None = None) -> Advance:
        """Return a function that does up to `longest` iterations in one call, as `Loop.compile` does.

        Its third argument is called many times a second; when that returns true, the function stops early.
        If the environment fails, it raises `FailedError` with the state and log so far: the failed step is
        the last iteration, and nothing of it is stored.
        """
        bridge = Bridge(self.environment)
        run = functools.partial(self._run, bridge, longest)
        shapes = None if like is None else (like, jax.ShapeDtypeStruct((), jnp.int32))
        whole_loop = compiled(run, shapes, donate_argnums=0)

        def advance(
            state: TrainState, count: int, pause: Callable[[], bool] = lambda: False
        ) -> tuple[TrainState, Log]:
            def call() -> tuple[TrainState, Log]:
                if self.environment.is_async:
                    bridge.begin(np.asarray(state.seeds.action))
                return whole_loop(state, jnp.int32(count))

            return bridge.run(call, pause)

        return Compiled(advance, whole_loop.workspace)

    def _run(self, bridge: Bridge, longest: int, state: TrainState, count: Array) -> tuple[TrainState, Log]:
        # A single seed is not batched, which is faster.
        alone = self.environment.seeds == 1
        is_async = self.environment.is_async

        def each(function: Callable[..., Any], axes: tuple) -> Callable[..., Any]:
            return function if alone else jax.vmap(function, axes)

        def unbatched(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf[0], tree) if alone else tree

        def batched(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf[None], tree) if alone else tree

        def body(carry: tuple) -> tuple:
            turn, _, clock, seeds, token, logs = carry

            def begin_step(seeds: SeedState) -> tuple[SeedState, Array]:
                nonlocal token
                if is_async:
                    token = bridge.send(batched(seeds.action), (turn + 1 < count) & (status == GOES_ON))
                return seeds, token

            status, rows = bridge.receive(token) if is_async else bridge.step(batched(seeds.action))
            now, keys = (
                each(timestep, (0,))(unbatched(rows)),
                each(self.program.keys, (None, 0))(clock, seeds),
            )
            seeds, log = self.program.iterate(clock, seeds, now, keys, begin_step, each)
            logs = jax.tree.map(
                lambda all_, one: jax.lax.dynamic_update_index_in_dim(all_, one, turn, 0 if alone else 1),
                logs,
                log,
            )
            return turn + 1, status, self.program.tick(clock), seeds, token, logs

        seeds = unbatched(state.seeds)
        logs = self._empty_log((longest,) if alone else (self.environment.seeds, longest))
        start = (jnp.int32(0), jnp.int32(GOES_ON), state.clock, seeds, jnp.int32(0), logs)
        _, _, clock, seeds, _, logs = jax.lax.while_loop(
            lambda carry: (carry[0] < count) & (carry[1] == GOES_ON), body, start
        )
        return TrainState(clock, batched(seeds)), batched(logs)

    def _empty_log(self, lead: tuple[int, ...]) -> Log:
        E = self.program.recipe.num_envs
        no = jnp.zeros(E, bool)
        names = len(self.environment.logs)
        info = jnp.zeros((E, names)) if names else None
        one = Log(no, jnp.zeros(E), jnp.zeros(E, jnp.int32), no, info, no_metrics())
        return jax.tree.map(lambda leaf: jnp.zeros((*lead, *leaf.shape), leaf.dtype), one)


def fresh(
    program: Program, keys: Array, observation: Any, *legal: Any, layout: Sharding | None = None
) -> TrainState:
    """Return a fresh state for the seeds of `keys` `[S]`, about to act on `observation` `[S, E, ...]`.

    Args:
        layout: of the seeds' state, on several devices.
    """
    seed_keys = jax.vmap(jax.random.split)(keys)[:, 1]

    def one(key: Array, observation: Array, *legal: Array) -> SeedState:
        return program.init(key, observation, None, *legal)

    seeds = jit_fast_compile(jax.vmap(one), out_shardings=layout)(seed_keys, observation, *legal)
    return TrainState(Clock(jnp.int32(0), jnp.int32(0)), seeds)


def again(
    program: Program,
    state: TrainState,
    keys: Array,
    observation: Any,
    *legal: Any,
    layout: Sharding | None = None,
) -> TrainState:
    """Begin new episodes; the open ones count as truncated. `state` is donated."""
    steps = state.clock.iterations * program.recipe.num_envs

    def one(key: Array, seed: SeedState, observation: Array, legal: Array | None = None) -> SeedState:
        return program.begin(seed, observation, None, legal, key, steps)

    begin = jit_fast_compile(jax.vmap(one), donate_argnums=1, out_shardings=layout)
    return TrainState(state.clock, begin(keys, state.seeds, observation, *legal))


def zeros(like: Any, layout: Sharding | None = None) -> Any:
    """Return zeros for every seed, with the given shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=layout), like)
