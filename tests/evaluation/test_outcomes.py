"""What evaluations report besides the return: success, length, saturated joints, smoothness.

Protects against rates over the wrong attempts, and against counted steps after an episode's end.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qhat.axes.actions import Actions
from qhat.engine.learner import Learner
from qhat.environments.base import Timestep
from qhat.environments.catalogue import find
from qhat.environments.envpool import make as envpool
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make
from qhat.environments.make_args import MakeArgs
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.evaluation.outcomes import Played
from qhat.evaluation.play import play_of
from qhat.evaluation.statistics import Score
from tiny import TINY_DQN

PLAN = ((False, True, False), (False, False, True), (True, False, False, False))
"""What `info` says in each of an environment's episodes, step by step; each ends with its list."""


class Reporting(gymnasium.Env):
    """Ends its episodes according to `PLAN`, in turn, and reports success under `key`."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, key: str):
        self.key, self.episode, self.time = key, -1, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self.episode, self.time = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        plan = PLAN[self.episode % len(PLAN)]
        flag = plan[self.time]
        self.time += 1
        return np.zeros(1, np.float32), 1.0, False, self.time == len(plan), {self.key: flag}


def test_a_sum_over_steps_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    actions = Actions((3, 2), ((-1.0, 0.0, 2.0), (0.0, 5.0)))
    steps, lead = 12, (2, 4)
    taken = np.stack([rng.integers(0, count, (steps, *lead)) for count in actions.choices], axis=-1)
    reward = rng.normal(size=(steps, *lead)).astype(np.float32)
    real, ends = rng.random((steps, *lead)) < 0.8, rng.random((steps, *lead)) < 0.2
    success = rng.choice([0.0, 1.0, np.nan], (steps, *lead)).astype(np.float32)
    ends[-1], real[-1] = True, True
    played, playing = Played.nothing(lead, 2, np), np.ones(lead, bool)
    for turn in range(steps):
        flags: Any = {"terminated": ends[turn], "truncated": np.zeros(lead, bool), "real": real[turn]}
        observation = np.zeros((*lead, 1))
        step = Timestep(
            observation=observation,
            successor=observation,
            reward=reward[turn],
            **flags,
            success=success[turn],
        )
        played = played.add(step, playing, taken[turn], taken[max(turn - 1, 0)], actions, np)
        playing &= ~(step.real & step.finished)
    for at in np.ndindex(lead):
        total, length, tries, good, moved, bound = 0.0, 0, 0, 0, 0.0, [0, 0]
        for turn in range(steps):
            if not real[turn][at]:
                continue
            total, length = total + float(reward[turn][at]), length + 1
            tries, good = tries + (not np.isnan(success[turn][at])), good + (success[turn][at] == 1)
            for joint, commands in enumerate(actions.commands or ()):
                choice, earlier = taken[turn][at][joint], taken[max(turn - 1, 0)][at][joint]
                moved += abs(commands[choice] - commands[earlier]) / 2
                bound[joint] += commands[choice] in (min(commands), max(commands))
            if ends[turn][at]:
                break
        want = (total, length, tries, good, moved)
        got = (played.returns, played.lengths, played.attempts, played.successes, played.moved)
        assert [float(part[at]) for part in got] == pytest.approx(want, abs=1e-4)
        assert played.saturated[at].tolist() == bound
    assert played.success_rate() == pytest.approx(played.successes.sum() / played.attempts.sum())
    assert played.saturation().shape == (2, 2)
    score = Score.of_played("any", played, commanded=True)
    assert score.smoothness == pytest.approx(played.moved.sum() / played.lengths.sum())
    assert Score.of_played("any", played, commanded=False).saturation is None


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("key", ["is_success", "success"])
def test_gymnasium_tells_of_episodes(key: str, mode: AutoresetMode):
    envs = SyncVectorEnv([lambda: Reporting(key)] * 2, autoreset_mode=mode)
    environment = GymnasiumEnvironment("own:Told", envs, [0, 1])
    environment.start()
    reported = []
    while len(reported) < 6:
        environment.send(np.zeros((1, 2, 1), np.int32))
        step = environment.receive()
        ended = step.truncated[0, 0]
        if step.success is not None:
            assert bool(np.isnan(step.success[0, 0])) is not bool(ended)
            reported += [float(step.success[0, 0])] * bool(ended)
    environment.close()
    # Of the first at the last step, of the second at any.
    assert reported == ([0.0, 1.0, 0.0] if key == "is_success" else [1.0, 1.0, 1.0]) * 2


@pytest.mark.parametrize("env_id", ["FetchReach-v4", "MetaWorld/Reach-v3"])
def test_envpool_tells_the_same_compiled_and_hosted(env_id: str):
    """An untrained policy reaches no goal, so the goal is so near that both reach it immediately."""
    options: dict[str, Any] = {"max_episode_steps": 12}
    if env_id.startswith("Fetch"):
        options["distance_threshold"] = 0.4
    played = []
    for host in (False, True):
        environment = envpool.make(find(env_id), MakeArgs(6, (3,), options={**options, "host": host}))
        learner = Learner.of(TINY_DQN, environment.spec.shape, environment.spec.actions)
        parameters = jax.jit(jax.vmap(learner.init_parameters))(jax.random.split(jax.random.key(0), 1))
        assert isinstance(environment, HostEnvironment) is host
        played.append(play_of(learner, environment)(parameters, jax.random.key(0)))
        environment.close()
    for mine, theirs in zip(*played, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert played[0].attempts.tolist() == [[1] * 6]
    assert (played[0].lengths == 12).all()
    if env_id.startswith("Fetch"):
        assert played[0].successes.sum() > 0


def test_a_mobile_robots_goals_are_its_attempts():
    """Counted from the environment's outcomes."""
    environment = make("TurtleBot3-v0", 5, options={"max_episode_steps": 150, "goal_steps": 40})
    step = jax.jit(environment.step)
    state, _ = jax.jit(environment.reset)(jax.random.key(0))
    reached = lost = 0
    for turn in range(300):
        action = jax.random.randint(jax.random.key(turn), (5, 1), 1, 4)
        state, now = step(state, action, jax.random.key(turn + 1000))
        success = np.asarray(now.success)
        assert set(success[~np.isnan(success)]) <= {0.0, 1.0}
        np.testing.assert_array_equal(success[np.asarray(now.terminated)], 0.0)
        won = np.asarray(now.reward) > turtlebot3.GOAL - 1
        np.testing.assert_array_equal(won, success == 1)
        reached, lost = reached + int(won.sum()), lost + int((success == 0).sum())
    assert reached > 0
    assert lost > 3


def test_a_time_limit_is_no_missed_goal():
    environment = make("TurtleBot3-v0", 4, options={"max_episode_steps": 3, "obstacles": 0})
    state, _ = jax.jit(environment.reset)(jax.random.key(1))
    nows, step = [], jax.jit(environment.step)
    for turn in range(3):
        state, now = step(state, jnp.zeros((4, 1), jnp.int32), jax.random.key(turn))
        nows.append(now)
    assert np.asarray(nows[-1].truncated).all()
    assert np.isnan(np.asarray(nows[-1].success)).all()
