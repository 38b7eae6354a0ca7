"""Every network that qhat trains is exported exactly: onnxruntime and NumPy give the same Q.

Protects against a head, torso or normalisation that is left out of the graph, streams merged over the wrong
axis, choices that do not exist, and images in the wrong order of axes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from full import FULL
from log_cosh import LogCosh
from qhat import recipes, runtime
from qhat.axes.actions import Actions
from qhat.axes.axis import spell
from qhat.axes.behaviour import NoBehaviour
from qhat.axes.dense import Dense, Sparse
from qhat.axes.greedy import best
from qhat.axes.heads import Categorical, Expected
from qhat.axes.joints import Pairs
from qhat.axes.operations import Op
from qhat.axes.resolution import CoarseToFine
from qhat.axes.torso import (
    MLP,
    BroNet,
    DataEfficient,
    Impala,
    Impoola,
    MinAtar,
    Mnih2013,
    Nature,
    SimBa,
    SimBaV2,
    Torso,
)
from qhat.deploy import graph
from qhat.deploy.parity import NEAR_TIE, TOLERANCE, Agreement, near_ties
from qhat.engine.described import Exported, read_network
from qhat.engine.learner import Learner
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

UNEQUAL = Actions((2, 4, 3))
COUNT = 7


@dataclasses.dataclass(frozen=True)
class Both:
    """A network with random parameters, and its exported form."""

    learner: Learner
    parameters: Any
    exported: Exported
    dtype: str

    @staticmethod
    def of(recipe: Recipe, shape: tuple[int, ...], actions: Actions, dtype: str = "float32") -> Both:
        learner = Learner.of(recipe, shape, actions)
        parameters = learner.init_parameters(jax.random.key(1))
        if recipe.normalise:
            rng = np.random.default_rng(3)
            parameters["observations"] = dataclasses.replace(
                parameters["observations"],
                count=jnp.float32(100),
                mean=jnp.asarray(rng.normal(size=shape), jnp.float32),
                m2=jnp.asarray(rng.uniform(0, 90, shape), jnp.float32),
            )
        return Both(learner, parameters, read_network(learner, parameters, dtype, None), dtype)

    def observations(self) -> np.ndarray:
        shape, rng = (COUNT, *self.learner.network.shape), np.random.default_rng(0)
        if self.dtype == "float32":
            return (3 * rng.normal(size=shape)).astype(np.float32)
        return rng.integers(0, 2 if self.dtype == "bool" else 256, shape).astype(self.dtype)

    def require_equal(self) -> bytes:
        """Compare values and actions; return the graph."""
        observations, actions = self.observations(), self.learner.actions
        values = jax.jit(jax.vmap(self.learner.preferences, (None, 0)))(self.parameters, observations)
        expected = np.asarray(values)
        choice = best(expected, None, self.learner.network.joint)
        sent = actions.to_env(choice)
        model = graph.build(
            self.exported, self.learner.network.shape, self.dtype, actions, False, {"name": "x"}
        )
        data = model.SerializeToString()
        session = runtime.open_graph(data)
        for batch in (observations, observations[:2], observations[:1]):
            q, action = session.run(["q_values", "action"], {"observation": batch})
            n = len(batch)
            assert q.shape == ((n, *expected.shape[1:]) if actions.vector else (n, expected.shape[2]))
            require_close(q.reshape(n, *expected.shape[1:]), expected[:n])
            sure = ~near_ties(expected[:n])
            assert sure.any()
            assert (action.dtype, action.shape) == (sent.dtype, sent[:n].shape)
            np.testing.assert_array_equal(action[sure], sent[:n][sure])
        run = runtime.plan(self.exported.ops, self.exported.tensors)
        ours = np.stack([run(row).copy() for row in observations]).reshape(expected.shape)
        there = np.isfinite(expected)
        require_close(np.where(there, ours, 0), np.where(there, expected, 0))
        return data


def require_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    there = np.isfinite(expected)
    away = np.abs(found[there] - expected[there]) / np.maximum(1, np.abs(expected[there]))
    assert away.max() <= TOLERANCE


OF_NETWORK = ("head", "merge", "dense", "hidden", "layer_norm", "normalise", "behaviour")


def of_network(recipe: Recipe) -> tuple[Any, ...]:
    """Return the parts of a recipe that determine the network."""
    return tuple(getattr(recipe, name) for name in OF_NETWORK)


@functools.cache
def equal(network: tuple[Any, ...], actions: Actions) -> bytes:
    parts = dict(zip(OF_NETWORK, network, strict=True))
    if not parts["behaviour"].acts:
        parts["behaviour"] = NoBehaviour()
    recipe = dataclasses.replace(recipes.dqn, **parts, torso=MLP())
    return Both.of(recipe, (5,), actions).require_equal()


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_exported(name: str):
    recipe = recipes.get(name)
    if recipe.torso.fitted((5,)) != MLP():
        assert len(Both.of(recipe, (5,), Actions((2,))).require_equal()) > 100_000, "bronet and simba"
        return
    # Recipes that differ in how they learn have the same network, which is compared once.
    assert len(equal(of_network(recipes.get(name)), Actions((2,)))) > 1_000


NETWORKS = {of_network(dataclasses.replace(recipe, hidden=())) for recipe in recipes.RECIPES.values()}


@pytest.mark.parametrize("network", sorted(NETWORKS, key=str), ids=lambda key: f"{key[0].name}")
@pytest.mark.parametrize("hidden", [(12, 10), (8,), ()] if FULL else [(12, 10)], ids=str)
def test_unequal_factors_layer_norm_and_normalisation(network: tuple, hidden: tuple[int, ...]):
    head, merge, dense, *_, behaviour = network
    if isinstance(dense, Sparse):
        # Of ten numbers one in ten is left, and all values are near ties.
        dense = Sparse(zeros=0.5)
    assert equal((head, merge, dense, hidden, True, True, behaviour), UNEQUAL)


def test_no_hidden_layer_and_commands_of_joints():
    joints = Actions.binned([-1.0, 0.0], [1.0, 5.0], [3, 2], "x")
    assert equal(
        (recipes.rainbow.head, recipes.rainbow.merge, Dense(), (), False, False, NoBehaviour()), joints
    )
    # One factor that is a list all the same, and joints of whole numbers.
    one = Actions((4,), shape=(1,))
    assert equal((Expected(), recipes.dqn.merge, Dense(), (6,), False, False, NoBehaviour()), one)
    whole = Actions.binned([0], [7], [4], "x", "int32")
    assert equal((Expected(), recipes.dqn.merge, Dense(), (6,), False, False, NoBehaviour()), whole)


@pytest.mark.parametrize("recipe", [recipes.dqn, recipes.rainbow, recipes.iqn], ids=lambda r: r.head.name)
@pytest.mark.parametrize(
    "actions", [UNEQUAL, Actions.binned([-1.0, 0.0], [1.0, 5.0], [3, 2], "x")], ids=["unequal", "joints"]
)
def test_pairs_are_exported(recipe: Recipe, actions: Actions):
    recipe = dataclasses.replace(recipe, joints=Pairs(), torso=MLP(), hidden=(8,))
    both = Both.of(recipe, (5,), actions)
    assert both.learner.network.joint is not None
    both.require_equal()


@pytest.mark.parametrize("recipe", [recipes.dqn, recipes.rainbow, recipes.iqn], ids=lambda r: r.head.name)
def test_cells_of_joints_are_exported(recipe: Recipe):
    recipe = dataclasses.replace(recipe, resolution=CoarseToFine(), torso=MLP(), hidden=(8,))
    both = Both.of(recipe, (5,), Actions.binned([-1.0, 0.0], [1.0, 5.0], [9, 3], "x"))
    assert both.learner.network.cells is not None
    both.require_equal()


def test_only_the_atoms_in_use_are_exported():
    recipe = dataclasses.replace(recipes.c51, head=Categorical(atoms=51), hidden=(8,))
    both = Both.of(recipe, (3,), Actions((2,)))
    support = both.parameters["support"]
    support |= {"low": jnp.float32(5.0), "high": jnp.float32(20.0)}
    exported = read_network(both.learner, both.parameters, "float32", None)
    assert exported.tensors["atoms/values"].shape == (16,)
    assert exported.tensors["outputs/weight"].shape == (32, 8)
    dataclasses.replace(both, exported=exported).require_equal()


@pytest.mark.parametrize(
    ("torso", "shape", "dtype"),
    [
        (MinAtar(filters=4), (10, 9, 4), "bool"),
        (MinAtar(filters=3, layer_norm=True), (10, 9, 4), "bool"),
        (Nature(), (4, 40, 44), "uint8"),
        (Nature(), (36, 40), "uint8"),
        (Nature(), (2, 36, 40, 3), "float32"),
        (Impala(), (9, 12, 3), "uint8"),
        (Impala(), (2, 11, 8), "float32"),
        (Impala(width=2), (9, 12, 3), "uint8"),
        (Impala(pool=2), (25, 17, 1), "uint8"),
        (Impala(pool=1, spectral=True), (2, 11, 8), "float32"),
        (Impoola(), (2, 11, 20), "uint8"),
        (DataEfficient(), (4, 53, 25), "uint8"),
        (Mnih2013(), (4, 41, 25), "uint8"),
        (BroNet(width=12, blocks=2), (7,), "float32"),
        (SimBa(width=12, blocks=2), (2, 3), "float32"),
        (SimBaV2(width=12, blocks=2), (2, 3), "float32"),
    ],
    ids=lambda value: spell(value) if isinstance(value, Torso) else str(value),
)
def test_every_torso_is_exported(torso: Any, shape: tuple[int, ...], dtype: str):
    recipe = dataclasses.replace(recipes.rainbow, torso=torso, hidden=(16,), head=Expected())
    Both.of(recipe, shape, Actions((3,)), dtype).require_equal()
    if dtype == "uint8" and (FULL or torso == Impala()):
        # Once they are normalised they are no bytes any more: nothing is divided by 255.
        Both.of(dataclasses.replace(recipe, normalise=True), shape, Actions((3,)), dtype).require_equal()


def test_a_small_network_is_a_small_file():
    recipe = dataclasses.replace(recipes.qhat, torso=MLP(), hidden=(64, 64))
    assert len(Both.of(recipe, (4,), Actions((2,))).require_equal()) <= 50_000


@dataclasses.dataclass(frozen=True)
class Doubled(MLP):
    """A torso from outside that computes something else than its base class."""

    name: ClassVar[str] = "doubled"

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return 2.0 * super().apply(parameters, observation)


@dataclasses.dataclass(frozen=True)
class Described(Doubled):
    """The same torso, with its operations."""

    name: ClassVar[str] = "described"

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        twice = 2.0 * np.eye(math.prod(shape), dtype=np.float32)
        bias = np.zeros(len(twice), np.float32)
        return [{"op": "flatten"}, {"op": "dense", "name": "twice", "weight": twice, "bias": bias}]


@dataclasses.dataclass(frozen=True)
class Secret(LogCosh):
    """A head from outside that does not describe its export."""

    name: ClassVar[str] = "secret"

    def mean(self, z: Float[Array, "F C K"], basis: Any) -> Float[Array, "F C"]:
        return jnp.tanh(z[..., 0])


@pytest.mark.parametrize(("axis", "part"), [("head", Secret()), ("torso", Doubled())], ids=str)
def test_a_part_that_does_not_describe_itself_is_refused_by_its_name(axis: str, part: Any):
    recipe = dataclasses.replace(recipes.rainbow, **{axis: part})
    learner = Learner.of(recipe, (4,), Actions((2,)))
    with pytest.raises(UsageError, match=rf"{axis} '{part.name}' cannot be exported; expected one whose"):
        read_network(learner, {}, "float32", None)


@pytest.mark.parametrize("shape", [(5,), (2, 3)], ids=str)
def test_a_head_and_a_torso_from_outside_are_exported(shape: tuple[int, ...]):
    recipe = dataclasses.replace(recipes.dqn, head=LogCosh(), torso=Described(), hidden=(8,))
    both = Both.of(recipe, shape, UNEQUAL)
    assert "torso/twice/weight" in both.exported.tensors
    both.require_equal()


def test_agreement_counts_what_differs_but_for_near_ties():
    q = np.array([[[1.0, 1.0 + 0.5 * NEAR_TIE]], [[1.0, 2.0]], [[100.0, -np.inf]]], np.float32)
    assert near_ties(q).tolist() == [True, False, False]
    assert not near_ties(q[..., :1]).any()
    agreement = Agreement()
    agreement.take(q, q.copy(), np.array([False, True, True]), None)
    assert agreement.good
    assert agreement.near_ties == 1
    agreement.take(q[1:2], q[1:2], np.array([False]), None)
    assert not agreement.good
    for wrong in (np.nan, 100.002, -np.inf):
        agreement, other = Agreement(), q.copy()
        other[2, 0, 0] = wrong
        agreement.take(q, other, np.ones(3, bool), None)
        assert not agreement.good
    # A choice that one of them has and the other has not.
    agreement, other = Agreement(), q.copy()
    other[2, 0, 1] = 0.0
    agreement.take(q, other, np.ones(3, bool), None)
    assert not agreement.good
    assert not Agreement().good, "nothing was compared"
