"""BCQ and IQL: what is chosen and backed up is what the recorded actions support.

Protects against a value of an action that nobody took, a stream that is no part of the update, preferences
in place of values in reports, and parts with which they have no meaning.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat import recipes
from qhat.axes import (
    Actions,
    Constrained,
    Dueling,
    Each,
    InSample,
    MinAtar,
    Noisy,
    Pairs,
    Quantile,
    Soft,
    Softmax,
)
from qhat.axes.greedy import CLOSED, best
from qhat.engine.learner import Learner
from qhat.engine.replay.ring import Transition
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

BATCH, GAMMA = 64, 0.9
BOTH = [Constrained(), InSample()]
named = pytest.mark.parametrize("behaviour", BOTH, ids=lambda value: value.name)


def batch_of(
    action: Any, reward: Any, actions: Actions, discount: float = 0.0, shape: tuple[int, ...] = (3,)
) -> Transition:
    """Steps in one state, which is followed by itself."""
    row = np.random.default_rng(0).normal(size=shape)
    observation = jnp.asarray(np.broadcast_to(row, (BATCH, *shape)), jnp.float32)
    action = jnp.asarray(action, jnp.int32).reshape(BATCH, actions.factors)
    return Transition(
        observation, action, jnp.asarray(reward, jnp.float32), jnp.full(BATCH, discount), observation
    )


def fitted(recipe: Recipe, batch: Transition, actions: Actions, updates: int = 400) -> tuple[Learner, Any]:
    """The weights after updates on one batch, whose rewards and actions do not depend on the state."""
    learner = Learner.of(recipe.validate(), batch.observation.shape[1:], actions)

    def turn(state: Any, number: jax.Array) -> tuple[Any, Any]:
        key = jax.random.fold_in(jax.random.key(1), number)
        state, done = learner.update(state, batch, jnp.ones(BATCH), key, number)
        return state, done.metrics.loss

    first = learner.init(jax.random.key(0))
    state, losses = jax.jit(lambda state: jax.lax.scan(turn, state, jnp.arange(1, updates + 1)))(first)
    assert np.isfinite(np.asarray(losses)).all()
    return learner, state.online


def recipe_of(behaviour: Any, **more: Any) -> Recipe:
    small = {"learning_rate": 1e-2, "hidden": (16, 16), "batch_size": BATCH}
    return dataclasses.replace(recipes.get("bcq"), behaviour=behaviour, **(small | more))


def shown(
    learner: Learner, parameters: Any, batch: Transition
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, preferences and what is beside them, for every observation of a batch."""
    q, preferred = (
        np.asarray(jax.vmap(values, (None, 0))(parameters, batch.observation))
        for values in (learner.q_values, learner.preferences)
    )
    beside = jax.vmap(lambda one: learner._look(parameters, one, None)[-1])(batch.observation)
    return q, preferred, np.asarray(beside)


def test_bcq_backs_up_no_action_that_nobody_took() -> None:
    """Action 2 was never taken. With γ = 0.9 and a reward of 1 each, V is 1 / (1 − 0.9) = 10."""
    actions = Actions((3,))
    batch = batch_of(np.arange(BATCH) % 2, np.ones(BATCH), actions, GAMMA)
    learner, weights = fitted(recipe_of(Constrained(), target=Soft(0.05)), batch, actions, 2_500)
    q, preferred, beside = shown(learner, weights, batch)
    np.testing.assert_allclose(q[:, 0, :2], 10.0, atol=0.1)
    assert (preferred[:, 0, 2] == CLOSED).all()
    np.testing.assert_array_equal(preferred[:, 0, :2], q[:, 0, :2])
    assert (beside[:, 0, 2, 0] < beside[:, 0, :2, 0].min(axis=1) - Constrained().gap).all()


def test_iql_learns_the_expectile_and_weighs_what_it_imitates() -> None:
    """Of rewards 0 and 1, as frequent, the 0.7-expectile is 0.7; and π(1)/π(0) = exp(β·(1 − 0))."""
    actions = Actions((2,))
    action = np.arange(BATCH) % 2
    batch = batch_of(action, action, actions)
    learner, weights = fitted(recipe_of(InSample(expectile=0.7, beta=2.0)), batch, actions, 1_500)
    q, preferred, beside = shown(learner, weights, batch)
    np.testing.assert_allclose(q[:, 0], [[0.0, 1.0]] * BATCH, atol=0.02)
    np.testing.assert_allclose(beside[:, 0, :, 1], 0.7, atol=0.02)
    np.testing.assert_allclose(preferred[:, 0, 1] - preferred[:, 0, 0], 2.0, atol=0.1)


def test_iql_backs_up_the_value_of_a_state() -> None:
    """Every step earns 1: V = Q = 10; actions that were not taken have any value, and none is asked for."""
    actions = Actions((3,))
    batch = batch_of(np.zeros(BATCH), np.ones(BATCH), actions, GAMMA)
    recipe = recipe_of(InSample(), target=Soft(0.05), learning_rate=3e-3)
    learner, weights = fitted(recipe, batch, actions, 2_500)
    q, preferred, beside = shown(learner, weights, batch)
    np.testing.assert_allclose(q[:, 0, 0], 10.0, atol=0.1)
    np.testing.assert_allclose(beside[:, 0, 0, 1], 10.0, atol=0.1)
    assert (best(preferred, None, None) == 0).all()


@named
@pytest.mark.parametrize(
    "more",
    [
        {"merge": Dueling(), "layer_norm": True, "normalise": True},
        {"dense": Noisy(), "joints": Each(), "n_step": 3},
        {"torso": MinAtar(filters=4)},
        {"hidden": ()},
    ],
    ids=lambda more: "-".join(more),
)
def test_with_other_parts(behaviour: Any, more: dict[str, Any]) -> None:
    actions, rng = Actions((2, 4, 3)), np.random.default_rng(2)
    shape = (4, 4, 2) if "torso" in more else (3,)
    action = rng.integers(0, actions.choices, (BATCH, 3))
    batch = batch_of(action, action[:, 1], actions, 0.5, shape)
    legal = jnp.asarray(np.broadcast_to(np.asarray(actions.all_legal), (BATCH, 3, 4)))
    batch = dataclasses.replace(batch, legal=legal, legal_next=legal)
    learner, weights = fitted(recipe_of(behaviour, **more), batch, actions, 60)
    action, _ = learner.greedy(weights, batch.observation, None, legal)
    assert (np.asarray(action) < np.asarray(actions.choices)).all()
    only = jnp.zeros((BATCH, 3, 4), bool).at[:, :, 1].set(True)
    assert (learner.greedy(weights, batch.observation, None, only)[0] == 1).all(), "legal goes first"


@named
def test_a_batch_that_acts_is_not_the_batch_that_values(behaviour: Any) -> None:
    """Values stay values: what a report shows of them is no logit."""
    actions = Actions((2,))
    batch = batch_of(np.arange(BATCH) % 2, np.full(BATCH, 5.0), actions)
    learner, weights = fitted(recipe_of(behaviour, learning_rate=3e-3), batch, actions, 1_500)
    q, _, _ = shown(learner, weights, batch)
    np.testing.assert_allclose(q, 5.0, atol=0.05)


@named
def test_what_does_not_fit_is_refused(behaviour: Any) -> None:
    good = recipe_of(behaviour)
    cases = {
        "expected head='expected'": dataclasses.replace(good, head=Quantile()),
        "expected joints='together'": dataclasses.replace(good, joints=Pairs()),
        "training='logs'": dataclasses.replace(recipes.get("pqn"), behaviour=behaviour),
        "memory='none'": dataclasses.replace(recipes.get("drqn"), behaviour=behaviour),
    }
    if isinstance(behaviour, InSample):
        cases["expected policy='greedy'"] = dataclasses.replace(good, policy=Softmax())
    for sentence, recipe in cases.items():
        with pytest.raises(UsageError) as refused:
            recipe.validate()
        assert sentence in str(refused.value).replace('"', "'"), str(refused.value)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Constrained(0.0), "bcq:tau is 0.0; expected a share within"),
        (Constrained(1.0), "bcq:tau is 1.0; expected a share within"),
        (InSample(expectile=1.0), "iql:expectile is 1.0; expected a number within"),
        (InSample(expectile=0.4), "iql:expectile is 0.4; expected a number within"),
        (InSample(beta=-1.0), "iql:beta is -1.0; expected a number of 0 or more"),
        (InSample(most=0.0), "iql:most is 0.0; expected a number above 0"),
    ],
)
def test_settings_without_meaning_are_refused(part: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        recipe_of(part).validate()
    assert sentence in str(refused.value)
