"""What the other files share: the task of the training, places, velocities, and the messages of ROS they
come from.

Messages are read by the names of their fields. Lengths are metres, times seconds, angles radians; left is
positive.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


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
    """and the largest, also used where no obstacle is measured."""
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
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Task(**{**fields, "turns": tuple(fields["turns"])})


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


def wrap(angle: Any) -> Any:
    """Return an angle within [−π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
