"""The mobile robot: geometry against hand calculation, boundaries, and Gymnasium's own checker.

Protects against a lidar that sees through things, and a robot that learns something no real one does.
"""

import dataclasses
import math
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import qhat.robots  # noqa: F401
from qhat.environments.make import make
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.environments.turtlebot3.physics import Robot, TurtleBot3Options
from qhat.system.errors import UsageError

PLAIN = TurtleBot3Options(obstacles=0)
AHEAD, LEFT = 2, 0


def robot(place: Any = (0.0, 0.0), facing: float = 0.0, **other: Any) -> Robot:
    """A robot in the middle, its goal far to the front left, no cylinders."""
    base: dict[str, Any] = {
        "place": jnp.array(place), "facing": jnp.float32(facing), "goal": jnp.array([1.5, 1.5]),
        "cylinders": jnp.zeros((0, 2)), "velocities": jnp.zeros((0, 2)), "steps": jnp.int32(0),
        "since": jnp.int32(0), "commands": jnp.zeros(0, jnp.int32), "grip": jnp.float32(1),
    }  # fmt: skip
    return Robot(**{**base, **other})


def drive(state: Robot, *actions: int, options: TurtleBot3Options = PLAIN) -> tuple[Robot, Any]:
    advance = jax.jit(turtlebot3.advance, static_argnums=3)
    outcome: Any = None
    for turn, action in enumerate(actions):
        state, outcome = advance(state, jnp.int32(action), jax.random.key(turn), options)
    return state, outcome


def test_beams_measure_walls_and_cylinders():
    place, facing = np.array([0.5, -0.25], np.float32), 0.3
    cylinders = np.array([[1.2, 0.4], [-1.0, -0.2]], np.float32)
    state = robot(place, facing, cylinders=jnp.asarray(cylinders), velocities=jnp.zeros((2, 2)))
    readings = np.asarray(turtlebot3.lidar(state, TurtleBot3Options()))
    for beam, reading in enumerate(readings):
        angle = facing + beam * 2 * math.pi / 24
        # Walk along the beam in steps of a tenth of a millimetre until something is there.
        way = np.arange(0, 6, 1e-4)
        at = place + way[:, None] * [math.cos(angle), math.sin(angle)]
        hit = np.abs(at).max(axis=1) >= 2.0
        for centre in cylinders:
            hit |= np.linalg.norm(at - centre, axis=1) <= 0.15
        assert reading == pytest.approx(way[hit.argmax()], abs=3e-4), beam
    walls = np.asarray(turtlebot3.lidar(robot(place, facing), PLAIN))
    assert (readings < walls - 0.1).sum() >= 2, "cylinders are seen"


@pytest.mark.parametrize("facing", [0.0, math.pi / 2, -math.pi, 1.1])
def test_straight_on_is_straight_on(facing: float):
    state, outcome = drive(robot(facing=facing), *[AHEAD] * 10)
    np.testing.assert_allclose(state.place, 0.3 * np.array([math.cos(facing), math.sin(facing)]), atol=1e-5)
    assert not outcome.collided
    assert int(state.since) == int(state.steps) == 10


def test_a_full_left_turn_is_a_circle_that_closes():
    # 0.15 m/s at 1.5 rad/s is a circle of 0.1 m; 0.3 rad per step.
    state, _ = drive(robot(), *[LEFT] * 7)
    angle = 7 * 0.3
    np.testing.assert_allclose(state.place, [0.1 * math.sin(angle), 0.1 * (1 - math.cos(angle))], atol=1e-5)
    assert float(state.facing) == pytest.approx(angle, abs=1e-5)


def test_rewards_are_as_documented():
    state, outcome = drive(robot(goal=jnp.array([1.0, 0.0])), AHEAD)
    assert float(outcome.reward) == pytest.approx(5 * 0.03 - 0.02, abs=1e-5)
    state, outcome = drive(robot(goal=jnp.array([0.22, 0.0])), AHEAD)
    assert bool(outcome.reached)
    assert not bool(outcome.collided)
    assert float(outcome.reward) == pytest.approx(5 * 0.03 - 0.02 + 10, abs=1e-5)
    assert np.linalg.norm(state.goal - state.place) >= 0.6 - 1e-5, "another goal"
    assert int(state.since) == 0
    _, outcome = drive(robot((1.88, 0.0), goal=jnp.array([0.0, 0.0])), AHEAD)
    assert bool(outcome.collided)
    assert float(outcome.reward) == pytest.approx(-5 * 0.03 - 0.02 - 10, abs=1e-4)


def test_cylinders_bounce_and_can_run_the_robot_over():
    options = TurtleBot3Options(obstacles=1, obstacle_speed=0.5)
    one: dict[str, Any] = {"cylinders": jnp.array([[1.8, 0.0]]), "velocities": jnp.array([[0.5, 0.0]])}
    state, _ = drive(robot((0.0, -1.0), **one), AHEAD, options=options)
    np.testing.assert_allclose(state.velocities, [[-0.5, 0.0]])
    assert float(jnp.abs(state.cylinders).max()) <= 1.85 + 1e-6
    into: dict[str, Any] = {"cylinders": jnp.array([[-0.35, 0.0]]), "velocities": jnp.array([[0.5, 0.0]])}
    _, outcome = drive(robot(**into), *[AHEAD] * 3, options=options)
    assert bool(outcome.collided)


def test_a_delay_and_a_slippery_floor():
    late = TurtleBot3Options(obstacles=0, actuation_delay=2)
    state, _ = drive(robot(commands=jnp.array([AHEAD, AHEAD])), LEFT, LEFT, options=late)
    assert float(state.facing) == 0
    state, _ = drive(state, LEFT, options=late)
    assert float(state.facing) == pytest.approx(0.3, abs=1e-6)
    state, _ = drive(robot(grip=jnp.float32(0.5)), AHEAD)
    assert float(state.place[0]) == pytest.approx(0.015, abs=1e-6)
    grips = jax.jit(jax.vmap(lambda key: turtlebot3.begin(key, TurtleBot3Options(friction=0.3)).grip))(
        jax.random.split(jax.random.key(0), 200)
    )
    assert 0.7 <= float(grips.min()) < 0.75 < 0.95 < float(grips.max()) <= 1.0


def test_noise_is_on_the_beams_alone():
    options = TurtleBot3Options(lidar_noise=0.05)
    state = turtlebot3.begin(jax.random.key(1), options)
    readings = jax.jit(jax.vmap(lambda key: turtlebot3.observe(state, key, options)))(
        jax.random.split(jax.random.key(2), 400)
    )
    clean = np.minimum(np.asarray(turtlebot3.lidar(state, options)), turtlebot3.FARTHEST)
    inner = clean < 3.2
    np.testing.assert_allclose(np.std(readings, axis=0)[:24][inner], 0.05, rtol=0.2)
    assert np.ptp(readings[:, 24:], axis=0).max() == 0


def test_episodes_begin_clear_of_everything():
    options = TurtleBot3Options()
    states = jax.jit(jax.vmap(lambda key: turtlebot3.begin(key, options)))(
        jax.random.split(jax.random.key(0), 2_000)
    )
    gaps = np.linalg.norm(states.cylinders - states.place[:, None], axis=2)
    assert gaps.min() >= 0.6 + 0.105 + 0.15 - 1e-5
    assert np.linalg.norm(states.goal - states.place, axis=1).min() >= 0.6 - 1e-5
    assert np.abs(states.goal).max() <= 2 - 0.21
    np.testing.assert_allclose(np.linalg.norm(states.velocities, axis=2), 0.1, rtol=1e-5)


def test_collisions_terminate_and_limits_truncate_in_the_compiled_environment():
    options = {"goal_steps": 40, "max_episode_steps": 100}
    environment = make("qhat:TurtleBot3-v0", 64, options=options)
    assert environment.spec.shape == (26,)
    state, first = jax.jit(environment.reset)(jax.random.key(0))
    assert first.shape == (64, 26)

    @jax.jit
    def play(state: Any) -> Any:
        def turn(state: Any, key: Any) -> Any:
            act, step = jax.random.split(key)
            action = jax.random.randint(act, (64, 1), 0, 5)
            state, now = environment.step(state, action, step)
            return state, (now, state.steps, state.since)

        return jax.lax.scan(turn, state, jax.random.split(jax.random.key(1), 150))[1]

    now, steps, since = jax.tree.map(np.asarray, play(state))
    ended = now.terminated | now.truncated
    assert now.terminated.sum() > 3
    assert now.truncated.sum() > 50
    assert not (now.terminated & now.truncated).any()
    assert (steps[ended] == 0).all(), "a new episode"
    assert (steps < 100).all()
    assert (since < 40).all()
    nearest = now.successor[..., :24].min(axis=-1)
    assert nearest[now.terminated].max() < 0.2, "it ended beside something"
    np.testing.assert_array_equal(now.observation[~ended], now.successor[~ended])
    assert (now.observation[ended] != now.successor[ended]).any(axis=-1).all()
    assert now.real.all()


def test_gymnasiums_checker_passes_and_seeds_decide():
    env = gymnasium.make("qhat/TurtleBot3-v0", render_mode="rgb_array")
    check_env(env.unwrapped)
    runs = []
    for _ in range(2):
        readings, _ = env.reset(seed=5)
        rows = [readings, *(env.step(action)[0] for action in (0, 1, 2, 3, 4))]
        runs.append(np.stack(rows))
    np.testing.assert_array_equal(*runs)
    picture: Any = env.render()
    assert picture.shape == (480, 480, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20, "something is drawn"
    env.close()


def test_both_move_alike():
    env: Any = gymnasium.make("qhat/TurtleBot3-v0").unwrapped
    env.reset(seed=1)
    state = env._robot
    for action in (0, 4, 2, 2, 1):
        state, _ = drive(state, action, options=TurtleBot3Options())
        env.step(action)
        np.testing.assert_allclose(env._robot.place, state.place, atol=1e-6)
        np.testing.assert_allclose(env._robot.cylinders, state.cylinders, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"areena": 3.0}, "no option 'areena'.*Did you mean 'arena'"),
        ({"arena": 1.0}, "arena is 1.0; expected a number from 2.0"),
        ({"obstacles": 1.5}, "obstacles is 1.5; expected a whole number from 0 to 20"),
        ({"lidar_noise": -0.1}, "lidar_noise is -0.1"),
        ({"friction": True}, "friction is True"),
        ({"actuation_delay": "two"}, "actuation_delay is 'two'"),
    ],
)
def test_options_without_meaning_are_refused(options: dict, words: str):
    with pytest.raises(UsageError, match=words):
        make("TurtleBot3-v0", 1, options=options)


def test_options_are_documented_defaults():
    assert dataclasses.asdict(TurtleBot3Options.of({}, "it")) == dataclasses.asdict(TurtleBot3Options())
