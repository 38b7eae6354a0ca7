"""The TurtleBot3 node's logic: from messages to the observations of the training environment.

Protects against a robot that sees its world turned, mirrored or scaled, takes a failed measurement for a
free way, or keeps driving without sensors.
"""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.deploy.ros2 import task_of
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.environments.turtlebot3.physics import TurtleBot3Options
from qhat.runtime.qhat_robot import logic
from qhat.runtime.qhat_robot.logic import Driver, ScanReader, Task, UnusableError

OPTIONS = TurtleBot3Options()
STATES = 1_200


def trained_task() -> Task:
    about = {
        "environment": {"id": "TurtleBot3-v0", "options": {}}, "control_period": None,
        "actions": {"start": [0]},
    }  # fmt: skip
    fields = task_of(about)
    return Task(**{**fields, "turns": tuple(fields["turns"])})


TASK = trained_task()


def header(stamp: float = 0.0, frame: str = "") -> SimpleNamespace:
    whole = int(stamp)
    stamped = SimpleNamespace(sec=whole, nanosec=round((stamp - whole) * 1e9))
    return SimpleNamespace(stamp=stamped, frame_id=frame)


def scan(ranges: Any, first: float = 0.0, step: float | None = None, **other: Any) -> SimpleNamespace:
    """A LaserScan: its numbers are float32, as on the wire."""
    ranges = np.asarray(ranges, np.float32)
    step = 2 * math.pi / len(ranges) if step is None else step
    fields = {
        "angle_min": np.float32(first), "angle_max": np.float32(first + (len(ranges) - 1) * step),
        "angle_increment": np.float32(step), "range_min": np.float32(0.12), "range_max": np.float32(3.5),
        "header": header(), "ranges": ranges.tolist(),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **other})


def odometry(x: float, y: float, yaw: float, **other: Any) -> SimpleNamespace:
    turn = SimpleNamespace(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    pose = SimpleNamespace(position=SimpleNamespace(x=x, y=y, z=0.0), orientation=turn)
    return SimpleNamespace(**{"header": header(), "pose": SimpleNamespace(pose=pose), **other})


@dataclasses.dataclass(frozen=True)
class Recording:
    """The states of a drive in the training environment, `[states, ...]`."""

    places: np.ndarray
    facings: np.ndarray
    goals: np.ndarray
    observations: np.ndarray
    """Observations."""
    rays: np.ndarray
    """What each of 360 beams hits, from straight ahead to the left, in metres."""


@pytest.fixture(scope="module")
def drive() -> Recording:
    """Random drives, two obstacles, in new arenas after every collision."""
    fresh = jax.jit(lambda key: turtlebot3.begin(key, OPTIONS))
    advance = jax.jit(lambda robot, action, key: turtlebot3.advance(robot, action, key, OPTIONS))
    actions = np.random.default_rng(0).integers(len(turtlebot3.TURNS), size=STATES)

    def step(robot: Any, inputs: Any) -> Any:
        action, key = inputs
        moved, outcome = advance(robot, action, key)
        again = outcome.collided | outcome.late
        moved = jax.tree.map(lambda new, old: jnp.where(again, new, old), fresh(key), moved)
        beams = turtlebot3.lidar(robot, OPTIONS)
        return moved, (robot, turtlebot3.observe(robot, key, OPTIONS), beams)

    keys = jax.random.split(jax.random.key(1), STATES)
    _, (robots, observations, beams) = jax.lax.scan(
        step, fresh(jax.random.key(0)), (jnp.asarray(actions), keys)
    )
    rays = np.stack([cast(place, facing, cylinders) for place, facing, cylinders in zip(
        *(np.asarray(part, np.float64) for part in (robots.place, robots.facing, robots.cylinders)),
        strict=True,
    )])  # fmt: skip
    assert np.abs(rays[:, ::15] - np.asarray(beams)).mean() < 1e-4, "our rays are the environment's"
    # The environment rounds to float32: where a ray grazes a cylinder, that is seen.
    rays[:, ::15] = np.asarray(beams)
    places, facings, goals = map(np.asarray, (robots.place, robots.facing, robots.goal))
    return Recording(places, facings, goals, np.asarray(observations), rays)


def cast(place: np.ndarray, facing: float, cylinders: np.ndarray, angles: Any = None) -> np.ndarray:
    """Return the distances of rays, by default 360; independent of the environment's code."""
    if angles is None:
        angles = np.arange(360) * math.pi / 180
    ways = np.stack([np.cos(facing + angles), np.sin(facing + angles)], axis=1)
    with np.errstate(divide="ignore"):
        hits = [np.where(ways > 0, (2.0 - place) / ways, (-2.0 - place) / ways).min(axis=1)]
    for centre in cylinders:
        b = ways @ (place - centre)
        c = (place - centre) @ (place - centre) - OPTIONS.obstacle_radius**2
        root = np.sqrt(np.maximum(b * b - c, 0.0))
        hits.append(np.where((b * b >= c) & (b < 0), -b - root, np.inf))
    return np.min(hits, axis=0)


def as_reported(rays: np.ndarray) -> np.ndarray:
    """Return distances as a lidar reports them: −∞ below its range, +∞ beyond (REP 117)."""
    rays = np.asarray(rays, np.float32)
    return np.where(rays < np.float32(0.12), -np.inf, np.where(rays > np.float32(3.5), np.inf, rays))


LAYOUTS = {
    "LDS-01, ahead first": (range(360), 0.0),
    "from behind, [-pi, pi)": ([(i - 180) % 360 for i in range(360)], -math.pi),
    "clockwise": ([-i % 360 for i in range(360)], 0.0),
    "a third of the readings": (range(0, 360, 3), 0.0),
    "ahead twice, [0, 2 pi]": ([*range(360), 0], 0.0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_observations_are_the_training_environments(layout: str, drive: Recording):
    order, first = LAYOUTS[layout]
    order = list(order)
    step = math.radians((order[1] - order[0] + 180) % 360 - 180)
    reader, worst = ScanReader(TASK), 0.0
    for place, facing, goal, observation, rays in zip(
        drive.places, drive.facings, drive.goals, drive.observations, drive.rays, strict=True
    ):
        look = reader.read(scan(as_reported(rays)[order], first, step))
        pose = logic.pose_of(odometry(float(place[0]), float(place[1]), float(facing)))
        ours = logic.observation_of(look, pose, (float(goal[0]), float(goal[1])), TASK)
        assert ours.shape == observation.shape
        assert ours.dtype == observation.dtype
        difference = np.abs(ours.astype(float) - observation)
        # Straight behind is −π and π.
        difference[24] = abs((difference[24] + math.pi) % (2 * math.pi) - math.pi)
        worst = max(worst, float(difference.max()))
    assert len(drive.observations) >= 1_000
    assert worst <= 1e-6, worst


def test_the_drive_has_what_can_go_wrong(drive: Recording):
    """Otherwise the comparison would prove little."""
    assert (drive.observations[:, :24] == np.float32(3.5)).any(), "nothing seen"
    assert (drive.rays < 1.0).any()
    assert len(np.unique(np.sign(drive.observations[:, 24]))) > 1, "goals on both sides"
    assert (np.abs(drive.observations[:, 24]) > 3).any(), "goals behind"
    mirrored = np.roll(drive.observations[:, 23::-1], 1, axis=1)
    assert np.abs(mirrored - drive.observations[:, :24]).max() > 1


@pytest.mark.parametrize("count", [228, 241, 252, 24, 500])
@pytest.mark.parametrize("first", [0.0, -math.pi, 1.234])
def test_other_layouts_give_the_reading_in_the_nearest_direction(count: int, first: float):
    place, facing, cylinders = np.array([0.5, -0.3]), 0.7, np.array([[1.2, 0.4], [-1.0, -0.2]])
    step = float(np.float32(2 * math.pi / count))
    angles = np.float32(first) + np.arange(count) * step
    look = ScanReader(TASK).read(scan(cast(place, facing, cylinders, angles), first, step))
    for beam in range(24):
        away = np.abs((angles - beam * math.pi / 12 + math.pi) % (2 * math.pi) - math.pi)
        assert away.min() <= step / 2 + 1e-5
        near = np.flatnonzero(away <= away.min() + 1e-6)
        wanted = [cast(place, facing, cylinders, angles[[at]])[0] for at in near]
        assert min(abs(look.beams[beam] - min(one, 3.5)) for one in wanted) < 1e-6


def test_gazebos_layout_repeats_the_first_direction():
    """360 readings over 6.28 rad: a step is not a degree, and the last reading repeats the first."""
    readings = np.linspace(1.0, 2.0, 360)
    look = ScanReader(TASK).read(scan(readings, 0.0, 6.28 / 359))
    assert look.beams[0] in readings[[0, 359]].astype(np.float32)
    assert look.beams[23] == np.float32(readings[round(math.radians(345) / (6.28 / 359))])


def test_a_turned_lidar_is_turned_back(drive: Recording):
    rays = as_reported(drive.rays[0])
    turned = ScanReader(TASK, yaw=math.pi / 2).read(scan(np.roll(rays, -90)))
    np.testing.assert_array_equal(turned.beams, ScanReader(TASK).read(scan(rays)).beams)


def test_readings_mean_what_laserscan_says():
    ranges = np.full(360, 2.0)
    ranges[[0, 15, 30, 45, 60]] = np.inf, 3.58, -np.inf, np.nan, 0.0
    ranges[75:78] = 0.05, 1.5, 1.6
    look = ScanReader(TASK).read(scan(ranges))
    assert look.beams[:3].tolist() == [3.5, 3.5, 0.12]
    assert look.beams[3:5].tolist() == [2.0, 2.0], "a gap that hides nothing: the next direction's"
    assert look.beams[5] == 0.12, "below range_min is near"
    assert look.closest == pytest.approx(0.05)
    # An LDS-02 sees farther than the training's lidar.
    look = ScanReader(TASK).read(scan(np.full(240, 6.0), range_min=0.16, range_max=8.0))
    assert set(look.beams.tolist()) == {3.5}


def gap(wide: int, before: float, after: float, zero_is_far: bool, value: float = 0.0) -> str:
    """Return what a gap straight ahead counts as, between readings 20 wide."""
    ranges = np.full(360, 2.0)
    ranges[-(wide // 2) - 20 : -(wide // 2)] = before
    ranges[(wide + 1) // 2 : (wide + 1) // 2 + 20] = after
    ranges[np.arange(-(wide // 2), (wide + 1) // 2)] = value
    look = ScanReader(TASK, 0.0, zero_is_far).read(scan(ranges))
    if look.unknown[0]:
        assert look.beams[0] == 0.12
        return "near"
    return "far" if np.isinf(look.ranges[0]) else f"{look.ranges[0]:.1f}"


def test_what_was_not_measured_is_near_unless_its_neighbours_show_otherwise():
    for far in (False, True):
        assert gap(1, 2.0, 2.0, far) == gap(3, 2.5, 2.0, far) == "2.0", "it hides nothing 2 cm wide"
        assert gap(3, 0.5, 2.0, far) == "0.5", "the nearer of its neighbours"
        assert gap(3, 0.05, 2.0, far, math.nan) == "0.1", "also where that is below range_min"
        assert gap(4, 2.0, 2.0, far) == gap(13, 2.0, 2.0, far) == gap(13, 0.3, 3.4, far) == "near"
        assert gap(90, 0.5, 3.4, far) == gap(13, 3.4, 2.0, far) == "near"
        assert gap(13, 3.4, 3.4, far, math.nan) == gap(90, 3.4, 3.4, far, math.nan) == "near"
    for wide, before, after in ((13, 2.7, 3.4), (90, 3.4, 3.4), (70, 0.7, 1.0)):
        assert gap(wide, before, after, True) == "far"
        assert gap(wide, before, after, False) == "near"
    # A lidar that does not look around: nothing bounds the run at its end.
    half = ScanReader(dataclasses.replace(TASK, beams=1))
    look = half.read(scan([0.0, 0.0, *[2.0] * 88, 0.0], -math.pi / 4, math.pi / 180))
    assert np.flatnonzero(look.unknown).tolist() == [0, 1, 90]


def test_what_lies_between_the_beams_is_known():
    ranges = np.full(360, 2.0)
    ranges[7] = 0.2
    look = ScanReader(TASK).read(scan(ranges))
    assert set(look.beams.tolist()) == {2.0}
    assert look.closest == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (scan(np.zeros(360)), "within 7.5° of 0°, 15°, 30°, 45° and elsewhere"),
        (scan(np.full(180, 2.0), -math.pi / 2, math.pi / 180), "of 105°, 120°, 135°, 150° and elsewhere"),
        (scan(np.full(360, np.nan)), "0°"), (scan([], step=0.1), "0 readings"),
        (scan(np.ones(360), 0.0, 0.0), "steps of 0.0"), (scan(np.ones(360), math.nan), "from nan"),
    ],
)  # fmt: skip
def test_a_scan_with_a_blind_beam_is_refused(message: Any, says: str):
    with pytest.raises(UnusableError, match="expected") as error:
        ScanReader(TASK).read(message)
    assert says in str(error.value)


@pytest.mark.parametrize("yaw", [0.0, 1.0, math.pi - 1e-6, -3.0, -math.pi / 2])
def test_yaw_is_the_quaternions(yaw: float):
    assert logic.pose_of(odometry(1.0, 2.0, yaw)).yaw == pytest.approx(yaw)


def test_no_pose_is_refused():
    for message in (odometry(math.nan, 0.0, 0.0), odometry(0.0, math.inf, 0.0)):
        with pytest.raises(UnusableError, match="finite"):
            logic.pose_of(message)
    unset = odometry(0.0, 0.0, 0.0)
    unset.pose.pose.orientation.w = 0.0
    with pytest.raises(UnusableError, match="length 0"):
        logic.pose_of(unset)


def test_a_goal_beyond_the_training_is_at_its_edge():
    look = ScanReader(TASK).read(scan(np.full(360, 2.0)))
    observation = logic.observation_of(look, logic.Pose(0.0, 0.0, 0.0), (30.0, 0.0), TASK)
    assert observation[25] == np.float32(4 * 2**0.5)


@pytest.mark.parametrize(("text", "goal"), [("", None), ("1.0, 0.5", (1.0, 0.5)), ("-1 2e0", (-1.0, 2.0))])
def test_goals_as_people_type_them(text: str, goal: Any):
    assert logic.goal_of(text) == goal


@pytest.mark.parametrize("text", ["1.0", "1, 2, 3", "a, b", "nan, 0", "inf 1"])
def test_what_is_no_goal(text: str):
    with pytest.raises(UnusableError, match="expected two numbers"):
        logic.goal_of(text)


class Fixed:
    """A policy that always returns the same action."""

    def __init__(self, action: Any = 0):
        self.action, self.resets = action, 0

    def act(self, observation: np.ndarray) -> Any:
        if isinstance(self.action, Exception):
            raise self.action
        return self.action

    def reset(self) -> None:
        self.resets += 1


def ready(action: Any = 0, **other: Any) -> Driver:
    driver = Driver(TASK, Fixed(action), ScanReader(TASK), **other)
    driver.set_goal(1.0, 0.0)
    driver.see_scan(scan(np.full(360, 2.0)), 10.0)
    driver.see_odometry(odometry(0.0, 0.0, 0.0), 10.0)
    return driver


_advance = jax.jit(turtlebot3.advance, static_argnums=3)


@pytest.mark.parametrize("action", range(5))
def test_actions_are_the_trainings_velocities(action: int):
    """Compared with the place in the environment after one step."""
    command = ready(action).decide(10.0)
    nothing = jnp.zeros((0, 2), jnp.float32)
    robot = turtlebot3.Robot(
        place=jnp.zeros(2, jnp.float32), facing=jnp.float32(0), goal=jnp.ones(2, jnp.float32),
        cylinders=nothing, velocities=nothing, steps=jnp.int32(0), since=jnp.int32(0),
        commands=jnp.zeros(0, jnp.int32), grip=jnp.float32(1),
    )  # fmt: skip
    moved, _ = _advance(robot, jnp.int32(action), jax.random.key(0), TurtleBot3Options(obstacles=0))
    seconds = TASK.seconds
    assert float(moved.facing) == pytest.approx(command.angular * seconds, abs=1e-6)
    turn = command.angular * seconds
    chord = command.linear * seconds * (2 * math.sin(turn / 2) / turn if turn else 1.0)
    assert float(jnp.linalg.norm(moved.place)) == pytest.approx(chord, abs=1e-6)


@pytest.mark.parametrize("sensor", ["scan", "odometry"])
def test_a_late_sensor_stops_the_robot(sensor: str):
    driver = ready()
    assert driver.decide(10.5) != logic.STOP
    if sensor == "scan":
        driver.see_odometry(odometry(0.0, 0.0, 0.0), 10.4)
    else:
        driver.see_scan(scan(np.full(360, 2.0)), 10.4)
    assert driver.decide(10.501) == logic.STOP
    assert driver.why == f"the {sensor} is late (0.50 s old, limit 0.50 s)"


def test_messages_that_say_nothing_do_not_count():
    driver = ready()
    driver.see_scan(scan(np.zeros(360)), 10.4)
    driver.see_odometry(odometry(0.0, 0.0, 0.0), 10.4)
    assert driver.decide(10.45) != logic.STOP, "one failed scan is no reason"
    assert driver.decide(10.6) == logic.STOP
    assert "late" in driver.why
    assert "no valid reading" in driver.why


def test_the_same_message_again_does_not_count():
    driver = ready()
    for now in (10.0, 10.2, 10.4, 10.6):
        driver.see_scan(scan(np.full(360, 2.0), header=header(stamp=5.0)), now)
        driver.see_odometry(odometry(0.0, 0.0, 0.0, header=header(stamp=now)), now)
    assert driver.decide(10.6) == logic.STOP
    driver.see_scan(scan(np.full(360, 2.0), header=header(stamp=5.2)), 10.6)
    assert driver.decide(10.6) != logic.STOP


def test_it_stands_at_the_goal_until_the_next_one():
    driver = ready()
    driver.see_odometry(odometry(0.81, 0.0, 0.0), 10.1)
    assert driver.decide(10.1) == logic.STOP
    assert driver.why == "goal reached (0.19 m away)"
    driver.see_odometry(odometry(0.5, 0.0, 0.0), 10.2)
    assert driver.decide(10.2) == logic.STOP
    driver.set_goal(-1.0, 0.0)
    assert driver.decide(10.2) != logic.STOP


@pytest.mark.parametrize("zero_is_far", [False, True])
@pytest.mark.parametrize("front", [0.25, 0.10, 0.0, -math.inf, math.nan])
def test_what_is_too_near_stops_it(front: float, zero_is_far: bool):
    """An object 13° wide ahead, as an LDS-01 reports it, for every action of the policy."""
    near = np.full(360, 2.0)
    near[np.arange(-6, 7)] = front
    for action in range(5):
        driver = Driver(TASK, Fixed(action), ScanReader(TASK, 0.0, zero_is_far))
        driver.set_goal(1.0, 0.0)

        def look(now: float, ranges: Any, driver: Driver = driver) -> logic.Command:
            driver.see_scan(scan(ranges), now)
            driver.see_odometry(odometry(0.0, 0.0, 0.0), now)
            return driver.decide(now)

        assert look(10.0, np.full(360, 2.0)).linear > 0
        assert look(10.1, near) == logic.STOP, action
        assert driver.why.startswith("something is too near ("), driver.why
        # One scan only, as a speck of dust: then it drives.
        commands = [look(now, np.full(360, 2.0)) for now in (10.3, 10.5, 10.7, 10.9)]
        assert commands[-1] == logic.Command(TASK.speed, TASK.turns[action])


def test_stop_distances_are_the_robots():
    assert {name: body.stop_distance(0.15) for name, body in logic.ROBOTS.items()} == {
        "burger": 0.27, "waffle": 0.42, "waffle_pi": 0.42
    }  # fmt: skip
    assert ready().stop_distance == 0.27
    for name, least in (("burger", 0.124), ("waffle", 0.238)):
        assert logic.body_of(name).radius == pytest.approx(least)
        wide = logic.body_of(name, 0.3)
        assert wide.stop_distance(0.15) > logic.body_of(name).stop_distance(0.15)
        assert wide.gap(np.array([[0.0, 0.4]])) == pytest.approx(0.1)
    with pytest.raises(UnusableError, match=r"'wafle'; expected burger, waffle, waffle_pi"):
        logic.body_of("wafle")
    with pytest.raises(UnusableError, match=r"robot_radius is 0\.1; expected 0\.0, or at least 0\.238"):
        logic.body_of("waffle", 0.1)


def commanded(places: Any, turn: float, robot: str = "burger") -> bool:
    """Return whether a velocity is allowed near walls of points, relative to the wheels' axis."""
    body = logic.body_of(robot)
    guard = logic.Guard(body, body.stop_distance(0.15), 0.15)
    return guard.refuses(np.asarray(places, float), logic.Command(0.15, turn)) is None


def test_what_is_beside_or_behind_does_not_stop_it():
    along = np.linspace(-1, 1, 200)
    for side in (-1, 1):
        wall = np.stack([along, np.full(200, side * 0.17)], axis=1)
        assert commanded(wall, 0.0), "along a wall"
        assert commanded(wall, -side * 1.5), "away from it"
        assert not commanded(wall, side * 1.5), "into it"
    behind = np.stack([np.full(200, -0.11), along], axis=1)
    assert commanded(behind, 0.0), "a wall at its back, within the circle in which it turns"
    assert not commanded(-behind, 0.0)
    passage = np.concatenate([np.stack([along, np.full(200, y)], axis=1) for y in (-0.175, 0.175)])
    assert commanded(passage, 0.0)
    assert not commanded(passage * [1, 0.92], 0.0, "waffle"), "0.01 m beside its wheels"


def test_after_a_stop_it_turns_away_and_gives_up_where_that_is_no_help():
    driver, pose, does = ready(2, give_up=20.0), [0.0, 0.0, 0.0], []
    for tick in range(300):
        now = 10.0 + tick / 5
        # A wall 0.25 m ahead of the lidar, and one 0.25 m to the right.
        angles = pose[2] + np.radians(np.arange(360))
        with np.errstate(divide="ignore"):
            ahead = np.where(np.cos(angles) > 0.01, (0.25 - pose[0]) / np.cos(angles), np.inf)
            right = np.where(np.sin(angles) < -0.01, -0.25 / np.sin(angles), np.inf)
        driver.see_scan(scan(np.minimum(np.minimum(ahead, right), 2.0)), now)
        driver.see_odometry(odometry(*pose), now)
        command = driver.decide(now)
        does.append(driver.why.split(":")[0].split(" (")[0])
        if command.linear > 0 or driver.goal is None:
            break
        pose[2] += command.angular / 5
    order = list(dict.fromkeys(does))
    assert order == ["something is too near", "turning away", "driving out"], order
    assert pose[2] > 0.5, "to the left"
    driver, now = ready(2, give_up=20.0), 20.0
    while driver.goal is not None:
        driver.see_scan(scan(np.full(360, 0.2)), now)
        driver.see_odometry(odometry(0.0, 0.0, 0.0), now)
        assert driver.decide(now) == logic.STOP
        now += 0.2
    assert 40.0 < now < 41.0
    assert driver.why.startswith("goal given up (not nearer to it in 20 s: something is too near (0.2")
    assert driver.decide(50.0) == logic.STOP
    assert driver.why.startswith("goal given up")


def test_what_becomes_too_near_to_be_measured_is_remembered():
    """In a hall every reading is 0.0, also that of an object that is too near to measure."""
    hall, driver = np.full(360, 0.0), Driver(TASK, Fixed(2), ScanReader(TASK, 0.0, True))
    hall[170:190] = 3.0
    driver.set_goal(1.0, 0.0)
    for tick, front in enumerate([0.0] * 5 + [0.26, 0.2, 0.15, 0.13] + [0.0] * 20):
        ranges, now = hall.copy(), 10.0 + tick / 5
        ranges[np.arange(-10, 11)] = front
        driver.see_scan(scan(ranges), now)
        driver.see_odometry(odometry(0.0, 0.0, 0.0), now)
        command = driver.decide(now)
        assert (command.linear > 0) == (tick < 5), (tick, driver.why)


def test_a_goal_can_be_cancelled():
    driver = ready()
    driver.decide(10.0)
    assert driver.cancel()
    assert driver.decide(10.0) == logic.STOP
    assert driver.why == "goal cancelled"
    assert not driver.cancel()


def test_actions_count_from_the_policys_first():
    for action in range(5):
        driver = ready(action + 3)
        assert driver.task.first == 0
        driver.task = dataclasses.replace(TASK, first=3)
        assert driver.decide(10.0) == ready(action).decide(10.0)
    driver = ready(2)
    driver.task = dataclasses.replace(TASK, first=3)
    driver.decide(10.0)
    assert "action 2; expected 3 to 7" in driver.why


@pytest.mark.parametrize("action", [5, -1, RuntimeError("no"), math.nan, None])
def test_a_policy_that_fails_stops_it(action: Any):
    driver = ready(action)
    assert driver.decide(10.0) == logic.STOP
    assert driver.why.startswith("the policy gave no action")


def test_the_safety_filter_has_the_last_word():
    slow = ready(safety=lambda command, look, pose: dataclasses.replace(command, linear=0.05))
    assert slow.decide(10.0) == logic.Command(0.05, 1.5)
    broken = ready(safety=lambda command, look, pose: logic.Command(math.nan, 0.0))
    assert broken.decide(10.0) == logic.STOP


def test_a_stop_begins_the_policys_memory_anew():
    driver = ready()
    before = driver._policy.resets
    driver.decide(10.0)
    assert driver._policy.resets == before
    driver.decide(11.0)
    assert driver._policy.resets == before + 1
