"""A memory that leaves for the robot: state in, state out, in the graph, in NumPy, in C++ and in ROS 2.

Protects against a state that is kept from one episode to the next, against one that moves when a value is
only looked at, and against a graph that is right at an episode's first step alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_cpp import answers, compiled, headers
from test_ros2_logic import TASK, odometry, scan
from test_runtime import resealed

import qhat
from memory_tasks import TMaze
from qhat import runtime
from qhat.axes.actions import Actions
from qhat.axes.axis import spell
from qhat.axes.dense import Noisy
from qhat.axes.heads import Categorical, Implicit
from qhat.axes.joints import Pairs
from qhat.axes.memory import GRU, Memory, MinGRU
from qhat.axes.merge import Dueling
from qhat.axes.torso import MinAtar, SimBa
from qhat.deploy import graph
from qhat.deploy.cpp import Cpp
from qhat.deploy.parity import TOLERANCE
from qhat.engine.described import read_network
from qhat.engine.learner import Learner
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.runtime import Policy, PolicyError, Runner
from qhat.runtime.qhat_robot.driver import Driver
from qhat.system.errors import QhatError
from recalled import in_order

MEMORIES: tuple[GRU | MinGRU, ...] = (
    GRU(units=5, length=4, burn_in=2),
    MinGRU(units=6, length=4, burn_in=2),
)
STEPS = 12
RECIPES: dict[str, tuple[dict[str, Any], tuple[int, ...], Actions]] = {
    "two layers": ({}, (4,), Actions((3,))),
    "one layer": ({"hidden": (9,)}, (4,), Actions((3,))),
    "three layers, layer norm": ({"hidden": (9, 8, 7), "layer_norm": True}, (4,), Actions((3,))),
    "dueling, noisy, atoms": (
        {"merge": Dueling(), "dense": Noisy(), "head": Categorical(atoms=5)}, (4,), Actions((2, 3))),
    "implicit": ({"head": Implicit(policy=4, embedding=4)}, (4,), Actions((3,))),
    "pictures": ({"torso": MinAtar()}, (5, 5, 2), Actions((3,))),
    "a residual torso": ({"torso": SimBa(width=8)}, (4,), Actions((3,))),
    "pairs of factors": ({"merge": Dueling(), "joints": Pairs()}, (4,), Actions((2, 3))),
}  # fmt: skip


def parts(memory: Memory, name: str) -> tuple[Learner, Any]:
    changes, shape, actions = RECIPES[name]
    recipe = dataclasses.replace(Recipe(hidden=(9, 8)), memory=memory, batch_size=4, **changes)
    learner = Learner.of(recipe, shape, actions)
    parameters = learner.init_parameters(jax.random.key(1))
    # Larger weights: gates that are almost constant would prove little.
    parameters["memory"] = jax.tree.map(lambda leaf: 2.0 * leaf, parameters["memory"])
    return learner, parameters


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory.name)
@pytest.mark.parametrize("name", RECIPES)
def test_a_sequence_is_the_same_in_jax_the_graph_and_numpy(name: str, memory: Memory):
    learner, parameters = parts(memory, name)
    shape, actions = learner.network.shape, learner.actions
    observations = np.random.default_rng(0).normal(size=(2, STEPS, *shape)).astype(np.float32)
    expected = np.stack([in_order(learner, parameters, one) for one in observations])
    exported = read_network(learner, parameters, "float32", None)
    model = graph.build(exported, shape, "float32", actions, False, {"name": "x"})
    session = runtime.open_graph(model.SerializeToString())
    state = np.full((2, memory.units), 9, np.float32)
    planned = runtime.planned(exported.ops, exported.tensors)
    states = [np.full(memory.units, 9, np.float32)] * 2
    moved = []
    for step in range(STEPS):
        start = np.full(2, step == 0)
        feed = {"observation": observations[:, step], "memory": state, "start": start}
        q, state = session.run(["q_values", "memory_next"], feed)
        moved.append(state)
        np.testing.assert_allclose(q.reshape(expected[:, step].shape), expected[:, step], atol=TOLERANCE)
        for index in range(2):
            ours, states[index] = planned(observations[index, step], states[index], step == 0)
            wanted = expected[index, step]
            # The runner closes choices that a factor does not have.
            ours = np.where(np.isfinite(wanted), ours.reshape(wanted.shape), wanted)
            np.testing.assert_allclose(ours, wanted, atol=TOLERANCE)
            np.testing.assert_allclose(states[index], state[index], atol=TOLERANCE)
    assert np.std(moved, axis=0).max() > 0.02, "the states have to move"


def test_the_gru_is_the_one_of_onnx():
    """ONNX has an operation for it, written by others (with `linear_before_reset`)."""
    learner, parameters = parts(MEMORIES[0], "one layer")
    weights = {name: np.asarray(value) for name, value in parameters["memory"].items()}
    M = MEMORIES[0].units
    bias = np.concatenate([weights["bias"], np.zeros(2 * M), weights["recurrent_bias"]])[None]
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["", "h"], hidden_size=M, linear_before_reset=1)
    value = [helper.make_tensor_value_info(*one) for one in (
        ("x", TensorProto.FLOAT, [STEPS, 1, 4]), ("h", TensorProto.FLOAT, [1, 1, M]))]  # fmt: skip
    constants = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in (
        ("W", weights["weight"][None]), ("R", weights["recurrent"][None]), ("B", bias))]  # fmt: skip
    made = helper.make_graph([node], "gru", value[:1], value[1:], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(0).normal(size=(STEPS, 1, 4)).astype(np.float32)
    theirs = runtime.open_graph(model.SerializeToString()).run(["h"], {"x": x})[0][0, 0]
    ours = jnp.zeros(M)
    for row in jnp.asarray(x[:, 0]):
        ours = learner.recipe.memory.step(parameters["memory"], ours, row)
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-6)


# A run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gru", "min_gru"])
def maze(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return qhat.train(
        TMaze(3), recipe="drqn", memory=f"{request.param}:units=8,length=8", batch_size=32, hidden=(16, 16),
        steps=600, eval_every=600, eval_episodes=2, run_dir=tmp_path_factory.mktemp("maze") / "run",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(maze: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("maze") / "out"
    made = qhat.export(maze, out, env=TMaze(3), observations=300, targets=[Cpp()])
    assert made.parity["episodes"]["whole"] > 0
    assert "policy.reset()" in (out / "README.md").read_text()
    return out


@pytest.mark.parametrize("runner", ["numpy", "onnxruntime"])
def test_the_folder_acts_as_the_run_does(maze: Run, folder: Path, runner: Any):
    exported, trained = Policy.load(folder, runner), maze.policy()
    rng = np.random.default_rng(0)
    for step in range(40):
        if step % 10 == 0:
            exported.reset()
            trained.reset()
        observation = rng.uniform(0, 1, 3).astype(np.float32)
        exported.q_values(observation)
        q = exported.q_values(observation)
        np.testing.assert_allclose(q, trained.q_values(observation), atol=1e-5)
        assert exported.act(observation) == trained(observation)


def test_what_was_refused_and_what_is_asked_again_move_nothing(folder: Path):
    policy, reference = Policy.load(folder), Policy.load(folder)
    robot = Runner(policy, safe_action=0, timeout=1.0, clock=lambda: 5.0)
    first, second = np.array([1, 0, 1], np.float32), np.array([0, 0, 1], np.float32)
    robot.observe(first)
    for _ in range(3):
        robot.command()
    robot.act([np.nan, 0, 0])
    assert robot.reason
    reference.act(first)
    np.testing.assert_array_equal(policy.q_values(second), reference.q_values(second))
    robot.act(second)
    assert not np.array_equal(policy.q_values(first), reference.q_values(first))
    robot.reset()
    reference.reset()
    np.testing.assert_array_equal(policy.q_values(first), reference.q_values(first))


def test_a_state_that_outlives_its_episode_is_found(
    maze: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = runtime.open_graph

    class Kept:
        """A graph that never begins."""

        def __init__(self, session: Any):
            self.session = session

        def run(self, names: Any, feed: Any) -> Any:
            return self.session.run(names, {**feed, "start": np.zeros_like(feed["start"])})

    monkeypatch.setattr(runtime, "open_graph", lambda data: Kept(original(data)))
    with pytest.raises(QhatError, match=r"in onnxruntime is not the trained one.*Nothing was written"):
        qhat.export(maze, tmp_path / "out", env=TMaze(3), observations=300)
    assert not list(tmp_path.iterdir())


def test_the_cpp_program_keeps_the_state(folder: Path, tmp_path: Path):
    headers()
    program = compiled(folder / "cpp" / "policy.cpp", tmp_path)
    observations = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    policy = Policy.load(folder, "onnxruntime", "ignore")
    expected = [policy.act(one) for one in observations]
    np.testing.assert_array_equal(answers(program, folder / "policy.onnx", observations)[:, 0], expected)


def cell(about: Any) -> Any:
    return next(op for op in about["network"] if op["op"] in runtime.CELLS)


def two(about: Any) -> None:
    about["network"].insert(1, cell(about))


def within(about: Any) -> None:
    at = about["network"].index(cell(about))
    about["network"][at] = {"op": "shortcut", "network": [cell(about)]}


STACK = {"op": "stack", "shape": [2, 3], "count": 2, "fill": "repeat"}
BROKEN: dict[str, tuple[Any, str]] = {
    "units": (lambda about: cell(about).update(units=4), "is damaged"),
    "no units": (lambda about: cell(about).pop("units"), "fields are missing"),
    "units of text": (lambda about: cell(about).update(units="8"), "fields are missing"),
    "huge units": (lambda about: cell(about).update(units=10**12), "fields are missing"),
    "two memories": (two, "fields are missing"),
    "a memory in a shortcut": (within, "operation '(min_)?gru'"),
    "a memory of a stack": (
        lambda about: about["network"].insert(0, STACK), "fields are missing"),
    "another weight": (lambda about: cell(about).update(weight="outputs/weight"), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_memory_that_is_broken_is_a_sentence(folder: Path, tmp_path: Path, name: str):
    change, sentence = BROKEN[name]
    shutil.copytree(folder, tmp_path / "it")
    resealed(change)(tmp_path / "it")
    with pytest.raises(PolicyError, match=sentence):
        Policy.load(tmp_path / "it", "numpy")


# The ROS 2 node ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORIES, ids=spell)
def test_the_robots_node_keeps_a_state_from_goal_to_goal(memory: GRU | MinGRU, tmp_path: Path):
    from qhat.runtime.qhat_robot.scan import ScanReader

    recipe = {"memory": dataclasses.replace(memory, length=8), "batch_size": 32, "hidden": (16, 16)}
    run = qhat.train(
        "TurtleBot3-v0", recipe="drqn", steps=400, eval_every=400, eval_episodes=1, **recipe,
        run_dir=tmp_path / "run",
    )  # fmt: skip
    made = qhat.export(run, tmp_path / "out", observations=100, targets=["ros2"])
    assert (made.targets["ros2"] / "qhat_turtlebot3" / "qhat_runtime.py").is_file()
    policy = Policy.load(made.path, "numpy", "clip")
    driver = Driver(TASK, policy, ScanReader(TASK))
    driver.set_goal(3.0, 0.0)
    states = []
    for step in range(6):
        now = 10.0 + step * TASK.seconds
        message = scan(np.full(360, 2.0 + 0.1 * step))
        message.header.stamp.sec = step
        driver.see_scan(message, now)
        pose = odometry(0.01 * step, 0.0, 0.0)
        pose.header.stamp.sec = step
        driver.see_odometry(pose, now)
        driver.decide(now)
        assert driver.why in ("", "driving"), driver.why
        states.append(policy._kept.copy())
        if step == 3:
            driver.set_goal(3.0, 0.0)
    assert all(np.abs(late - early).max() > 0 for early, late in itertools.pairwise(states))
    assert not policy._fresh, "a planner that repeats its goal takes nothing away"
    driver.set_goal(-3.0, 0.0)
    assert policy._fresh, "another goal is another episode"
