"""The torsos of residual blocks against their definitions, written out in NumPy and float64.

Protects against a block without its shortcut, a normalisation at another place, and a learner that does not
reach their weights.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.agent.agent import Agent
from qhat.axes.axis import parse, spell
from qhat.axes.torso import TORSOS, BroNet, SimBa, SimBaV2
from qhat.system.errors import UsageError

SHAPE = (2, 3)


def drawn(torso: Any) -> dict[str, Any]:
    """Return parameters of which no scale is 1 and no offset 0."""
    parameters = torso.init(jax.random.key(0), SHAPE)
    leaves, tree = jax.tree.flatten(parameters)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves])


def dense(layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return np.asarray(layer["weight"], float) @ x + np.asarray(layer["bias"], float)


def norm(layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
    scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return scaled * np.asarray(layer["scale"], float) + np.asarray(layer["offset"], float)


def bronet(p: dict[str, Any], s: np.ndarray, blocks: int) -> np.ndarray:
    x = np.maximum(norm(p["input"]["norm"], dense(p["input"], s)), 0)
    for index in range(blocks):
        first, second = p[f"block{index}_first"], p[f"block{index}_second"]
        y = np.maximum(norm(first["norm"], dense(first, x)), 0)
        x = x + norm(second["norm"], dense(second, y))
    return x


def simba(p: dict[str, Any], s: np.ndarray, blocks: int) -> np.ndarray:
    x = dense(p["input"], s)
    for index in range(blocks):
        name = f"block{index}"
        y = dense(p[f"{name}_first"], norm(p[f"{name}_norm"], x))
        x = x + dense(p[f"{name}_second"], np.maximum(y, 0))
    return norm(p["norm"], x)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def simba2(p: dict[str, Any], s: np.ndarray, blocks: int) -> np.ndarray:
    def dense(layer: dict[str, Any], x: np.ndarray) -> np.ndarray:
        return np.asarray(layer["scale"], float) * (np.asarray(layer["weight"], float) @ x)

    x = unit(dense(p["input"], unit(np.append(s, 3.0))))
    for index in range(blocks):
        name = f"block{index}"
        y = unit(np.asarray(p[f"{name}_second"], float) @ np.maximum(dense(p[f"{name}_first"], x), 0))
        share = np.asarray(p[f"{name}_share"], float) / 8**-0.5 / (blocks + 1)
        x = unit(x + share * (y - x))
    return x * 8**0.5


KINDS = {"bronet": (BroNet, bronet), "simba": (SimBa, simba), "simba2": (SimBaV2, simba2)}


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(("kind", "oracle"), KINDS.values(), ids=KINDS)
def test_it_is_the_papers_network(kind: Any, oracle: Any, blocks: int) -> None:
    torso = kind(width=8, blocks=blocks)
    parameters, s = drawn(torso), np.random.default_rng(2).normal(size=SHAPE)
    found = torso.apply(parameters, jnp.asarray(s, jnp.float32))
    assert found.shape == (torso.features(SHAPE),) == (8,)
    np.testing.assert_allclose(found, oracle(parameters, s.reshape(-1), blocks), rtol=2e-4, atol=2e-4)


def test_the_inner_layer_of_simba_is_four_times_as_wide() -> None:
    parameters = SimBa(width=8, blocks=1).init(jax.random.key(0), SHAPE)
    assert parameters["block0_first"]["weight"].shape == (32, 8)
    assert parameters["block0_second"]["weight"].shape == (8, 32)


@pytest.mark.parametrize(
    "text", ["bronet", "bronet:width=512,blocks=3", "simba", "simba:width=64", "simba2:shift=2.0"]
)
def test_each_is_spelled(text: str) -> None:
    assert spell(parse(text, TORSOS)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bronet:width=0", "bronet:width is 0; expected 1 or more, up to 100,000."),
        ("simba:blocks=0", "simba:blocks is 0; expected 1 or more, up to 100."),
        ("simba2:shift=0", "simba2:shift is 0.0; expected more than 0, up to 1,000,000."),
        ("simba:depth=2", "torso 'simba' has no setting 'depth'"),
    ],
)
def test_settings_without_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(text, TORSOS)


@pytest.mark.parametrize("torso", ["bronet:width=16", "simba:width=16", "simba2:width=16"])
def test_a_fixed_batch_is_fitted(torso: str) -> None:
    """γ = 0: Q has to become the reward, which is another one for each observation."""
    agent = Agent(
        (3,), 2, torso=torso, hidden=(), gamma=0.0, batch_size=16, replay_capacity=64, learning_rate=1e-2,
        optimiser="adamw:decay=0.0001", learning_starts=0, seed=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    observations, rewards = rng.normal(size=(16, 3)).astype(np.float32), rng.normal(size=16)
    for row, reward in zip(observations, rewards, strict=True):
        agent.remember(row, 1, float(reward), row.copy(), True)
    agent.replay(updates=600)
    found = np.array([agent.q_values(row)[1] for row in observations])
    assert np.abs(found - rewards).max() < 0.1
    parameters = agent._learning.learner.online["torso"]
    rows = [np.linalg.norm(leaf, axis=1) for leaf in jax.tree.leaves(parameters) if np.ndim(leaf) == 2]
    assert all(np.allclose(lengths, 1.0) for lengths in rows) == ("simba2" in torso)


@pytest.mark.parametrize("torso", ["bronet:width=16", "simba:width=16", "simba2:width=16"])
def test_an_agent_acts_in_numpy_as_it_learns_in_jax(torso: str) -> None:
    """Keys of parameters are sorted by JAX: tensors of equal sizes may not change places."""
    agent = Agent((3,), 4, torso=torso, hidden=(), seed=1)
    learner = agent.program.learner
    parameters = agent._learning.learner.online
    for row in np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32):
        expected = learner.q_values(parameters, jnp.asarray(row))[0]
        np.testing.assert_allclose(agent.q_values(row), expected, atol=1e-5)


@pytest.mark.parametrize("inputs", [8, 64, 300])
def test_weights_of_length_1_begin_orthogonal(inputs: int) -> None:
    """Rows are orthogonal where there are no more of them than inputs, columns almost where there are."""
    for seed in range(5):
        parameters = SimBaV2(width=64, blocks=1).init(jax.random.key(seed), (inputs - 1,))
        weight = np.asarray(parameters["input"]["weight"], float)
        np.testing.assert_allclose(np.linalg.norm(weight, axis=1), 1.0, rtol=1e-5)
        values = np.linalg.svd(weight, compute_uv=False)
        assert values.min() > (0.999 if inputs >= 64 else 0.7 * np.sqrt(64 / inputs))


@pytest.mark.parametrize("kind", TORSOS, ids=lambda kind: kind.name)
def test_no_torso_draws_its_weights_with_lapack(kind: Any) -> None:
    """XLA's processor calls it in a pool that waits for itself, so that several seeds never begin."""
    shape = (84, 84, 4)
    made = jax.jit(jax.vmap(lambda key: kind().fitted(shape).init(key, shape)))
    assert "lapack" not in made.lower(jax.random.split(jax.random.key(0), 5)).as_text()
