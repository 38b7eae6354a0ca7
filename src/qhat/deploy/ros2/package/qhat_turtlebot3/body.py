"""The robot's body, and whether a velocity brings it too near to something.

The robot turns about the middle of its wheels' axis; places are relative to it, x ahead and y to the
left. Its body is within the circle in which it turns. As long as that circle is free it may turn on the
spot, whatever its shape.
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
"""What stays free around the circle: the LDS-01 errs by up to 0.015 m below half a metre."""
LEAST = 0.01
"""Nothing that is farther from the circle than this is brought nearer than this;"""
BESIDE = 0.02
"""where something is in the circle already, nothing that is farther from the body than this."""
REACTION = 0.55
"""Seconds from a measurement to standing wheels: two turns of the lidar (a reading is as old as one when
its scan comes, and the next one comes a turn later), 0.05 until the node looks, 0.1 until the wheels
stand."""
STEPS = 8
"""Places along a motion at which the distances are looked at."""
HEADINGS = np.radians(np.arange(-180.0, 180.0, 10.0))
"""Directions in which a way out is looked for."""
EXTRA = 0.1
"""How much more than it needs must be free ahead of a robot that stood, before it drives again."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The outline of a robot."""

    name: str
    boxes: tuple[tuple[float, float, float], ...]
    """From x, to x, half of the width: the collision boxes in turtlebot3_description's URDF, and the
    wheels."""
    lidar: float
    """Where the lidar is along x: `scan_joint` of the URDF."""
    radius: float
    """Of the circle in which it turns: as far as the farthest corner."""

    def gap(self, places: np.ndarray) -> np.ndarray:
        """Return how far places `[..., 2]` are from the body; negative within it."""
        x, y = places[..., 0], np.abs(places[..., 1])
        gaps = np.full(x.shape, np.inf)
        for low, high, half in self.boxes:
            along, aside = np.abs(x - (low + high) / 2) - (high - low) / 2, y - half
            outside = np.hypot(np.maximum(along, 0.0), np.maximum(aside, 0.0))
            gaps = np.minimum(gaps, outside + np.minimum(np.maximum(along, aside), 0.0))
        return gaps if self.boxes else np.hypot(x, y) - self.radius

    def stop_distance(self, speed: float) -> float:
        """Return how far from the lidar something straight ahead must be to stop in time, in whole
        centimetres."""
        return math.ceil(100 * (self.radius - self.lidar + MARGIN + REACTION * speed)) / 100

    def obstacles(self, look: Look) -> tuple[np.ndarray, np.ndarray]:
        """Return where something is, `[N, 2]`, and which of it was not measured, `[N]`.

        What was not measured is taken to be at the circle: the robot may turn, and not drive there.
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
"""By the names of the variable TURTLEBOT3_MODEL."""


def body_of(name: str, radius: float = 0.0) -> Body:
    """Return a robot's body; with a radius, for what is built onto it, a circle. Raises `UnusableError`."""
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
    """Says which velocities are too near to something.

    Args:
        stop_distance: from the lidar to something straight ahead that stops the robot.
        speed: at which that holds.
    """

    def __init__(self, body: Body, stop_distance: float, speed: float):
        self.body = body
        ahead = stop_distance + body.lidar - body.radius - MARGIN
        self._seconds = max(ahead / speed, 0.2)
        self._ahead = self._seconds * speed

    def refuses(self, places: np.ndarray, command: Command) -> int | None:
        """Return which place a velocity comes too near to, until the robot could stand; or `None`.

        The circle in which the robot turns has to stay `MARGIN` away from everything, and what is within
        that already may not come nearer. Where something is in the circle, the body itself counts in its
        stead.
        """
        circle = np.hypot(places[:, 0], places[:, 1]) - self.body.radius
        # Turning brings nothing nearer to the circle, and driving no more than its way.
        within = np.flatnonzero(circle < MARGIN + abs(command.linear) * self._seconds)
        if not len(within) or (command.linear == 0.0 and command.angular == 0.0):
            return None
        places, before = places[within], circle[within]
        moved = _moved(places, command, self._seconds)
        least = LEAST
        if before.min() < LEAST:
            # A robot that something stands beside may still drive away from it.
            least, before, after = BESIDE, self.body.gap(places), self.body.gap(moved)
        else:
            after = np.hypot(moved[..., 0], moved[..., 1]) - self.body.radius
        limit = min(max(float(before.min()) - 0.002, least), MARGIN)
        short = np.minimum(limit, before - 1e-4) - after.min(axis=0)
        worst = int(np.argmax(short))
        return int(within[worst]) if short[worst] > 0.0 else None

    def is_crowded(self, places: np.ndarray) -> bool:
        """Whether something is in the circle in which the robot turns."""
        return bool((np.hypot(places[:, 0], places[:, 1]) < self.body.radius + LEAST).any())

    def is_clear(self, places: np.ndarray) -> bool:
        """Whether the way ahead is free, with room to spare."""
        return bool(self._free(places, np.zeros(1))[0])

    def way_out(self, places: np.ndarray, toward: float) -> float | None:
        """Return the direction to turn to: one that is free, needs little turning, and is not away from
        the goal."""
        free = HEADINGS[self._free(places, HEADINGS)]
        if not len(free):
            return None
        return float(free[np.argmin(np.abs(free) + 0.3 * np.abs(wrap(free - toward)))])

    def _free(self, places: np.ndarray, headings: np.ndarray) -> np.ndarray:
        """Whether the way in every direction is free, with room to spare."""
        wide = self.body.radius + MARGIN
        long = wide + self._ahead + EXTRA
        places = places[np.hypot(places[:, 0], places[:, 1]) < math.hypot(long, wide + 0.02)]
        cos, sin = np.cos(headings)[:, None], np.sin(headings)[:, None]
        along = places[:, 0] * cos + places[:, 1] * sin
        aside = places[:, 1] * cos - places[:, 0] * sin
        blocked = (along > 0.0) & (along < long) & (np.abs(aside) < wide + 0.02)
        return np.asarray(~blocked.any(axis=1))


def _moved(places: np.ndarray, command: Command, seconds: float) -> np.ndarray:
    """Return where places are relative to a robot that drives along an arc, `[STEPS, N, 2]`."""
    times = np.linspace(seconds / STEPS, seconds, STEPS)
    turned, way = command.angular * times, command.linear * times
    # Along an arc: the chord has the direction of its middle, and is a little shorter than the arc.
    chord = way * np.sinc(turned / (2 * np.pi))
    x = places[:, 0] - (chord * np.cos(turned / 2))[:, None]
    y = places[:, 1] - (chord * np.sin(turned / 2))[:, None]
    cos, sin = np.cos(turned)[:, None], np.sin(turned)[:, None]
    return np.stack([x * cos + y * sin, y * cos - x * sin], axis=-1)
