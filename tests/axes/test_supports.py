"""Protects supports in training: placed, widened by atoms, doubled with everything that refers to them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from qhat.axes.actions import Actions
from qhat.axes.dense import Noisy
from qhat.axes.heads import Categorical, Head, HLGauss
from qhat.axes.heads import support as supports
from qhat.axes.heads.outlook import Outlook
from qhat.axes.heads.support import atoms_of
from qhat.axes.merge import Dueling
from qhat.axes.target import Hard
from qhat.engine.doubling import double
from qhat.engine.learner import Learner, LearnerState
from qhat.engine.replay.ring import Transition
from qhat.recipes.recipe import Recipe

BATCH = 8


class Fixture:
    """A learner of one head, whose batch has rewards of the caller's choice."""

    def __init__(self, head: Head):
        self.learner = Learner.of(Recipe(head=head, hidden=(8,)), (3,), Actions((2,)))
        self.state = self.learner.init(jax.random.key(0))
        self.number = 0
        self.step = jax.jit(self.learner.fit)

    def update(self, returns: tuple[float, float], reward: float = 0.0) -> None:
        self.number += 1
        draw = np.random.default_rng(self.number)
        batch = Transition(
            observation=jnp.asarray(draw.normal(size=(BATCH, 3)), jnp.float32),
            action=jnp.zeros((BATCH, 1), jnp.int32),
            reward=jnp.full(BATCH, reward),
            discount=jnp.zeros(BATCH),
            successor=jnp.zeros((BATCH, 3)),
        )
        range_ = jnp.array(returns)
        outlook = Outlook(jnp.zeros(1), range_, range_, 0.9)
        self.state, done = self.step(
            self.state, batch, jnp.ones(BATCH), jax.random.key(1), jnp.int32(self.number), outlook
        )
        self.metrics = done.metrics

    def supports(self) -> list[dict[str, Any]]:
        state: LearnerState = self.state
        return [state.online["support"], state.target["support"]]

    def values(self) -> np.ndarray:
        online, target = (np.asarray(atoms_of(each, 51).values) for each in self.supports())
        np.testing.assert_array_equal(online, target)
        return online


HEADS = pytest.mark.parametrize("head", [Categorical(), HLGauss()], ids=lambda head: head.name)


@HEADS
def test_both_networks_are_placed_by_the_first_update_and_never_again(head: Head):
    fixture = Fixture(head)
    assert fixture.values()[0] == -1.0
    fixture.update(returns=(0.0, 10.0))
    placed = fixture.values()
    assert placed[0] <= 0.0 < 10.0 <= placed[-1]
    fixture.update(returns=(-1000.0, 1000.0))
    np.testing.assert_array_equal(fixture.values(), placed)


@HEADS
def test_zeros_place_nothing_and_the_first_reward_does(head: Head):
    fixture = Fixture(head)
    for _ in range(3):
        fixture.update(returns=(0.0, 0.0))
        np.testing.assert_allclose(fixture.values()[[0, -1]].round(), [-1.0, 1.0])
    fixture.update(returns=(0.0, 100.0))
    placed = fixture.values()
    assert placed[-1] >= 100.0
    fixture.update(returns=(0.0, 1e6))
    np.testing.assert_array_equal(fixture.values(), placed)


@HEADS
def test_one_atom_a_time_comes_into_use_where_targets_fall_beyond(head: Head):
    fixture = Fixture(head)
    fixture.update(returns=(0.0, 10.0))
    edges = [float(each["high"]) for each in fixture.supports()[:1]]
    beyond = float(atoms_of(fixture.supports()[0], 51).high) * 1.5
    for _ in range(3):
        fixture.update(returns=(0.0, 10.0), reward=beyond)
        edges.append(float(fixture.supports()[0]["high"]))
        assert float(fixture.metrics.clipped) > 0.01
    assert np.diff(edges).tolist() == [1.0, 1.0, 1.0]
    for _ in range(3):
        fixture.update(returns=(0.0, 10.0), reward=1.0)
    assert float(fixture.supports()[0]["high"]) == edges[-1], "nothing falls beyond: nothing widens"


def test_a_support_that_is_given_stays():
    fixture = Fixture(Categorical(v_min=-2.0, v_max=3.0))
    fixture.update(returns=(0.0, 100.0), reward=50.0)
    np.testing.assert_allclose(fixture.values()[[0, -1]], [-2.0, 3.0])


EYE = np.eye(3, dtype=np.float32)
PAIRS = [(state, action) for state in range(3) for action in range(2)]
CHAIN = Transition(
    observation=jnp.asarray([EYE[state] for state, _ in PAIRS]),
    action=jnp.asarray([[action] for _, action in PAIRS], jnp.int32),
    reward=jnp.asarray([float(action) for _, action in PAIRS]),
    discount=jnp.asarray([0.9 * (state < 2) for state, _ in PAIRS], jnp.float32),
    successor=jnp.asarray([EYE[min(state + 1, 2)] for state, _ in PAIRS]),
)
"""0 → 1 → 2 → end; action 1 pays."""


class Chain:
    """Learners of seeds 0 and 1, mapped, that see the whole chain at every update."""

    def __init__(self, head: Head):
        recipe = Recipe(
            head=head, hidden=(16,), gamma=0.9, merge=Dueling(), dense=Noisy(sigma=0.1), target=Hard(20),
            learning_rate=5e-3, learning_rate_end=None,
        )  # fmt: skip
        self.learner = Learner.of(recipe, (3,), Actions((2,)))
        self.states = jax.jit(jax.vmap(self.learner.init))(jax.vmap(jax.random.key)(jnp.arange(2)))
        self.updates = 0
        self._run = jax.jit(jax.vmap(self._some, (0, 0, None, None)))

    def _some(self, state: LearnerState, pay: Any, first: Any, count: Any) -> LearnerState:
        batch = dataclasses.replace(CHAIN, reward=pay * CHAIN.reward)
        outlook = Outlook(jnp.zeros(1), jnp.stack([0.0, 2.71 * pay]), jnp.stack([0.0, pay]), 0.9)

        def body(index: Any, state: LearnerState) -> LearnerState:
            key = jax.random.fold_in(jax.random.key(0), index)
            return self.learner.fit(state, batch, jnp.ones(6), key, index + 1, outlook)[0]

        return jax.lax.fori_loop(first, first + count, body, state)

    def run(self, pays: tuple[float, float], count: int) -> None:
        self.states = self._run(self.states, jnp.array(pays), self.updates, count)
        self.updates += count

    def spacings(self) -> np.ndarray:
        return np.asarray(self.states.online["support"]["spacing"])

    def q(self) -> np.ndarray:
        """Q(0, 1) of every seed."""
        q = jax.jit(jax.vmap(self.learner.q_values, (0, None)))
        return np.asarray(q(self.states.online, EYE[0]))[:, 0, 1]


@HEADS
def test_a_support_follows_rewards_that_grow_a_hundredfold(head: Head):
    chain = Chain(head)
    chain.run((1.0, 1.0), 500)
    assert chain.q() == pytest.approx(2.71, rel=0.03)
    before = chain.spacings()
    check_a_doubling(chain)
    chain.run((100.0, 1.0), 2_000)
    assert chain.q() == pytest.approx([271.0, 2.71], rel=0.03), "of two seeds the one with larger rewards"
    doublings = np.log2(chain.spacings() / before)
    assert doublings.tolist() == [round(doublings[0]), 0.0]
    assert doublings[0] >= 3
    for name in ("origin", "spacing"):
        both = (chain.states.online, chain.states.target)
        np.testing.assert_array_equal(*(parameters["support"][name] for parameters in both))


def check_a_doubling(chain: Chain) -> None:
    """Check that values stay, in both networks, and so do the sums of the gradients' means."""
    learner, head = chain.learner, chain.learner.recipe.head
    old = jax.tree.map(lambda leaf: leaf[0], chain.states)
    trained = tuple(name for name in old.online if name != "support")

    def values(parameters: Any) -> Any:
        return jax.vmap(lambda each: learner.q_values(parameters, each))(jnp.asarray(EYE))

    @jax.jit
    def look() -> Any:
        weights = {name: old.online[name] for name in trained}
        z = jax.vmap(lambda each: learner.network.apply(weights, each))(jnp.asarray(EYE))
        state = (old.online, old.target, old.optimiser)
        new = double(learner.network, head, state, z, jnp.array([0.0, 0.1]))
        _, unravel = ravel_pytree(weights)
        sums = [
            [each["value"]["bias"].sum(), each["value_hidden"]["weight"].sum()]
            for each in (unravel(old.optimiser.mu), unravel(new[2].mu))
        ]
        q = [jnp.stack([values(each) for each in pair]) for pair in ((old.online, old.target), new[:2])]
        return new[0]["support"]["spacing"], q, sums, new[2].nu.min()

    spacing, (q_old, q_new), (sums_old, sums_new), least = look()
    assert float(spacing) == 2 * chain.spacings()[0]
    np.testing.assert_allclose(q_new, q_old, atol=float(spacing))
    np.testing.assert_allclose(sums_new, sums_old, atol=1e-5)
    assert least >= 0.0


def test_values_that_no_reward_can_reach_widen_nothing():
    fixture = Fixture(Categorical())
    for _ in range(60):
        fixture.update(returns=(0.0, 1.0), reward=1e4)
    assert float(fixture.supports()[0]["high"]) == 50.0
    spacing = float(fixture.supports()[0]["spacing"])
    assert float(fixture.metrics.clipped) == pytest.approx(1.0)
    fixture.update(returns=(0.0, 1e4), reward=1e4)
    assert float(fixture.supports()[0]["spacing"]) == 2 * spacing, "and it does as soon as one can"


@pytest.mark.parametrize("count", [2, 3, 10, 51, 200])
def test_a_doubled_support_covers_the_old_one_and_keeps_means(count: int):
    for overflow in ([0.0, 0.5], [0.5, 0.0], [0.3, 0.3]):
        old = supports.fixed(-3.0, 5.0, count)
        new, first = supports.doubled(old, jnp.array(overflow), count)
        was, now = supports.atoms_of(old, count), supports.atoms_of(new, count)
        assert float(now.low) <= float(was.low) + 1e-4
        assert float(now.high) >= float(was.high) - 1e-4
        p = np.random.default_rng(count).dirichlet(np.ones(count))
        q = np.asarray(supports.merging(old, first, count)) @ p
        assert q.sum() == pytest.approx(1.0, abs=1e-5)
        assert q @ np.asarray(now.values) == pytest.approx(p @ np.asarray(was.values), abs=1e-4)
