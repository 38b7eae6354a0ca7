"""The wrapper `flicker`, compiled and in Gymnasium.

Protects against a share that is not what was asked, a part that is lost with another, an observation that
differs from the successor that replay has of it, and settings that lose nothing or what is not there.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from qhat.axes.actions import Actions
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.make import make
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Flicker, FrameStack, around, validate
from qhat.system.errors import UsageError

LENGTH, STEPS = 10, 2_000


class Clock(Environment):
    """Shows 100 + the time and 200 + the time, none of them 0; episodes last 10 steps."""

    def __init__(self, stack: int = 1, dtype: str = "float32"):
        self.num_envs = 2
        self.spec = Spec("clock", "test", (2,), dtype, Actions((2,)), stack=stack)

    def reset(self, key: Array) -> tuple[Array, Array]:
        time = jnp.zeros(2, jnp.int32)
        return time, shown(time)

    def step(self, state: Array, action: Array, key: Array) -> tuple[Array, Timestep]:
        time, no = state + 1, jnp.zeros(2, bool)
        ended = time == LENGTH
        fresh = jnp.where(ended, 0, time)
        return fresh, Timestep(shown(fresh), 1.0 * time, ended, no, shown(time), ~no)


def shown(time: Array) -> Array:
    return jnp.stack([100.0 + time, 200.0 + time], axis=1)


class GymClock(gymnasium.Env):
    """One copy of the same for Gymnasium."""

    observation_space = gymnasium.spaces.Box(np.array([100, 200], np.float32), np.float32(300.0), (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.array([100, 200], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        observation = np.array([100 + self.time, 200 + self.time], np.float32)
        return observation, float(self.time), self.time == LENGTH, False, {}


def played(environment: Environment, steps: int = STEPS) -> Timestep:
    """Return the timesteps, leaves `[T, E, ...]`."""
    state, _ = environment.reset(jax.random.key(0))
    action = jnp.zeros((environment.num_envs, 1), jnp.int32)
    keys = jax.random.split(jax.random.key(1), steps)
    scan = jax.jit(lambda state: jax.lax.scan(lambda s, k: environment.step(s, action, k), state, keys))
    return jax.tree.map(np.asarray, scan(state)[1])


def test_it_loses_the_share_and_the_part_that_it_says_and_nothing_else():
    plain = played(Clock())
    steps = played(wrapped(Clock(), (Flicker(0.3, start=1, value=-1.0),)))
    lost = steps.successor[..., 1] == -1.0
    assert lost.mean() == pytest.approx(0.3, abs=0.025)
    assert (lost[:, 0] != lost[:, 1]).mean() > 0.3, "copies lose independently"
    assert (lost[1:] & lost[:-1]).mean() == pytest.approx(0.09, abs=0.02), "as do steps"
    np.testing.assert_array_equal(steps.successor[..., 0], plain.successor[..., 0])
    np.testing.assert_array_equal(steps.successor[~lost], plain.successor[~lost])
    np.testing.assert_array_equal(steps.reward, plain.reward)
    np.testing.assert_array_equal(steps.terminated, plain.terminated)


def test_an_observation_is_the_successor_that_came_before_and_the_first_is_whole():
    plain = played(Clock())
    steps = played(wrapped(Clock(), (Flicker(0.6),)))
    ended = steps.terminated
    np.testing.assert_array_equal(steps.observation[~ended], steps.successor[~ended])
    np.testing.assert_array_equal(steps.observation[ended], plain.observation[ended])
    assert (steps.successor[ended] == 0).mean() == pytest.approx(0.6, abs=0.08), "an end may be lost"


def test_gymnasium_loses_the_same():
    env = around(GymClock(), (Flicker(0.3, count=1),))
    assert env.observation_space.low.tolist() == [0, 200], "what is shown is within the bounds"
    rows, firsts = [], [env.reset(seed=3)[0]]
    for _ in range(STEPS):
        observation, _, ended, *_ = env.step(0)
        assert env.observation_space.contains(observation)
        rows.append([*observation, env.unwrapped.time])
        if ended:
            firsts.append(env.reset()[0])
    shown, second, time = np.array(rows).T
    lost = shown == 0
    assert lost.mean() == pytest.approx(0.3, abs=0.035)
    np.testing.assert_array_equal(shown[~lost], 100 + time[~lost])
    np.testing.assert_array_equal(second, 200 + time)
    np.testing.assert_array_equal(firsts, np.tile([100, 200], (len(firsts), 1)))


def test_stacks_show_what_was_lost():
    steps = played(wrapped(Clock(), (Flicker(0.5), FrameStack(3))), 30)
    now, before = steps.successor[1:, :, -1], steps.successor[:-1, :, -1]
    within = ~steps.terminated[:-1]
    np.testing.assert_array_equal(steps.successor[1:, :, -2][within], before[within])
    assert 0 < (now == 0).mean() < 1


def test_the_lidar_of_a_robot_drops_out_and_its_goal_stays():
    plain = make("TurtleBot3-v0", 4)
    flickering = make("TurtleBot3-v0", 4, wrap=(Flicker(0.3, count=24),))
    assert flickering.spec.shape == plain.spec.shape == (26,)
    successor = played(flickering, 300).successor
    beams, goal = successor[..., :24], successor[..., 24:]
    lost = (beams == 0).all(-1)
    assert lost.mean() == pytest.approx(0.3, abs=0.05)
    assert (beams[~lost] >= 0.12).all(), "a scan is whole or lost"
    assert (goal[..., 1] > 0).all()


@pytest.mark.parametrize(
    ("flicker", "words"),
    [
        (Flicker(1.0), r"flicker:probability is 1.0; expected within \[0, 1\)"),
        (Flicker(start=-1), "flicker:start is -1"),
        (Flicker(count=-1), "flicker:count is -1"),
        (Flicker(value=float("nan")), "flicker:value is nan"),
    ],
)
def test_settings_without_a_meaning_are_refused(flicker: Flicker, words: str):
    with pytest.raises(UsageError, match=words):
        validate((flicker,))


@pytest.mark.parametrize(
    ("flicker", "inner", "words"),
    [
        (Flicker(start=2), Clock(), "flicker:start is 2 .* an observation has 2 numbers"),
        (Flicker(start=1, count=2), Clock(), "flicker:count 2, and an observation has 2 numbers"),
        (Flicker(value=0.5), Clock(dtype="uint8"), "flicker:value is 0.5; expected a value of uint8"),
        (Flicker(value=-1.0), Clock(dtype="uint8"), "flicker:value is -1.0; expected a value of uint8"),
        (Flicker(), Clock(stack=4), "around stacks of frames loses whole stacks; expected .*frame_stack"),
    ],
)
def test_observations_that_it_does_not_fit_are_refused(flicker: Flicker, inner: Clock, words: str):
    with pytest.raises(UsageError, match=words):
        wrapped(inner, (flicker,))


def test_stacks_within_it_are_refused_in_gymnasium_too():
    with pytest.raises(UsageError, match="around stacks of frames"):
        around(GymClock(), (FrameStack(2), Flicker()))
