"""Demonstrations: files of transitions, read and checked, in replay before the first step.

Protects against recorded transitions that are learned with a wrong successor, action or end.
"""

import dataclasses
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from inside import state_of
from qhat import recipes
from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.sampler import Prioritised
from qhat.demonstrations import pieces
from qhat.demonstrations.reading import Demonstrations, joined, read
from qhat.engine.iteration import Program
from qhat.engine.prefill import prefill
from qhat.engine.replay.nstep import NOTHING
from qhat.engine.state import Clock, TrainState
from qhat.environments.base import Spec
from qhat.environments.user_envs import spec_of
from qhat.environments.wrappers import RewardScale
from qhat.recipes.config import TrainConfig
from qhat.runs.run import Run
from qhat.runs.train import train
from qhat.system.errors import UsageError

TINY = dataclasses.replace(
    recipes.get("qhat"), hidden=(16,), num_envs=1, replay_capacity=2_000, n_step=3, learning_starts=32,
    batch_size=32,
).scheduled()  # fmt: skip
SPEC = Spec("it", "own", (2,), "float32", Actions((3,)))
JOINTS = Spec("arm", "own", (2,), "float32", Actions.binned([-1.0, 0.0], [1.0, 4.0], (3,), "arm"))
MASKED = dataclasses.replace(SPEC, masked=True)


def rows(count: int, spec: Spec = SPEC, seed: int = 0) -> dict[str, np.ndarray]:
    """Random episodes, some terminated, some truncated, one without an end."""
    rng = np.random.default_rng(seed)
    before, after = (np.zeros((count, *spec.shape), spec.dtype) for _ in range(2))
    terminated, truncated = rng.random(count) < 0.1, rng.random(count) < 0.1
    now = rng.normal(size=spec.shape)
    for row in range(count):
        before[row], after[row] = now, rng.normal(size=spec.shape)
        over = terminated[row] or truncated[row] or row == count // 2
        now = rng.normal(size=spec.shape) if over else after[row]
    return {
        "observation": before,
        "action": rng.integers(spec.actions.choices, size=(count, spec.actions.factors)).squeeze(),
        "reward": rng.normal(size=count),
        "next_observation": after,
        "terminated": terminated,
        "truncated": truncated,
    }


def saved(folder: Path, columns: dict[str, Any]) -> str:
    np.savez(folder / "log.npz", **columns)
    return str(folder / "log.npz")


def filled(recipe: Any, demos: Demonstrations, seeds: int = 1, **program: Any) -> TrainState:
    composed = Program.of(recipe.validate(), SPEC.shape, SPEC.dtype, SPEC.actions, **program)
    observation = jnp.zeros((recipe.num_envs, 2))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    fresh = jax.vmap(lambda key: composed.init(key, observation, None))(keys)
    return prefill(composed, TrainState(Clock(jnp.int32(0), jnp.int32(0)), fresh), demos)


def test_replay_holds_what_an_agent_would_have_remembered(tmp_path: Path):
    recipe = dataclasses.replace(TINY, sampler=Prioritised())
    recorded = rows(300)
    recorded["terminated"][-1] = True
    agent = Agent(2, 3, recipe)
    for row in range(300):
        part = {
            name: recorded[name][row] for name in ("observation", "action", "reward", "next_observation")
        }
        agent.remember(
            **part, terminated=bool(recorded["terminated"][row]), truncated=bool(recorded["truncated"][row])
        )
        if row == 150:
            agent.cut()  # Where the recording breaks off.
    # A run's ring has no links, and follows returns by itself.
    ring = dataclasses.replace(state_of(agent).ring, links=None)
    if ring.outlook is not None:
        outlook = dataclasses.replace(ring.outlook, trace=jnp.zeros(1))
        ring = dataclasses.replace(ring, outlook=outlook)
    state = filled(recipe, read(saved(tmp_path, recorded), SPEC), seeds=2)
    for seed in range(2):
        stored = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), state.seeds.ring)
        jax.tree.map(np.testing.assert_array_equal, stored, jax.tree.map(np.asarray, ring))
        assert stored.filled[0] > 300


def test_breaks_are_counted_and_said(tmp_path: Path):
    recorded = rows(300)
    demos = read(saved(tmp_path, recorded), SPEC)
    ended = bool(recorded["terminated"][150] or recorded["truncated"][150])
    assert (demos.breaks("log.npz") is None) == ended
    # A sensor that is read again in each loop.
    recorded["observation"] = recorded["observation"] + 1e-3
    sentence = read(saved(tmp_path, recorded), SPEC).breaks("log.npz")
    ends = recorded["terminated"] | recorded["truncated"]
    assert sentence is not None
    assert f"after {np.sum(~ends[:-1])} of 300 rows" in sentence
    assert f"the first row {np.argmin(ends)}:" in sentence


@pytest.mark.parametrize("envs", [1, 4, 7])
def test_every_transition_is_stored_exactly_one_time(tmp_path: Path, envs: int):
    recipe = dataclasses.replace(TINY, num_envs=envs, replay_ratio=1.0, replay_capacity=700)
    recorded = rows(301)
    state = filled(recipe, read(saved(tmp_path, recorded), SPEC))
    ring = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.seeds.ring)
    starts = np.flatnonzero(ring.kind != NOTHING)
    found = sorted(
        (*ring.observation[at], int(ring.action[at, 0]), ring.reward[at], *ring.observation[at + 1])
        for at in starts
    )
    expected = sorted(
        (*recorded["observation"][row], int(recorded["action"][row]), np.float32(recorded["reward"][row]),
         *recorded["next_observation"][row])
        for row in range(301)
    )  # fmt: skip
    np.testing.assert_array_equal(np.array(found), np.array(expected))
    # Ends: what the file says, the break in the middle, the last row, and at most one per ring.
    ended = recorded["terminated"] | recorded["truncated"]
    ended[[150, 300]] = True
    assert ended.sum() <= np.sum(ring.kind > 1) <= ended.sum() + envs - 1


def test_rewards_are_wrapped_as_the_run_wraps_its_rewards(tmp_path: Path):
    demos = read(saved(tmp_path, rows(50)), SPEC)
    plain, half = (
        filled(TINY, demos, rewards=scale).seeds.ring.reward for scale in ((), (RewardScale(0.5),))
    )
    np.testing.assert_allclose(half, 0.5 * np.asarray(plain))
    assert np.any(plain)


def cartpole(count: int) -> dict[str, np.ndarray]:
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(0)
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    columns: dict[str, list] = {name: [] for name in names}
    observation, _ = env.reset(seed=0)
    for _ in range(count):
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        for name, value in zip(
            columns, (observation, action, reward, after, terminated, truncated), strict=True
        ):
            columns[name].append(value)
        observation = env.reset()[0] if terminated or truncated else after
    return {name: np.asarray(values) for name, values in columns.items()}


def run_config(folder: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(
        "CartPole-v1", recipe=TINY, steps=400, eval_every=400, eval_episodes=1, save_every=200,
        run_dir=folder, **settings,
    )  # fmt: skip


def saved_state(run: Run, name: str) -> np.ndarray:
    from safetensors.numpy import load_file

    tensors = load_file(run.folder.last() / "state.safetensors")
    return tensors[f"seeds/{name}"]


def test_a_run_begins_with_them_and_resumes_exactly(tmp_path: Path):
    demos = (saved(tmp_path, cartpole(300)),)
    whole = train("CartPole-v1", run_config(tmp_path / "whole", demos=demos))
    half = dataclasses.replace(run_config(tmp_path / "half", demos=demos), steps=200)
    train("CartPole-v1", half)
    resumed = train("CartPole-v1", dataclasses.replace(half, steps=400, resume=True, demos=()))
    assert resumed.weights_sha256() == whole.weights_sha256()
    assert saved_state(whole, "ring/filled") > 700
    assert whole.folder.read_config()["demos"] == list(demos)
    assert resumed.weights_sha256() != train("CartPole-v1", run_config(tmp_path / "none")).weights_sha256()


def test_two_sources_follow_each_other(tmp_path: Path):
    (tmp_path / "second").mkdir()
    both = [
        read(saved(folder, rows(40, seed=seed)), SPEC)
        for seed, folder in enumerate((tmp_path, tmp_path / "second"))
    ]
    assert len(joined(both)) == 80
    assert joined(both).truncated[39] or joined(both).terminated[39]
    assert joined(both).episodes == sum(part.episodes for part in both)
    logged = read(saved(tmp_path, rows(9) | {"probability": np.full(9, 0.5)}), SPEC)
    assert logged.probability is not None
    assert joined([logged, both[0]]).probability is None, "of one source nobody knows them"


def test_commands_become_the_nearest_ones(tmp_path: Path):
    recorded = {**rows(3, JOINTS), "action": np.array([[-1.0, 0.0], [0.4, 3.1], [1.0, 4.0]])}
    assert read(saved(tmp_path, recorded), JOINTS).action.tolist() == [[0, 0], [1, 2], [2, 2]]


def test_actions_are_those_of_the_environment(tmp_path: Path):
    spec = dataclasses.replace(SPEC, actions=Actions((2, 3), start=(1, -1), shape=(2, 1)))
    action_rows = np.array([[1, -1], [2, 1], [1, 0]])
    for action in (action_rows, action_rows.reshape(3, 2, 1)):
        read_in = read(saved(tmp_path, {**rows(3), "action": action}), spec)
        assert read_in.action.tolist() == [[0, 0], [1, 2], [0, 1]]
    words = r"row 0 of action is \[0, -1\]; expected .*from \[1, -1\] to \[2, 1\]"
    with pytest.raises(UsageError, match=words):
        read(saved(tmp_path, {**rows(3), "action": action_rows - [1, 0]}), spec)


def test_masks_are_read(tmp_path: Path):
    recorded = rows(3, MASKED) | {
        "action": np.array([0, 1, 2]),
        "terminated": np.array([False, False, True]),
    }
    recorded |= {
        "mask": np.array([[1, 0, 1], [1, 1, 1], [0, 0, 1]]),
        "next_mask": np.array([[1, 1, 1], [0, 0, 1], [0, 0, 0]]),
    }
    demos = read(saved(tmp_path, recorded), MASKED)
    assert demos.legal is not None
    assert demos.legal_next is not None
    np.testing.assert_array_equal(demos.legal[:, 0], recorded["mask"].astype(bool))
    np.testing.assert_array_equal(demos.legal_next[:2, 0], recorded["next_mask"][:2].astype(bool))
    assert demos.legal_next[2].all()
    with pytest.raises(
        UsageError, match=r"row 1 of action is \[1\]; expected one that its own mask allows"
    ):
        read(saved(tmp_path, recorded | {"mask": np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1]])}), MASKED)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reward": np.array([0.0, np.nan, 1.0])}, "row 1 of reward is nan; expected finite numbers"),
        ({"reward": np.zeros((3, 2))}, r"reward is float64 \(3, 2\); expected numbers of shape \(3,\)"),
        (
            {"action": np.array([0, 3, 1])},
            r"row 1 of action is \[3\]; expected a whole number from 0 to 2",
        ),
        ({"action": np.array([0, 0.5, 1])}, r"row 1 of action is \[0.5\]; expected a whole number"),
        ({"terminated": np.array([0, 2, 1])}, "row 1 of terminated is 2; expected true or false"),
        ({"observation": np.zeros((3, 4))}, r"observation is float64 \(3, 4\); expected .* \(3, 2\)"),
        ({"next_observation": np.zeros((2, 2))}, r"next_observation is float64 \(2, 2\)"),
        ({"observation": np.array([["a", "b"]] * 3)}, "observation is <U1"),
        ({"observation": np.full((3, 2), 1e300)}, "row 0 of observation is .*; expected finite numbers"),
        (
            {"probability": np.array([0.5, 0.0, 1.0])},
            "row 1 of probability is 0.0; expected .* above 0",
        ),
        ({"probability": np.array([0.5, 1.5, 1.0])}, "row 1 of probability is 1.5; expected .* at most 1"),
        ({"mask": np.ones((3, 3))}, "have mask, and 'it' masks no actions"),
        ({"action": np.array([None, 1, 2], object)}, "hold objects or are damaged"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict, words: str):
    recorded = rows(3) | changed
    np.savez(tmp_path / "log.npz", allow_pickle=True, **recorded)
    with pytest.raises(UsageError, match=words):
        read(str(tmp_path / "log.npz"), SPEC)


def test_bytes_hold_what_they_can(tmp_path: Path):
    pixels = dataclasses.replace(SPEC, dtype="uint8")
    with pytest.raises(
        UsageError, match=r"row 0 of observation is .*; expected values that a uint8 can hold"
    ):
        read(saved(tmp_path, rows(3)), pixels)


def test_an_empty_file_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="hold no transition"):
        read(saved(tmp_path, {name: value[:0] for name, value in rows(3).items()}), SPEC)


def test_more_than_replay_holds_is_refused(tmp_path: Path):
    config = run_config(tmp_path / "run", demos=(saved(tmp_path, cartpole(2_100)),))
    with pytest.raises(
        UsageError, match=r"replay_capacity is 2000, and .* \(2100 transitions\) need 2\d\d\d"
    ):
        train("CartPole-v1", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (None, "are not there; expected an .npz file"),
        (b"hello", "are no .npz archive"),
        (b"PK\x03\x04 broken", "are no .npz archive"),
        ({"obs": np.zeros(3)}, "have no array 'observation'"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_loads_anything(tmp_path: Path, write: Any, words: str):
    path = tmp_path / "log.npz"
    if isinstance(write, bytes):
        path.write_bytes(write)
    elif write:
        np.savez(path, **write)
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "qhat",
        "train",
        "CartPole-v1",
        "--demos",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr.replace("\n", " ")
    assert " jax\n" not in done.stderr
    assert not (tmp_path / "runs").exists()


class Arm(gymnasium.Env):
    """Two numbers in a dictionary, a choice that starts at 1, episodes of four steps."""

    observation_space = Dict({"b": Box(-1, 1, (1,)), "a": Discrete(3)})
    action_space = Discrete(3, start=1)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.turn = 0
        return self.observation_space.sample(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.turn += 1
        return self.observation_space.sample(), float(action), self.turn == 4, False, {}


@pytest.mark.filterwarnings("ignore:.* is set to None", "ignore:Implicitly cleaning up:ResourceWarning")
def test_minaris_datasets_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    minari: Any = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    gymnasium.register("test/Arm-v0", f"{__name__}:Arm")
    collected = minari.DataCollector(gymnasium.make("test/Arm-v0"))
    taken: list[int] = []
    for episode in range(3):
        collected.reset(seed=episode)
        for _ in range(4 if episode < 2 else 2):
            taken.append(int(collected.action_space.sample()))
            collected.step(taken[-1])
    collected.create_dataset("test/arm-v0")
    collected.close()
    del gymnasium.registry["test/Arm-v0"], collected
    # Minari leaves its temporary folder to the collector: here, not in some other test.
    gc.collect()
    spec = spec_of(Arm)
    demos = read("minari:test/arm-v0", spec)
    assert spec.shape == (4,)
    assert demos.action[:, 0].tolist() == [choice - 1 for choice in taken]
    assert demos.reward.tolist() == taken
    assert demos.terminated.tolist() == [False] * 3 + [True] + [False] * 3 + [True] + [False] * 2
    assert demos.truncated.tolist() == [False] * 9 + [True]
    assert set(np.unique(demos.observation[:, :3])) == {0, 1}
    np.testing.assert_array_equal(demos.observation[1:4], demos.successor[:3])
    monkeypatch.setattr(pieces, "PIECE", 1)
    parts = [piece.read() for piece in pieces.pieces_of("minari:test/arm-v0", spec)]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert pieces.rows_in("minari:test/arm-v0") == 10
    for name in ("observation", "action", "reward", "successor", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(joined(parts), name), getattr(demos, name))
    shifted = dataclasses.replace(spec, actions=Actions((3,)))
    with pytest.raises(UsageError, match=r"have actions Discrete.*expected a whole number from 0 to 2"):
        read("minari:test/arm-v0", shifted)
    with pytest.raises(UsageError, match=r"no dataset 'test/arm-v1' .*Did you mean 'test/arm-v0'"):
        read("minari:test/arm-v1", spec)
