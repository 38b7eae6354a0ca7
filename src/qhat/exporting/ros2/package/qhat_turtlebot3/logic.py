"""What the node does, without ROS: messages to an observation, an action to a speed, and when to stop.

Pure Python and NumPy: messages are read by the names of their fields. Lengths are metres, times seconds,
angles radians; left is positive.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class UnusableError(ValueError):
    """A message that says nothing; the sentence says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What the policy was trained in: the file `policy/task.json`, written by the export."""

    beams: int
    """Readings that the policy knows, evenly around the robot, the first straight ahead."""
    nearest: float
    """The least reading it knows,"""
    farthest: float
    """and the largest: as far as nothing is seen."""
    speed: float
    """Ahead, always."""
    turns: tuple[float, ...]
    """Turning rate of every action."""
    reached: float
    """Distance at which a goal counts as reached."""
    seconds: float
    """Between two actions."""
    reach: float
    """The farthest goal of the training."""
    first: int = 0
    """The policy's number of the first of the turns."""

    @staticmethod
    def read(path: Path) -> Task:
        """Read what the export wrote."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return Task(**{**told, "turns": tuple(told["turns"])})


@dataclasses.dataclass(frozen=True)
class Look:
    """What a scan says."""

    beams: np.ndarray
    """`[beams]`, in the order and within the bounds that the policy knows."""
    closest: float
    """The least of all its readings, also of those between the beams."""


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the robot is, in the frame of its odometry."""

    x: float
    y: float
    yaw: float


@dataclasses.dataclass(frozen=True)
class Command:
    """What the wheels get."""

    linear: float
    """Ahead, m/s."""
    angular: float
    """To the left, rad/s."""


STOP = Command(0.0, 0.0)


class ScanReader:
    """Turns LaserScan messages of any layout into the beams that the policy was trained with.

    Args:
        yaw: how far the lidar is turned on the robot.
        zero_is_far: whether a reading of 0.0 means that nothing was there (LDS-01) and not that the
            measurement failed.
    """

    def __init__(self, task: Task, yaw: float = 0.0, zero_is_far: bool = False):
        self._task, self._yaw, self._zero_is_far = task, yaw, zero_is_far
        self._layout: Any = None
        self._away = np.zeros((0, 0))

    def read(self, message: Any) -> Look:
        """Return every beam's reading: the one whose direction is nearest to the beam's and that is valid.

        As LaserScan and REP 117 mean them: +inf, or more than `range_max`, is nothing seen; −inf is too
        close to measure; NaN, 0 and less than `range_min` are no measurement. A beam takes the next
        direction then, up to half of the way to its neighbours.

        Raises:
            UnusableError: a beam has no reading.
        """
        task, ranges = self._task, np.asarray(message.ranges, dtype=np.float64)
        away = self._directions(message, ranges.size)
        low, high = float(message.range_min), float(message.range_max)
        far, close = ranges > high, ranges == -np.inf
        if self._zero_is_far:
            far |= ranges == 0.0
        valid = far | close | ((ranges >= max(low, 0.0)) & (ranges > 0.0))
        readings = np.clip(np.where(far, task.farthest, ranges), task.nearest, task.farthest)
        cost = np.where(valid, away, np.inf)
        best = np.argmin(cost, axis=1)
        blind = ~np.isfinite(cost[np.arange(task.beams), best])
        if blind.any():
            where = ", ".join(f"{360 * beam / task.beams:.0f}°" for beam in np.flatnonzero(blind)[:4])
            more = " and elsewhere" if blind.sum() > 4 else ""
            raise UnusableError(
                f"the scan has no valid reading within {180 / task.beams:g}° of {where}{more}; expected one"
                f" for each of {task.beams} beams. Where the lidar says 0.0 for 'nothing seen', set"
                " zero_is_far."
            )
        return Look(readings[best], float(np.min(readings[valid])))

    def _directions(self, message: Any, count: int) -> np.ndarray:
        """Return angles between beams and readings, `[beams, readings]`; infinite where too far."""
        layout = (count, float(message.angle_min), float(message.angle_increment))
        if layout == self._layout:
            return self._away
        if count == 0 or not all(map(math.isfinite, layout)) or (layout[2] == 0.0 and count > 1):
            raise UnusableError(
                f"the scan has {count} readings from {layout[1]} rad on in steps of {layout[2]} rad;"
                " expected readings, and steps other than 0."
            )
        readings = layout[1] + self._yaw + np.arange(count) * layout[2]
        beams = np.arange(self._task.beams) * (2 * math.pi / self._task.beams)
        away = np.abs(wrap(readings - beams[:, None]))
        # A hair more than half: a reading in the middle of two beams is both beams'.
        away[away > math.pi / self._task.beams + 1e-6] = np.inf
        self._layout, self._away = layout, away
        return away


def pose_of(message: Any) -> Pose:
    """Read an Odometry message. Raises `UnusableError` for numbers that are no pose."""
    at, turn = message.pose.pose.position, message.pose.pose.orientation
    numbers = (at.x, at.y, turn.x, turn.y, turn.z, turn.w)
    length = math.sqrt(sum(part * part for part in numbers[2:]))
    if not all(map(math.isfinite, numbers)) or abs(length - 1.0) > 0.01:
        raise UnusableError(
            f"the odometry has position ({at.x}, {at.y}) and a quaternion of length {length:.3g}; expected"
            " finite numbers and a length of 1."
        )
    # Yaw of a rotation: the robot's floor may be a ramp.
    yaw = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2))
    return Pose(at.x, at.y, yaw)


def goal_of(text: str) -> tuple[float, float] | None:
    """Read a place, `1.0, 0.5`; nothing is none. Raises `UnusableError`."""
    words = text.replace(",", " ").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if not words:
        return None
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise UnusableError(f"the goal is '{text}'; expected two numbers, in metres, as in '1.0, 0.5'.")
    return numbers[0], numbers[1]


def observation_of(look: Look, pose: Pose, goal: tuple[float, float], task: Task) -> np.ndarray:
    """Return what the training environment shows: the beams, the angle to the goal, its distance."""
    dx, dy = goal[0] - pose.x, goal[1] - pose.y
    heading = wrap(math.atan2(dy, dx) - pose.yaw)
    # Beyond what it was trained with the policy knows only that the goal is far.
    return np.array([*look.beams, heading, min(math.hypot(dx, dy), task.reach)], np.float32)


def wrap(angle: Any) -> Any:
    """Return an angle within [−π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


class Driver:
    """Decides what the wheels get, from the newest messages; every `now` is of one clock that never jumps.

    Args:
        policy: `act(observation)` is the number of an action; `reset()` forgets earlier observations.
        timeout: how old the newest usable scan, and the newest odometry, may be.
        tolerance: distance at which a goal is reached.
        stop_distance: a reading as near as this stops the robot.
        safety: the last word before the wheels, for a filter of one's own.
    """

    def __init__(
        self,
        task: Task,
        policy: Any,
        scans: ScanReader,
        timeout: float = 0.5,
        tolerance: float | None = None,
        stop_distance: float | None = None,
        safety: Callable[[Command, Look, Pose], Command] = lambda command, look, pose: command,
    ):
        self.task, self.timeout = task, timeout
        self.tolerance = task.reached if tolerance is None else tolerance
        self.stop_distance = task.nearest if stop_distance is None else stop_distance
        self.goal: tuple[float, float] | None = None
        self.why = "waiting for a goal"
        """Why the robot stands, or that it drives."""
        self._policy, self._scans, self._safety = policy, scans, safety
        self._scan: tuple[float, Look] | None = None
        self._pose: tuple[float, Pose] | None = None
        self._stamps: dict[str, Any] = {}
        self._faults: dict[str, Any] = {}

    def set_goal(self, x: float, y: float) -> None:
        """Drive there. Raises `UnusableError` for numbers that are no place."""
        if not (math.isfinite(x) and math.isfinite(y)):
            raise UnusableError(f"the goal is ({x}, {y}); expected finite numbers, in metres.")
        self.goal = (float(x), float(y))
        self._policy.reset()

    def see_scan(self, message: Any, now: float) -> None:
        """Take in a LaserScan."""
        if self._is_new("scan", message):
            try:
                self._scan = (now, self._scans.read(message))
                self._faults.pop("scan", None)
            except UnusableError as fault:
                # What is not usable is not there: when it stays so, the scan is late.
                self._faults["scan"] = str(fault)

    def see_odometry(self, message: Any, now: float) -> None:
        """Take in an Odometry."""
        if self._is_new("odometry", message):
            try:
                self._pose = (now, pose_of(message))
                self._faults.pop("odometry", None)
            except UnusableError as fault:
                self._faults["odometry"] = str(fault)

    def must_stop(self, now: float) -> str | None:
        """Return why the robot must not move, or `None`. A goal that is reached is over."""
        if self.goal is None:
            return self.why if self.why.startswith("goal reached") else "waiting for a goal"
        if self._scan is None or now - self._scan[0] > self.timeout:
            return self._late("scan", self._scan, now)
        if self._pose is None or now - self._pose[0] > self.timeout:
            return self._late("odometry", self._pose, now)
        pose, look = self._pose[1], self._scan[1]
        distance = math.hypot(self.goal[0] - pose.x, self.goal[1] - pose.y)
        if distance < self.tolerance:
            self.goal = None
            return f"goal reached ({distance:.2f} m away)"
        if look.closest <= self.stop_distance:
            limit = f"stop_distance {self.stop_distance:g} m"
            return f"something is too near ({look.closest:.2f} m from the lidar, {limit})"
        return None

    def watch(self, now: float) -> bool:
        """Return whether the robot may move, between two decisions."""
        reason = self.must_stop(now)
        if reason is not None:
            self.why = reason
            self._policy.reset()
        return reason is None

    def decide(self, now: float) -> Command:
        """Return what the wheels get now. Whatever goes wrong here, they stop."""
        if not self.watch(now) or self._scan is None or self._pose is None or self.goal is None:
            return STOP
        look, pose = self._scan[1], self._pose[1]
        try:
            command = self._choose(observation_of(look, pose, self.goal, self.task))
            command = self._safety(command, look, pose)
            if not (math.isfinite(command.linear) and math.isfinite(command.angular)):
                raise UnusableError(f"the command is {command}; expected finite numbers.")
        except Exception as error:
            self.why = f"the policy gave no action: {error}"
            self._policy.reset()
            return STOP
        self.why = "driving"
        return command

    def _choose(self, observation: np.ndarray) -> Command:
        action = int(self._policy.act(observation))
        first, turns = self.task.first, self.task.turns
        if not first <= action < first + len(turns):
            raise UnusableError(f"action {action}; expected {first} to {first + len(turns) - 1}.")
        return Command(self.task.speed, turns[action - first])

    def _late(self, name: str, newest: tuple[float, Any] | None, now: float) -> str:
        age = "none yet" if newest is None else f"{now - newest[0]:.2f} s old"
        fault = f": {self._faults[name]}" if name in self._faults else ""
        return f"the {name} is late ({age}, limit {self.timeout:.2f} s){fault}"

    def _is_new(self, name: str, message: Any) -> bool:
        """Whether a message is not the last one again: a driver that hangs may repeat it for ever."""
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        repeated = stamp != (0, 0) and self._stamps.get(name) == stamp
        self._stamps[name] = stamp
        return not repeated
