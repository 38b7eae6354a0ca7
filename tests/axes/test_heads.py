"""Protects the ways to represent a return: projections, losses, supports, backups.

Other projects lost mass if a value falls on an atom, took the mean over the wrong axis, moved atoms
under the optimiser and drew an evaluation's quantiles at random. The oracles are rlax and plain NumPy.
"""

import functools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat.axes.bonus import Munchausen
from qhat.axes.heads import HEADS, Categorical, Expected, Head, HLGauss, Implicit, Quantile
from qhat.axes.heads import support as supports
from qhat.axes.heads.categorical import gaussian, project
from qhat.axes.heads.outlook import Outlook
from qhat.axes.heads.quantile import midpoints, quantile_huber
from qhat.axes.policy import Greedy, Softmax
from qhat.system.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Its dependencies use deprecated names.
    import rlax

CASES = 40
"""Examples that hypothesis makes; each holds `ROWS` cases."""
ROWS = 256
K, M = 11, 7


def rows(*shape: int, limit: float = 30.0) -> st.SearchStrategy[np.ndarray]:
    """Many rows of one kind: whole numbers (which fall on atoms), small ones, or any."""

    def draw(seed: int, kind: int) -> np.ndarray:
        values = np.random.default_rng(seed).uniform(-limit, limit, (ROWS, *shape))
        values = np.stack([np.round(values), values * 1e-2, values])[kind]
        return values.astype(np.float32)

    return st.builds(draw, st.integers(0, 2**32 - 1), st.integers(0, 2))


def shares(raw: np.ndarray) -> np.ndarray:
    """Turn any numbers into probabilities along the last axis."""
    raw = np.abs(raw) + 0.01
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)


def atoms(low: float = -5.0, high: float = 5.0, count: int = K) -> supports.Atoms:
    return supports.atoms_of(supports.fixed(low, high, count), count)


def naive_projection(values: np.ndarray, weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Algorithm 1 of the C51 paper, item by item."""
    out, spacing = np.zeros(len(z)), z[1] - z[0]
    for value, weight in zip(values, weights, strict=True):
        b = (min(max(value, z[0]), z[-1]) - z[0]) / spacing
        lower = min(math.floor(b), len(z) - 1)
        upper = min(lower + 1, len(z) - 1)
        out[lower] += weight * (1 - (b - lower))
        out[upper] += weight * (b - lower)
    return out


# Each is one function, which is compiled for the first case and used for all.
projected = jax.jit(jax.vmap(project, in_axes=(0, 0, None)))
projected_by_rlax = jax.jit(jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None)))


@functools.partial(jax.jit, static_argnums=2)
def quantile_losses(predictions: Any, targets: Any, kappa: float) -> tuple[Any, Any]:
    """Ours and rlax's."""
    fractions = midpoints(K)
    return jax.vmap(lambda p, t: quantile_huber(p, fractions, t, kappa))(predictions, targets), jax.vmap(
        lambda p, t: rlax.quantile_regression_loss(p, fractions, t, kappa)
    )(predictions, targets)


@functools.partial(jax.jit, static_argnums=2)
def histograms(values: Any, weights: Any, sigma: float) -> Any:
    return jax.vmap(lambda value, weight: gaussian(value, weight, atoms(), sigma))(values, weights)


@settings(max_examples=CASES, deadline=None)
@given(rows(M), rows(M))
def test_the_projection_is_rlaxs_and_the_papers(values: np.ndarray, raw: np.ndarray):
    weights, z = shares(raw), np.linspace(-5, 5, K).astype(np.float32)
    ours = np.asarray(projected(values, weights, atoms()))
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-6)
    ordered = np.sort(values, axis=1)
    theirs = projected_by_rlax(ordered, weights, z)
    again = projected(ordered, weights, atoms())
    np.testing.assert_allclose(again, theirs, atol=2e-5)
    for row in range(0, ROWS, 32):
        np.testing.assert_allclose(ours[row], naive_projection(values[row], weights[row], z), atol=2e-6)


@settings(max_examples=CASES, deadline=None)
@given(rows(M, limit=5.0), rows(M))
def test_nothing_clipped_keeps_the_mean(values: np.ndarray, raw: np.ndarray):
    weights = shares(raw)
    ours = projected(values, weights, atoms())
    mean = np.asarray(ours) @ np.linspace(-5, 5, K)
    np.testing.assert_allclose(mean, (weights * values).sum(axis=1), atol=2e-5)


@pytest.mark.parametrize("index", range(K))
def test_a_value_on_an_atom_is_that_atom(index: int):
    exactly = project(jnp.array([-5.0 + index]), jnp.ones(1), atoms())
    np.testing.assert_array_equal(np.asarray(exactly), np.eye(K)[index])


def test_mass_beyond_the_support_counts_as_the_outermost_atom_and_is_reported():
    values, weights = jnp.array([-9.0, 0.0, 7.0]), jnp.array([0.2, 0.5, 0.3])
    goal = project(values, weights, atoms())
    assert np.asarray(goal)[[0, 5, 10]] == pytest.approx([0.2, 0.5, 0.3])
    overflow = Categorical().overflow((values, weights), atoms())
    assert np.asarray(overflow) == pytest.approx([0.2, 0.3])


def test_a_gaussians_tails_are_what_it_has_beyond_the_last_cells():
    overflow = HLGauss(sigma=2.0).overflow((jnp.array([5.5]), jnp.ones(1)), atoms())
    assert np.asarray(overflow) == pytest.approx([0.0, 0.5], abs=1e-6)
    overflow = HLGauss(sigma=2.0).overflow((jnp.array([-3.5]), jnp.ones(1)), atoms())
    assert np.asarray(overflow) == pytest.approx([0.1586553, 0.0], abs=1e-5)


@settings(max_examples=CASES, deadline=None)
@given(rows(K), rows(M), st.sampled_from([0.0, 1.0, 2.5]))
def test_the_quantile_loss_is_rlaxs(prediction: np.ndarray, target: np.ndarray, kappa: float):
    ours, theirs = quantile_losses(prediction, target, kappa)
    # rlax leaves out the paper's division by κ.
    np.testing.assert_allclose(ours, theirs / (kappa or 1.0), rtol=2e-4, atol=1e-3)


@settings(max_examples=CASES, deadline=None)
@given(rows(M, limit=4.0), rows(M), st.sampled_from([0.3, 0.75, 1.5]))
def test_the_gaussian_histogram_is_the_integral(values: np.ndarray, raw: np.ndarray, sigma: float):
    weights = shares(raw)
    ours = np.asarray(histograms(values, weights, sigma))
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-5)
    edges = np.arange(K + 1) - 5.5
    for row in range(0, ROWS, 32):
        naive = np.zeros(K)
        for value, weight in zip(values[row].astype(float), weights[row], strict=True):
            cdf = np.array([0.5 * (1 + math.erf((e - value) / (sigma * math.sqrt(2)))) for e in edges])
            naive += weight * np.diff(cdf) / (cdf[-1] - cdf[0])
        np.testing.assert_allclose(ours[row], naive, atol=2e-5)


def test_a_gaussian_in_the_middle_keeps_its_mean():
    values = jnp.linspace(-1.0, 1.0, 41)[:, None]
    mass = histograms(values, jnp.ones((41, 1)), 0.75)
    np.testing.assert_allclose(np.asarray(mass) @ np.arange(-5, 6), values[:, 0], atol=2e-3)


def basis_of(head: Head) -> Any:
    return head.basis(head.init_support(), head.fixed_fractions())


def width_of(head: Head) -> int:
    fractions = head.fixed_fractions()
    return head.outputs if fractions is None else fractions.size


SMALL: tuple[Head, ...] = (
    Expected(),
    Categorical(atoms=31, v_min=-20.0, v_max=20.0),
    Quantile(quantiles=8),
    Implicit(),
    HLGauss(atoms=61, v_min=-20.0, v_max=20.0),
)


def target_mean(goal: Any) -> float:
    if not isinstance(goal, tuple):
        return float(goal)
    values, weights = goal
    return float(jnp.mean(values) if weights is None else jnp.sum(values * weights))


def test_every_head_is_looked_at_here():
    assert {type(head) for head in SMALL} == set(HEADS)


@pytest.mark.parametrize("head", SMALL, ids=lambda head: head.name)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("factors", [1, 3])
def test_the_targets_mean_is_the_equation(head: Head, soft: bool, factors: int):
    """G = r + d · mean_f Σ_a π_f(a)·[Q̄_f(a) − τF·log π_f(a)], for every head."""
    z = jax.random.normal(jax.random.key(3), (factors, 4, width_of(head)))
    basis = basis_of(head)
    q = head.mean(z, basis)
    if soft:
        policy = Softmax(tau=0.5)
        log_pi = np.log(jax.nn.softmax(q / (0.5 * factors), axis=1))
        value = np.mean(np.sum(np.exp(log_pi) * (q - 0.5 * factors * log_pi), axis=1))
    else:
        policy = Greedy()
        value = np.mean(np.max(q, axis=1))
    goal = head.backup(jnp.float32(0.7), jnp.float32(0.9), z, *policy.probabilities(q, q), basis, policy)
    assert target_mean(goal) == pytest.approx(float(0.7 + 0.9 * value), abs=1e-4)


@pytest.mark.parametrize("head", SMALL, ids=lambda head: head.name)
@pytest.mark.parametrize("factors", [1, 3])
def test_the_predictions_mean_is_the_mean_over_factors(head: Head, factors: int):
    z = jax.random.normal(jax.random.key(4), (factors, 4, width_of(head)))
    action = jnp.arange(factors) % 4
    basis = basis_of(head)
    predicted = head.predict(z, action, basis)
    if isinstance(head, Categorical | HLGauss):
        predicted = jnp.sum(jnp.exp(predicted) * basis.values)
    expected = head.mean(z, basis)[jnp.arange(factors), action].mean()
    assert float(jnp.mean(predicted)) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("head", SMALL, ids=lambda head: head.name)
def test_a_loss_is_least_where_prediction_and_target_agree(head: Head):
    """Gradient descent on z alone brings the mean to a fixed scalar target."""
    basis, one = basis_of(head), jnp.ones((1, 1))
    other = jnp.full((1, 1, width_of(head)), 0.0)
    goal = head.backup(jnp.float32(3.0), jnp.float32(0.0), other, one, jnp.zeros((1, 1)), basis, Greedy())

    def loss(z: jax.Array) -> jax.Array:
        return head.loss(head.predict(z, jnp.zeros(1, jnp.int32), basis), goal, basis)[0]

    @jax.jit
    def descend(z: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 3_000, lambda _, z: z - 0.5 * jax.grad(loss)(z), z)

    z = descend(jax.random.normal(jax.random.key(0), other.shape))
    assert float(head.mean(z, basis)[0, 0]) == pytest.approx(3.0, abs=0.15)


def test_the_priority_of_a_categorical_head_is_the_divergence():
    head, basis = Categorical(atoms=K, v_min=-5.0, v_max=5.0), atoms()
    p = jax.nn.log_softmax(jnp.arange(K) * 0.3)
    same = (basis.values, jnp.exp(p))
    assert float(head.loss(p, same, basis)[1]) == pytest.approx(0.0, abs=1e-5)
    other = (basis.values, jnp.exp(p)[::-1])
    assert float(head.loss(p, other, basis)[1]) == pytest.approx(
        float(jnp.sum(other[1] * (jnp.log(other[1]) - p))), abs=1e-5
    )


def test_munchausen_is_the_papers():
    """α·[τ·log π̄(a|s)] clipped at l₀, for one factor as in eq. 2."""
    q, tau = jnp.array([[1.0, 1.05, 0.2]]), 0.03
    log_pi = np.log(jax.nn.softmax(q[0] / tau))
    for action in range(3):
        expected = 0.9 * np.clip(tau * log_pi[action], -0.5, 0.0)
        bonus = Munchausen(alpha=0.9, tau=tau, floor=-0.5).value(q, jnp.array([action]))
        assert float(bonus) == pytest.approx(float(expected), abs=1e-5)


def test_an_illegal_choice_has_no_part_in_a_soft_backup():
    q = jnp.array([[1.0, -jnp.inf, 2.0]])
    policy, entropy = Softmax(tau=0.5).probabilities(q, q)
    assert float(policy[0, 1]) == 0.0
    assert bool(jnp.isfinite(policy * entropy).all())
    alone, _ = Softmax(tau=0.5).probabilities(q[:, [0, 2]], q[:, [0, 2]])
    np.testing.assert_allclose(policy[0, jnp.array([0, 2])], alone[0], rtol=1e-6)


def outlook_of(low: float, high: float, rewards: tuple[float, float], gamma: float) -> Outlook:
    return Outlook(jnp.zeros(1), jnp.array([low, high]), jnp.array(rewards), gamma)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-1e4, 0, width=32), st.floats(0, 1e4, width=32), st.floats(0.5, 0.999),
    st.sampled_from([2, 3, 51, 201]),  # Few sizes: each is compiled.
)  # fmt: skip
def test_a_calibrated_support_covers_the_returns(low: float, high: float, gamma: float, count: int):
    support = supports.calibrate(outlook_of(low, high, (low, high), gamma), count)
    found = supports.atoms_of(support, count)
    spacing = float(found.spacing)
    assert spacing > 0
    assert np.isfinite(np.asarray(found.values)).all()
    assert bool(found.active.any())
    slack = 1e-3 * (high - low) + 1e-6
    assert float(found.values[0]) <= low + slack
    assert float(found.values[-1]) >= high - slack
    assert float(found.low) <= low + spacing + slack
    assert float(found.high) >= high - spacing - slack


def test_a_support_widens_and_moves_no_atom():
    support = supports.calibrate(outlook_of(0.0, 10.0, (0.0, 1.0), 0.99), 51)
    before = supports.atoms_of(support, 51)
    assert not bool(before.active.all()), "some atoms are in reserve"
    for _ in range(200):
        support = supports.widen(support, jnp.array([0.0, 0.5]), 51)
    after = supports.atoms_of(support, 51)
    np.testing.assert_array_equal(before.values, after.values)
    assert bool(after.active[-1])
    assert bool(after.active[0]) != (float(before.low) > 0)
    kept = supports.widen(support, jnp.array([0.0, 0.5]), 51)
    assert float(kept["high"]) == 50.0, "there is no atom beyond the last"


def test_the_outlook_is_the_discounted_sum_that_looks_back():
    outlook = Outlook.empty(2, 0.9)
    rewards = np.array([[1, 0], [1, -2], [1, 0], [5, 0]], np.float32)
    ended = np.array([[0, 0], [0, 0], [1, 0], [0, 0]], bool)
    real = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], bool)
    for row in range(4):
        outlook = outlook.see(jnp.asarray(rewards[row]), jnp.asarray(ended[row]), jnp.asarray(real[row]))
    assert np.asarray(outlook.returns) == pytest.approx([-2.0, 5.0])
    assert np.asarray(outlook.rewards) == pytest.approx([-2.0, 5.0])
    assert np.asarray(outlook.trace) == pytest.approx([5.0, -2 * 0.9])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (Categorical(v_min=1.0, v_max=1.0), "v_min < v_max"),
        (Categorical(v_min=1.0), "v_max"),
        (HLGauss(v_max=1.0), "v_min"),
        (Categorical(atoms=1), "2 or more"),
        (HLGauss(sigma=0.0), "more than 0"),
        (Quantile(quantiles=0), "≥ 1"),
        (Quantile(kappa=-1.0), "0 or more"),
        (Implicit(online=0), "≥ 1"),
        (Expected(delta=0.0), "more than 0"),
    ],
)
def test_bad_heads_are_refused_with_a_sentence(head: Head, words: str):
    with pytest.raises(UsageError, match=words):
        head.validate()
