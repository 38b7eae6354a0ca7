"""Impoola, the encoder of Beyond The Rainbow and that of data-efficient Rainbow, against their definitions.

Protects against windows of another pool, a normalisation that is not the spectral one or that stops the
wrong gradient, and pictures that are too small.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.agent.agent import Agent
from qhat.axes import convolution, pooling, spectral
from qhat.axes.axis import parse, spell
from qhat.axes.torso import TORSOS, DataEfficient, Impala, Impoola
from qhat.axes.torso.impala import RESIDUAL
from qhat.system.errors import UsageError

PICTURE = np.random.default_rng(0).integers(0, 256, (84, 84, 4)).astype(np.uint8)


def last_section(parameters: Any, picture: np.ndarray) -> np.ndarray:
    """Return the last feature map of `impala`, before it is flattened."""
    flat = np.asarray(Impala().apply(parameters, jnp.asarray(picture)))
    sides = [-(-side // 8) for side in picture.shape[:2]]
    return flat.reshape(*sides, -1)


def adaptive(image: np.ndarray, side: int) -> np.ndarray:
    """PyTorch's AdaptiveMaxPool2d, window by window."""
    height, width, channels = image.shape
    found = np.full((side, side, channels), -np.inf, np.float32)
    for i in range(side):
        for j in range(side):
            rows = slice(int(np.floor(i * height / side)), int(np.ceil((i + 1) * height / side)))
            columns = slice(int(np.floor(j * width / side)), int(np.ceil((j + 1) * width / side)))
            found[i, j] = image[rows, columns].max(axis=(0, 1))
    return found


@pytest.mark.parametrize(("size", "side"), [((11, 11), 6), ((6, 7), 6), ((13, 9), 4), ((5, 8), 1)])
def test_the_pool_is_the_adaptive_one(size: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(1).normal(size=(*size, 3)).astype(np.float32)
    expected = adaptive(image, side)
    np.testing.assert_array_equal(pooling.adaptive_max(jnp.asarray(image), side), expected)
    op = pooling.adaptive_max_op(*size, side)
    np.testing.assert_array_equal(image[op["rows"]].max(1)[:, op["columns"]].max(2), expected)


def test_impala_with_a_pool_ends_in_its_maxima() -> None:
    torso = Impala(pool=6)
    assert torso.features((4, 84, 84)) == 6 * 6 * 32
    assert Impala(width=2, pool=6, spectral=True).features((4, 84, 84)) == 6 * 6 * 64
    picture = PICTURE[:50, :43]
    parameters = torso.init(jax.random.key(0), picture.shape)
    expected = adaptive(last_section(parameters, picture), 6).reshape(-1)
    np.testing.assert_allclose(torso.apply(parameters, jnp.asarray(picture)), expected, atol=1e-6)


def test_impoola_is_the_mean_of_impala() -> None:
    torso = Impoola()
    assert (torso.features(PICTURE.shape), Impoola(width=4).features(PICTURE.shape)) == (32, 128)
    picture = PICTURE[:17, :30]
    parameters = torso.init(jax.random.key(0), picture.shape)
    expected = last_section(parameters, picture).mean(axis=(0, 1))
    np.testing.assert_allclose(torso.apply(parameters, jnp.asarray(picture)), expected, atol=1e-6)
    same = Impala().init(jax.random.key(0), picture.shape)
    assert jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, same)


def test_data_efficient_is_the_papers_network() -> None:
    torso = DataEfficient()
    parameters = torso.init(jax.random.key(0), PICTURE.shape)
    assert torso.features(PICTURE.shape) == 576
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == 25 * 4 * 32 + 32 + 25 * 32 * 64 + 64
    x = jnp.asarray(PICTURE, jnp.float32)[None] / 255
    for index in range(2):
        layer = parameters[f"convolution{index}"]
        x = jax.lax.conv_general_dilated(
            x, layer["weight"], (5, 5), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )  # fmt: skip
        x = jax.nn.relu(x + layer["bias"])
    np.testing.assert_allclose(torso.apply(parameters, jnp.asarray(PICTURE)), x.reshape(-1), atol=1e-5)


def drawn(filters: int, seed: int = 0) -> jax.Array:
    return convolution.init(jax.random.key(seed), 3, filters, filters)["weight"]


@pytest.mark.parametrize("filters", [16, 32, 64])
def test_normalised_weights_have_the_singular_value_1(filters: int) -> None:
    for seed in range(3):
        for scale in (1e-3, 1.0, 1e3):
            weight = scale * drawn(filters, seed)
            found = np.asarray(spectral.normalise(weight), np.float64).reshape(-1, filters)
            matrix = np.asarray(weight, np.float64).reshape(-1, filters)
            largest = np.linalg.svd(matrix, compute_uv=False)[0]
            np.testing.assert_allclose(found * largest, matrix, rtol=3e-3)
    assert np.isfinite(spectral.normalise(jnp.zeros((3, 3, filters, filters)))).all()


def test_the_gradient_of_the_norm_is_that_of_the_singular_value() -> None:
    """Miyato et al. 2018, eq. 11: the same with constant vectors as through an exact decomposition."""
    # One direction stands out, so that 64 steps find it exactly.
    weight = drawn(8).at[0, 0].add(1.0)
    mixed = jnp.asarray(np.random.default_rng(2).normal(size=weight.shape), jnp.float32)

    def exact(weight: jax.Array) -> jax.Array:
        return weight / jnp.linalg.svd(weight.reshape(-1, 8), full_matrices=False)[1][0]

    ours = jax.grad(lambda weight: jnp.vdot(mixed, spectral.normalise(weight)))(weight)
    theirs = jax.grad(lambda weight: jnp.vdot(mixed, exact(weight)))(weight)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_only_the_residual_blocks_are_normalised() -> None:
    torso, picture = Impala(spectral=True), jnp.asarray(PICTURE[:12, :9])
    parameters = torso.init(jax.random.key(0), picture.shape)
    assert sum(name[9:] in RESIDUAL for name in parameters) == 12

    def changed(change: Any) -> Any:
        return {
            name: {**layer, "weight": change(layer["weight"])} if name[9:] in RESIDUAL else layer
            for name, layer in parameters.items()
        }

    found = torso.apply(parameters, picture)
    np.testing.assert_allclose(found, Impala().apply(changed(spectral.normalise), picture), rtol=1e-5)
    # Weights of another scale are the same network.
    np.testing.assert_allclose(found, torso.apply(changed(lambda w: 7 * w), picture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("torso", "shape", "least"),
    [
        (Impala(pool=6), (40, 84, 4), 41),
        (Impala(width=2, pool=1), (7, 9, 3), 8),
        (Impoola(), (7, 9, 3), 8),
        (DataEfficient(), (4, 24, 84), 25),
    ],
    ids=str,
)
def test_a_small_picture_gets_the_least_side(torso: Any, shape: tuple[int, ...], least: int) -> None:
    with pytest.raises(UsageError, match=rf"torso '{torso.name}\S*' takes images of {least} pixels"):
        torso.features(shape)
    fits = tuple(max(side, least) if side > 4 else side for side in shape)
    parameters = torso.init(jax.random.key(0), fits)
    assert torso.apply(parameters, jnp.ones(fits, jnp.uint8)).size == torso.features(fits)


@pytest.mark.parametrize(
    ("text", "torso"),
    [
        ("impala:width=2,pool=6,spectral=true", Impala(width=2, pool=6, spectral=True)),
        ("impala", Impala()),
        ("impoola:width=4", Impoola(width=4)),
        ("data_efficient", DataEfficient()),
    ],
)
def test_each_is_spelled(text: str, torso: Any) -> None:
    assert parse(text, TORSOS) == torso
    assert spell(torso) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("impala:pool=0", "impala:pool is 0; expected none, or 1 or more"),
        ("impala:width=0", "impala:width is 0; expected 1 or more"),
        ("impoola:width=0", "impoola:width is 0; expected 1 or more"),
        ("impoola:pool=6", "torso 'impoola' has no setting 'pool'"),
    ],
)
def test_settings_without_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(text, TORSOS)


@pytest.mark.parametrize("torso", ["impala:pool=2,spectral=true", "impoola"])
def test_an_agent_learns_with_it(torso: str) -> None:
    agent = Agent(((16, 16, 3), "uint8"), 2, torso=torso, hidden=(8,), replay_capacity=32, batch_size=4)
    pictures = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    for before, after in itertools.pairwise(pictures):
        agent.remember(before, 1, 1.0, after, False)
    agent.replay()
    assert np.isfinite(agent.q_values(pictures[0])).all()
