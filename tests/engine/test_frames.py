"""Protects replay of stacked frames: samples equal those of a ring that stores whole stacks.

The frames of one episode may not get into another's stack, nor may frames that the ring has overwritten.
The oracle is a ring, never full, that stores every stack whole.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat.axes.actions import Actions
from qhat.axes.sampler import Prioritised, Sampler, Uniform
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import NOTHING
from qhat.engine.state import Clock, split
from qhat.environments.base import Timestep
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError
from qhat.system.host_memory import nbytes

GAMMA, STEPS, ROWS, BATCH = 0.9, 50, 17, 24
SAMPLERS = [Uniform(), Prioritised(alpha=0.7)]
# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Films:
    """E environments of stacked frames, whose episodes end, are truncated and reset at random.

    An episode begins with its first frame K times, with zeros, or with the last frames of the episode
    before it, as in games that continue after a life.
    """

    def __init__(self, num_envs: int, stack: int, colours: int, seed: int):
        self.random = np.random.default_rng(seed)
        self.stack, self.colours = stack, colours
        self.now = [self._begin(np.zeros((stack * colours, 2, 3), np.uint8)) for _ in range(num_envs)]
        self.reset_due = [False] * num_envs
        self.episode = [[0] for _ in range(num_envs)]
        """Lengths."""

    def _frame(self) -> np.ndarray:
        return self.random.integers(1, 255, (self.colours, 2, 3)).astype(np.uint8)

    def _begin(self, last: np.ndarray) -> np.ndarray:
        frame = self._frame()
        older = [np.tile(frame, (self.stack, 1, 1)), np.zeros_like(last), last]
        return self._move(older[self.random.integers(3)], frame)

    def _move(self, stack: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return np.concatenate([stack[self.colours :], frame])

    def step(self) -> replay.Step:
        rows = [self._step(env) for env in range(len(self.now))]
        return replay.Step(*(jnp.asarray(np.stack(field)) for field in zip(*rows, strict=True)))

    def _step(self, env: int) -> tuple:
        random, before = self.random, self.now[env]
        action = random.integers(4, size=1).astype(np.int32)
        legal = [random.random((1, 4)) < 0.5 for _ in range(2)]
        if self.reset_due[env]:  # A row that is no transition, full of what must not be stored.
            self.reset_due[env] = False
            return before, action, np.float32(1e6), before, True, True, False, *legal
        after = self._move(before, self._frame())
        fate = random.random()
        terminated, truncated = fate < 0.1, 0.1 <= fate < 0.2
        self.episode[env][-1] += 1
        self.now[env] = after
        if terminated or truncated:
            self.episode[env].append(0)
            self.now[env] = self._begin(after)
            self.reset_due[env] = random.random() < 0.5
        return before, action, np.float32(random.normal()), after, terminated, truncated, True, *legal

    def cut(self) -> None:
        for env, lengths in enumerate(self.episode):
            if lengths[-1]:
                lengths.append(0)
                self.now[env] = self._begin(self.now[env])

    def retained(self, env: int, rows: int) -> set[int]:
        """Numbers of the steps of `env` whose K frames are among the last `rows` that were written."""
        written, starts = 0, []
        for length in self.episode[env]:
            if length:
                starts += [written + self.stack - 1 + index for index in range(length)]
                written += length + self.stack
        # The successor of the newest step is a row of its own.
        return {number for number, row in enumerate(starts) if row - (self.stack - 1) >= written - rows}


class Books:
    """Records which step is in which slot, from the results of `store`."""

    def __init__(self, num_envs: int):
        self.slot_of: list[list[int]] = [[] for _ in range(num_envs)]
        self.step_in: dict[int, tuple[int, int]] = {}

    def write(self, slots: Any, starts: Any, size: int) -> None:
        for slot, start in zip(np.asarray(slots).tolist(), np.asarray(starts).tolist(), strict=True):
            if slot >= size:
                continue
            self.step_in.pop(slot, None)
            if start:
                env = slot // (size // len(self.slot_of))
                self.step_in[slot] = (env, len(self.slot_of[env]))
                self.slot_of[env].append(slot)


cut = quick_jit(replay.cut)


@functools.cache
def stored(sampler: Sampler) -> Any:
    def put(ring: replay.Ring, state: Any, step: replay.Step) -> Any:
        ring, slots, starts = replay.store(ring, step)
        return ring, sampler.store(state, slots, starts), slots, starts

    return quick_jit(put)


@functools.cache
def looked_up(n: int) -> Any:
    def all_of(ring: replay.Ring) -> Any:
        slots = jnp.arange(ring.size)
        window = replay.view(ring, slots, n, GAMMA)
        return window.complete, replay.look_up(ring, slots, window)

    return quick_jit(all_of)


@functools.cache
def drawn(n: int, sampler: Sampler) -> Any:
    def draw(ring: replay.Ring, state: Any, key: jax.Array, errors: jax.Array) -> Any:
        sample = replay.sample(ring, sampler, state, key, jnp.int32(0), batch=BATCH, n=n, gamma=GAMMA)
        return *sample, sampler.update(state, sample[1], errors)

    return quick_jit(draw)


def rings(num_envs: int, stack: int, colours: int) -> list[replay.Ring]:
    shape, whole = (stack * colours, 2, 3), 4 * STEPS
    spaces = (shape, "uint8", Actions((4,)))
    short = replay.Ring.empty(num_envs, ROWS, *spaces, stack=stack, masked=True)
    return [short, replay.Ring.empty(num_envs, whole, *spaces, masked=True)]


def same(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize(
    ("num_envs", "stack", "colours", "n"),
    [*((num_envs, 4, 1, n) for num_envs in (1, 3) for n in (1, 3, 5)), (3, 2, 3, 3)],
)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_transition_is_that_of_a_ring_of_whole_stacks(
    num_envs: int, stack: int, colours: int, n: int, sampler: Sampler, seed: int
):
    films = Films(num_envs, stack, colours, seed)
    put, all_of, draw = stored(sampler), looked_up(n), drawn(n, sampler)
    both = rings(num_envs, stack, colours)
    states = [sampler.init(ring.size) for ring in both]
    books = [Books(num_envs) for _ in both]
    assert both[0].observation.shape == (num_envs * ROWS, colours, 2, 3)
    for turn in range(STEPS):
        step = films.step()
        for index, ring in enumerate(both):
            both[index], states[index], slots, starts = put(ring, states[index], step)
            books[index].write(slots, starts, ring.size)
        if films.random.random() < 0.04:
            films.cut()
            both = [cut(ring) for ring in both]
        if turn % 7 and turn < STEPS - 3:
            continue
        (complete, items), (whole_complete, whole) = (jax.device_get(all_of(ring)) for ring in both)
        for env in range(num_envs):
            kept = films.retained(env, ROWS)
            at = {number: books[1].slot_of[env][number] for number in kept}
            usable = {number: slot for number, slot in at.items() if whole_complete[slot]}
            here = np.flatnonzero(complete[env * ROWS : (env + 1) * ROWS]) + env * ROWS
            found = {books[0].step_in[slot] for slot in here.tolist()}
            assert found == {(env, number) for number in usable}
        slots = np.flatnonzero(complete)
        same(_at(items, slots), _of(whole, books, slots))
        # Of fewer, `sample` may find none in all of its draws.
        if len(slots) < 4:
            continue
        errors = jnp.asarray(films.random.normal(size=BATCH), jnp.float32)
        batch, slots, weights, states[0] = draw(both[0], states[0], jax.random.key(turn), errors)
        assert np.all((np.asarray(weights) > 0) & (np.asarray(weights) <= 1))
        same(batch, _of(whole, books, np.asarray(slots)))
    assert np.all(np.asarray(both[0].filled) == ROWS), "the ring must wrap around"
    assert not np.any(np.asarray(both[1].filled) == 4 * STEPS), "the oracle's must not"


def _of(whole: replay.Transition, books: list[Books], slots: np.ndarray) -> replay.Transition:
    """Return the steps in `slots` from the ring of whole stacks."""
    steps = [books[0].step_in[slot] for slot in slots.tolist()]
    there = [books[1].slot_of[env][number] for env, number in steps]
    return _at(whole, there)


def _at(items: Any, slots: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[slots], items)


def test_starts_without_their_frames_have_no_priority():
    films, sampler = Films(2, 4, 1, seed=1), Prioritised()
    put, all_of = stored(sampler), looked_up(1)
    ring = rings(2, 4, 1)[0]
    state = sampler.init(ring.size)
    for _ in range(STEPS):
        ring, state, _, _ = put(ring, state, films.step())
        complete, _ = all_of(ring)
        np.testing.assert_array_equal(np.asarray(state[0].leaves) > 0, complete)
        np.testing.assert_array_equal(np.asarray(ring.kind) != NOTHING, complete)


def test_seeds_side_by_side_do_not_mix():
    films = [Films(2, 4, 1, seed) for seed in range(3)]
    alone = [rings(2, 4, 1)[0] for _ in films]
    put, store = stored(Uniform()), quick_jit(jax.vmap(replay.store))
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    for _ in range(30):
        steps = [film.step() for film in films]
        alone = [put(ring, (), step)[0] for ring, step in zip(alone, steps, strict=True)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
        together = store(together, stacked)[0]
    same(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def test_a_million_atari_transitions_take_less_than_8_gb():
    recipe = Recipe(replay_capacity=1_000_000, hidden=(8,), sampler=Prioritised(), n_step=3)
    program = Program.of(recipe, (4, 84, 84), "uint8", Actions((6,)), stack=4)
    observation = jax.ShapeDtypeStruct((1, 4, 84, 84), "uint8")
    seed = jax.eval_shape(lambda key, shown: program.init(key, shown, None), jax.random.key(0), observation)
    assert seed.ring.observation.shape == (1_000_000, 1, 84, 84)
    assert 7.056e9 <= nbytes(seed) <= 7.1e9
    plain = jax.eval_shape(
        lambda: replay.Ring.empty(1, 1_000_000, (4, 84, 84), "uint8", Actions((6,)), stack=1)
    )
    assert nbytes(plain) > 28e9, "what it would be without"


def test_replay_is_updated_in_place():
    """A copy of the ring in a step or in an update would cost time in proportion to its size."""
    recipe = Recipe(replay_capacity=60_000, hidden=(8,), batch_size=4, learning_starts=4)
    program = Program.of(recipe, (4, 30, 30), "uint8", Actions((6,)), stack=4)
    seed = jax.eval_shape(
        lambda key: program.init(key, jnp.zeros((1, 4, 30, 30), "uint8"), None), jax.random.key(0)
    )

    def chunk(clock: Clock, seed: Any, observation: jax.Array) -> Any:
        def body(_: Any, carry: Any) -> Any:
            clock, seed = carry
            off = jnp.zeros(1, bool)
            timestep = Timestep(observation, jnp.ones(1), off, off, observation, ~off)
            keys = split(jax.random.fold_in(seed.key, clock.iterations), "environment", "learn", "act")
            seed, _ = program.iterate(clock, seed, timestep, keys)
            return program.tick(clock), seed

        return jax.lax.fori_loop(0, 10, body, (clock, seed))

    clock = Clock(jnp.int32(0), jnp.int32(0))
    images = jax.ShapeDtypeStruct((1, 4, 30, 30), "uint8")
    memory: Any = jax.jit(chunk, donate_argnums=1).lower(clock, seed, images).compile().memory_analysis()
    ring = nbytes(seed.ring.observation)
    assert ring == 60_000 * 900
    assert memory.alias_size_in_bytes > ring, "the ring that comes out is the one that went in"
    assert memory.temp_size_in_bytes < ring / 10


@pytest.mark.parametrize(
    ("capacity", "shape", "words"),
    [
        (10, (4, 8, 8), "leaves 10 rows for each environment; expected at least n_step + 2·4 = 11"),
        (100, (6, 8, 8), "(6, 8, 8) are no stack of 4 frames"),
    ],
)
def test_what_cannot_be_stored_as_frames_is_refused(capacity: int, shape: tuple[int, ...], words: str):
    recipe = dataclasses.replace(Recipe(n_step=3, batch_size=4), replay_capacity=capacity)
    with pytest.raises(UsageError) as refused:
        Program.of(recipe, shape, "uint8", Actions((2,)), stack=4)
    assert words in str(refused.value)
