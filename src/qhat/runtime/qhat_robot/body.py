"""The robot's body, and whether a velocity brings it too near to an obstacle.

The robot turns about the middle of its wheels' axis, which is the origin: x is ahead, y to the left. Its
body is within the circle in which it turns. While that circle is free, it may turn on the spot, whatever
its shape.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from .scan import Look
from .task import Command, UnusableError, wrap

MARGIN = 0.03
"""Metres that stay free around the circle: the LDS-01 errs by up to 0.015 m below half a metre."""
LEAST = 0.01
"""Smallest distance from the circle to which a motion may bring an obstacle."""
BESIDE = 0.02
"""Smallest distance from the body instead, if an obstacle is in the circle already."""
REACTION = 0.55
"""Seconds from a measurement until the wheels stand: two turns of the lidar (a reading is up to one turn
old when its scan arrives, and the next scan arrives a turn later), 0.05 until the node checks, 0.1 until
the wheels stand."""
STEPS = 8
"""Number of places along a motion at which distances are checked."""
HEADINGS = np.radians(np.arange(-180.0, 180.0, 10.0))
"""Directions that are checked for a way out."""
EXTRA = 0.1
"""Additional metres that must be free ahead before a robot that stood drives again."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The outline of a robot."""

    name: str
    boxes: tuple[tuple[float, float, float], ...]
    """First x, last x and half of the width of each box: the collision boxes in turtlebot3_description's
    URDF, and the wheels."""
    lidar: float
    """Position of the lidar along x: `scan_joint` of the URDF."""
    radius: float
    """Radius of the circle in which it turns: distance of the farthest corner."""

    def gap(self, places: np.ndarray) -> np.ndarray:
        """Return the distance of places `[..., 2]` from the body; negative within it."""
        x, y = places[..., 0], np.abs(places[..., 1])
        gaps = np.full(x.shape, np.inf)
        for low, high, half in self.boxes:
            along, aside = np.abs(x - (low + high) / 2) - (high - low) / 2, y - half
            outside = np.hypot(np.maximum(along, 0.0), np.maximum(aside, 0.0))
            gaps = np.minimum(gaps, outside + np.minimum(np.maximum(along, aside), 0.0))
        return gaps if self.boxes else np.hypot(x, y) - self.radius

    def stop_distance(self, speed: float) -> float:
        """Return the distance from the lidar, in whole centimetres, at which the robot must stop for an
        obstacle straight ahead."""
        return math.ceil(100 * (self.radius - self.lidar + MARGIN + REACTION * speed)) / 100

    def obstacles(self, look: Look) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of obstacles, `[N, 2]`, and which of them were not measured, `[N]`.

        An obstacle that was not measured counts as at the circle: the robot may turn, but not drive there.
        """
        ranges = np.where(look.unknown, self._to_circle(look.angles), look.ranges)
        near = ranges < self.radius + 1.0
        ways = np.stack([np.cos(look.angles[near]), np.sin(look.angles[near])], axis=1)
        return np.array([self.lidar, 0.0]) + ranges[near, None] * ways, look.unknown[near]

    def _to_circle(self, angles: np.ndarray) -> np.ndarray:
        around = self.radius + 1.5 * LEAST
        along = self.lidar * np.cos(angles)
        return np.sqrt(along**2 + around**2 - self.lidar**2) - along


def _body(name: str, boxes: tuple[tuple[float, float, float], ...], lidar: float) -> Body:
    radius = max(math.hypot(max(-low, high), half) for low, high, half in boxes)
    return Body(name, boxes, lidar, math.ceil(1000 * radius) / 1000)


_WAFFLE = ((-0.197, 0.069, 0.133), (-0.033, 0.033, 0.153))
ROBOTS: Mapping[str, Body] = MappingProxyType(
    {
        "burger": _body("burger", ((-0.102, 0.038, 0.070), (-0.033, 0.033, 0.089)), -0.032),
        "waffle": _body("waffle", _WAFFLE, -0.064),
        "waffle_pi": _body("waffle_pi", _WAFFLE, -0.064),
    }
)
"""By the values of the variable TURTLEBOT3_MODEL."""


def body_of(name: str, radius: float = 0.0) -> Body:
    """Return a robot's body; with a radius (for added parts), a circle. Raises `UnusableError`."""
    if name not in ROBOTS:
        raise UnusableError(f"parameter robot is '{name}'; expected {', '.join(ROBOTS)}.")
    body = ROBOTS[name]
    if radius == 0.0:
        return body
    if not (math.isfinite(radius) and radius >= body.radius):
        raise UnusableError(
            f"parameter robot_radius is {radius}; expected 0.0, or at least {body.radius:.3f} m, the circle"
            f" in which a {name} turns."
        )
    return Body(name, (), body.lidar, radius)


class Guard:
    """Refuses velocities that bring the robot too near to an obstacle.

    Args:
        stop_distance: distance from the lidar at which an obstacle straight ahead stops the robot.
        speed: speed for which `stop_distance` holds.
    """

    def __init__(self, body: Body, stop_distance: float, speed: float):
        self.body = body
        ahead = stop_distance + body.lidar - body.radius - MARGIN
        self._seconds = max(ahead / speed, 0.2)
        self._ahead = self._seconds * speed

    def refuses(self, places: np.ndarray, command: Command) -> int | None:
        """Return the place to which a velocity comes too near before the robot could stand, or `None`.

        The circle in which the robot turns must stay `MARGIN` away from everything; what is nearer already
        may not come nearer. If an obstacle is in the circle, the body counts instead of the circle.
        """
        circle = np.hypot(places[:, 0], places[:, 1]) - self.body.radius
        # Turning brings nothing nearer to the circle; driving brings things nearer by at most its length.
        within = np.flatnonzero(circle < MARGIN + abs(command.linear) * self._seconds)
        if not len(within) or (command.linear == 0.0 and command.angular == 0.0):
            return None
        places, before = places[within], circle[within]
        moved = _moved(places, command, self._seconds)
        least = LEAST
        if before.min() < LEAST:
            # The robot may still drive away from an obstacle beside it.
            least, before, after = BESIDE, self.body.gap(places), self.body.gap(moved)
        else:
            after = np.hypot(moved[..., 0], moved[..., 1]) - self.body.radius
        limit = min(max(float(before.min()) - 0.002, least), MARGIN)
        short = np.minimum(limit, before - 1e-4) - after.min(axis=0)
        worst = int(np.argmax(short))
        return int(within[worst]) if short[worst] > 0.0 else None

    def is_crowded(self, places: np.ndarray) -> bool:
        """Whether an obstacle is in the circle in which the robot turns."""
        return bool((np.hypot(places[:, 0], places[:, 1]) < self.body.radius + LEAST).any())

    def is_clear(self, places: np.ndarray) -> bool:
        """Whether the way ahead is free, with room to spare."""
        return bool(self._free(places, np.zeros(1))[0])

    def way_out(self, places: np.ndarray, toward: float) -> float | None:
        """Return the direction to turn to: it is free, needs little turning, and is not away from the
        goal."""
        free = HEADINGS[self._free(places, HEADINGS)]
        if not len(free):
            return None
        return float(free[np.argmin(np.abs(free) + 0.3 * np.abs(wrap(free - toward)))])

    def _free(self, places: np.ndarray, headings: np.ndarray) -> np.ndarray:
        """Return for every direction whether the way is free, with room to spare."""
        wide = self.body.radius + MARGIN
        long = wide + self._ahead + EXTRA
        places = places[np.hypot(places[:, 0], places[:, 1]) < math.hypot(long, wide + 0.02)]
        cos, sin = np.cos(headings)[:, None], np.sin(headings)[:, None]
        along = places[:, 0] * cos + places[:, 1] * sin
        aside = places[:, 1] * cos - places[:, 0] * sin
        blocked = (along > 0.0) & (along < long) & (np.abs(aside) < wide + 0.02)
        return np.asarray(~blocked.any(axis=1))


def _moved(places: np.ndarray, command: Command, seconds: float) -> np.ndarray:
    """Return places relative to a robot that drives along an arc, `[STEPS, N, 2]`."""
    times = np.linspace(seconds / STEPS, seconds, STEPS)
    turned, way = command.angular * times, command.linear * times
    # Along an arc: the chord has the direction of its middle, and is a little shorter than the arc.
    chord = way * np.sinc(turned / (2 * np.pi))
    x = places[:, 0] - (chord * np.cos(turned / 2))[:, None]
    y = places[:, 1] - (chord * np.sin(turned / 2))[:, None]
    cos, sin = np.cos(turned)[:, None], np.sin(turned)[:, None]
    return np.stack([x * cos + y * sin, y * cos - x * sin], axis=-1)
