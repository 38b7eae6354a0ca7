"""Protects the samplers' probabilities and weights.

Other projects shipped α applied twice, β that never anneals, weights that exceed 1, rounded priorities, and
new transitions that are never replayed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from qhat.axes.sampler import Prioritised, Sampler, Uniform

ROWS, ENVS = 10, 3
CAPACITY = ROWS * ENVS

# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def drawn_slots(sampler: Sampler, state, filled: jax.Array, batch: int, times: int) -> np.ndarray:
    @quick_jit
    def draw(keys: jax.Array) -> jax.Array:
        return jax.lax.map(lambda key: sampler.draw(state, key, batch, filled, ROWS)[0], keys)

    return np.asarray(draw(jax.random.split(jax.random.key(0), times))).ravel()


init = quick_jit(lambda sampler: sampler.init(CAPACITY), static_argnums=0)
store = quick_jit(lambda sampler, *rest: sampler.store(*rest), static_argnums=0)
update = quick_jit(lambda sampler, *rest: sampler.update(*rest), static_argnums=0)
weigh = quick_jit(lambda sampler, *rest: sampler.weights(*rest), static_argnums=0)


def prioritised_by(sampler: Prioritised, errors: np.ndarray):
    """The state of a full ring whose slots had these TD errors."""
    slots = jnp.arange(CAPACITY)
    state = store(sampler, init(sampler), slots, jnp.ones(CAPACITY, bool))
    return update(sampler, state, slots, jnp.asarray(errors, jnp.float32))


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, CAPACITY).astype(np.float32)


@pytest.mark.parametrize("filled", [(10, 10, 10), (10, 3, 7), (0, 4, 10), (1, 0, 0)])
def test_uniform_is_uniform_over_environments_with_unequal_rows(filled: tuple[int, ...]):
    slots = drawn_slots(Uniform(), (), jnp.array(filled), batch=50, times=2000)
    counts = np.bincount(slots, minlength=CAPACITY)
    used = np.concatenate([np.arange(ROWS) < rows for rows in filled])
    assert counts[~used].sum() == 0
    assert np.all(counts[used] > 0)
    assert used.sum() == 1 or stats.chisquare(counts[used]).pvalue > 1e-3


def test_uniform_on_one_environment_draws_only_rows_in_use():
    counts = np.bincount(drawn_slots(Uniform(), (), jnp.array([6]), 50, 1000), minlength=ROWS)
    assert counts[6:].sum() == 0
    assert stats.chisquare(counts[:6]).pvalue > 1e-3


def test_uniform_weights_are_ones():
    slots, relative = Uniform().draw((), jax.random.key(0), 8, jnp.array([5]), ROWS)
    np.testing.assert_array_equal(weigh(Uniform(), relative, jnp.int32(7)), np.ones(8))
    assert slots.shape == relative.shape == (8,)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.6, 1.0])
def test_alpha_is_applied_one_time(alpha: float, errors: np.ndarray):
    sampler = Prioritised(alpha=alpha)
    state = prioritised_by(sampler, errors)
    share = (np.abs(errors.astype(np.float64)) + sampler.epsilon) ** alpha
    share /= share.sum()

    filled = jnp.full(ENVS, ROWS)
    slots, relative = sampler.draw(state, jax.random.key(1), 64, filled, ROWS)
    np.testing.assert_allclose(relative, CAPACITY * share[np.asarray(slots)], rtol=1e-4)

    counts = np.bincount(drawn_slots(sampler, state, filled, 8, 20_000), minlength=CAPACITY)
    assert stats.chisquare(counts, share * counts.sum()).pvalue > 1e-3


def test_one_prioritised_draw_is_as_spread_as_a_free_one(errors: np.ndarray):
    sampler = Prioritised()
    state = prioritised_by(sampler, errors)
    share = (np.abs(errors.astype(np.float64)) + sampler.epsilon) ** sampler.alpha
    slots = drawn_slots(sampler, state, jnp.full(ENVS, ROWS), batch=1, times=50_000)
    counts = np.bincount(slots, minlength=CAPACITY)
    assert stats.chisquare(counts, share / share.sum() * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("step", "beta"), [(0, 0.4), (250, 0.55), (500, 0.7), (1000, 1.0), (5000, 1.0)])
def test_weights_are_the_papers_with_beta_annealed_to_1(step: int, beta: float):
    sampler = Prioritised(beta=0.4, steps=1000)
    relative = np.random.default_rng(step).uniform(0.01, 20, 32)
    expected = relative**-beta
    weights = weigh(sampler, jnp.asarray(relative, jnp.float32), jnp.int32(step))
    np.testing.assert_allclose(weights, expected / expected.max(), rtol=1e-4)
    assert np.max(weights) == 1.0
    assert np.min(weights) > 0.0


def test_without_annealing_steps_beta_is_1_from_the_start():
    relative = jnp.array([1.0, 2.0, 4.0])
    weights = weigh(Prioritised(beta=0.4, steps=0), relative, jnp.int32(0))
    np.testing.assert_allclose(weights, [1.0, 0.5, 0.25], rtol=1e-6)


def test_weights_times_probabilities_are_uniform_when_beta_is_1(errors: np.ndarray):
    sampler = Prioritised(beta=1.0)
    state = prioritised_by(sampler, errors)
    _, relative = sampler.draw(state, jax.random.key(2), 64, jnp.full(ENVS, ROWS), ROWS)
    product = np.asarray(relative * weigh(sampler, relative, jnp.int32(0)))
    np.testing.assert_allclose(product, product[0], rtol=1e-5)


def test_new_transitions_get_the_largest_priority_so_far():
    sampler = Prioritised(alpha=0.5)
    tree, _ = state = store(sampler, init(sampler), jnp.array([0, 1]), jnp.ones(2, bool))
    np.testing.assert_array_equal(tree.leaves[:3], [1.0, 1.0, 0.0])

    state = update(sampler, state, jnp.array([0, 1]), jnp.array([-9.0, 0.25]))
    tree, _ = state = store(sampler, state, jnp.array([2]), jnp.ones(1, bool))
    np.testing.assert_allclose(tree.leaves[:3], [3.0, 0.5, 3.0], rtol=1e-5)

    # The largest *seen*: also when its own slot has a smaller priority by now.
    state = update(sampler, state, jnp.array([0, 2]), jnp.array([0.0, 0.0]))
    tree, _ = store(sampler, state, jnp.array([3]), jnp.ones(1, bool))
    np.testing.assert_allclose(tree.leaves[3], 3.0, rtol=1e-5)


def test_no_start_and_no_slot_get_no_priority():
    sampler = Prioritised()
    slots, starts = jnp.array([4, 5, CAPACITY]), jnp.array([True, False, True])
    tree, largest = store(sampler, init(sampler), slots, starts)
    np.testing.assert_array_equal(np.flatnonzero(tree.leaves), [4])

    tree, largest = update(sampler, (tree, largest), jnp.array([4, CAPACITY]), jnp.array([0.5, 99.0]))
    assert largest == 1.0
    np.testing.assert_allclose(tree.total(), (0.5 + sampler.epsilon) ** sampler.alpha, rtol=1e-5)


def test_overwriting_a_start_by_no_start_takes_its_priority():
    sampler = Prioritised()
    slots = jnp.array([3])
    state = store(sampler, init(sampler), slots, jnp.array([True]))
    tree, _ = store(sampler, state, slots, jnp.array([False]))
    assert tree.total() == 0.0


def test_an_error_of_zero_can_still_be_drawn():
    sampler = Prioritised()
    state = prioritised_by(sampler, np.zeros(CAPACITY))
    counts = np.bincount(drawn_slots(sampler, state, jnp.full(ENVS, ROWS), 30, 200))
    assert np.all(counts > 0)
