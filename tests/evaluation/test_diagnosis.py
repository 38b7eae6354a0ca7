"""Q against returns, dead units, effective sample size: on tasks with known values.

Protects against a biased diagnosis: through truncated tails, scaled rewards, or the choice of states by
their later episodes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hostile import TENSORS, rehashed
from probes import KINDS, LIMIT, Probes, expected_q
from qhat.axes.actions import Actions
from qhat.axes.bonus import Munchausen
from qhat.axes.policy import Softmax
from qhat.axes.sumtree import SumTree
from qhat.axes.torso import BroNet
from qhat.engine.learner import Learner
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.make import make_any
from qhat.environments.wrappers import RewardClip, RewardScale
from qhat.evaluation import plasticity
from qhat.evaluation.diagnosis import Record, comparable, diagnose, effective_share, horizon, record
from qhat.recipes import get
from qhat.recipes.recipe import Recipe
from qhat.runs import checkpoint
from qhat.system.errors import UsageError

GAMMA = 0.2
"""γ^LIMIT is below the tail that may be missing: the first state of an episode cut after 3 steps counts."""


def linear(gamma: float, factor: float = 1.0, shift: float = 0.0) -> tuple[Learner, Any]:
    """A network without hidden layers, and weights with which its Q is the probes', scaled and shifted."""
    learner = Learner.of(Recipe(hidden=(), gamma=gamma), (KINDS + 2,), Actions((2,)))
    observations, q = expected_q(gamma)
    weight, *_ = np.linalg.lstsq(
        np.asarray(observations, np.float64), np.asarray(q, np.float64), rcond=None
    )
    layer = {"weight": factor * jnp.asarray(weight.T, jnp.float32)[None], "bias": jnp.full((1, 2), shift)}
    parameters = {"q": layer}
    values = jax.jit(jax.vmap(learner.q_values, in_axes=(None, 0)))(
        jax.tree.map(lambda leaf: leaf[0], parameters), observations
    )
    np.testing.assert_allclose(values[:, 0], factor * q + shift, atol=1e-5)
    return learner, parameters


@pytest.mark.parametrize("bias", [0.0, 0.5, -0.25])
def test_a_planted_bias_is_found_and_none_where_there_is_none(bias: float):
    learner, parameters = linear(GAMMA, shift=bias)
    found = diagnose(record(learner, parameters, Probes(20), steps=250), GAMMA)
    assert found.states > 1_000
    # What is missing of a value is a hundredth at most.
    assert found.bias == pytest.approx([bias], abs=0.01 * 1.25)
    assert found.value[0] == pytest.approx(found.q[0] - bias, abs=0.0125)


def test_returns_are_the_probes_values():
    learner, parameters = linear(GAMMA)
    recorded = record(learner, parameters, Probes(KINDS), steps=250)
    each = {}
    for kind in range(KINDS):
        one = dataclasses.replace(
            recorded, **{name: getattr(recorded, name)[:, :, kind : kind + 1] for name in
                     ("q", "reward", "terminated", "cut", "real")})  # fmt: skip
        each[kind] = diagnose(one, GAMMA)
    values = [each[kind].value[0] for kind in range(KINDS)]
    two_steps = (GAMMA + 1) / 2
    endless = 1 + GAMMA + GAMMA**2
    assert values == pytest.approx([1, two_steps, 1, 1, endless], abs=2e-3)
    # Of an episode that is cut after 3 steps only the first state sees 3 rewards.
    assert each[KINDS - 1].states == pytest.approx(each[0].states / LIMIT, abs=1)


def test_states_before_a_time_limit_are_left_out_and_not_counted_short():
    learner, parameters = linear(0.9)
    found = diagnose(record(learner, parameters, Probes(KINDS), steps=250), 0.9)
    assert (found.states, found.q, found.value) == (0, [], [])
    assert found.observations == 250 * KINDS


def test_whether_a_state_counts_does_not_hang_on_its_return():
    """Half of the episodes fail after 2 steps, the others are truncated after 8: both must count."""
    T, reach = 40, horizon(GAMMA)
    fails = np.arange(6) % 2 == 0
    step = np.arange(T)[:, None]
    ends = np.where(fails, 2, 8)
    last = step % ends == ends - 1
    shape = (T, 1, 6)
    whole = {name: np.broadcast_to(rows[:, None], shape) for name, rows in
             {"terminated": last & fails, "cut": last & ~fails}.items()}  # fmt: skip
    recorded = Record(q=np.ones(shape), reward=np.ones(shape), real=np.ones(shape, bool), alive={}, **whole)
    found = diagnose(recorded, GAMMA)
    both = (1 + GAMMA + 1) / 2
    long = np.mean([(1 - GAMMA ** min(8 - age, 8)) / (1 - GAMMA) for age in range(8 - reach + 1)])
    assert both < found.value[0] < long
    assert found.dead == []


def test_the_end_of_the_record_keeps_no_early_ends_either():
    T, reach = 10, horizon(GAMMA)
    shape = (T, 1, 2)
    terminated = np.zeros(shape, bool)
    terminated[-1, 0, 0] = True
    recorded = Record(
        q=np.ones(shape), reward=np.ones(shape), terminated=terminated, cut=np.zeros(shape, bool),
        real=np.ones(shape, bool), alive={},
    )  # fmt: skip
    assert diagnose(recorded, GAMMA).states == 2 * (T - reach + 1)


@pytest.mark.parametrize(
    ("rewards", "factor"), [((RewardScale(0.5),), 0.5), ((RewardScale(4.0), RewardClip(-2.0, 2.0)), 2.0)]
)
def test_returns_are_of_the_rewards_that_are_learned_from(rewards: tuple, factor: float):
    learner, parameters = linear(GAMMA, factor=factor)
    found = diagnose(record(learner, parameters, Probes(10), steps=250, rewards=rewards), GAMMA)
    assert found.bias == pytest.approx([0.0], abs=0.0125 * factor)
    assert found.scale == pytest.approx(factor, rel=0.2)


def test_seeds_are_not_mixed_up():
    learner, right = linear(GAMMA)
    _, wrong = linear(GAMMA, shift=2.0)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), right, wrong)
    found = diagnose(record(learner, both, Probes(20), steps=250), GAMMA)
    assert found.bias == pytest.approx([0.0, 2.0], abs=0.0125)
    assert max(found.error) < 0.01, "the copies agree"


@pytest.mark.parametrize("recipe", ["dueling_dqn", "iqn"])
def test_dead_units_are_those_that_never_fire(recipe: str):
    composed = dataclasses.replace(get(recipe), hidden=(8, 4), gamma=GAMMA)
    learner = Learner.of(composed, (KINDS + 2,), Actions((2,)))
    parameters = learner.init_parameters(jax.random.key(1))
    last = [name for name in parameters if name.endswith("_hidden")]
    for name, dead in (("hidden0", 3), (last[0], 2)):
        layer = parameters[name]
        # Nothing that goes into it can lift a unit over this.
        parameters[name] = {**layer, "bias": layer["bias"].at[:dead].set(-1e3)}
        parameters[name]["bias"] = parameters[name]["bias"].at[dead:].set(1e3)
    for name in last[1:]:
        parameters[name] = {**parameters[name], "bias": jnp.full(4, 1e3)}
    alone = jax.tree.map(lambda leaf: leaf[None], parameters)
    found = diagnose(record(learner, alone, Probes(KINDS), steps=250), GAMMA)
    assert found.dead_by_layer["hidden0"] == pytest.approx(3 / 8)
    assert found.dead_by_layer[last[0]] == pytest.approx(2 / 4)
    assert found.dead == pytest.approx([5 / (8 + 4 * len(last))])


def test_gymnasiums_environments_are_recorded_too():
    """CartPole pays 1 per step: the length of an episode gives its return."""
    learner = Learner.of(Recipe(hidden=(4,), gamma=0.5), (4,), Actions((2,)))
    one = learner.init_parameters(jax.random.key(0))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)
    made = GymnasiumEnvironment.of("CartPole-v1", lambda: gymnasium.make("CartPole-v1"), 3, (5, 6))
    try:
        recorded = record(learner, both, made, steps=60)
    finally:
        made.close()
    assert recorded.q.shape == (60, 2, 3)
    found = diagnose(recorded, 0.5)
    assert found.horizon == 7
    # (1 − γ^k)/(1 − γ) of the k steps that are left: between 1 and 2, nearer to 2.
    assert all(1.7 < value < 2.0 for value in found.value)
    assert recorded.terminated.any(axis=0).all(), "one episode after the other"


def test_values_that_are_no_returns_are_not_compared():
    for recipe, word in (
        (Recipe(policy=Softmax()), "softmax"),
        (Recipe(bonus=Munchausen()), "munchausen"),
        (Recipe(gamma=1.0), "γ = 1"),
    ):
        assert word in comparable(Learner.of(recipe, (4,), Actions((2,))))
    assert comparable(Learner.of(Recipe(), (4,), Actions((2,)))) == ""
    assert [horizon(gamma) for gamma in (0.0, 0.5, 0.99, 1.0)] == [1, 7, 459, 0]


def test_the_effective_share_of_replay():
    assert effective_share(np.full(50, 3.0)) == pytest.approx(1.0)
    assert effective_share(np.array([1.0, 0.0, 0.0, 1.0])) == pytest.approx(1.0), "empty rows are none"
    assert effective_share(np.array([1.0, 1e-9, 1e-9, 1e-9])) == pytest.approx(1 / 4)
    assert np.isnan(effective_share(np.zeros(3)))
    # Draws of replay's own tree: the chance that two of them are the same transition is Σ P².
    tree = SumTree(64).set(jnp.arange(64), jnp.linspace(0.1, 3.0, 64))
    slots, *_ = jax.jit(lambda at: tree.draw(at))(jax.random.uniform(jax.random.key(0), (20_000,)))
    share = np.bincount(np.asarray(slots), minlength=64) / 20_000
    assert effective_share(np.asarray(tree.leaves)) == pytest.approx(
        1 / (64 * np.square(share).sum()), rel=0.02
    )


@pytest.mark.parametrize("harm", [None, *TENSORS])
def test_one_array_of_a_file_is_read_or_refused(harm: str | None, tmp_path: Path):
    """The priorities are read without the rest of the state, from any file."""
    tree = {"online": np.arange(6, dtype=np.float32), "sampler": np.arange(1, 4, dtype=np.float32)}
    checkpoint.write(tmp_path / "last", {"state": tree}, {})
    path = tmp_path / "last" / "state.safetensors"
    if harm is not None:
        path.write_bytes(TENSORS[harm](path.read_bytes()))
        rehashed(tmp_path / "last")
    try:
        read = checkpoint.read_leaf(tmp_path / "last", "state", "sampler", tree["sampler"])
    except UsageError as error:
        said = str(error)
    else:
        # With hashes of its own a file may say where its numbers are, but not beyond itself.
        assert (read.shape, read.dtype) == ((3,), np.float32)
        if harm is None:
            np.testing.assert_array_equal(read, tree["sampler"])
        return
    assert harm is not None
    assert "damaged" in said or "architecture" in said


def test_one_array_of_another_file_is_refused(tmp_path: Path):
    checkpoint.write(tmp_path / "last", {"state": {"sampler": np.ones(3, np.float32)}}, {})
    for leaf, like in (("other", np.ones(3, np.float32)), ("sampler", np.ones(4, np.float32)),
                       ("sampler", np.ones(3, np.int32))):  # fmt: skip
        with pytest.raises(UsageError, match="a different network architecture"):
            checkpoint.read_leaf(tmp_path / "last", "state", leaf, like)
    path = tmp_path / "last" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="SHA-256"):
        checkpoint.read_leaf(tmp_path / "last", "state", "sampler", np.ones(3, np.float32))


def grown(parameters: dict, times: float) -> dict:
    """Return the parameters with `times` the weights of the first hidden layer."""
    layer = parameters["hidden0"]
    return {**parameters, "hidden0": {**layer, "weight": times * layer["weight"]}}


def test_growth_is_that_of_the_layer_that_grew_most():
    learner = Learner.of(
        dataclasses.replace(get("dueling_dqn"), hidden=(8, 4)), (KINDS + 2,), Actions((2,))
    )
    fresh = learner.network.init(jax.random.key(plasticity.KEY))
    found = plasticity.growths(grown(fresh, 3.0), fresh)
    assert set(found) == {"hidden0", "value_hidden", "advantage_hidden"}, "outputs do not count"
    assert found["hidden0"] == pytest.approx(3.0)
    assert found["value_hidden"] == found["advantage_hidden"] == pytest.approx(1.0)
    torso = Learner.of(Recipe(torso=BroNet(width=8, blocks=1), hidden=()), (3,), Actions((2,)))
    fresh = torso.network.init(jax.random.key(plasticity.KEY))
    assert set(plasticity.growths(fresh, fresh)) == {
        "torso/input", "torso/block0_first", "torso/block0_second"
    }  # fmt: skip


def test_the_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    columns = np.linalg.qr(rng.normal(size=(50, 4)))[0]
    assert plasticity.effective_rank(columns) == pytest.approx(4.0)
    assert plasticity.effective_rank(np.outer(rng.normal(size=50), rng.normal(size=4))) == pytest.approx(
        1.0
    )
    assert plasticity.effective_rank(np.zeros((50, 4))) == 0.0


@pytest.mark.parametrize("where", ["compiled", "gymnasium"])
def test_the_plasticity_of_every_seed_is_measured_on_observations_of_its_play(where: str):
    learner = Learner.of(Recipe(hidden=(8, 6)), (4,), Actions((2,)))
    one = learner.init_parameters(jax.random.key(plasticity.KEY))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, grown(one, 5.0))
    if where == "compiled":
        made = make_any("CartPole-v1", 3, (5, 6))
    else:
        made = GymnasiumEnvironment.of("CartPole-v1", lambda: gymnasium.make("CartPole-v1"), 3, (5, 6))
    try:
        recorded = record(learner, both, made, steps=150)
    finally:
        made.close()
    assert recorded.sample is not None
    assert recorded.sample.shape == (2, 50 * 3, 4)
    assert (np.abs(recorded.sample).sum(axis=2) > 0).all(), "no row is empty"
    found = plasticity.measure(learner, both, recorded.sample)
    assert found.growth == pytest.approx([1.0, 5.0])
    assert found.grown[1] == "hidden0"
    assert found.rank[0] == pytest.approx(found.fresh_rank[0])
    assert 1.0 <= found.rank[1] <= 6.0


def test_weights_that_are_not_finite_have_no_rank():
    learner = Learner.of(Recipe(hidden=(4,)), (3,), Actions((2,)))
    one = learner.init_parameters(jax.random.key(0))
    broken = jax.tree.map(lambda leaf: jnp.full((1, *leaf.shape), jnp.nan), one)
    found = plasticity.measure(learner, broken, np.ones((1, 20, 3), np.float32))
    assert found.rank == found.fresh_rank == []
