"""Protects the axis `optimiser`: each value against its formula, written out in NumPy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.axes.actions import Actions
from qhat.axes.optimiser import Adam, AdamW, Optimiser, RAdam, RMSProp
from qhat.axes.torso import MLP
from qhat.cli.numbers import plain
from qhat.engine.learner import Learner
from qhat.engine.replay.ring import Transition
from qhat.recipes.recipe import Recipe
from qhat.runs.folder import RunFolder
from qhat.studies.tuning.study import Study
from qhat.system.errors import UsageError

STEPS, SIZE = 7, 5


def adam(gradients: np.ndarray, epsilon: float) -> list[np.ndarray]:
    m, v, out = np.zeros(SIZE), np.zeros(SIZE), []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        out.append(m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon))
    return out


def radam(gradients: np.ndarray, epsilon: float) -> list[np.ndarray]:
    """Liu et al. 2020 (arXiv:1908.03265), with r from the sixth step on, as in the authors' program."""
    m, v, longest, out = np.zeros(SIZE), np.zeros(SIZE), 2 / (1 - 0.999) - 1, []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        step = m / (1 - 0.9**t)
        if t > 5:
            top, bottom = (length - 4) * (length - 2) * longest, (longest - 4) * (longest - 2) * length
            step = np.sqrt(top / bottom) * step / (np.sqrt(v / (1 - 0.999**t)) + epsilon)
        out.append(step)
    return out


def rmsprop(gradients: np.ndarray, value: RMSProp) -> list[np.ndarray]:
    """PyTorch's where ε is outside; Graves's (2013, eq. 38 to 40) where it is under the root."""
    mean, square, velocity, out = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE), []
    for g in gradients:
        square = value.decay * square + (1 - value.decay) * g**2
        mean = value.decay * mean + (1 - value.decay) * g
        variance = square - mean**2
        root = np.sqrt(variance) + value.epsilon if value.outside else np.sqrt(variance + value.epsilon)
        velocity = value.momentum * velocity + g / root
        out.append(velocity.copy())
    return out


@pytest.mark.parametrize("epsilon", [1e-8, 0.01])
def test_radam_trusts_its_second_moment_little_by_little(epsilon: float):
    gradients = np.random.default_rng(2).normal(size=(1_000, SIZE)).astype(np.float32)
    scaling = RAdam(epsilon).scaling()

    def one(state, gradient):
        step, state = scaling.update(gradient, state)
        return state, step

    steps = np.asarray(jax.lax.scan(one, scaling.init(jnp.zeros(SIZE)), gradients)[1])
    expected = np.stack(radam(gradients.astype(float), epsilon))
    # The length of v's mean is a difference of two large numbers, exact to a per cent while it is short.
    np.testing.assert_allclose(steps[:100], expected[:100], rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(steps[100:], expected[100:], rtol=1e-3, atol=1e-5)
    ones = np.stack(radam(np.ones((1_000, SIZE)), 0.0))[:, 0]
    np.testing.assert_allclose(ones[[0, 4, 5, 999]], [1, 1, 0.026, 0.645], atol=1e-3)


def test_weights_decay_besides_the_gradient():
    """θ ← θ − α·(Adam's step + λ·θ), for steps in a row and by weights of its own (Loshchilov & Hutter)."""
    value, rate = AdamW(decay=0.3, epsilon=1e-3), 0.05
    gradients = np.random.default_rng(1).normal(size=(STEPS, SIZE)).astype(np.float32)
    scaling, weights = value.scaling(), np.linspace(-2, 2, SIZE).astype(np.float32)
    expected, state = weights.astype(float), scaling.init(jnp.asarray(weights))
    for gradient, step in zip(gradients, adam(gradients, 1e-3), strict=True):
        change, state = scaling.update(jnp.asarray(gradient), state, jnp.asarray(weights))
        weights = weights - rate * np.asarray(change)
        expected = expected - rate * (step + 0.3 * expected)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_a_learner_hands_its_weights_to_the_optimiser():
    recipe = Recipe(optimiser=AdamW(decay=0.5), learning_rate=0.1, hidden=(4,), torso=MLP()).scheduled()
    learner = Learner.of(recipe, (3,), Actions((2,)))
    state = learner.init(jax.random.key(0))
    # The first layer's units are never above 0, so that nothing but the decay moves their weights.
    layer = {"weight": jnp.ones((4, 3)), "bias": jnp.full(4, -100.0)}
    state = dataclasses.replace(state, online={**state.online, "q_hidden": layer})
    batch = Transition(
        jnp.ones((2, 3)), jnp.zeros((2, 1), jnp.int32), jnp.ones(2), jnp.zeros(2), jnp.ones((2, 3))
    )
    after, _ = learner.update(state, batch, jnp.ones(2), jax.random.key(1), jnp.int32(1))
    np.testing.assert_allclose(after.online["q_hidden"]["weight"], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(after.online["q_hidden"]["bias"], -100 * (1 - 0.1 * 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        Adam(),
        Adam(0.01),
        RMSProp(),
        RMSProp(outside=True),
        RMSProp(momentum=0.95, outside=True),
        RMSProp(decay=0.0, epsilon=1e-3),
    ],
    ids=str,
)
def test_a_gradient_becomes_what_the_formula_says(value: Optimiser):
    gradients = np.random.default_rng(0).normal(size=(STEPS, SIZE)).astype(np.float32)
    scaling = value.scaling()
    state = scaling.init(np.zeros(SIZE, np.float32))
    if isinstance(value, RMSProp):
        expected = rmsprop(gradients.astype(float), value)
    else:
        assert isinstance(value, Adam)
        expected = adam(gradients.astype(float), value.epsilon)
    for gradient, wanted in zip(gradients, expected, strict=True):
        scaled, state = scaling.update(gradient, state)
        np.testing.assert_allclose(np.asarray(scaled), wanted, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    "value", [Adam(), RAdam(), RMSProp(outside=True, momentum=0.95), RMSProp(epsilon=1e-8)], ids=str
)
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_a_gradient_that_hardly_changes_gives_numbers(value: Optimiser, size: float):
    random = np.random.default_rng(0)
    level = size * random.normal(size=512)
    scaling = value.scaling()
    state = scaling.init(np.zeros(512, np.float32))
    step = jax.jit(scaling.update)
    for at in range(600):
        noise = 0.0 if at % 2 else 1e-4 * random.normal(size=512)
        scaled, state = step(jnp.asarray(level * (1 + noise), jnp.float32), state)
        assert np.isfinite(np.asarray(scaled)).all(), at


def test_a_recipe_that_knew_only_watkinss_cut_is_read():
    for before, now in ((True, 0.0), (False, None)):
        assert Recipe.from_json({**Recipe().to_json(), "n_step_cut": before}) == Recipe(n_step_cut=now)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(UsageError, match=r"n_step_cut is .*expected a share of 0 or more"):
            dataclasses.replace(Recipe(), n_step_cut=wrong).validate()


def test_a_recipe_that_knew_only_adam_is_read():
    written = Recipe(optimiser=Adam(1e-5)).to_json()
    del written["optimiser"]
    assert Recipe.from_json({**written, "adam_epsilon": 1e-5}) == Recipe(optimiser=Adam(1e-5))
    with pytest.raises(UsageError, match=r"both adam_epsilon \(0.1\) and an optimiser"):
        Recipe.from_json({**Recipe().to_json(), "adam_epsilon": 0.1})


def test_the_flag_that_was_names_the_one_that_is():
    with pytest.raises(UsageError, match=r"now --optimiser: --optimiser adam:epsilon=1e-5\."):
        plain(Recipe, ["--adam-epsilon", "1e-5"])


def test_a_study_of_before_goes_on_and_a_refusal_names_the_field(tmp_path: Path):
    recipe = Recipe(optimiser=Adam(1e-5)).to_json()
    old = {name: value for name, value in recipe.items() if name != "optimiser"}
    study = Study(tmp_path / "study")
    study.begin({"recipe": {**old, "adam_epsilon": 1e-5}})
    study.begin({"recipe": recipe})
    with pytest.raises(UsageError, match=r"started with recipe's gamma 0\.99, not 0\.5"):
        study.begin({"recipe": {**recipe, "gamma": 0.5}})


def test_a_configuration_with_both_names_its_file(tmp_path: Path):
    recipe = {**Recipe().to_json(), "adam_epsilon": 0.1}
    run = RunFolder(tmp_path)
    run.config.write_text(json.dumps({"env": "CartPole-v1", "spec": {}, "recipe": recipe}))
    with pytest.raises(UsageError, match=r"config\.json' has both adam_epsilon"):
        run.read_config()
