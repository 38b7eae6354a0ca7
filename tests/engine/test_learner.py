"""Protects the gradient update: targets, losses, weights, clipping and the target network.

Other projects shipped importance weights that a Huber loss ignores, a dueling mean over the wrong axis,
and target networks that are never updated. The oracles are rlax and NumPy.
"""

import dataclasses
import functools
import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.flatten_util import ravel_pytree

from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.heads import Expected
from qhat.axes.merge import Dueling, Plain
from qhat.axes.policy import Double, Greedy
from qhat.axes.target import Hard, Soft
from qhat.engine.learner import Learner, LearnerState, Metrics
from qhat.engine.looks import drawn
from qhat.engine.replay.ring import Transition
from qhat.recipes.recipe import Recipe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Its dependencies use deprecated names.
    import rlax

CHOICES, SHAPE, BATCH = 4, (3,), 6
RECIPE = Recipe(hidden=(8, 8), learning_rate=1e-2)
NUMBERS = st.floats(-100, 100, width=32)
Q_VALUES = arrays(np.float32, (1, CHOICES), elements=NUMBERS)

# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def compiled(recipe: Recipe, choices: tuple[int, ...] = (CHOICES,)) -> tuple[Learner, Any]:
    learner = Learner.of(recipe, SHAPE, Actions(choices))

    def update(*arguments: Any) -> tuple[LearnerState, jax.Array, Metrics]:
        state, done = learner.update(*arguments)
        return state, done.errors, done.metrics

    return learner, quick_jit(update)


def unequal(learner: Learner, seed: int = 0) -> LearnerState:
    """Return a fresh state whose target network differs from the online network."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(learner.init, jax.random.key(0))

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(random.uniform(-0.6, 0.6, leaf.shape), jnp.float32)

    return LearnerState(
        online=jax.tree.map(draw, shapes.online),
        target=jax.tree.map(draw, shapes.target),
        optimiser=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.optimiser),
    )


def batch_of(seed: int = 0, size: int = BATCH, factors: int = 1, scale: float = 1.0) -> Transition:
    random = np.random.default_rng(seed)
    return Transition(
        observation=jnp.asarray(random.normal(size=(size, *SHAPE)), jnp.float32),
        action=jnp.asarray(random.integers(0, CHOICES, (size, factors)), jnp.int32),
        reward=jnp.asarray(scale * random.normal(size=size), jnp.float32),
        discount=jnp.asarray(random.choice([0.0, 0.9, 0.81], size), jnp.float32),
        successor=jnp.asarray(random.normal(size=(size, *SHAPE)), jnp.float32),
    )


def step(recipe: Recipe, batch: Transition, weights: Any = None, number: int = 1):
    learner, update = compiled(recipe)
    weights = jnp.ones(batch.reward.shape) if weights is None else jnp.asarray(weights, jnp.float32)
    return update(unequal(learner), batch, weights, jax.random.key(2), jnp.int32(number))


def gradient(state: LearnerState) -> np.ndarray:
    """Return the gradient of the first update, from Adam's first moment, which is a tenth of it."""
    return np.asarray(optax.tree_utils.tree_get(state.optimiser, "mu")) / 0.1


@jax.jit
def td_errors(q, action, reward, discount, q_target, q_online):
    """Our TD errors and rlax's, for one example: (greedy, double)."""
    head, ours = Expected(), []
    for policy, q_select in ((Greedy(), q_target), (Double(), q_online)):
        chosen = policy.probabilities(q_target, q_select)
        goal = head.backup(reward, discount, q_target[..., None], *chosen, (), policy)
        ours.append(goal - head.predict(q[..., None], action[None], ()))
    greedy = rlax.q_learning(q[0], action, reward, discount, q_target[0])
    double = rlax.double_q_learning(q[0], action, reward, discount, q_target[0], q_online[0])
    return jnp.stack(ours), jnp.stack([greedy, double])


@settings(max_examples=150, deadline=None)
@given(Q_VALUES, st.integers(0, CHOICES - 1), NUMBERS, st.floats(0, 1, width=32), Q_VALUES, Q_VALUES)
def test_targets_are_rlaxs(q, action, reward, discount, q_target, q_online):
    ours, theirs = td_errors(
        jnp.asarray(q),
        jnp.int32(action),
        jnp.float32(reward),
        jnp.float32(discount),
        jnp.asarray(q_target),
        jnp.asarray(q_online),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@jax.jit
def losses(prediction, target):
    error = target - prediction
    ours = [Expected(delta=delta).loss(prediction, target, ())[0] for delta in (1.0, 2.5, None)]
    theirs = [rlax.huber_loss(error, 1.0), rlax.huber_loss(error, 2.5), rlax.l2_loss(error)]
    return jnp.stack(ours), jnp.stack(theirs)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, NUMBERS)
def test_losses_are_rlaxs(prediction: float, target: float):
    ours, theirs = losses(jnp.float32(prediction), jnp.float32(target))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("delta", [1.0, None])
@pytest.mark.parametrize("policy", [Greedy(), Double()], ids=["greedy", "double"])
def test_an_update_uses_each_network_where_it_belongs(policy: Greedy | Double, delta: float | None):
    recipe = dataclasses.replace(RECIPE, policy=policy, head=Expected(delta=delta))
    learner, _ = compiled(recipe)
    state, batch = unequal(learner), batch_of(scale=3.0)
    weights = np.linspace(0.1, 1, BATCH)
    _, errors, metrics = step(recipe, batch, weights)
    values = jax.jit(jax.vmap(learner.q_values, in_axes=(None, 0)))

    def q(parameters, observations):
        return values(parameters, observations)[:, 0]

    chosen, now = batch.action[:, 0], q(state.online, batch.observation)
    target, online = q(state.target, batch.successor), q(state.online, batch.successor)
    given_ = (now, chosen, batch.reward, batch.discount, target)
    if isinstance(policy, Double):
        assert np.any(target.argmax(axis=1) != online.argmax(axis=1)), "the two must disagree"
        expected = jax.vmap(rlax.double_q_learning)(*given_, online)
    else:
        expected = jax.vmap(rlax.q_learning)(*given_)
    np.testing.assert_allclose(-errors, expected, rtol=1e-4, atol=1e-5)
    expected = jnp.asarray(expected)
    loss = rlax.huber_loss(expected, 1.0) if delta else rlax.l2_loss(expected)
    np.testing.assert_allclose(metrics.loss, np.mean(weights * np.asarray(loss)), rtol=1e-4)
    np.testing.assert_allclose(metrics.q, now[jnp.arange(BATCH), chosen].mean(), rtol=1e-4)


def test_the_value_of_a_joint_action_is_the_mean_over_its_factors():
    learner, update = compiled(RECIPE, (CHOICES, CHOICES))
    state, batch = unequal(learner), batch_of(factors=2)
    assert batch.successor is not None
    _, errors, _ = update(state, batch, jnp.ones(BATCH), jax.random.key(0), jnp.int32(1))
    for row in range(BATCH):
        now = np.asarray(learner.q_values(state.online, batch.observation[row]))
        after = np.asarray(learner.q_values(state.target, batch.successor[row]))
        prediction = np.mean([now[factor, batch.action[row, factor]] for factor in range(2)])
        goal = batch.reward[row] + batch.discount[row] * after.max(axis=1).mean()
        np.testing.assert_allclose(errors[row], prediction - goal, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 4, 1), (3, 3, 3), (2, 3, 5)], ids=str)
def test_dueling_is_value_plus_centred_advantage(sizes: tuple[int, int, int]):
    factors, choices, outputs = sizes
    random = np.random.default_rng(0)
    value = random.normal(size=(factors, 1, outputs)).astype(np.float32)
    advantage = random.normal(size=(factors, choices, outputs)).astype(np.float32)
    streams = {"value": jnp.asarray(value), "advantage": jnp.asarray(advantage)}
    merged = np.asarray(Dueling().merge(streams, None))
    assert merged.shape == (factors, choices, outputs)
    for f in range(factors):
        for k in range(outputs):
            mean = sum(advantage[f, c, k] for c in range(choices)) / choices
            for c in range(choices):
                expected = value[f, 0, k] + advantage[f, c, k] - mean
                np.testing.assert_allclose(merged[f, c, k], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("merge", "widths"), [(Plain(), {"q": 5}), (Dueling(), {"value": 1, "advantage": 5})]
)
def test_merges_name_their_streams(merge: Plain | Dueling, widths: dict[str, int]):
    assert merge.streams(5) == widths


def test_normalised_hidden_layers_are_the_papers():
    """arXiv:1607.06450, eq. 3–4, written in NumPy: hidden layers only, then a scale and an offset."""
    recipe = Recipe(layer_norm=True, hidden=(16, 12))
    learner = Learner.of(recipe, (4,), Actions((3,)))
    draw = np.random.default_rng(0)
    parameters = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32),
        learner.init_parameters(jax.random.key(0)),
    )
    observation = draw.normal(size=4).astype(np.float32)
    x = observation
    for name in ("hidden0", "q_hidden"):
        y = np.asarray(parameters[name]["weight"]) @ x + parameters[name]["bias"]
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        x = np.maximum(y * parameters[f"{name}_norm"]["scale"] + parameters[f"{name}_norm"]["offset"], 0)
    expected = np.asarray(parameters["q"]["weight"]) @ x + parameters["q"]["bias"]
    assert "q_norm" not in parameters
    np.testing.assert_allclose(
        learner.q_values(parameters, jnp.asarray(observation))[0], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("delta", [1.0, None], ids=["huber", "squared"])
def test_importance_weights_scale_the_gradient(delta: float | None):
    recipe = dataclasses.replace(RECIPE, head=Expected(delta=delta))
    batch = batch_of(scale=5.0)
    whole = gradient(step(recipe, batch)[0])
    np.testing.assert_allclose(
        gradient(step(recipe, batch, np.full(BATCH, 0.25))[0]), whole / 4, rtol=1e-4, atol=1e-6
    )
    # The gradient is the mean of the examples' own, each times its weight.
    weights = np.random.default_rng(0).uniform(0, 1, BATCH)
    single = [gradient(step(recipe, batch, np.eye(BATCH)[row])[0]) for row in range(BATCH)]
    expected = sum(weight * one for weight, one in zip(weights, single, strict=True))
    np.testing.assert_allclose(gradient(step(recipe, batch, weights)[0]), expected, rtol=1e-3, atol=1e-5)


def test_a_weight_of_zero_keeps_a_transition_out():
    batch = batch_of()
    weights = np.array([1, 1, 1, 0, 0, 0])
    other = dataclasses.replace(batch, reward=batch.reward.at[3:].set(1e6))
    a, b = step(RECIPE, batch, weights)[0], step(RECIPE, other, weights)[0]
    jax.tree.map(np.testing.assert_array_equal, a.online, b.online)


@pytest.mark.parametrize("limit", [0.1, 1e6])
def test_gradients_are_clipped_to_the_global_norm(limit: float):
    batch = batch_of(scale=10.0)
    free, _, metrics = step(RECIPE, batch)
    norm = np.linalg.norm(gradient(free))
    assert 0.1 < norm < 1e6
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-4)
    clipped, _, _ = step(dataclasses.replace(RECIPE, max_gradient_norm=limit), batch)
    expected = gradient(free) * min(1.0, limit / norm)
    np.testing.assert_allclose(gradient(clipped), expected, rtol=1e-3, atol=1e-6)


def test_a_gradient_of_zero_survives_clipping():
    recipe = dataclasses.replace(RECIPE, max_gradient_norm=1.0)
    state, _, _ = step(recipe, batch_of(), np.zeros(BATCH))
    assert np.all(np.isfinite(ravel_pytree(state.online)[0]))


def test_a_hard_target_is_copied_every_so_many_updates():
    recipe = dataclasses.replace(RECIPE, target=Hard(every=3))
    learner, update = compiled(recipe)
    state = unequal(learner)
    for number in range(1, 8):
        before = state.target
        state, _, _ = update(
            state, batch_of(number), jnp.ones(BATCH), jax.random.key(number), jnp.int32(number)
        )
        expected = state.online if number % 3 == 0 else before
        jax.tree.map(np.testing.assert_array_equal, state.target, expected)
        assert number % 3 == 0 or not np.array_equal(
            ravel_pytree(state.target)[0], ravel_pytree(state.online)[0]
        )


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_soft_target_takes_a_share_after_every_update(tau: float):
    recipe = dataclasses.replace(RECIPE, target=Soft(tau=tau))
    learner, update = compiled(recipe)
    state = unequal(learner)
    for number in range(1, 4):
        old = np.asarray(ravel_pytree(state.target)[0])
        state, _, _ = update(
            state, batch_of(number), jnp.ones(BATCH), jax.random.key(number), jnp.int32(number)
        )
        online = np.asarray(ravel_pytree(state.online)[0])
        expected = tau * online + (1 - tau) * old
        np.testing.assert_allclose(ravel_pytree(state.target)[0], expected, rtol=1e-4, atol=1e-6)


def test_a_target_starts_as_the_online_network():
    state = jax.jit(compiled(COMPOSITIONS["linear"])[0].init)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.target, state.online)
    moved, _, _ = step(RECIPE, batch_of())
    before = unequal(compiled(RECIPE)[0]).target
    jax.tree.map(np.testing.assert_array_equal, moved.target, before)


@pytest.mark.parametrize("policy", [Greedy(), Double()], ids=["greedy", "double"])
def test_no_gradient_flows_through_the_target(policy: Greedy | Double):
    """One network in both places: its gradient is that of a target of plain numbers."""
    recipe = dataclasses.replace(RECIPE, policy=policy)
    learner, _ = compiled(recipe)
    shared, batch = unequal(learner).online, batch_of()
    noise, fractions = drawn(learner, jax.random.key(0), BATCH)
    values = jax.jit(jax.vmap(learner.q_values, in_axes=(None, 0)))

    def loss(parameters: Any, goals: Any = None) -> jax.Array:
        if goals is None:
            regress = jax.vmap(learner._regress, in_axes=(None, None, 0, None, 0))
            return regress(parameters, parameters, batch, noise, fractions)[0].mean()
        q = values(parameters, batch.observation)[:, 0]
        chosen = jnp.take_along_axis(q, batch.action, axis=1)[:, 0]
        return optax.losses.huber_loss(chosen, goals).mean()

    after = values(shared, batch.successor)[:, 0].max(axis=1)
    goals = batch.reward + batch.discount * after
    slope = jax.jit(jax.grad(loss))
    ours, plain = slope(shared), slope(shared, goals)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, plain)


COMPOSITIONS = {
    "dqn": RECIPE,
    "double": dataclasses.replace(RECIPE, policy=Double()),
    "dueling": dataclasses.replace(RECIPE, merge=Dueling()),
    "clipped squared": dataclasses.replace(RECIPE, head=Expected(None), max_gradient_norm=10.0),
    "linear": dataclasses.replace(RECIPE, hidden=()),
}


@pytest.mark.parametrize("name", ["qhat", "iqn", "noisy_dqn", "rainbow_iqn"])
def test_no_two_arrays_of_a_fresh_network_share_their_numbers(name: str):
    """A key that is used twice shows as equal draws, whatever their scale."""
    learner = Learner.of(dataclasses.replace(recipes.get(name), hidden=(64, 64)), (5,), Actions((3,)))
    parameters = learner.network.init(jax.random.key(0))
    drawn = {
        jax.tree_util.keystr(path): np.asarray(leaf).ravel()
        for path, leaf in jax.tree.leaves_with_path(parameters)
        if np.unique(leaf).size > 30
    }
    for one, other in itertools.combinations(drawn, 2):
        size = min(drawn[one].size, drawn[other].size)
        related = np.corrcoef(drawn[one][:size], drawn[other][:size])[0, 1]
        assert abs(related) < 0.8, f"{one} and {other}"


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_parameter_has_a_gradient(name: str):
    state, _, _ = step(COMPOSITIONS[name], batch_of(size=256))
    unravel = ravel_pytree(state.online)[1]
    for path, leaf in jax.tree.leaves_with_path(unravel(jnp.asarray(gradient(state)))):
        share = np.mean(np.asarray(leaf) != 0)
        assert share > 0.5, f"{jax.tree_util.keystr(path)} has hardly any gradient"


@pytest.mark.parametrize("name", [name for name in COMPOSITIONS if name != "linear"])
def test_a_fixed_batch_is_overfitted(name: str):
    recipe = dataclasses.replace(COMPOSITIONS[name], hidden=(32, 32), target=Hard(every=10**6))
    learner, _ = compiled(recipe)
    batch = batch_of(size=16)

    @jax.jit
    def fit(state: LearnerState) -> jax.Array:
        def body(state: LearnerState, number: jax.Array) -> tuple[LearnerState, jax.Array]:
            key = jax.random.fold_in(jax.random.key(0), number)
            state, done = learner.update(state, batch, jnp.ones(16), key, number)
            return state, done.metrics.loss

        return jax.lax.scan(body, state, jnp.arange(1, 801))[1]

    loss = np.asarray(fit(unequal(learner)))
    assert loss[-20:].mean() < loss[0] / 100


def test_greedy_is_the_best_choice_of_every_factor():
    learner, _ = compiled(RECIPE, (CHOICES, CHOICES))
    state, observations = unequal(learner), batch_of().observation
    actions = np.asarray(learner.greedy(state.online, observations)[0])
    assert actions.shape == (BATCH, 2)
    for row in range(BATCH):
        q = np.asarray(learner.q_values(state.online, observations[row]))
        np.testing.assert_array_equal(actions[row], q.argmax(axis=1))


@pytest.mark.parametrize("choices", [(CHOICES,), (2, CHOICES)])
def test_an_action_is_nearly_greedy_while_it_costs_a_share_of_the_value(choices: tuple[int, ...]):
    """Also if a factor has fewer choices, and only for legal actions."""
    learner, _ = compiled(RECIPE, choices)
    rng = np.random.default_rng(3)
    batch, online = batch_of(size=64, scale=5.0), unequal(learner).online
    actions = np.stack([rng.integers(0, count, 64) for count in choices], axis=1)
    legal = rng.random((64, len(choices), CHOICES)) < 0.5
    np.put_along_axis(legal, actions[..., None], True, axis=2)
    for mask in (None, legal):
        of = dataclasses.replace(
            batch, action=jnp.asarray(actions, jnp.int32), legal=None if mask is None else jnp.asarray(mask)
        )
        costs, best = [], []
        for row in range(64):
            q = np.asarray(learner.q_values(online, of.observation[row]), np.float64)
            if mask is not None:
                q = np.where(mask[row], q, -np.inf)
            tops = q.max(axis=1)
            costs.append(np.mean(tops - q[np.arange(len(choices)), actions[row]]))
            best.append(np.abs(tops))
        cost = np.array(costs) / np.mean(best)
        shares = np.sort(cost)
        for share in (0.0, float(shares[20] + shares[21]) / 2, float(shares[50] + shares[51]) / 2):
            near = np.asarray(learner.nearly_greedy(online, of, share))
            np.testing.assert_array_equal(near, cost <= share)
        assert 0 < np.sum(cost == 0) < 64


def test_greedy_never_names_a_choice_that_a_factor_lacks():
    learner, _ = compiled(RECIPE, (2, CHOICES))
    observations = batch_of(size=256, scale=5.0).observation * 10
    for seed in range(3):
        actions, _ = learner.greedy(unequal(learner, seed).online, observations)
        assert np.all(np.asarray(actions[:, 0]) < 2)
