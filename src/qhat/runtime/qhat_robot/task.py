"""Shared by the other files: the task of the training, places, velocities, and how ROS messages are read.

Messages are read by the names of their fields. Lengths are in metres, times in seconds, angles in radians;
left is positive.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


class UnusableError(ValueError):
    """A message or parameter that cannot be used; the sentence says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of the training: the file `policy/task.json`, written by the export."""

    beams: int
    """Number of readings, evenly around the robot, the first straight ahead."""
    nearest: float
    """The smallest reading of the training."""
    farthest: float
    """The largest reading of the training, also used if no obstacle is measured."""
    speed: float
    """Constant speed ahead."""
    turns: tuple[float, ...]
    """Turning rate of every action."""
    reached: float
    """Distance at which a goal counts as reached."""
    seconds: float
    """Time between two actions."""
    reach: float
    """Distance of the farthest goal of the training."""
    first: int = 0
    """The policy's number of the first entry of `turns`."""

    @staticmethod
    def read(path: Path) -> Task:
        """Read the file that the export wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Task(**{**fields, "turns": tuple(fields["turns"])})


@dataclasses.dataclass(frozen=True)
class Pose:
    """Place and direction of the robot, in the frame of its odometry."""

    x: float
    y: float
    yaw: float


@dataclasses.dataclass(frozen=True)
class Command:
    """A velocity of the robot."""

    linear: float
    """Speed ahead, m/s."""
    angular: float
    """Turning rate to the left, rad/s."""


STOP = Command(0.0, 0.0)


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
    # Only the yaw of the rotation: the floor may be a ramp.
    yaw = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2))
    return Pose(at.x, at.y, yaw)


def goal_of(text: str) -> tuple[float, float] | None:
    """Read a place such as `1.0, 0.5`; an empty text is `None`. Raises `UnusableError`."""
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


def wrap(angle: Any) -> Any:
    """Return an angle within [−π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
