"""One codec of observations: what is stored, what a network is shown of it, what is said before training.

Protects against pictures flattened beside joints, pixels that are scaled in one torso and not in another,
whole numbers that wrap, large numbers that drown small ones in silence, and a policy that refuses what
training took.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

from inside import acting_weights, state_of
from qhat import Agent, recipes, runtime
from qhat.agent.arguments import read_observation
from qhat.axes.actions import Actions
from qhat.axes.torso import MLP, DataEfficient, Impala, Impoola, MinAtar, Mnih2013, Nature
from qhat.deploy import graph
from qhat.deploy.about import entries_of
from qhat.engine.calibration import STATISTICS
from qhat.engine.described import read_network
from qhat.engine.guard import Guard
from qhat.engine.learner import Learner
from qhat.engine.replay.moments import Moments
from qhat.environments import wrappers
from qhat.environments.base import Spec, laid_out
from qhat.environments.finite import sieve
from qhat.environments.observations import Observations, inexact_of, read_value
from qhat.environments.spaces import Coded, Stacked, as_array
from qhat.runs.run import spec_from_json, spec_to_json
from qhat.system.errors import UsageError

CAMERA = Box(0, 255, (16, 18, 3), np.uint8)
ROBOT = Dict(
    camera=CAMERA,
    depth=Box(0.0, 4.0, (1, 16, 16), np.float32),
    joints=Box(-3.0, 3.0, (2,), np.float64),
    mode=Discrete(3, start=-1),
)
B2 = Box(-1, 1, (2,), np.float32)
SPACES: dict[str, Any] = {
    "scalar": Box(-1, 1, (), np.float32),
    "box": B2,
    "bytes": Box(0, 255, (5,), np.uint8),
    "int64": Box(0, 10, (3,), np.int64),
    "discrete": Discrete(5, start=-2),
    "bits": MultiBinary((2, 2)),
    "multi": MultiDiscrete([5, 9], start=[1, 0]),
    "tuple": Tuple((Discrete(4), B2)),
    "nested": Dict(a=Dict(b=B2, c=Discrete(2)), d=Tuple((B2, Box(0, 9, (2, 2), np.int32)))),
    "symbols": Dict(image=Box(0, 255, (7, 7, 3), np.uint8), direction=Discrete(4)),
    "one picture": Dict(camera=CAMERA),
    "robot": ROBOT,
}


def plain_numbers(space: Any, value: Any) -> list[np.ndarray]:
    """The entries of an observation as flat float32, spelled anew."""
    if isinstance(space, Dict):
        return [part for key in sorted(space.spaces) for part in plain_numbers(space[key], value[key])]
    if isinstance(space, Tuple):
        return [
            part
            for index, part_space in enumerate(space.spaces)
            for part in plain_numbers(part_space, value[index])
        ]
    if isinstance(space, Discrete):
        return [(np.arange(space.n) == value - space.start).astype(np.float32)]
    return [np.asarray(value, np.float32).ravel()]


@pytest.mark.parametrize("name", SPACES)
def test_what_is_stored_is_what_was_shown(name: str):
    space = SPACES[name]
    space.seed(0)
    layout = Observations.of(space, "x")
    assert Observations.from_json(layout.to_json()) == layout
    values = [space.sample() for _ in range(3)]
    coded = np.stack([read_value(layout, value, "observation") for value in values])
    assert (coded.dtype, coded.shape[1:]) == (np.dtype(layout.dtype), layout.shape)
    for row, value in zip(coded, values, strict=True):
        np.testing.assert_array_equal(read_value(layout, row, "observation"), row)
        np.testing.assert_array_equal(layout.read_one(value), row)
    batch = gymnasium.vector.utils.concatenate(
        space, values, gymnasium.vector.utils.create_empty_array(space, 3)
    )
    np.testing.assert_array_equal(layout.read(batch), coded)
    on_device = jax.tree.map(jnp.asarray, batch)
    np.testing.assert_array_equal(layout.read(on_device, jnp), coded)
    expected = [np.concatenate(plain_numbers(space, value)) for value in values]
    if not layout.is_packed:
        np.testing.assert_array_equal(layout.flat(batch), np.stack(expected))
        return
    images, numbers = layout.shown(jnp.asarray(coded))
    for part, again in zip(images, layout.shown(coded)[0], strict=True):
        np.testing.assert_allclose(part, again, rtol=1e-6)
    for index, value in enumerate(values):
        np.testing.assert_allclose(images[0][index], value["camera"] / 255.0, rtol=1e-6)
        np.testing.assert_allclose(images[1][index], np.moveaxis(value["depth"], 0, 2) / 4, rtol=1e-6)
        expected = [*value["joints"].astype(np.float32), *(np.arange(3) == value["mode"] + 1)]
        np.testing.assert_array_equal(numbers[index], expected)
    # A pixel of the camera is a byte.
    assert layout.shape == (16 * 18 * 3 + 4 * (256 + 2 + 3),)


@pytest.mark.parametrize(
    ("shape", "dtype", "high", "order"),
    [
        ((64, 64, 3), "uint8", 255, "hwc"), ((3, 48, 64), "uint8", 255, "chw"),
        ((4, 84, 84), "uint8", 255, "chw"), ((40, 40, 40), "uint8", 255, "hwc"),
        ((84, 84), "uint8", 255, "hw"), ((35, 100, 1), "uint8", 255, "hwc"),
        ((4, 96, 96, 3), "uint8", 255, "shwc"), ((4, 3, 96, 96), "uint8", 255, "schw"),
        ((3, 20, 20), "float32", 1, "chw"), ((64, 64, 3), "float64", np.inf, "hwc"),
        ((10, 10, 4), "bool", 1, "hwc"), ((19, 19, 17), "int8", 1, "hwc"),
        ((7, 7, 3), "uint8", 255, ""), ((9, 9, 17), "int8", 1, ""), ((20, 20), "bool", 1, ""),
        ((6, 6, 2), "bool", 1, ""), ((96,), "uint8", 255, ""), ((200, 2), "float32", 1, ""),
    ],
)  # fmt: skip
def test_what_is_a_picture_and_in_which_order(shape: tuple[int, ...], dtype: str, high: Any, order: str):
    kind: Any = np.dtype(dtype).type
    space = MultiBinary(shape) if dtype == "bool" else Box(0, high, shape, kind)
    assert Observations.of(space, "x").entries[0].order == order


def test_numbers_that_are_large_are_standardised_and_others_are_as_they_were():
    large = {
        "text": Dict(robot=B2, mission=Box(0, 255, (30,), np.uint8)),
        "ids": Box(0, 2**62, (2,), np.int64),
        "symbols": SPACES["symbols"],
        "far": Box(-500, 500, (2,), np.float32),
    }
    for name, space in large.items():
        layout = Observations.of(space, name)
        assert layout.standardises, name
        assert f"Environment '{name}'" in layout.notes(name)[0]
        assert "standard deviations" in layout.notes(name)[0]
        assert recipes.dqn.fitted(layout.shape, layout).normalise is True
        forced = dataclasses.replace(recipes.dqn, normalise=False)
        assert forced.fitted(layout.shape, layout).normalise is False
        assert "drown" in layout.notes(name, False)[0]
    ordinary = [
        gymnasium.make(name).observation_space for name in ("CartPole-v1", "Acrobot-v1", "FrozenLake-v1")
    ]
    ordinary += [
        Box(-np.inf, np.inf, (17,), np.float64),
        Box(0, 255, (4, 84, 84), np.uint8),
        ROBOT["joints"],
    ]
    ordinary += [Discrete(500), Dict(position=B2, velocity=Box(-np.inf, np.inf, (3,), np.float64))]
    for space in ordinary:
        layout = Observations.of(space, "x")
        assert not layout.standardises
        assert not layout.notes("x")
        assert recipes.dqn.fitted(layout.shape, layout).normalise is False


def test_whole_numbers_do_not_wrap_and_what_is_lost_is_said():
    for dtype in (np.int64, np.uint64, np.uint32):
        layout = Observations.of(Box(0, 2**32 - 2 if dtype is np.uint32 else 2**62, (2,), dtype), "Clock")
        assert layout.dtype == "float32"
        value_read = read_value(layout, np.array([2**31 + 2**10, 3], dtype), "observation")
        np.testing.assert_array_equal(value_read, [2**31 + 2**10, 3])
        assert any(
            "tells neighbours from each other up to 16,777,216" in note for note in layout.notes("Clock")
        )
    assert Observations.of(SPACES["int64"], "x").dtype == "int32"
    # Bounds that are the type's own say nothing: what is seen does.
    layout = Observations.of(Dict(ids=Box(-(2**31), 2**31 - 1, (2,), np.int32)), "Ids")
    assert len(layout.notes("Ids")) == 1
    for ids, said in (([1, 2**24], 0), ([1, 2**24 + 1], 1)):
        assert len(list(inexact_of(layout, {"ids": np.array([ids], np.int32)}, "Ids"))) == said


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            Dict(image=CAMERA, mission=Text(9)),
            ("'Theirs'", "Text at 'mission'", "wrap='drop:keys=mission'"),
        ),
        (Sequence(B2), ("'Theirs'", "Sequence", "gymnasium.wrappers")),
        (Box(-1, 1, (0,), np.float32), ("'Theirs'", "no number", "observation_space")),
    ],
)
def test_a_space_that_cannot_be_read_is_a_sentence_of_training_and_agent(space: Any, words: tuple):
    with pytest.raises(UsageError) as error:
        Observations.of(space, "Theirs")
    assert all(word in str(error.value) for word in words)
    with pytest.raises(UsageError, match=words[1].replace("'", ".")):
        Agent(space, 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"joints": np.array([np.nan, 0])}, r"observation at 'joints' is nan at index \(0,\)"),
        ({"joints": np.zeros(3)}, r"'joints' has shape \(3,\); expected \(2,\)"),
        ({"mode": 2}, "'mode' is 2; expected a whole number from -1 to 1"),
        ({"camera": np.full((16, 18, 3), 256)}, "numbers that a uint8 can hold"),
        ({"depth": None}, "'depth'"),
    ],
)
def test_an_observation_that_is_none_names_its_entry(change: dict, sentence: str):
    layout = Observations.of(ROBOT, "x")
    with pytest.raises(UsageError, match=sentence):
        read_value(layout, {**ROBOT.sample(), **change}, "observation")
    with pytest.raises(UsageError, match=r"has no entry 'camera'; expected .*uint8"):
        read_value(layout, {}, "observation")


@pytest.mark.parametrize(
    "torso",
    [MLP(), MinAtar(2), Nature(), Mnih2013(), DataEfficient(), Impala(), Impoola()],
    ids=lambda each: each.name,
)
def test_pictures_of_0_to_255_and_of_0_to_1_are_one_in_every_torso(torso: Any):
    """As arrays, first or last channels, and inside dictionaries."""
    side = 36 if isinstance(torso, Nature | Mnih2013 | DataEfficient) else 16
    ones = np.random.default_rng(0).integers(0, 2, (side, side, 1))
    recipe = dataclasses.replace(recipes.dqn, torso=torso, hidden=(4,))
    found = []
    for high, kind in ((255, np.uint8), (1, np.uint8), (255, np.float32), (1, np.float32)):
        for move in (False, True):
            picture = (np.moveaxis(ones, -1, 0) if move else ones) * high
            space: Any = Box(0, high, picture.shape, kind)
            value: Any = picture.astype(kind)
            layout = Observations.of(Dict(camera=space, speed=B2), "x")
            coded = read_value(layout, {"camera": value, "speed": np.zeros(2)}, "observation")
            image, alone = layout.shown(coded)[0][0], Observations.of(space, "x").shown(value)[0][0]
            np.testing.assert_array_equal(image, alone)
            network = Learner.of(recipe, layout.shape, Actions((2,)), layout).network
            _, kind_of_branch, shape = network.branches()[0]
            found.append((kind_of_branch, shape, np.asarray(image)))
    for kind_of_branch, shape, image in found:
        assert (kind_of_branch, shape) == found[0][:2]
        np.testing.assert_allclose(image, ones, rtol=1e-6)


def mixed(recipe: Any = None) -> tuple[Learner, Any, Observations]:
    layout = Observations.of(ROBOT, "x")
    recipe = dataclasses.replace(recipe or recipes.dqn, hidden=(8,), normalise=True)
    learner = Learner.of(recipe, layout.shape, Actions((3,)), layout)
    parameters = learner.init_parameters(jax.random.key(0))
    rng, shape = np.random.default_rng(1), layout.numbers_shape
    known = Moments(jnp.float32(9), jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.ones(shape))
    return learner, {**parameters, STATISTICS: known}, layout


def test_each_picture_has_a_torso_and_its_export_says_the_same(tmp_path: Path):
    """By hand, in JAX, in onnxruntime with an input for each part, in NumPy from a dictionary."""
    learner, parameters, layout = mixed()
    ROBOT.seed(5)
    values = [ROBOT.sample() for _ in range(5)]
    coded = np.stack([read_value(layout, value, "observation") for value in values])
    expected = np.asarray(jax.jit(jax.vmap(learner.q_values, (None, 0)))(parameters, coded))

    for index, row in enumerate(coded[:2]):
        images, numbers = layout.shown(row)
        features = [
            MinAtar().apply(parameters["torso"][f"picture{at}"], jnp.asarray(image))
            for at, image in enumerate(images)
        ]
        x = jnp.concatenate([*features, parameters[STATISTICS].standardise(jnp.asarray(numbers))])
        hidden = jax.nn.relu(parameters["q_hidden"]["weight"] @ x + parameters["q_hidden"]["bias"])
        q = parameters["q"]["weight"] @ hidden + parameters["q"]["bias"]
        np.testing.assert_allclose(q, expected[index, 0], rtol=1e-4, atol=1e-5)

    exported = read_network(learner, parameters, layout.dtype, None)
    parts = exported.ops[0]
    assert [part["name"] for part in parts["inputs"]] == [
        "observation.camera",
        "observation.depth",
        "observation",
    ]
    actions = learner.actions
    model = graph.build(exported, layout.shape, layout.dtype, actions, False, {"name": "x"})
    session = runtime.open_graph(model.SerializeToString())
    q = session.run(["q_values"], runtime.split(parts, coded))[0]
    np.testing.assert_allclose(q, expected[:, 0], rtol=1e-4, atol=1e-5)

    observation = {
        "shape": list(layout.shape),
        "dtype": "uint8",
        "low": [None],
        "high": [None],
        "names": None,
    }
    actions_saved = {
        "kind": "discrete",
        "choices": [3],
        "commands": None,
        "dtype": "int64",
        "masked": False,
    }
    about = {
        "observation": {**observation, **entries_of(layout)}, "actions": actions_saved,
        "network": exported.ops, "safe_action": 0, "timeout": 1.0,
    }  # fmt: skip
    runtime._require_sound(about)
    policy = runtime.Policy(about, runtime.planned(exported.ops, exported.tensors), False)
    for value, row, q in zip(values, coded, expected[:, 0], strict=True):
        np.testing.assert_allclose(policy.q_values(value), q, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(policy.q_values(row), policy.q_values(value))
        assert runtime.Runner(policy).act(value) == policy.act(value) == q.argmax()
    for change in ({"joints": [np.inf, 0]}, {"mode": 5}, {"camera": np.zeros((16, 18, 3))}, {"depth": 1}):
        with pytest.raises(runtime.PolicyError, match=f"'{next(iter(change))}'"):
            policy.act({**values[0], **change})


@pytest.mark.parametrize("name", ["discrete", "tuple", "nested"])
def test_the_runner_takes_an_observation_of_the_environment(name: str):
    space = SPACES[name]
    layout, value = Observations.of(space, "x"), space.sample()
    weight, size = np.arange(2 * layout.shape[0], dtype=np.float32).reshape(2, -1), [None]
    observation = {
        "shape": list(layout.shape),
        "dtype": layout.dtype,
        "low": size,
        "high": size,
        "names": None,
    }
    actions_saved = {
        "kind": "discrete",
        "choices": [2],
        "commands": None,
        "dtype": "int64",
        "masked": False,
    }
    ops = [{"op": "flatten"}, {"op": "dense", "weight": "w", "bias": "b"}]
    about = {"observation": {**observation, **entries_of(layout)}, "actions": actions_saved, "network": ops}
    tensors = {"w": weight, "b": np.zeros(2, np.float32)}
    policy = runtime.Policy(about, runtime.planned(ops, tensors), False)
    coded = read_value(layout, value, "observation")
    np.testing.assert_allclose(policy.q_values(value), weight @ coded, rtol=1e-6)
    np.testing.assert_array_equal(policy.q_values(coded), policy.q_values(value))


def test_statistics_and_finite_numbers_are_those_within_the_bytes():
    layout = Observations.of(ROBOT, "x")
    values = [ROBOT.sample() for _ in range(2)]
    values[1]["joints"] = np.array([0.5, np.inf])
    coded = np.stack([layout.read_one(value) for value in values])
    action, no = jnp.zeros((2, 1), jnp.int32), np.zeros(2, bool)
    guard, clean = Guard.new(jnp.asarray(coded), action, layout).begin(
        jnp.asarray(coded), jnp.int32(0), jnp.zeros(2, jnp.int32)
    )
    assert guard.blind.tolist() == [False, True]
    np.testing.assert_array_equal(clean[0], coded[0])
    assert not np.asarray(clean[1]).any()
    for xp in (np, jnp):
        _, _, counted, failed = sieve(xp.asarray(coded), xp.zeros(2), xp.asarray(no), xp, layout)
        assert (counted.tolist(), failed.tolist()) == ([True, False], [False, True])
    assert Moments.of(layout.shape, layout).mean.shape == (5,)


class Robot(gymnasium.Env):
    observation_space, action_space = ROBOT, Discrete(3)

    def reset(self, **options: Any) -> tuple[Any, dict]:
        super().reset(**options)
        return ROBOT.sample(), {}

    def step(self, action: Any) -> Any:
        return ROBOT.sample(), 1.0, False, False, {}


def test_a_stack_of_packed_observations_keeps_what_they_are_made_of():
    env = Stacked(as_array(Robot()), 2)
    assert isinstance(env.observation_space, Coded)
    layout = Observations.of(env.observation_space, "x")
    first = env.reset(seed=0)[0]
    second = env.step(0)[0]
    assert layout.shape == first.shape == (2, *Observations.of(ROBOT, "x").shape)
    images, numbers = layout.shown(second)
    assert [image.shape for image in images] == [(16, 18, 6), (16, 16, 2)]
    assert numbers.shape == layout.numbers_shape == (2, 5)
    np.testing.assert_array_equal(images[0][..., :3], layout.shown(first)[0][0][..., 3:])


def test_entries_are_left_out_by_name():
    class Talking(Robot):
        observation_space = Dict(image=CAMERA, mission=Text(9), speed=B2)

        def reset(self, **options: Any) -> tuple[Any, dict]:
            return self.observation_space.sample(), {}

    env = wrappers.around(Talking(), (wrappers.Drop("mission"),))
    layout = Observations.of(env.observation_space, "x")
    assert [entry.label for entry in layout.entries] == ["image", "speed"]
    assert layout.read_one(env.reset()[0]).shape == layout.shape
    for keys, words in (("misson", "Did you mean 'mission'"), ("image+mission+speed", "leaves none of")):
        with pytest.raises(UsageError, match=words):
            wrappers.around(Talking(), (wrappers.Drop(keys),))
    with pytest.raises(UsageError, match="expected a key"):
        wrappers.validate([wrappers.Drop()])


def test_a_spec_without_a_layout_is_of_an_earlier_version_and_means_what_it_meant():
    """Its network gets the array as it is; uint8 is scaled by the torsos that always did."""
    layout = Observations.of(ROBOT, "x")
    spec = Spec("x", "gym", layout.shape, layout.dtype, Actions((3,)), layout=layout)
    written = spec_to_json(spec)
    assert spec_from_json(written) == spec
    old = {name: value for name, value in written.items() if name != "layout"}
    assert spec_from_json(old).layout is None
    assert "layout" not in spec_to_json(spec_from_json(old))
    for wrong in ([], {}, {"entries": []}, {"entries": [1]}, {**written["layout"], "frames": [2]}):
        with pytest.raises(UsageError, match="damaged"):
            spec_from_json({**written, "layout": wrong})
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 1)).astype(np.uint8)
    recipe = dataclasses.replace(recipes.dqn, hidden=(4,), torso=MLP())
    before = Learner.of(recipe, picture.shape, Actions((2,)))
    parameters = before.init_parameters(jax.random.key(0))
    now = Learner.of(recipe, picture.shape, Actions((2,)), Observations.plain(picture.shape, "uint8"))
    raw, scaled = (
        before.q_values(parameters, jnp.asarray(picture)),
        now.q_values(parameters, jnp.asarray(picture)),
    )
    as_floats = before.q_values(parameters, jnp.asarray(picture / 255.0, jnp.float32))
    np.testing.assert_allclose(scaled, as_floats, rtol=1e-4, atol=1e-6)
    assert np.abs(raw - scaled).max() > 1
    # What a program of one's own shows is scaled too; numbers and marks stay as they are.
    with_layout = laid_out(dataclasses.replace(spec, shape=(16, 16, 1), dtype="uint8", layout=None))
    assert with_layout.layout is not None
    assert (
        laid_out(dataclasses.replace(with_layout, shape=(10, 10, 4), dtype="bool", layout=None)).layout
        is None
    )


def test_an_agent_takes_the_spaces_that_training_takes(tmp_path: Path):
    settings: dict[str, Any] = {
        "replay_capacity": 40,
        "learning_starts": 4,
        "batch_size": 2,
        "hidden": (4,),
    }
    for space, shape, dtype in (
        (Discrete(16), (16,), "bool"), (MultiDiscrete([5, 9]), (2,), "float32"),
        (MultiBinary(4), (4,), "int8"), (Dict(a=B2, b=B2), (4,), "float32"),
        (SPACES["tuple"], (6,), "float32"),
    ):  # fmt: skip
        layout = read_observation(space)
        assert (layout.shape, layout.dtype) == (shape, dtype)
    with pytest.warns(UserWarning, match="each picture goes through a torso of its own"):
        agent = Agent(ROBOT, 3, "dqn", **settings)
    value = ROBOT.sample()
    np.testing.assert_array_equal(
        agent.q_values(value), agent.q_values(read_value(Observations.of(ROBOT, "x"), value, "x"))
    )
    assert state_of(agent).ring.observation.dtype == np.uint8
    for _ in range(6):
        agent.remember(value, agent.act(value), 1.0, ROBOT.sample(), terminated=True)
    before = acting_weights(agent)["torso"]["picture1"]["weight"]
    learned = agent.replay()
    assert learned is not None
    assert np.isfinite(learned["loss"])
    assert not np.array_equal(before, acting_weights(agent)["torso"]["picture1"]["weight"])
    agent.save(tmp_path / "agent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(Agent.load(tmp_path / "agent").q_values(value), agent.q_values(value))
