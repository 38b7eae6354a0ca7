"""Every head backs up every policy: any probabilities, several factors, illegal and missing choices.

Protects against a head that takes the argmax of π, and so evaluates another policy than the given one.
The oracle is a list of weighted values, written in plain Python and NumPy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from log_cosh import LogCosh
from qhat.axes.axis import parse
from qhat.axes.heads import HEADS, Categorical, Expected, Head, HLGauss, Implicit, Quantile
from qhat.axes.policy import POLICIES, Double, ExpectedSarsa, Greedy, Policy, Softmax
from qhat.system.errors import UsageError

REWARD, DISCOUNT, CHOICES = 0.7, 0.9, 4


@dataclasses.dataclass(frozen=True)
class Fixed(Policy):
    """A policy from outside that declares nothing: some probabilities, and an entropy term or none."""

    name: ClassVar[str] = "fixed"
    uses_online: ClassVar[bool] = False

    share: float = 0.3
    entropy: float = 0.0

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        raw = jnp.where(target > -jnp.inf, self.share + jnp.arange(target.shape[1]), 0.0)
        return raw / jnp.sum(raw, axis=1, keepdims=True), jnp.full_like(target, self.entropy)


@dataclasses.dataclass(frozen=True)
class Mixed(Fixed):
    """The same, declared without an entropy term."""

    has_entropy: ClassVar[bool] = False


HEADS_HERE: tuple[Head, ...] = (
    Expected(),
    Categorical(atoms=21, v_min=-6.0, v_max=6.0),
    Quantile(quantiles=5),
    Quantile(quantiles=1, kappa=0.0),
    Implicit(policy=6),
    HLGauss(atoms=21, v_min=-6.0, v_max=6.0),
    LogCosh(),
)
POLICIES_HERE: tuple[Policy, ...] = (
    Greedy(), Double(), Softmax(tau=0.5), ExpectedSarsa(), ExpectedSarsa(epsilon=0.4),
    ExpectedSarsa(epsilon=1.0), Fixed(), Fixed(entropy=0.5), Mixed(),
)  # fmt: skip
LEGAL = {
    "one factor": np.ones((1, CHOICES), bool),
    "one factor with a mask": np.array([[True, False, True, True]]),
    "one legal choice": np.array([[False, False, True, False]]),
    "unequal factors": np.array([[True] * 4, [True, True, False, False], [False, True, True, False]]),
}


def spelled(part: Any) -> str:
    return f"{part.name}-{'-'.join(str(value) for value in dataclasses.astuple(part))}"


def test_every_head_and_policy_is_looked_at_here():
    assert {type(head) for head in HEADS_HERE} >= set(HEADS)
    assert {type(policy) for policy in POLICIES_HERE} >= set(POLICIES)


def naive_policy(policy: Policy, q: np.ndarray, online: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """π and the entropy term, choice by choice, where Q is −∞ for what is not legal."""
    F, C = q.shape
    pi, entropy = np.zeros((F, C)), np.zeros((F, C))
    for f in range(F):
        legal = [a for a in range(C) if q[f, a] > -np.inf]
        best = max(legal, key=lambda a: (online if policy.uses_online else q)[f, a])
        for a in legal:
            if isinstance(policy, Softmax):
                scale = policy.tau * F
                pi[f, a] = 1 / sum(math.exp((q[f, b] - q[f, a]) / scale) for b in legal)
                entropy[f, a] = -scale * math.log(pi[f, a])
            elif isinstance(policy, ExpectedSarsa):
                pi[f, a] = policy.epsilon / len(legal) + (1 - policy.epsilon) * (a == best)
            elif isinstance(policy, Fixed):
                pi[f, a] = (policy.share + a) / sum(policy.share + b for b in legal)
                entropy[f, a] = policy.entropy
            else:
                pi[f, a] = float(a == best)
    return pi, entropy


def atoms_of_choice(head: Head, z: np.ndarray, basis: Any) -> list[tuple[float, float]]:
    """The return of one choice of one factor, as values and their probabilities."""
    if isinstance(head, Categorical | HLGauss):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        both = list(zip(np.asarray(basis.values, float), p, strict=True))
        # HL-Gauss represents a number, the mean of its histogram.
        return both if isinstance(head, Categorical) else [(float(sum(v * w for v, w in both)), 1.0)]
    return [(float(value), 1 / len(z)) for value in z]


def quantile_function(atoms: list[tuple[float, float]], count: int) -> np.ndarray:
    """Return averages of the quantile function over `count` equal shares, from ten thousand points."""
    atoms = sorted(atoms)
    points = (np.arange(10_000 * count) + 0.5) / (10_000 * count)
    place = np.searchsorted(np.cumsum([weight for _, weight in atoms]), points)
    values = np.array([value for value, _ in atoms])[np.minimum(place, len(atoms) - 1)]
    return values.reshape(count, -1).mean(axis=1)


def naive_target(
    head: Head, policy: Policy, z: np.ndarray, pi: np.ndarray, entropy: np.ndarray, basis: Any
) -> list[tuple[float, float]]:
    """G as values and their probabilities."""
    F, C, K = z.shape

    def backed_up(value: float) -> float:
        return REWARD + DISCOUNT * value

    def mixture(f: int) -> list[tuple[float, float]]:
        choices = [(a, atoms_of_choice(head, z[f, a], basis)) for a in range(C) if pi[f, a] > 0]
        return [(value + entropy[f, a], pi[f, a] * w) for a, atoms in choices for value, w in atoms]

    mixtures = [mixture(f) for f in range(F)]
    if isinstance(head, Categorical | HLGauss):
        return [(backed_up(value), w / F) for value, w in itertools.chain(*mixtures)]
    if not isinstance(head, Quantile | Implicit):
        return [(backed_up(sum(v * w for v, w in itertools.chain(*mixtures)) / F), 1.0)]
    if policy.has_entropy or policy.is_deterministic:
        # M-IQN's: quantile functions are averaged over the choices too.
        averaged = np.einsum("fa,fak->fk", pi, z + entropy[..., None]).mean(axis=0)
        return [(backed_up(value), 1 / K) for value in averaged]
    if F == 1:
        return [(backed_up(value), w) for value, w in mixtures[0]]
    averaged = np.mean([quantile_function(atoms, K) for atoms in mixtures], axis=0)
    return [(backed_up(value), 1 / K) for value in averaged]


def pairs_of(goal: Any) -> list[tuple[float, float]]:
    """A target of any head, as values and their probabilities."""
    if not isinstance(goal, tuple):
        return [(float(goal), 1.0)]
    values, weights = goal
    weights = np.full(values.shape, 1 / values.size) if weights is None else weights
    return [(float(v), float(w)) for v, w in zip(values, weights, strict=True) if w > 0]


def distribution(pairs: list[tuple[float, float]]) -> np.ndarray:
    """Probability of each of the values, rounded: of the same values the probabilities are added."""
    found: dict[float, float] = {}
    for value, weight in pairs:
        place = next((known for known in found if abs(known - value) < 2e-4), value)
        found[place] = found.get(place, 0.0) + weight
    return np.array(sorted(found.items()))


@pytest.mark.parametrize("legal", LEGAL.values(), ids=LEGAL)
@pytest.mark.parametrize("policy", POLICIES_HERE, ids=spelled)
def test_every_head_backs_up_every_policy(policy: Policy, legal: np.ndarray):
    draw = np.random.default_rng(7)
    for head in HEADS_HERE:
        fractions = head.fixed_fractions()
        K = head.outputs if fractions is None else fractions.size
        basis = head.basis(head.init_support(), fractions)
        z = np.sort(draw.normal(size=(*legal.shape, K)), axis=-1).astype(np.float32)
        means = np.asarray(head.mean(jnp.asarray(z), basis))
        q = np.where(legal, means, -np.inf).astype(np.float32)
        online = np.where(legal, draw.normal(size=legal.shape), -np.inf).astype(np.float32)
        pi, entropy = (np.asarray(x) for x in policy.probabilities(jnp.asarray(q), jnp.asarray(online)))
        expected_pi, expected_entropy = naive_policy(policy, q, online)
        np.testing.assert_allclose(pi, expected_pi, atol=1e-6)
        assert (pi[~legal] == 0).all()
        assert np.isfinite(entropy).all()
        np.testing.assert_allclose(pi * entropy, expected_pi * expected_entropy, atol=1e-5)
        goal = head.backup(
            jnp.float32(REWARD), jnp.float32(DISCOUNT), jnp.asarray(z), jnp.asarray(pi),
            jnp.asarray(entropy), basis, policy,
        )  # fmt: skip
        found = pairs_of(goal)
        naive = naive_target(head, policy, z.astype(float), expected_pi, expected_entropy, basis)
        if isinstance(head, HLGauss) and policy.is_deterministic:
            assert len(found) == len(legal), "one Gaussian for every factor"
        mean = REWARD + DISCOUNT * np.mean(
            np.sum(expected_pi * (np.where(legal, means, 0) + expected_entropy), axis=1)
        )
        assert sum(v * w for v, w in found) == pytest.approx(mean, abs=1e-4), spelled(head)
        assert sum(w for _, w in found) == pytest.approx(1, abs=1e-5), spelled(head)
        np.testing.assert_allclose(
            distribution(found), distribution(naive), atol=2e-3, err_msg=spelled(head)
        )


@pytest.mark.parametrize("head", [Quantile(quantiles=5), Implicit(policy=5)], ids=spelled)
@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_the_quantile_loss_weighs_the_atoms_of_all_choices(head: Any, kappa: float):
    head = dataclasses.replace(head, kappa=kappa)
    draw = np.random.default_rng(1)
    z = draw.normal(size=(1, 3, 5)).astype(np.float32)
    pi = np.array([[0.2, 0.5, 0.3]], np.float32)
    fractions = (np.arange(5) + 0.5) / 5
    prediction = draw.normal(size=5).astype(np.float32)
    goal = head.backup(
        jnp.float32(REWARD), jnp.float32(DISCOUNT), jnp.asarray(z), jnp.asarray(pi), jnp.zeros((1, 3)),
        jnp.asarray(fractions), ExpectedSarsa(),
    )  # fmt: skip
    expected = 0.0
    for tau, theta in zip(fractions, prediction, strict=True):
        for a, k in itertools.product(range(3), range(5)):
            error = REWARD + DISCOUNT * float(z[0, a, k]) - float(theta)
            size = abs(error) if kappa == 0 or abs(error) > kappa else 0.5 * error**2 / kappa
            size -= 0.5 * kappa if kappa and abs(error) > kappa else 0.0
            expected += abs(tau - (error < 0)) * size * float(pi[0, a]) / 5
    loss = head.loss(jnp.asarray(prediction), goal, jnp.asarray(fractions, jnp.float32))[0]
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("head", HEADS_HERE, ids=spelled)
def test_expected_sarsa_without_exploration_is_greedy(head: Head):
    """The general path of a head and its short path for one choice learn the same."""
    fractions = head.fixed_fractions()
    K = head.outputs if fractions is None else fractions.size
    basis = head.basis(head.init_support(), fractions)
    z = jnp.sort(jax.random.normal(jax.random.key(5), (2, 3, K)), axis=-1)
    q, action = head.mean(z, basis), jnp.array([0, 2])
    losses = []
    for policy in (Greedy(), ExpectedSarsa(epsilon=0.0)):
        goal = head.backup(
            jnp.float32(REWARD), jnp.float32(DISCOUNT), z, *policy.probabilities(q, q), basis, policy
        )
        losses.append(float(head.loss(head.predict(z, action, basis), goal, basis)[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-5)


def test_expected_sarsa_is_spelled_and_refuses_what_is_no_share():
    assert parse("expected_sarsa:epsilon=0.1", POLICIES) == ExpectedSarsa(0.1)
    with pytest.raises(
        UsageError, match=r"expected_sarsa:epsilon is 1\.5; expected a share within \[0, 1\]"
    ):
        parse("expected_sarsa:epsilon=1.5", POLICIES)
