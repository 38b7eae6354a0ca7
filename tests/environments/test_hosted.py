"""Gymnasium environments as people write them: arrays that are reused, slow steps, doors that jam.

Protects against what a second reader proved: successors of the next episode, signals that nobody heard,
runs lost to Ctrl-C, and causes hidden by what went wrong after them.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from places import python_path
from qhat.axes.actions import Actions
from qhat.axes.masks import read_mask
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.repeat import Repeat
from qhat.environments.make import make
from qhat.environments.wrappers import ActionRepeat
from qhat.recipes.config import TrainConfig
from qhat.runs.train import Interrupted, train
from qhat.system.errors import QhatError
from tiny import TINY_DQN

RECIPE = dataclasses.replace(TINY_DQN, num_envs=2, replay_ratio=0.5, batch_size=8, learning_starts=20)


class Reusing(gymnasium.Env):
    """Writes every observation into the same two arrays; ends after three steps."""

    observation_space = Dict({"a": Box(-9, 9, (1,), np.float32), "b": Box(-9, 9, (1,), np.float32)})
    action_space = Discrete(2)

    def __init__(self):
        self.buffers, self.time = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}, 0

    def _now(self) -> dict[str, np.ndarray]:
        self.buffers["a"][:], self.buffers["b"][:] = self.time, 2 * self.time
        return self.buffers

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self.time = 0
        return self._now(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._now(), 1.0, self.time == 3, False, {"success": self.time == 2}


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_a_dictionary_that_is_written_over_keeps_its_last_observation(vector: str):
    environment = GymnasiumEnvironment.of("own:Reusing", Reusing, 2, vector=vector)
    first = environment.start()
    assert first.tolist() == [[[0, 0], [0, 0]]]
    found = []
    for _ in range(4):
        environment.send(np.zeros((1, 2, 1), np.int32))
        step = environment.receive()
        found.append((step.successor[0, 0].tolist(), step.observation[0, 0].tolist()))
    environment.close()
    assert found == [([1, 2], [1, 2]), ([2, 4], [2, 4]), ([3, 6], [0, 0]), ([1, 2], [1, 2])]


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_a_call_that_is_cut_short_loses_nothing(vector: str):
    """Slow environments are looked in on: the same is learned, however often."""
    states, calls = [], []
    for pause in (lambda: False, lambda: True):
        environment = GymnasiumEnvironment.of("own:Reusing", Reusing, 2, vector=vector)
        spec = environment.spec
        loop = HostLoop(Program.of(RECIPE, spec.shape, spec.dtype, spec.actions), environment)
        state, advance = loop.init(jax.random.split(jax.random.key(0), 1)), loop.compile(60)
        done = 0
        while done < 60:
            state, log = advance(state, 60 - done, pause)
            calls.append(int(state.clock.iterations) - done)
            done = int(state.clock.iterations)
            assert int(np.asarray(log.ended)[:, : calls[-1]].sum()) == 2 * (
                done // 3 - (done - calls[-1]) // 3
            )
        environment.close()
        states.append(state)
    assert calls[0] == 60
    assert len(calls) > 2, "the second was cut"
    for mine, theirs in zip(*map(jax.tree.leaves, states), strict=True):
        if jnp.issubdtype(mine.dtype, jax.dtypes.prng_key):
            mine, theirs = jax.random.key_data(mine), jax.random.key_data(theirs)
        np.testing.assert_array_equal(mine, theirs)


class Slow(Reusing):
    """A robot at 50 Hz."""

    def step(self, action: Any) -> Any:
        time.sleep(0.02)
        return super().step(action)


def test_a_slow_environment_reports_progress_and_can_be_stopped(tmp_path: Path):
    """Its call would be 2,500 steps of 20 ms long."""
    steps: list[int] = []
    config = TrainConfig(
        "own", recipe=dataclasses.replace(RECIPE, num_envs=1, replay_ratio=1.0), steps=5_000, seeds=1,
        run_dir=tmp_path / "run", eval_episodes=1,
    )  # fmt: skip
    with pytest.raises(Interrupted) as stopped:
        train(Slow, config, progress=lambda now: steps.append(now.step), should_stop=lambda: len(steps) > 2)
    assert len(steps) > 2
    assert stopped.value.run.summary()["step"] == steps[-1] < 2_500


ROBOT = """
import gymnasium
from test_hosted import Slow
gymnasium.register("Slow-v0", Slow)
"""


def test_ctrl_c_reaches_the_workers_too_and_saves_the_run(tmp_path: Path):
    """A terminal sends it to every process of the command."""
    (tmp_path / "slow_robot.py").write_text(ROBOT)
    path = python_path(Path(__file__).parent, tmp_path)
    words = "--recipe dqn --hidden 8 --vector async --steps 5000 --eval-episodes 1"
    process = subprocess.Popen(
        [sys.executable, "-m", "qhat", "train", "gym:slow_robot:Slow-v0", *words.split(),
         "--run-dir", str(tmp_path / "run")],
        start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.csv"
    with process:
        for _ in range(600):
            time.sleep(0.1)
            if metrics.exists() or process.poll() is not None:
                break
        time.sleep(4.0)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said, said
    assert (tmp_path / "run" / "last").exists()


class Jammed(Reusing):
    """Its motor fails, and then its door."""

    def step(self, action: Any) -> Any:
        raise RuntimeError("motor 3 overheated")

    def close(self) -> None:
        raise OSError("the port is gone")


def test_the_error_names_what_failed_first():
    environment = GymnasiumEnvironment.of("own:Jammed", Jammed, 1)
    environment.start()
    environment.send(np.zeros((1, 1, 1), np.int32))
    with pytest.raises(QhatError, match="motor 3 overheated"):
        environment.receive()


class Locked(Reusing):
    """A driver whose step and close share a lock."""

    lock = threading.Lock()

    def step(self, action: Any) -> Any:
        with self.lock:
            time.sleep(1_000)

    def close(self) -> None:
        with self.lock:
            pass


def test_closing_what_hangs_is_not_waited_for():
    made: list[Any] = []
    environment = GymnasiumEnvironment.of("own:Locked", lambda: made.append(Locked()) or made[-1], 1)
    environment.start()
    environment.send(np.zeros((1, 1, 1), np.int32))
    threading.Thread(target=made[0].step, args=(0,), daemon=True).start()
    time.sleep(0.2)
    with pytest.raises(QhatError, match="did not come back from step 1"):
        environment.give_up(TimeoutError())


class Stuck(Reusing):
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        time.sleep(1_000)


def test_a_reset_has_a_limit_too():
    with pytest.raises(QhatError, match=r"did not come back.*within 1 s"):
        GymnasiumEnvironment.of("own:Stuck", Stuck, 1, seconds=1.0)


def test_repeated_actions_keep_what_was_reached():
    env = Repeat(Reusing(), 3)
    env.reset()
    assert env.step(0)[-1] == {"success": True}
    plain = make("TurtleBot3-v0", 32, options={"obstacles": 0})
    repeated = make("TurtleBot3-v0", 32, options={"obstacles": 0}, wrap=(ActionRepeat(4),))
    goals = []
    for environment, count in ((plain, 240), (repeated, 60)):
        state, observation = environment.reset(jax.random.key(0))
        step, reached, paid = jax.jit(environment.step), 0, 0
        for turn in range(count):
            heading = observation[:, 24]
            choice = jnp.where(heading > 0.3, 0, jnp.where(heading < -0.3, 4, 2))
            state, now = step(state, choice[:, None].astype(jnp.int32), jax.random.key(turn))
            observation = now.observation
            reached += int((now.success == 1).sum())
            paid += int((now.reward > 8).sum())
        assert reached == paid > 20
        goals.append(reached)


def test_the_highest_command_is_within_its_bounds():
    for low, high in ((-0.1, 0.3), (-1.7, 0.9), (293.15, 298.15)):
        actions = Actions.binned([low], [high], (7,), "the robot")
        assert actions.commands is not None
        assert (actions.commands[0][0], actions.commands[0][-1]) == (low, high)
        assert list(actions.commands[0]) == sorted(actions.commands[0])


def test_a_tuple_with_one_mask_is_one():
    mask = read_mask((np.array([1, 0, 1], np.int8),), Actions((3,)), "mask")
    assert mask is not None
    assert mask.tolist() == [[True, False, True]]


def test_an_environment_that_runs_jax_within_its_step(tmp_path: Path):
    """In a process of its own: the number of threads is set once per process."""
    command = [sys.executable, "-m", "qhat", "train", "gym:qhat.robots:qhat/TurtleBot3-v0"]
    words = "--recipe dqn --hidden 8 --steps 700 --eval-episodes 1 --env-timeout 30"
    done = subprocess.run(
        [*command, *words.split(), "--run-dir", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
