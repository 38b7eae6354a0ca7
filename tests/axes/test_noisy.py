"""Protects noisy layers: factorised noise, a key for every layer, none in evaluation.

Other projects drew independent noise and called it factorised, gave all layers one key, and scored
policies with noise.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.axes.actions import Actions
from qhat.axes.dense import Dense, Noisy
from qhat.axes.explore import NoExploration
from qhat.axes.merge import Dueling
from qhat.engine import looks
from qhat.engine.learner import Learner
from qhat.environments.make import make
from qhat.evaluation.play import play_of
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

RECIPE = Recipe(dense=Noisy(), merge=Dueling(), hidden=(6, 6), explore=NoExploration())


def drawn(layer: Noisy, parameters: dict, key: jax.Array) -> jax.Array:
    outputs, inputs = parameters["weight"].shape
    normal = jax.random.normal(key, (1, layer.noise_size(inputs, outputs)))
    return layer.noise_from(normal)[0]


def effective(layer: Noisy, parameters: dict, key: jax.Array, inputs: int) -> np.ndarray:
    """Return the noise that a layer adds to its weights, found from its effect on unit vectors."""
    noise = drawn(layer, parameters, key)
    at_zero = layer.apply(parameters, jnp.zeros(inputs), noise)
    rows = jax.vmap(lambda x: layer.apply(parameters, x, noise))(jnp.eye(inputs)) - at_zero
    return np.asarray(rows).T - np.asarray(parameters["weight"])


def test_the_noise_is_factorised_and_scaled():
    layer, inputs, outputs = Noisy(sigma=0.5), 5, 4
    parameters = layer.init(jax.random.key(0), inputs, outputs)
    assert np.allclose(parameters["weight_sigma"], 0.5 / np.sqrt(inputs))
    noise = effective(layer, parameters, jax.random.key(1), inputs) / (0.5 / np.sqrt(inputs))
    assert np.linalg.matrix_rank(noise, tol=1e-4) == 1, "an outer product"
    many = np.stack(
        [effective(layer, parameters, jax.random.key(k), inputs).ravel() for k in range(2, 202)]
    ) / (0.5 / np.sqrt(inputs))
    # E f(ε)² = E|ε| = √(2/π), so the product's variance is 2/π.
    assert many.var() == pytest.approx(2 / np.pi, rel=0.1)
    assert abs(many.mean()) < 0.05


def test_the_bias_uses_the_noise_of_the_outputs():
    layer = Noisy()
    parameters = layer.init(jax.random.key(0), 3, 4)
    key = jax.random.key(5)
    bias = layer.apply(parameters, jnp.zeros(3), drawn(layer, parameters, key)) - parameters["bias"]
    weights = effective(layer, parameters, key, 3)
    # Column i of the weights' noise is f(ε_out)·f(ε_in)_i, so all are multiples of the bias's.
    for column in weights.T:
        ratio = column / np.asarray(bias)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_layers_have_different_noise():
    learner = Learner.of(RECIPE, (6,), Actions((6,)))
    network = learner.network
    noise = network.noise(jax.random.key(3), looks=4)
    assert noise is not None
    shares = [np.asarray(part) for row in noise for part in network._split(row).values()]
    assert len(shares) == 4 * 5, "four looks at one hidden layer and two streams of two"
    numbers = np.concatenate(shares)
    assert len(np.unique(numbers)) == numbers.size, "no number is used twice"


def test_the_looks_of_an_update_have_different_noise():
    learner = Learner.of(RECIPE, (6,), Actions((6,)))
    noise, _ = looks.drawn(learner, jax.random.key(0), 4)
    rows = [np.asarray(noise[look]) for look in looks.LOOKS]
    for index, row in enumerate(rows):
        for other in rows[:index]:
            assert not np.isin(row, other).any()


def test_evaluation_plays_without_noise():
    """Scores use only the mean weights, with the compiled twin and with Gymnasium."""
    environment = make("CartPole-v1", 8)
    means = replace(RECIPE, dense=Dense(), explore=Recipe().explore)
    returns = []
    for recipe in (RECIPE, means):
        learner = Learner.of(recipe, (4,), Actions((2,)))
        parameters = Learner.of(RECIPE, (4,), Actions((2,))).init_parameters(jax.random.key(0))
        # So large that the policy would be another one with it.
        parameters = jax.tree.map_with_path(
            lambda path, leaf: leaf * 50 if "sigma" in str(path) else leaf, parameters
        )
        if recipe is means:
            parameters = {
                name: {part: layer[part] for part in ("weight", "bias")}
                for name, layer in parameters.items()
            }
        batched = jax.tree.map(lambda leaf: leaf[None], parameters)
        key = jax.random.key(1)
        compiled = play_of(learner, environment)(batched, key).returns
        returns.append((compiled, play_of(learner, "CartPole-v1", 4)(batched, key, [7]).returns))
    np.testing.assert_array_equal(returns[0][0], returns[1][0])
    np.testing.assert_array_equal(returns[0][1], returns[1][1])


def test_no_key_is_no_noise_and_keys_differ():
    learner = Learner.of(RECIPE, (6,), Actions((3,)))
    parameters, observation = learner.init_parameters(jax.random.key(0)), jnp.ones(6)
    plain = Learner.of(replace(RECIPE, dense=Dense(), explore=Recipe().explore), (6,), Actions((3,)))
    means = {name: {"weight": layer["weight"], "bias": layer["bias"]} for name, layer in parameters.items()}
    without = learner.q_values(parameters, observation)
    np.testing.assert_array_equal(without, plain.q_values(means, observation))
    first, second = (learner.q_values(parameters, observation, jax.random.key(k)) for k in (1, 2))
    assert not np.allclose(first, without)
    assert not np.allclose(first, second)


def test_greedy_alone_never_explores_and_is_refused_without_noise():
    with pytest.raises(UsageError, match="dense='noisy'"):
        replace(RECIPE, dense=Dense()).validate()
    RECIPE.validate()


def test_noise_below_nothing_is_refused():
    with pytest.raises(UsageError, match="more than 0"):
        Noisy(sigma=0.0).validate()
