"""Protects a support's place in training: found once, never moved under the optimiser, then widened."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.actions import Actions
from qhat.heads import Categorical, Head, HLGauss
from qhat.heads.support import atoms_of
from qhat.learner import Learner, LearnerState
from qhat.recipe import Recipe
from qhat.replay.outlook import Outlook
from qhat.replay.ring import Transition

BATCH = 8


class Fixture:
    """A learner of one head, whose batch has rewards of the caller's choice."""

    def __init__(self, head: Head):
        self.learner = Learner.of(Recipe(head=head, hidden=(8,)), (3,), Actions((2,)))
        self.state = self.learner.init(jax.random.key(0))
        self.number = 0
        self.step = jax.jit(self.learner.update)

    def update(self, seen: tuple[float, float], reward: float = 0.0) -> None:
        self.number += 1
        draw = np.random.default_rng(self.number)
        batch = Transition(
            observation=jnp.asarray(draw.normal(size=(BATCH, 3)), jnp.float32),
            action=jnp.zeros((BATCH, 1), jnp.int32),
            reward=jnp.full(BATCH, reward),
            discount=jnp.zeros(BATCH),
            successor=jnp.zeros((BATCH, 3)),
        )
        range_ = jnp.array(seen)
        outlook = Outlook(jnp.zeros(1), range_, range_, 0.9)
        self.state, _, self.metrics = self.step(
            self.state, batch, jnp.ones(BATCH), jax.random.key(1), jnp.int32(self.number), outlook
        )

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
    fixture.update(seen=(0.0, 10.0))
    placed = fixture.values()
    assert placed[0] <= 0.0 < 10.0 <= placed[-1]
    fixture.update(seen=(-1000.0, 1000.0))
    np.testing.assert_array_equal(fixture.values(), placed)


@HEADS
def test_zeros_place_nothing_and_the_first_reward_does(head: Head):
    fixture = Fixture(head)
    for _ in range(3):
        fixture.update(seen=(0.0, 0.0))
        np.testing.assert_allclose(fixture.values()[[0, -1]].round(), [-1.0, 1.0])
    fixture.update(seen=(0.0, 100.0))
    placed = fixture.values()
    assert placed[-1] >= 100.0
    fixture.update(seen=(0.0, 1e6))
    np.testing.assert_array_equal(fixture.values(), placed)


@HEADS
def test_one_atom_a_time_comes_into_use_where_targets_fall_beyond(head: Head):
    fixture = Fixture(head)
    fixture.update(seen=(0.0, 10.0))
    edges = [float(each["high"]) for each in fixture.supports()[:1]]
    beyond = float(atoms_of(fixture.supports()[0], 51).high) * 1.5
    for _ in range(3):
        fixture.update(seen=(0.0, 10.0), reward=beyond)
        edges.append(float(fixture.supports()[0]["high"]))
        assert float(fixture.metrics.clipped) > 0.01
    assert np.diff(edges).tolist() == [1.0, 1.0, 1.0]
    for _ in range(3):
        fixture.update(seen=(0.0, 10.0), reward=1.0)
    assert float(fixture.supports()[0]["high"]) == edges[-1], "nothing falls beyond: nothing widens"


def test_a_support_that_is_given_stays():
    fixture = Fixture(Categorical(v_min=-2.0, v_max=3.0))
    fixture.update(seen=(0.0, 100.0), reward=50.0)
    np.testing.assert_allclose(fixture.values()[[0, -1]], [-2.0, 3.0])
