"""Torsos compute the networks of their papers, from any order of axes; both convolutions agree.

Protects against channels read as pixels, a wrong number of features, and pixels fed to an MLP by accident.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inside import state_of
from qhat import recipes
from qhat.agent.agent import Agent
from qhat.axes import convolution
from qhat.axes.actions import Actions
from qhat.axes.dense import Noisy
from qhat.axes.torso import (
    MLP,
    TORSOS,
    Auto,
    BroNet,
    DataEfficient,
    Impala,
    MinAtar,
    Mnih2013,
    Nature,
    SimBa,
    SimBaV2,
)
from qhat.engine.learner import Learner
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError


def plain(parameters: Any, image: jax.Array, stride: int, padding: str) -> jax.Array:
    out = jax.lax.conv_general_dilated(
        image[None], parameters["weight"], (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
    )  # fmt: skip
    return out[0] + parameters["bias"]


@pytest.mark.parametrize(
    ("kernel", "stride", "same", "size"),
    [(3, 1, False, (10, 10)), (3, 1, True, (9, 12)), (8, 4, False, (43, 36)), (4, 2, False, (9, 20)),
     (3, 1, True, (40, 33)), (8, 4, False, (84, 80)), (4, 2, False, (37, 40)), (5, 5, False, (84, 83)),
     (5, 2, False, (40, 41)), (4, 3, False, (41, 40))],
)  # fmt: skip
def test_convolution_is_the_plain_one_and_so_are_its_gradients(
    kernel: int, stride: int, same: bool, size: tuple[int, int]
) -> None:
    drawn = np.random.default_rng(0)
    parameters = convolution.init(jax.random.key(0), kernel, 5, 6)
    images = jnp.asarray(drawn.normal(size=(4, *size, 5)), jnp.float32)
    shape = jax.eval_shape(lambda: plain(parameters, images[0], stride, "SAME" if same else "VALID")).shape
    mixed = jnp.asarray(drawn.normal(size=shape), jnp.float32)

    def fast(parameters: Any, image: jax.Array) -> jax.Array:
        return convolution.convolve(parameters, image, stride, same)

    def slow(parameters: Any, image: jax.Array) -> jax.Array:
        return plain(parameters, image, stride, "SAME" if same else "VALID")

    def total(apply: Any, parameters: Any, images: jax.Array) -> jax.Array:
        return (
            jnp.mean(jax.vmap(lambda image: jnp.vdot(mixed, apply(parameters, image)))(images)) / mixed.size
        )

    for image in images:
        np.testing.assert_allclose(fast(parameters, image), slow(parameters, image), atol=1e-5)
    gradients = jax.jit(jax.grad(total, argnums=(1, 2)), static_argnums=0)
    ours, theirs = (gradients(apply, parameters, images) for apply in (fast, slow))
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(our, their, atol=1e-5)


def test_seeds_weights_differ_and_so_do_their_convolutions() -> None:
    drawn = jax.random.split(jax.random.key(0), 3)
    parameters = jax.vmap(lambda key: convolution.init(key, 3, 5, 6))(drawn)
    images = jax.random.normal(jax.random.key(1), (3, 4, 40, 41, 5))

    def loss(convolve: Any, parameters: Any, images: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(lambda image: convolve(parameters, image))(images) ** 2)

    def of_seeds(convolve: Any, shared: bool) -> Any:
        gradient = jax.grad(lambda each, images: loss(convolve, each, images), argnums=(0, 1))
        axes = (0, None) if shared else (0, 0)
        return jax.jit(jax.vmap(gradient, axes))(parameters, images[0] if shared else images)

    for shared in (True, False):
        ours = of_seeds(convolution.convolve, shared)
        theirs = of_seeds(lambda each, image: plain(each, image, 1, "VALID"), shared)
        for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(our, their, atol=1e-5)


@pytest.mark.parametrize("torso", [Nature(), Impala()])
def test_every_convolution_of_a_loop_has_the_order_that_xla_computes_fast(torso: Any) -> None:
    shape = (84, 84, 4)
    parameters = torso.init(jax.random.key(0), shape)
    frames = jnp.ones((2, *shape))

    def loss(parameters: Any) -> jax.Array:
        return jnp.mean(jax.vmap(torso.apply, (None, 0))(parameters, frames) ** 2)

    def several(parameters: Any) -> Any:
        def one(parameters: Any, _: None) -> tuple[Any, None]:
            return jax.tree.map(jnp.subtract, parameters, jax.grad(loss)(parameters)), None

        return jax.lax.scan(one, parameters, None, length=2)[0]

    text = str(jax.jit(several).lower(parameters).compile().as_text())
    orders = re.findall(r" convolution\(.*dim_labels=(\S+?)[,\s]", text)
    assert len(orders) >= 3 * 2
    assert set(orders) == {"b01f_01io->b01f"}


def test_minatar_torso_is_its_papers_convolution() -> None:
    torso, shape = MinAtar(), (10, 10, 4)
    parameters = torso.init(jax.random.key(0), shape)
    image = jax.random.bernoulli(jax.random.key(1), 0.2, shape)
    expected = jax.nn.relu(plain(parameters, image.astype(jnp.float32), 1, "VALID")).reshape(-1)
    np.testing.assert_allclose(torso.apply(parameters, image), expected, atol=1e-5)
    assert expected.size == torso.features(shape) == 1024


def test_minatar_is_normalised_at_every_place() -> None:
    torso, shape = MinAtar(filters=5, layer_norm=True), (4, 5, 2)
    parameters = torso.init(jax.random.key(0), shape)
    scale, offset = jax.random.normal(jax.random.key(1), (2, 5))
    image = jax.random.bernoulli(jax.random.key(2), 0.4, shape)
    x = np.asarray(plain(parameters, image.astype(jnp.float32), 1, "VALID"))
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + offset
    got = torso.apply({**parameters, "norm": {"scale": scale, "offset": offset}}, image)
    np.testing.assert_allclose(got, np.maximum(x, 0).reshape(-1), atol=1e-5)
    assert Auto(layer_norm=True).fitted(shape) == MinAtar(layer_norm=True)
    assert Auto(layer_norm=True).of_image(shape) == MinAtar(layer_norm=True)
    assert Auto(layer_norm=True).fitted((84, 84, 4)) == Nature()


def test_nature_is_the_papers_network() -> None:
    torso, shape = Nature(), (84, 84, 4)
    parameters = torso.init(jax.random.key(0), shape)
    assert torso.features(shape) == 3136
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == 8224 + 32832 + 36928
    frames = jax.random.randint(jax.random.key(1), shape, 0, 256).astype(jnp.uint8)
    x = frames.astype(jnp.float32) / 255
    for index, stride in enumerate((4, 2, 1)):
        x = jax.nn.relu(plain(parameters[f"convolution{index}"], x, stride, "VALID"))
    np.testing.assert_allclose(torso.apply(parameters, frames), x.reshape(-1), atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_impala_is_the_papers_network(width: int) -> None:
    torso, shape = Impala(width), (84, 84, 4)
    parameters = torso.init(jax.random.key(0), shape)
    assert torso.features(shape) == 11 * 11 * 32 * width
    count = 0
    for before, after in ((4, 16), (16, 32), (32, 32)):
        inputs = before if before == 4 else before * width
        count += 9 * inputs * after * width + 4 * 9 * (after * width) ** 2 + 5 * after * width
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == count
    frames = jax.random.randint(jax.random.key(1), (21, 20, 4), 0, 256).astype(jnp.uint8)
    x = frames.astype(jnp.float32) / 255
    for section in range(3):
        section_parameters = {
            name: value for name, value in parameters.items() if name.startswith(f"section{section}")
        }
        x = plain(section_parameters[f"section{section}"], x, 1, "SAME")
        # The maximum over windows, spelled with NumPy: of an even side, the border is at its end.
        borders = [(side % 2, 1) for side in x.shape[:2]]
        filled = np.pad(np.asarray(x), (*borders, (0, 0)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(filled, (3, 3), axis=(0, 1))
        x = jnp.asarray(windows[::2, ::2].max(axis=(-2, -1)))
        for block in ("block0", "block1"):
            y = plain(section_parameters[f"section{section}_{block}_first"], jax.nn.relu(x), 1, "SAME")
            x = x + plain(section_parameters[f"section{section}_{block}_second"], jax.nn.relu(y), 1, "SAME")
    np.testing.assert_allclose(torso.apply(parameters, frames), jax.nn.relu(x).reshape(-1), atol=1e-5)


def test_a_pool_keeps_what_is_not_a_number() -> None:
    for row in range(5):
        pooled = convolution.pool(jnp.zeros((5, 5, 1)).at[row, 2].set(jnp.nan))
        assert np.isnan(pooled).any()


@pytest.mark.parametrize(
    ("torso", "features", "weights", "strides"),
    [(DataEfficient(), 3 * 3 * 64, 3232 + 51264, (5, 5)), (Mnih2013(), 9 * 9 * 32, 4112 + 8224, (4, 2))],
    ids=["data_efficient", "mnih2013"],
)
def test_two_convolutions_are_the_papers_network(
    torso: Any, features: int, weights: int, strides: tuple[int, ...]
) -> None:
    shape = (84, 84, 4)
    parameters = torso.init(jax.random.key(0), shape)
    assert torso.features(shape) == features
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == weights
    frames = jax.random.randint(jax.random.key(1), shape, 0, 256).astype(jnp.uint8)
    x = frames.astype(jnp.float32) / 255
    for index, stride in enumerate(strides):
        x = jax.nn.relu(plain(parameters[f"convolution{index}"], x, stride, "VALID"))
    np.testing.assert_allclose(torso.apply(parameters, frames), x.reshape(-1), atol=1e-5)


@pytest.mark.parametrize(
    "torso", [Nature(), Mnih2013(), DataEfficient(), Impala()], ids=lambda torso: torso.name
)
def test_every_order_of_axes_is_the_same_picture(torso: Any) -> None:
    last = np.random.default_rng(0).integers(0, 256, (40, 48, 6)).astype(np.uint8)
    parameters = torso.init(jax.random.key(0), last.shape)
    # Two frames of three colours: (stack, height, width, colours).
    stacked = np.moveaxis(last.reshape(40, 48, 2, 3), 2, 0)
    expected = torso.apply(parameters, jnp.asarray(last))
    for other in (np.moveaxis(last, 2, 0), stacked):
        same = torso.init(jax.random.key(0), other.shape)
        assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, parameters)
        assert torso.features(other.shape) == expected.size
        np.testing.assert_array_equal(torso.apply(parameters, jnp.asarray(other)), expected)
    grey = torso.init(jax.random.key(0), (40, 48))
    np.testing.assert_array_equal(
        torso.apply(grey, jnp.asarray(last[..., 0])), torso.apply(grey, jnp.asarray(last[..., :1]))
    )
    # Numbers that are no bytes are taken as they are.
    np.testing.assert_allclose(
        torso.apply(parameters, jnp.asarray(last / 255.0, jnp.float32)), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("torso", "shape"),
    [
        (Nature(), (10, 10, 4)), (Nature(), (84,)), (Nature(), (35, 84, 4)), (Nature(), (84, 84, 84)),
        (Nature(), (2, 4, 84, 84)), (Impala(), (7, 7, 3)), (Impala(), (4,)), (MinAtar(), (10, 10)),
        (DataEfficient(), (24, 84, 4)), (Mnih2013(), (19, 84, 4)),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_gets_a_sentence(torso: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"torso '\w+' takes .*torso='auto'"):
        torso.features(shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4,), MLP()), ((10, 5), MLP()), ((4, 10, 10), MLP()), ((2, 2, 1), MLP()), ((3, 720), MLP()),
        ((10, 10, 10), MinAtar()), ((10, 10, 4), MinAtar()), ((7, 7, 3), MinAtar()),
        ((4, 84, 84), Nature()), ((84, 84, 4), Nature()), ((210, 160, 3), Nature()), ((84, 84), Nature()),
        ((4, 96, 96, 3), Nature()), ((84, 84, 84), MLP()),
    ],
)  # fmt: skip
def test_auto_takes_what_fits_and_a_recipe_then_names_it(shape: tuple[int, ...], expected: Any) -> None:
    assert Auto().fitted(shape) == expected
    learner = Learner.of(Recipe(), shape, Actions((3,)))
    assert learner.recipe.torso == learner.network.torso == expected
    assert Learner.of(Recipe(torso=MLP()), shape, Actions((3,))).network.torso == MLP()
    auto, chosen = (each.init(jax.random.key(0), shape) for each in (Auto(), expected))
    assert jax.tree.map(jnp.shape, auto) == jax.tree.map(jnp.shape, chosen)
    image = jnp.ones(shape, jnp.uint8)
    np.testing.assert_array_equal(Auto().apply(auto, image), expected.apply(chosen, image))
    assert Auto().features(shape) == expected.features(shape)


def test_every_recipe_takes_the_torso_that_fits() -> None:
    others = {name: each.torso for name, each in recipes.RECIPES.items() if each.torso != Auto()}
    assert others == {
        "bro": BroNet(width=128), "simba": SimBa(), "simba2": SimBaV2(),
        "pqn": Auto(layer_norm=True), "pqn_minatar": Auto(layer_norm=True),
    }  # fmt: skip
    assert {kind.name for kind in TORSOS} == {
        "auto", "mlp", "bronet", "simba", "simba2", "minatar", "nature", "mnih2013", "data_efficient",
        "impala", "impoola",
    }  # fmt: skip


def test_frames_stay_bytes_until_the_network_and_only_dense_layers_are_noisy() -> None:
    agent = Agent(((2, 36, 36), "uint8"), 3, "rainbow", hidden=(8,), replay_capacity=32, batch_size=4)
    assert agent.recipe.torso == Nature()
    assert agent.program.dtype == "uint8"
    frame = np.random.default_rng(0).integers(0, 256, (2, 36, 36)).astype(np.uint8)
    assert agent.act(frame) in (0, 1, 2)
    assert state_of(agent).ring.observation.dtype == jnp.uint8
    weights = state_of(agent).learner.online
    assert set(weights["torso"]["convolution0"]) == {"weight", "bias"}
    assert set(weights["value"]) == {"weight", "bias", "weight_sigma", "bias_sigma"}
    learner = Learner.of(Recipe(dense=Noisy(), torso=Impala()), (12, 12, 3), Actions((3,)))
    noisy = {"weight_sigma", "bias_sigma"}
    torso = jax.eval_shape(learner.init_parameters, jax.random.key(0))["torso"]
    assert not any(noisy & set(layer) for layer in torso.values())
