"""Fills replay before the first step: with demonstrations, and with the statistics of loaded weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes.heads.outlook import Outlook
from qhat.demonstrations.reading import Demonstrations
from qhat.engine.calibration import RETURNS, STATISTICS
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.state import SeedState, TrainState
from qhat.system.errors import require, setting

BLOCK = 1_024
"""Rows of every ring that one compiled call stores."""


def prefill(program: Program, state: TrainState, demonstrations: Demonstrations) -> TrainState:
    """Store the same demonstrations in every seed's replay, spread over the rings of its environments.

    An episode that spans two rings is truncated between them. Where a share of every batch is of
    demonstrations they lie in rows of their own kind instead, beside these rings. The state is donated.

    Raises:
        UsageError: replay is too small: the last demonstrations would overwrite the first.
    """
    if program.logged:
        return _laid_beside(program, state, demonstrations)
    E, recipe = program.recipe.num_envs, program.recipe
    rows = rows_of([demonstrations], E, program.stack)
    require(
        rows <= recipe.replay_capacity // E,
        f"{setting('replay_capacity')} is {recipe.replay_capacity}, and the demonstrations"
        f" ({len(demonstrations)} transitions) need {rows * E}; expected more.",
    )
    store = storing_one(program)
    for block in blocks(demonstrations, E):
        state = store(state, block)
    return TrainState(state.clock, jax.jit(jax.vmap(_cut), donate_argnums=0)(state.seeds))


def storing_one(program: Program) -> Callable[[TrainState, tuple], TrainState]:
    """Return a function that stores a block in the replay of every seed. The state is donated."""
    store = jax.jit(jax.vmap(_appending(program), (0, None)), donate_argnums=0)
    return lambda state, block: TrainState(state.clock, store(state.seeds, block))


def storing(program: Program) -> Callable[[TrainState, Sequence[Demonstrations]], TrainState]:
    """Return a function that stores other demonstrations in the replay of each seed, of one environment.

    The state is donated.
    """
    functions = (_appending(program), _cut)
    store, cut = (jax.jit(jax.vmap(function), donate_argnums=0) for function in functions)

    def fill(state: TrainState, several: Sequence[Demonstrations]) -> TrainState:
        seeds, parts = state.seeds, [list(blocks(each, 1)) for each in several]
        for index in range(max(map(len, parts))):
            # Where a seed has no more, rows that are not real.
            given = [each[index] if index < len(each) else _unreal(each[0]) for each in parts]
            seeds = store(seeds, jax.tree.map(lambda *parts: np.stack(parts), *given))
        return TrainState(state.clock, cut(seeds))

    return fill


def _appending(program: Program) -> Callable[[SeedState, tuple], SeedState]:
    def one(seed: SeedState, block: tuple) -> SeedState:
        ring, sampler = append(program, seed.ring, seed.sampler, block)
        return dataclasses.replace(seed, ring=ring, sampler=sampler)

    return one


def _cut(seed: SeedState) -> SeedState:
    return dataclasses.replace(seed, ring=replay.cut(seed.ring))


def _unreal(block: tuple) -> tuple:
    return jax.tree.map(np.zeros_like, block)


def _laid_beside(program: Program, state: TrainState, demonstrations: Demonstrations) -> TrainState:
    """Store demonstrations in the rows that nothing overwrites; statistics include them."""

    def opened(seed: SeedState) -> tuple[replay.Ring, Any]:
        ring = seed.ring
        assert ring.logged is not None
        outlook = None if ring.outlook is None else Outlook.empty(1, ring.outlook.gamma)
        rows = dataclasses.replace(ring.logged, moments=ring.moments, outlook=outlook)
        # Copies: what is stored into is donated, and a call may return its arguments themselves.
        return jax.tree.map(jnp.copy, (rows, seed.sampler[1]))

    def one(beside: tuple[replay.Ring, Any], block: tuple) -> tuple[replay.Ring, Any]:
        return append(program, *beside, block)

    def closed(seed: SeedState, beside: tuple[replay.Ring, Any]) -> SeedState:
        logged, outlook = replay.cut(beside[0]), seed.ring.outlook
        if outlook is not None and logged.outlook is not None:
            outlook = outlook.widened(logged.outlook.returns, logged.outlook.rewards)
        rows = dataclasses.replace(logged, moments=None, outlook=None)
        ring = dataclasses.replace(seed.ring, logged=rows, moments=logged.moments, outlook=outlook)
        return dataclasses.replace(seed, ring=ring, sampler=(seed.sampler[0], beside[1]))

    beside = jax.jit(jax.vmap(opened))(state.seeds)
    store = jax.jit(jax.vmap(one, (0, None)), donate_argnums=0)
    for block in blocks(demonstrations, 1):
        beside = store(beside, block)
    return TrainState(state.clock, jax.jit(jax.vmap(closed), donate_argnums=0)(state.seeds, beside))


def rows_of(demonstrations: Sequence[Demonstrations], envs: int, stack: int) -> int:
    """Rows that the fullest ring needs: one for each step, and `stack` more for each episode."""
    ended = np.concatenate([each.terminated | each.truncated for each in demonstrations])
    ends = _by_ring(ended, envs, True)
    ends[-1] = True
    return ends.shape[0] + stack * int(ends.sum(axis=0).max())


def blocks(demonstrations: Demonstrations, envs: int) -> Iterator[tuple]:
    """Yield fields of steps, `[BLOCK, E, ...]`: ring e gets the e-th of E equal parts."""
    real = _by_ring(np.ones(len(demonstrations), bool), envs, False)
    names = [field.name for field in dataclasses.fields(demonstrations)]
    given = {name: getattr(demonstrations, name) for name in names}
    columns = {name: None if column is None else _by_ring(column, envs) for name, column in given.items()}
    for begin in range(0, real.shape[0], BLOCK):
        part = slice(begin, begin + BLOCK)
        block: dict[str, Any] = {
            name: None if column is None else _padded(column[part]) for name, column in columns.items()
        }
        block["real"] = _padded(real[part])
        # Demonstrations have no states of a memory.
        yield tuple(block.get(field.name) for field in dataclasses.fields(replay.Step))


def _by_ring(column: np.ndarray, envs: int, filler: object = 0) -> np.ndarray:
    """Cut `[T, ...]` into E parts: `[ceil(T/E), E, ...]`."""
    length = -(-len(column) // envs)
    missing = np.full((length * envs - len(column), *column.shape[1:]), filler, column.dtype)
    whole = np.concatenate([column, missing])
    return np.swapaxes(whole.reshape(envs, length, *column.shape[1:]), 0, 1)


def _padded(block: np.ndarray) -> np.ndarray:
    missing = np.zeros((BLOCK - len(block), *block.shape[1:]), block.dtype)
    return np.concatenate([block, missing])


def append(program: Program, ring: replay.Ring, sampler: Any, fields: tuple) -> tuple[replay.Ring, Any]:
    """Append recorded steps, given as the fields of `replay.Step`, `[T, E, ...]`."""

    def one(carry: tuple, row: tuple) -> tuple:
        step = replay.Step(*row)
        step = dataclasses.replace(step, reward=program.learned(step.reward))
        ring, slots, starts = replay.store(carry[0], step)
        return (ring, program.recipe.sampler.store(carry[1], slots, starts)), None

    return jax.lax.scan(one, (ring, sampler), fields)[0]


def primed(program: Program, seed: SeedState) -> SeedState:
    """Continue the statistics of observations and returns from those of the loaded weights."""
    if program.recipe.normalise:
        known = jax.tree.map(jnp.copy, seed.learner.online[STATISTICS])
        seed = eqx.tree_at(lambda each: each.ring.moments, seed, known)
    if program.recipe.training.streams:
        known = jax.tree.map(jnp.copy, seed.learner.online[RETURNS])
        known = eqx.tree_at(lambda each: each.trace, known, jnp.zeros_like(known.trace))
        seed = eqx.tree_at(lambda each: each.ring.scale, seed, known)
    return seed
