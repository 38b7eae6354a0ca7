"""Protects the n-step transitions that replay hands to the learner.

Others shipped returns that cross an episode's end, time limits taken for terminal states, the next
episode's first observation as the successor, all environments cut when one ends, the last n − 1
starts of an episode lost, and reset rows learned as transitions. The oracle is slow plain Python
that knows episodes and nothing of rings.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from qhat.axes.actions import Actions
from qhat.axes.sampler import Prioritised, Sampler, Uniform
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import CONTINUES, NOTHING

GAMMA = 0.9
SAMPLERS = [Uniform(), Prioritised(alpha=0.7)]
# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
store = quick_jit(replay.store)
cut = quick_jit(replay.cut)
store_priority = quick_jit(lambda sampler, *rest: sampler.store(*rest), static_argnums=0)
update_priority = quick_jit(lambda sampler, *rest: sampler.update(*rest), static_argnums=0)


def draw_batch(ring, sampler, state, key, batch: int, n: int):
    step = jnp.int32(0)
    return replay.sample(ring, sampler, state, key, step, batch=batch, n=n, gamma=GAMMA)


sample = quick_jit(draw_batch, static_argnums=(1, 4, 5))


@functools.partial(quick_jit, static_argnums=1)
def view_all(ring, n: int):
    slots = jnp.arange(ring.size)
    window = replay.view(ring, slots, n, GAMMA)
    successor = ring.observation[ring.ahead(slots, window.length)]
    return window, successor


@dataclasses.dataclass
class Move:
    """One real step, recorded by the oracle. Observations are unique numbers."""

    observation: int
    action: tuple[int, int]
    reward: float
    successor: int
    terminated: bool
    truncated: bool


class World:
    """E environments that end at random, and the oracle's records of them."""

    def __init__(self, num_envs: int, seed: int, resets: bool):
        self.random = np.random.default_rng(seed)
        self.resets = resets
        self.counter = 0
        self.now = [self._new() for _ in range(num_envs)]
        self.reset_due = [False] * num_envs
        self.episodes: list[list[list[Move]]] = [[[]] for _ in range(num_envs)]

    def _new(self) -> int:
        self.counter += 1
        return self.counter

    def step(self) -> replay.Step:
        rows = [self._step(env) for env in range(len(self.now))]
        moves, real = zip(*rows, strict=True)
        return replay.Step(
            observation=jnp.asarray([[m.observation, -m.observation] for m in moves], jnp.float32),
            action=jnp.asarray([m.action for m in moves], jnp.int32),
            reward=jnp.asarray([m.reward for m in moves], jnp.float32),
            successor=jnp.asarray([[m.successor, -m.successor] for m in moves], jnp.float32),
            terminated=jnp.asarray([m.terminated for m in moves]),
            truncated=jnp.asarray([m.truncated for m in moves]),
            real=jnp.asarray(real),
        )

    def _step(self, env: int) -> tuple[Move, bool]:
        action = (int(self.random.integers(5)), int(self.random.integers(3)))
        if self.reset_due[env]:  # A row that is no transition, full of what must not be stored.
            self.reset_due[env] = False
            return Move(self._new(), action, 1e6, self.now[env], True, True), False
        fate = self.random.random()
        move = Move(self.now[env], action, self.random.normal(), self._new(), fate < 0.15, 0.1 < fate < 0.3)
        self.episodes[env][-1].append(move)
        self.now[env] = move.successor
        if move.terminated or move.truncated:
            self.episodes[env].append([])
            self.now[env] = self._new()
            self.reset_due[env] = self.resets and self.random.random() < 0.7
        return move, True

    def cut(self) -> None:
        for env, episodes in enumerate(self.episodes):
            if episodes[-1]:
                episodes[-1][-1].truncated = True
                episodes.append([])
                self.now[env] = self._new()

    def retained(self, env: int, rows: int) -> list[tuple[list[Move], int]]:
        """The (episode, index) of the starts in the last `rows` rows: L + 1 rows an episode."""
        all_rows: list[tuple[list[Move], int] | None] = []
        for episode in self.episodes[env]:
            if episode:
                all_rows += [(episode, index) for index in range(len(episode))]
                all_rows.append(None)
        return [row for row in all_rows[-rows:] if row]

    def expected(self, rows: int, n: int) -> dict[int, tuple]:
        """What replay must hold: observation → (env, action, R, discount, successor)."""
        found = {}
        for env in range(len(self.episodes)):
            for episode, index in self.retained(env, rows):
                if answer := n_step_by_hand(episode, index, n):
                    found[episode[index].observation] = (env, *answer)
        return found


def n_step_by_hand(episode: list[Move], index: int, n: int) -> tuple | None:
    total, discount = 0.0, 1.0
    for move in episode[index : index + n]:
        total += discount * move.reward
        discount *= GAMMA
        if move.terminated:
            return episode[index].action, total, 0.0, move.successor
        if move.truncated:
            return episode[index].action, total, discount, move.successor
    if index + n > len(episode):
        return None  # Not complete yet.
    return episode[index].action, total, discount, episode[index + n - 1].successor


def check_ring(ring: replay.Ring, world: World, n: int) -> None:
    """The ring and the oracle have the same starts, each exactly one time."""
    window, successor = jax.tree.map(np.asarray, view_all(ring, n))
    kind, action = np.asarray(ring.kind), np.asarray(ring.action)
    usable = np.flatnonzero(window.complete)
    assert np.all(kind[usable] != NOTHING)
    expected = world.expected(ring.rows, n)
    observation = np.asarray(ring.observation)[usable]
    assert sorted(observation[:, 0].astype(int).tolist()) == sorted(expected)
    np.testing.assert_array_equal(observation[:, 1], -observation[:, 0])
    for slot, start in zip(usable, observation[:, 0].astype(int), strict=True):
        env, chosen, total, discount, last = expected[start]
        assert slot // ring.rows == env
        assert tuple(action[slot]) == chosen
        np.testing.assert_allclose(window.reward[slot], total, atol=1e-5)
        np.testing.assert_allclose(window.discount[slot], discount, rtol=1e-5)
        np.testing.assert_array_equal(successor[slot], [last, -last])


def check_batch(ring: replay.Ring, world: World, n: int, batch, slots, weights) -> None:
    expected = world.expected(ring.rows, n)
    batch = jax.tree.map(np.asarray, batch)
    for row, start in enumerate(batch.observation[:, 0].astype(int)):
        env, chosen, total, discount, last = expected[start]
        assert slots[row] // ring.rows == env
        assert tuple(batch.action[row]) == chosen
        np.testing.assert_allclose(batch.reward[row], total, atol=1e-5)
        np.testing.assert_allclose(batch.discount[row], discount, rtol=1e-5)
        np.testing.assert_array_equal(batch.successor[row], [last, -last])
    assert np.all((weights > 0) & (weights <= 1))


def empty(num_envs: int, rows: int) -> replay.Ring:
    return replay.Ring.empty(num_envs, rows, (2,), "float32", Actions((2, 2)))


@pytest.mark.parametrize(("rows", "resets"), [(7, True), (16, False)])
@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("num_envs", [1, 7])
def test_every_stored_start_is_the_oracles(num_envs: int, n: int, rows: int, resets: bool):
    world, ring = World(num_envs, seed=rows + n, resets=resets), empty(num_envs, rows)
    for step in range(60):
        ring, _, _ = store(ring, world.step())
        if step % (1 if num_envs == 1 else 4) == 0:
            check_ring(ring, world, n)
    assert np.all(np.asarray(ring.filled) == rows), "the test must wrap around"


@pytest.mark.parametrize("num_envs", [1, 7])
def test_cut_ends_open_episodes_as_truncated(num_envs: int):
    world, ring = World(num_envs, seed=5, resets=True), empty(num_envs, 11)
    ring = cut(ring)
    assert int(ring.filled.sum()) == 0, "there is nothing to cut in an empty ring"
    for step in range(60):
        ring, _, _ = store(ring, world.step())
        if step % 7 == 3:
            world.cut()
            ring = cut(ring)
            again = cut(ring)
            np.testing.assert_array_equal(again.cursor, ring.cursor)
            np.testing.assert_array_equal(again.kind, ring.kind)
            assert not np.any(ring.kind[ring._slots(ring.cursor - 1)] == CONTINUES)
        check_ring(ring, world, 3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize(("num_envs", "n"), [(1, 1), (1, 3), (7, 3), (7, 5)])
def test_every_drawn_transition_is_the_oracles(num_envs: int, n: int, sampler: Sampler):
    world, ring = World(num_envs, seed=n, resets=True), empty(num_envs, 13)
    state = sampler.init(ring.size)
    for step in range(50):
        ring, slots, starts = store(ring, world.step())
        state = store_priority(sampler, state, slots, starts)
        if len(world.expected(13, n)) < 3 or step % 6:
            continue
        batch, slots, weights = sample(ring, sampler, state, jax.random.key(step), 40, n)
        check_batch(ring, world, n, batch, np.asarray(slots), np.asarray(weights))
        errors = jnp.asarray(world.random.normal(size=40), jnp.float32)
        state = update_priority(sampler, state, slots, errors)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
@pytest.mark.parametrize("n", [1, 3])
def test_draws_keep_the_samplers_proportions_of_complete_starts(n: int, sampler: Sampler):
    """Starts that are not complete are the newest, with the largest priority: a redraw must be free
    to leave them for any other start, and to favour none."""
    world, ring = World(4, seed=2, resets=True), empty(4, 12)
    state = sampler.init(ring.size)
    for _ in range(40):
        ring, slots, starts = store(ring, world.step())
        state = store_priority(sampler, state, slots, starts)
    if isinstance(sampler, Prioritised):
        complete = view_all(ring, n)[0].complete
        sizes = jnp.asarray(world.random.uniform(0.5, 2, ring.size), jnp.float32)
        old = jnp.where(complete, jnp.arange(ring.size), ring.size)
        state = update_priority(sampler, state, old, sizes)
        newest = jnp.where(~complete & (ring.kind != NOTHING), jnp.arange(ring.size), ring.size)
        state = update_priority(sampler, state, newest, jnp.full(ring.size, 20.0))
    keys = jax.random.split(jax.random.key(0), 1000)

    @quick_jit
    def draw(keys: jax.Array) -> tuple:
        return jax.lax.map(lambda key: draw_batch(ring, sampler, state, key, 16, n), keys)

    _, slots, weights = draw(keys)

    usable = np.asarray(view_all(ring, n)[0].complete)
    assert np.all(np.asarray(slots) < ring.size), "a usable start exists, so every draw has one"
    assert np.all(np.asarray(weights) > 0)
    counts = np.bincount(np.asarray(slots).ravel(), minlength=ring.size)
    assert counts[~usable].sum() == 0, "an incomplete start was drawn"
    share = np.asarray(state[0].leaves)[usable] if state else np.ones(usable.sum())
    share = share.astype(np.float64) / share.sum(dtype=np.float64)
    assert stats.chisquare(counts[usable], share * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_ring_without_a_complete_start_gives_weight_0_and_no_slot(sampler: Sampler):
    world, ring = World(1, seed=1, resets=False), empty(1, 8)
    state = sampler.init(ring.size)
    for steps in range(2):
        _, slots, weights = sample(ring, sampler, state, jax.random.key(steps), 4, 5)
        np.testing.assert_array_equal(weights, np.zeros(4))
        np.testing.assert_array_equal(slots, np.full(4, ring.size))
        step = world.step()
        step = dataclasses.replace(step, terminated=jnp.zeros(1, bool), truncated=jnp.zeros(1, bool))
        ring, written, starts = store(ring, step)
        state = store_priority(sampler, state, written, starts)


@pytest.mark.parametrize(("terminated", "discount"), [(True, 0.0), (False, GAMMA**2)])
def test_a_time_limit_keeps_the_discount_and_the_true_last_observation(terminated: bool, discount: float):
    ring = empty(1, 8)
    for index in range(3):
        ends = index == 1
        step = replay.Step(
            observation=jnp.full((1, 2), 10.0 * (index + 1)),
            action=jnp.zeros((1, 2), jnp.int32),
            reward=jnp.ones(1),
            successor=jnp.full((1, 2), 10.0 * (index + 2) + 1),
            terminated=jnp.array([ends and terminated]),
            truncated=jnp.array([ends and not terminated]),
            real=jnp.ones(1, bool),
        )
        ring, _, _ = store(ring, step)
    window, successor = view_all(ring, 5)
    np.testing.assert_array_equal(np.asarray(window.complete)[:5], [1, 1, 0, 0, 0])
    np.testing.assert_allclose(window.reward[0], 1 + GAMMA, rtol=1e-6)
    np.testing.assert_allclose(window.discount[0], discount, rtol=1e-6)
    np.testing.assert_array_equal(successor[0], [31.0, 31.0])


def test_rows_that_are_not_real_are_not_stored():
    world, ring = World(3, seed=0, resets=False), empty(3, 9)
    for _ in range(12):
        ring, _, _ = store(ring, world.step())
    step = dataclasses.replace(world.step(), real=jnp.zeros(3, bool))
    after, slots, _ = store(ring, step)
    for before_leaf, after_leaf in zip(jax.tree.leaves(ring), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(before_leaf, after_leaf)
    assert np.all(np.asarray(slots) == ring.size)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_observations_keep_their_dtype_in_replay(dtype: str):
    assert replay.Ring.empty(2, 5, (3, 3), dtype, Actions((2,))).observation.dtype == jnp.dtype(dtype)


def cut_by_hand(episode: list[Move], index: int, n: int, greedy: set[int]) -> tuple:
    """A step that is not stored yet is not greedy: the return ends before it."""
    total, discount = 0.0, 1.0
    for at in range(index, min(index + n, len(episode))):
        move = episode[at]
        if at > index and move.observation not in greedy:
            return total, discount, move.observation
        total += discount * move.reward
        discount *= GAMMA
        if move.terminated or move.truncated:
            return total, 0.0 if move.terminated else discount, move.successor
    return total, discount, episode[min(index + n, len(episode)) - 1].successor


def test_a_return_is_cut_before_the_first_later_action_that_is_not_greedy() -> None:
    """Rewards after an exploratory action belong to no greedy policy: summed, they bias the value."""
    world, n = World(2, seed=5, resets=True), 4
    ring = replay.Ring.empty(2, 128, (2,), "float32", Actions((5, 3)), marks_greedy=True)
    for _ in range(80):
        marked = dataclasses.replace(ring, greedy=jnp.ones(ring.size, bool))
        ring, slots, starts = store(marked, world.step())
        written = np.asarray(slots)[np.asarray(starts)]
        assert not np.asarray(ring.greedy)[written[written < ring.size]].any(), "not before a look at it"
    ring = dataclasses.replace(ring, greedy=jnp.zeros(ring.size, bool))
    stored = np.flatnonzero(np.asarray(ring.kind) != NOTHING)
    marks = np.random.default_rng(1).random(stored.size) < 0.7
    ring = replay.mark(ring, jnp.asarray([*stored, ring.size]), jnp.asarray([*marks, True]))
    observation = np.asarray(ring.observation)[:, 0].astype(int)
    greedy = {int(observation[slot]) for slot, mark in zip(stored, marks, strict=True) if mark}
    window, successor = jax.tree.map(np.asarray, view_all(ring, n))
    by_start = {m.observation: (e, i) for env in world.episodes for e in env for i, m in enumerate(e)}
    lengths = set()
    for slot in stored:
        episode, index = by_start[int(observation[slot])]
        total, discount, last = cut_by_hand(episode, index, n, greedy)
        assert window.complete[slot]
        np.testing.assert_allclose(window.reward[slot], total, atol=1e-5)
        np.testing.assert_allclose(window.discount[slot], discount, rtol=1e-5)
        np.testing.assert_array_equal(successor[slot], [last, -last])
        lengths.add(int(window.length[slot]))
    assert lengths == {1, 2, 3, 4}
