"""`qhat export`: a folder that is proven to be the trained policy, or no folder.

Protects against an export that leaves something out and passes a test on zeros, one that is half written,
bounds that a robot's own observations break, and a folder that only runs where JAX is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import command_line
import qhat
from full import FULL
from places import ROOT, SOURCE
from qhat import recipes, runtime
from qhat.axes.actions import Actions
from qhat.deploy import about, graph
from qhat.deploy.export import Export
from qhat.environments.wrappers import ActionRepeat, FrameStack
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.system.errors import QhatError, UsageError

FILES = {
    "README.md", "latency.json", "parity.json", "policy.json", "policy.onnx", "qhat_runtime.py",
    "weights.safetensors",
}  # fmt: skip
TINY: dict[str, Any] = {"hidden": (12,), "learning_starts": 50, "replay_capacity": 2_000, "num_envs": 1}
FEW = 300
"""Observations of the proof, where its size is not what is tested."""


def a_run(env: Any, folder: Path, recipe: Recipe = recipes.dqn, **options: Any) -> Run:
    recipe = replace(recipe, **{**TINY, **options.pop("changes", {})})
    name = env if isinstance(env, str) else "own"
    settings = {"steps": 150, "eval_every": 150, "save_every": 150, "eval_episodes": 2, **options}
    config = TrainConfig(name, recipe=recipe, run_dir=folder / "run", **settings)
    return qhat.train(env, config)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes = {"hidden": (64, 64), "num_envs": 1}
    folder = tmp_path_factory.mktemp("cartpole")
    return a_run("CartPole-v1", folder, recipes.qhat, changes=changes, steps=600, seeds=2)


@pytest.fixture(scope="module")
def exported(cartpole: Run) -> Export:
    return qhat.export(cartpole, safe_action=1, timeout=0.1)


class Arm(gymnasium.Env):
    """Two joints, with observations in a dictionary and metadata about their numbers."""

    observation_space: gymnasium.Space = gymnasium.spaces.Dict(
        {"speed": gymnasium.spaces.Box(-1, 1, (2,)), "mode": gymnasium.spaces.Discrete(3)}
    )
    action_space: gymnasium.Space = gymnasium.spaces.Box(
        np.array([-1, 0], np.float32), np.array([1, 4], np.float32)
    )
    metadata = {  # noqa: RUF012
        "render_modes": [], "control_period": 0.05, "action_names": ["shoulder", "elbow"],
        "action_units": ["rad/s", "N·m"],
    }  # fmt: skip

    def __init__(self):
        self.time = 0

    def reset(self, **options: Any) -> Any:
        super().reset(seed=options.get("seed"))
        self.time = 0
        return self._observation(), self._info()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        return self._observation(), float(np.sum(action)), self.time == 20, False, self._info()

    def _observation(self) -> Any:
        speed = self.np_random.normal(size=2).clip(-1, 1).astype(np.float32)
        return {"speed": speed, "mode": self.np_random.integers(3)}

    def _info(self) -> dict[str, Any]:
        return {}


class Switches(Arm):
    """Factors of unequal sizes in two axes, with masks, and with actions that do not start at 0;
    observations beyond their bounds."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.MultiDiscrete(np.array([[2, 4]]), start=np.array([[1, -1]]))
    metadata = {"render_modes": [], "observation_names": ["a", "b", "c"]}  # noqa: RUF012

    def _observation(self) -> Any:
        return np.array([np.sin(self.time), 3 + self.time, self.np_random.random()], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": (np.array([1, 1]), np.array([1, self.time % 2, 1, 0]))}


def read(made: Export, name: str = "policy.json") -> Any:
    return json.loads((made.path / name).read_text())


def test_progress_counts_the_observations_of_the_proof(cartpole: Run, tmp_path: Path):
    said: list[str] = []
    qhat.export(cartpole, tmp_path / "out", observations=300, progress=said.append)
    counts = [words for words in said if words.startswith("comparing observations: ")]
    assert counts[0] == "comparing observations: 0 of 300"
    assert len(set(counts)) == len(counts) > 1


def test_the_folder_is_whole_and_proven(cartpole: Run, exported: Export):
    assert exported.path == cartpole.folder.path / "export"
    assert {path.name for path in exported.path.iterdir()} == FILES == exported.files.keys()
    assert not list(exported.path.parent.glob(".*qhat-new"))
    assert exported.files["policy.onnx"] <= 50_000
    proof = read(exported, "parity.json")
    assert proof == exported.parity
    assert proof["passed"]
    for runner in ("onnxruntime", "numpy"):
        counts = proof[runner]
        assert counts["observations"] == counts["actions_equal"] >= 10_000
        assert counts["worst"] <= 1e-5
        assert counts["differing"] == 0
    assert proof["distinct"] > 9_000, "never the same ones, never zeros"
    assert sum(proof["batches"].values()) >= 10_000
    assert proof["batches"].keys() == {"1", "2", "7"}
    assert min(proof["batches"].values()) >= 1_000
    alone = proof["episodes"]
    assert alone["played"] == alone["whole"] == 10
    assert alone["steps"] == alone["actions_equal"] == pytest.approx(10 * alone["mean_length"])
    for runner in ("onnxruntime", "numpy"):
        spans = read(exported, "latency.json")[runner]
        assert 0 < spans["p50_us"] <= spans["p99_us"] <= spans["max_us"]


def test_it_says_what_goes_in_and_comes_out(cartpole: Run, exported: Export):
    about = read(exported)
    assert about["observation"]["names"][2] == "pole_angle"
    assert about["observation"]["units"] == ["m", "m/s", "rad", "rad/s"]
    assert about["observation"]["low"] == [pytest.approx(-4.8), None, pytest.approx(-0.418, abs=1e-3), None]
    assert about["actions"]["labels"] == [["push left", "push right"]]
    assert about["control_period"] == 0.02
    assert (about["safe_action"], about["timeout"]) == (1, 0.1)
    at = cartpole.seed_index()
    step = cartpole.summary()["best_step"][at]
    assert about["source"]["seed_index"] == at
    assert about["source"]["step"] == step
    assert about["source"]["weights_sha256"] == cartpole.weights_sha256("best")
    card = (exported.path / "README.md").read_text()
    for word in ("pole_angle", "push left", "10,000", "never raises"):
        assert word in card
    session = runtime.open_graph((exported.path / "policy.onnx").read_bytes())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["observation"])["names"] == about["observation"]["names"]
    assert json.loads(metadata["actions"]) == about["actions"]
    assert json.loads(metadata["source"]) == about["source"]
    assert metadata["weights_sha256"] == about["files"]["weights.safetensors"]["sha256"]
    assert (exported.path / "qhat_runtime.py").read_bytes() == (SOURCE / "runtime/__init__.py").read_bytes()


@pytest.mark.parametrize("runner", ["numpy", "onnxruntime"])
def test_it_acts_as_the_run_does(cartpole: Run, exported: Export, runner: str):
    policy, ours = runtime.Policy.load(exported.path, runner), cartpole.policy()
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=3)
    for _ in range(30):
        np.testing.assert_allclose(
            policy.q_values(observation), ours.q_values(observation), rtol=1e-5, atol=1e-5
        )
        assert policy.act(observation) == ours(observation)
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        assert policy.act(observation, mask=[0, 1]) == 1
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()


@pytest.mark.parametrize("place", ["graph", "weights"])
def test_what_is_another_policy_leaves_nothing(
    cartpole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    """One weight of 4,500 is changed by 2 %, in the graph or in the NumPy runner."""
    if place == "graph":
        build = graph.build

        def changed(*args: Any, **more: Any) -> Any:
            from onnx import numpy_helper

            model = build(*args, **more)
            for tensor in model.graph.initializer:
                if tensor.name == "outputs/weight":
                    value = numpy_helper.to_array(tensor).copy()
                    value[0, np.abs(value[0]).argmax()] *= 1.02
                    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            return model

        monkeypatch.setattr(graph, "build", changed)
    else:
        plan = runtime.plan

        def other(ops: Any, tensors: Any, *states: Any) -> Any:
            value = tensors["outputs/weight"].copy()
            value[0, np.abs(value[0]).argmax()] *= 1.02
            return plan(ops, {**tensors, "outputs/weight": value}, *states)

        monkeypatch.setattr(runtime, "plan", other)
    words = "onnxruntime" if place == "graph" else "NumPy runner"
    with pytest.raises(QhatError, match=f"{words} is not the trained one.*Nothing was written") as raised:
        qhat.export(cartpole, tmp_path / "out", observations=FEW)
    assert raised.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_episodes_find_what_only_a_sequence_shows(
    cartpole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The rollouts pass; the second graph, which plays alone, returns other actions."""
    original, opened = runtime.open_graph, []

    class Other:
        def __init__(self, session: Any):
            self.session = session

        def run(self, names: Any, feed: Any) -> Any:
            q, action = self.session.run(names, feed)
            return [q, 1 - action]

    def open_graph(data: bytes) -> Any:
        opened.append(data)
        session = original(data)
        return session if len(opened) == 1 else Other(session)

    monkeypatch.setattr(runtime, "open_graph", open_graph)
    with pytest.raises(QhatError, match="in whole episodes that it played alone"):
        qhat.export(cartpole, tmp_path / "out", observations=FEW)
    assert len(opened) == 2
    assert not list(tmp_path.iterdir())


def test_a_dictionary_and_joints_keep_their_names(tmp_path: Path):
    run = a_run(Arm, tmp_path, changes={"normalise": True, "bins": (3, 5)}, wrap=(ActionRepeat(2),))
    made = qhat.export(run, env=Arm, observations=FEW, safe_action=(0, 0.5))
    about = read(made)
    assert about["observation"]["names"] == ["mode[0]", "mode[1]", "mode[2]", "speed[0]", "speed[1]"]
    assert about["actions"]["commands"] == [[-1, 0, 1], [0, 1, 2, 3, 4]]
    assert about["actions"]["names"] == ["shoulder", "elbow"]
    assert about["actions"]["units"] == ["rad/s", "N·m"]
    assert about["control_period"] == pytest.approx(0.1), "an action is executed twice"
    assert about["safe_action"] == [0, 0.5], "a command that no bin has"
    assert about["network"][0]["op"] == "normalise"
    policy, observation = runtime.Policy.load(made.path), np.array([0, 1, 0, 0.5, -0.5], np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(policy.act(observation), run.policy()(observation))
        observation[3] -= 0.7
    assert policy.q_values(observation).shape == (2, 5)
    assert np.isneginf(policy.q_values(observation)[0, 3:]).all()
    with pytest.raises(UsageError, match="handed over from Python"):
        qhat.export(run)


@pytest.fixture(scope="module")
def switches(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return a_run(Switches, tmp_path_factory.mktemp("switches"))


def test_masks_starts_and_bounds_that_an_environment_breaks_itself(switches: Run):
    run = switches
    made = qhat.export(run, env=Switches, observations=FEW, safe_action=(2, -1))
    about = read(made)
    assert about["actions"]["masked"]
    assert about["actions"]["start"] == [1, -1]
    assert about["safe_action"] == [[2, -1]]
    assert "each from [1, -1] to [2, 2]" in (made.path / "README.md").read_text()
    assert about["observation"]["names"] == ["a", "b", "c"]
    assert about["observation"]["high"] == [1, None, 1], "the second one leaves its bounds"
    assert about["observation"]["left_bounds"] == [1]
    assert about["observation"]["seen_high"][1] > 20
    session = runtime.open_graph((made.path / "policy.onnx").read_bytes())
    observations = np.array([[0.1, 4, 0.2]], np.float32)
    mask = np.array([[[1, 0, 0, 0], [0, 0, 1, 0]]], bool)
    q, action = session.run(["q_values", "action"], {"observation": observations, "mask": mask})
    assert action.tolist() == [[[1, 1]]]
    assert np.isneginf(q[0, 0, 2:]).all(), "what does not exist"
    assert np.isfinite(q[0, 1]).all(), "what is not legal has a value all the same"
    for runner in ("numpy", "onnxruntime"):
        policy = runtime.Policy.load(made.path, runner)
        np.testing.assert_array_equal(policy.act(observations[0], mask[0]), [[1, 1]])
        np.testing.assert_array_equal(policy.act(observations[0]), run.policy()(observations[0]))


DESCRIBE: Any = about.describe
BUILD: Any = graph.build


def from_zero(actions: Actions, *_: Any) -> Actions:
    return replace(actions, start=(0, 0))


def described(*inputs: Any) -> Any:
    request, exported, actions, *rest = inputs
    return DESCRIBE(request, exported, from_zero(actions), *rest)


def built(*inputs: Any, **more: Any) -> Any:
    exported, shape, dtype, actions, *rest = inputs
    return BUILD(exported, shape, dtype, from_zero(actions), *rest, **more)


@pytest.mark.parametrize(
    ("place", "changed", "words"),
    [
        ("qhat.deploy.export.describe", described, "the NumPy runner is not the trained one"),
        ("qhat.deploy.graph.build", built, "onnxruntime is not the trained one"),
        ("qhat.axes.actions.Actions.completed", from_zero, "the environment does not have all"),
    ],
    ids=["policy.json", "the graph", "everywhere"],
)
def test_a_start_that_is_dropped_is_found(
    switches: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, changed: Any, words: str
):
    monkeypatch.setattr(place, changed)
    with pytest.raises(QhatError, match=words):
        qhat.export(switches, tmp_path / "out", env=Switches, observations=FEW)
    assert not (tmp_path / "out").exists()


def test_a_stack_of_frames_is_put_together_inside(tmp_path: Path):
    run = a_run("CartPole-v1", tmp_path, wrap=(FrameStack(3),), changes={"normalise": True})
    made = qhat.export(run, observations=FEW)
    about = read(made)
    assert about["observation"]["shape"] == [4]
    assert len(about["observation"]["low"]) == len(about["observation"]["names"]) == 4
    assert about["network"][0] == {"op": "stack", "count": 3, "fill": "repeat", "shape": [3, 4]}
    policies = [runtime.Policy.load(made.path, runner) for runner in ("numpy", "onnxruntime")]
    env, ours = gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 3), run.policy()
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        for policy in policies:
            policy.reset()
        for _ in range(8):
            expected = ours.q_values(observation)
            for policy in policies * 2:
                found = policy.q_values(observation[-1])  # which leaves the stack where it is
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            assert [policy.act(observation[-1]) for policy in policies] == [ours(observation)] * 2
            observation, *_ = env.step(0)
    env.close()


def test_a_stack_of_one_hot_codes_is_put_together_too(tmp_path: Path):
    """onnxruntime has no Where for truth values."""
    run = a_run("gym:FrozenLake-v1", tmp_path, wrap=(FrameStack(2),))
    made = qhat.export(run, observations=FEW)
    policies = [runtime.Policy.load(made.path, runner) for runner in ("numpy", "onnxruntime")]
    for observation in (0, 4, 8):
        first, second = (policy.q_values(observation) for policy in policies)
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


EVERYWHERE: list[tuple[str, str]] = [
    ("TurtleBot3-v0", "dqn"),
    ("envpool:Pendulum-v1", "decqn"),
    *([("Catch-bsuite", "dqn"), ("Breakout-MinAtar", "rainbow_iqn")] if FULL else []),
]


@pytest.mark.parametrize(("env", "name"), EVERYWHERE)
def test_every_backend_rolls_out(env: str, name: str, tmp_path: Path):
    if env.startswith("envpool") and not sys.platform.startswith("linux"):
        pytest.skip("EnvPool's compiled step exists on Linux alone")
    run = a_run(env, tmp_path, recipes.get(name))
    made = qhat.export(run, observations=FEW)
    assert made.parity["onnxruntime"]["observations"] >= FEW
    assert made.parity["episodes"]["steps"] > 10
    assert made.parity["episodes"]["numpy_steps"] > 0
    about = read(made)
    if env == "TurtleBot3-v0":
        assert about["observation"]["names"][24:] == ["goal_bearing", "goal_distance"]
        assert about["observation"]["low"][0] == pytest.approx(0.12)
        assert about["control_period"] == pytest.approx(0.2)


@pytest.mark.skipif(not FULL, reason="a film's network takes a minute to compare: QHAT_FULL=1")
def test_atari_is_exported_frame_by_frame(tmp_path: Path):
    run = a_run("ALE/Pong-v5", tmp_path, recipes.rainbow, steps=60)
    made = qhat.export(run, observations=FEW)
    about = read(made)
    assert about["observation"]["shape"] == [84, 84]
    assert about["network"][0]["count"] == 4
    frame = np.random.default_rng(0).integers(0, 256, (84, 84)).astype(np.uint8)
    values = [runtime.Policy.load(made.path, runner).q_values(frame) for runner in ("numpy", "onnxruntime")]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-5)


def test_an_export_is_replaced_and_nothing_else_is(cartpole: Run, exported: Export, tmp_path: Path):
    shutil.copytree(exported.path, tmp_path / "export")
    (tmp_path / "export" / "old").touch()
    made = qhat.export(cartpole, tmp_path / "export", checkpoint="last", seed_index=0, observations=FEW)
    assert {path.name for path in made.path.iterdir()} == FILES
    assert read(made)["source"]["checkpoint"] == "last"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "link").symlink_to(exported.path)
    for name in ("mine", "link"):
        with pytest.raises(UsageError, match="is no export"):
            qhat.export(cartpole, tmp_path / name, observations=FEW)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"timeout": 0.0}, "timeout is 0.0; expected seconds"),
        ({"timeout": float("nan")}, "timeout is nan; expected seconds"),
        ({"control_period": -1.0}, "control_period is -1.0; expected seconds"),
        ({"safe_action": 2}, "safe_action is .*2.*; expected whole numbers from 0"),
        ({"safe_action": (0, 1)}, "safe_action is .*; expected whole numbers from 0"),
        ({"safe_action": 0.5}, "safe_action is .*0.5.*; expected whole numbers"),
        ({"seed_index": 7}, "seed_index is 7; expected 0 to 1"),
        ({"checkpoint": "bst"}, "has no checkpoint 'bst'"),
        ({"name": " "}, "name is empty"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_a_sentence(cartpole: Run, tmp_path: Path, words: dict, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        qhat.export(cartpole, tmp_path / "out", observations=FEW, **words)
    assert not list(tmp_path.iterdir())


def cli(*words: str) -> command_line.Done:
    return command_line.qhat("export", *words)


def test_the_command_says_so(cartpole: Run, tmp_path: Path):
    done = cli(str(cartpole.folder.path), "--out", str(tmp_path / "out"), "--safe-action", "0", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["path"] == str(tmp_path / "out")
    assert printed["files"].keys() == FILES
    assert printed["parity"]["passed"]


def test_an_unfinished_or_damaged_run_is_a_sentence(cartpole: Run, tmp_path: Path):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(cartpole.folder.config, unfinished)
    damaged = tmp_path / "damaged"
    shutil.copytree(cartpole.folder.path, damaged, ignore=shutil.ignore_patterns("export"))
    weights = next((damaged / "best").glob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-5])
    cases = {
        unfinished: "has no checkpoint yet",
        damaged: "is damaged",
        tmp_path / "damagde": "Did you mean 'damaged'?",
    }
    for folder, sentence in cases.items():
        done = cli(str(folder))
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        assert not (folder / "export").exists()


FRESH = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, {folder!r})
import numpy as np
from qhat_runtime import Policy, Runner
policy = Policy.load({folder!r}, runtime={runner!r})
rng = np.random.default_rng(0)
seen = [rng.uniform(-0.2, 0.2, 4).astype(np.float32) for _ in range(100)]
runner = Runner(policy)
found = {{"q": [policy.q_values(row).tolist() for row in seen], "acts": [runner.act(row) for row in seen],
         "reason": runner.reason, "modules": sorted({{"jax", "qhat"}} & sys.modules.keys())}}
print(json.dumps(found))
"""


def run_fresh(python: Path | str, folder: Path, runner: str, *refused: str) -> Any:
    code = FRESH.format(folder=str(folder), runner=runner, refused=set(refused) or {"jax"})
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["modules"]
    assert found["reason"] == ""
    return found


def require_same(found: Any, run: Run) -> None:
    policy, rng = run.policy(), np.random.default_rng(0)
    for q, action in zip(found["q"], found["acts"], strict=True):
        observation = rng.uniform(-0.2, 0.2, 4).astype(np.float32)
        np.testing.assert_allclose(q, policy.q_values(observation), rtol=1e-5, atol=1e-5)
        assert action == policy(observation)


def test_numpy_alone_runs_the_folder(cartpole: Run, exported: Export):
    """No other package can be imported, and the graph is missing."""
    found = run_fresh(sys.executable, exported.path, "auto", "jax", "qhat", "onnx", "onnxruntime", "scipy")
    require_same(found, cartpole)


def test_a_fresh_environment_runs_the_folder(cartpole: Run, exported: Export, tmp_path: Path):
    """With NumPy and onnxruntime in the pinned versions."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pins = ROOT / "constraints.txt"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, "-c", str(pins), "numpy", "onnxruntime"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shutil.copytree(exported.path, tmp_path / "robot")
    for runner in ("numpy", "onnxruntime"):
        require_same(run_fresh(python, tmp_path / "robot", runner), cartpole)
