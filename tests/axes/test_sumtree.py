"""Protects prioritised replay from a wrong sum-tree.

Other projects shipped trees that fail when the capacity is no power of two, that draw items of priority
zero, or whose root drifts away from the sum of its leaves.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from qhat.axes.sumtree import SumTree

AROUND_POWERS = {2**k + d for k in (6, 7, 8, 10, 12) for d in (-1, 0, 1)}
CAPACITIES = sorted({*range(1, 34), 100, 1000, *AROUND_POWERS})
EDGES = np.array([0.0, np.nextafter(np.float32(1), np.float32(0))], np.float32)

# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@quick_jit
def set_then_draw(
    tree: SumTree, slots: jax.Array, priorities: jax.Array, fractions: jax.Array
) -> tuple[SumTree, tuple[jax.Array, jax.Array, jax.Array]]:
    tree = tree.set(slots, priorities)
    return tree, tree.draw(fractions)


set_ = quick_jit(SumTree.set)


def naive_search(priorities: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The first slot whose cumulative priority exceeds the point."""
    return np.searchsorted(np.cumsum(priorities, dtype=np.float64), points, side="right")


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_random_sets_and_draws_agree_with_a_naive_search(capacity: int):
    random = np.random.default_rng(capacity)
    tree, oracle = SumTree(capacity), np.zeros(capacity, np.float32)
    for round_ in range(3):
        # Duplicates and slots outside [0, capacity) are both likely.
        slots = random.integers(-capacity - 1, 2 * capacity + 2, 64).astype(np.int32)
        priorities = random.uniform(0, 10, 64).astype(np.float32)
        priorities[random.random(64) < 0.3] = 0.0
        if round_ == 0:
            slots[0], priorities[0] = capacity - 1, 1.0
        fractions = random.uniform(0, 1, 256).astype(np.float32)
        fractions[:2] = EDGES
        tree, (drawn, priority, total) = set_then_draw(tree, slots, priorities, fractions)

        leaves, drawn = np.asarray(tree.leaves), np.asarray(drawn)
        untouched = np.setdiff1d(np.arange(capacity), slots)
        np.testing.assert_array_equal(leaves[untouched], oracle[untouched])
        for slot in set(slots[(slots >= 0) & (slots < capacity)].tolist()):
            assert leaves[slot] in priorities[slots == slot]
        oracle = leaves.copy()
        exact = oracle.sum(dtype=np.float64)
        np.testing.assert_allclose(total, exact, rtol=1e-6)
        if exact == 0:
            continue

        assert np.all((drawn >= 0) & (drawn < capacity))
        assert np.all(oracle[drawn] > 0)
        np.testing.assert_array_equal(priority, oracle[drawn])
        points = fractions.astype(np.float64) * exact
        ends = np.cumsum(oracle, dtype=np.float64)
        tie = 2e-6 * exact
        different = drawn != naive_search(oracle, points)
        near = (points >= ends[drawn] - oracle[drawn] - tie) & (points <= ends[drawn] + tie)
        assert np.all(near), "a draw is not where the cumulative search puts it"
        assert different.mean() < 0.1, "more than float near-ties differ"


@pytest.mark.parametrize("capacity", [1, 16, 17, 100, 257, 4097])
def test_draws_are_exact_for_whole_priorities(capacity: int):
    random = np.random.default_rng(capacity)
    priorities = random.integers(0, 5, capacity).astype(np.float32)
    priorities[random.integers(capacity)] = 3.0
    total = int(priorities.sum())
    middles = (random.integers(0, total, 512) + 0.5).astype(np.float64)
    _, (drawn, _, _) = set_then_draw(
        SumTree(capacity), np.arange(capacity), priorities, (middles / total).astype(np.float32)
    )
    np.testing.assert_array_equal(drawn, naive_search(priorities, middles))


@pytest.mark.parametrize("capacity", [7, 100, 1000])
def test_draws_follow_the_priorities(capacity: int):
    random = np.random.default_rng(0)
    priorities = random.uniform(0.2, 2, capacity).astype(np.float32)
    priorities[::3] = 0.0
    fractions = random.random(100_000, np.float32)
    _, (drawn, _, _) = set_then_draw(SumTree(capacity), np.arange(capacity), priorities, fractions)
    counts = np.bincount(np.asarray(drawn), minlength=capacity)
    alive = priorities > 0
    assert counts[~alive].sum() == 0
    share = priorities[alive].astype(np.float64)
    assert stats.chisquare(counts[alive], share / share.sum() * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize("capacity", [1, 16, 17, 300, 4097])
@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 1e6])
def test_a_lone_priority_is_always_drawn(capacity: int, magnitude: float):
    fractions = np.concatenate([EDGES, np.linspace(0, 0.999, 14, dtype=np.float32)])
    for alone in {0, capacity // 2, capacity - 1}:
        priorities = np.zeros(capacity, np.float32)
        priorities[alone] = magnitude
        _, (drawn, priority, _) = set_then_draw(
            SumTree(capacity), np.arange(capacity), priorities, fractions
        )
        assert set(np.asarray(drawn).tolist()) == {alone}
        np.testing.assert_array_equal(priority, np.float32(magnitude))


def test_zero_priority_is_never_drawn_at_the_edges():
    capacity = 1000
    random = np.random.default_rng(1)
    for _ in range(20):
        priorities = (10.0 ** random.uniform(-6, 6, capacity)).astype(np.float32)
        priorities[random.random(capacity) < 0.9] = 0.0
        priorities[[0, -1]] = 0.0
        ends = np.cumsum(priorities, dtype=np.float64) / priorities.sum(dtype=np.float64)
        # Boundaries between slots, and their neighbours: where rounding may go wrong.
        ends = np.minimum(ends.astype(np.float32), EDGES[1])
        fractions = np.concatenate([EDGES, ends, np.nextafter(ends, np.float32(0))])
        _, (drawn, _, _) = set_then_draw(SumTree(capacity), np.arange(capacity), priorities, fractions)
        assert np.all(priorities[np.asarray(drawn)] > 0)


def test_slots_out_of_range_change_nothing():
    tree = set_(SumTree(20), jnp.arange(20), jnp.ones(20))
    after = set_(tree, jnp.array([-1, -20, 20, 31, 32, 10**9]), jnp.full(6, 9.0))
    for before_level, after_level in zip(tree.levels, after.levels, strict=True):
        np.testing.assert_array_equal(before_level, after_level)


def test_the_root_does_not_drift_in_a_million_updates():
    capacity, batch, rounds = 1000, 500, 2000

    @jax.jit
    def churn(key: jax.Array) -> SumTree:
        def body(index: jax.Array, tree: SumTree) -> SumTree:
            slot_key, size_key = jax.random.split(jax.random.fold_in(key, index))
            slots = jax.random.randint(slot_key, (batch,), 0, capacity)
            # Twelve orders of magnitude: what makes a running difference drift.
            return tree.set(slots, 10.0 ** jax.random.uniform(size_key, (batch,), minval=-6, maxval=6))

        tree = jax.lax.fori_loop(0, rounds, body, SumTree(capacity))
        return tree.set(jnp.arange(capacity), jnp.where(jnp.arange(capacity) < 990, 1e-3, tree.leaves))

    tree = churn(jax.random.key(0))
    exact = np.asarray(tree.leaves).sum(dtype=np.float64)
    np.testing.assert_allclose(tree.total(), exact, rtol=1e-6)
    for lower, upper in zip(tree.levels[:-1], tree.levels[1:], strict=True):
        sums = np.asarray(lower, np.float64).reshape(-1, 16).sum(axis=1)
        np.testing.assert_allclose(upper[: sums.size], sums, rtol=1e-6)
    emptied = set_(tree, jnp.arange(capacity), jnp.zeros(capacity))
    assert emptied.total() == 0.0
