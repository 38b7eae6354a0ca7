"""LaserScan messages: the beams that the policy knows, and what stands around the robot.

Drivers publish more than LaserScan allows. That of the LDS-01 (hls_lfcd_lds_driver) divides the raw
millimetres by 1000 and filters nothing: readings below its `range_min` of 0.12 m occur, and 0.0 is what
is too near, too dark or beyond 3.5 m alike. So a reading below the minimum is near, and a reading that is
none is near too, unless the readings beside it show that nothing can be there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .task import Pose, Task, UnusableError, wrap

HIDING = math.radians(4.5)
"""A gap between two measurements that hides nothing: an object 2 cm wide fills more of it at 0.25 m."""
END = 0.75
"""Share of `range_max` from which a measurement is near the end of what the lidar sees."""
SPAN = math.radians(60)
"""What is too near to be measured seldom takes up more than this, or else its ends are measured: at
`range_min`, 0.12 m, it were nearer to the lidar than 0.12 cos(30°) = 0.10 m, within 3 cm of a Burger, and
had come there unseen."""
BESIDE = 0.6
"""A gap beside a measurement as near as this belongs to that object, however wide it is."""
CLOSE = 0.09
"""Where −∞ is, "too close to measure": three quarters of the LDS-01's least reading."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What a scan says."""

    beams: np.ndarray
    """`[beams]`, in the order and within the bounds that the policy knows."""
    closest: float
    """The least that was measured, also between the beams, and below `range_min`."""
    angles: np.ndarray
    """`[readings]`, the direction of every reading from the lidar; 0 is straight ahead of the robot."""
    ranges: np.ndarray
    """`[readings]`, metres; infinite where nothing was seen, or where a gap hides nothing."""
    unknown: np.ndarray
    """`[readings]`, whether nothing was measured and nothing shows that the way is free: near."""
    measured: np.ndarray
    """`[readings]`, whether the lidar measured there."""


class ScanReader:
    """Turns LaserScan messages of any layout into what the policy was trained with, and into obstacles.

    Args:
        yaw: how far the lidar is turned on the robot.
        zero_is_far: whether a reading of 0.0 may mean that nothing was there (LDS-01 in large rooms).
    """

    def __init__(self, task: Task, yaw: float = 0.0, zero_is_far: bool = False):
        self._task, self._yaw, self._zero_is_far = task, yaw, zero_is_far
        self._layout: Any = None
        self._away = self._angles = np.zeros((0, 0))

    def read(self, message: Any) -> Look:
        """Return what the scan says.

        +inf, or more than `range_max`, is nothing seen. −inf and everything between 0 and `range_min` is
        near. NaN and 0.0 are no measurement. In a run of those, from the measurement before it to the one
        after it,

        - a gap of at most 4.5° hides nothing: it is taken to be as far as the nearer of the two;
        - with `zero_is_far`, zeros are far where both measurements are beyond 3/4 of `range_max`, or
          where the gap is wider than 60° and neither is within 0.6 m;
        - everything else is near. Beams there read the least that the policy knows.

        A beam takes the reading in the nearest direction, up to half of the way to its neighbours.

        Raises:
            UnusableError: nothing was measured at all, or the lidar does not look where a beam is.
        """
        task, ranges = self._task, np.asarray(message.ranges, dtype=np.float64)
        away = self._directions(message, ranges.size)
        measured = ~np.isnan(ranges) & ((ranges > 0.0) | np.isneginf(ranges))
        blind = np.asarray(np.isinf(away).all(axis=1))
        if not measured.any():
            blind[:] = True
        if blind.any():
            raise UnusableError(self._what_is_missing(blind))
        distances = np.where(ranges > float(message.range_max), np.inf, ranges)
        distances = np.where(np.isneginf(distances), CLOSE, distances)
        distances[~measured] = np.nan
        unknown = self._fill(distances, ranges == 0.0, measured, float(message.range_max))
        values = np.clip(np.where(unknown, 0.0, distances), task.nearest, task.farthest)
        # A gap that hides nothing is as far as its neighbours: beams take their readings, where there are.
        cost = np.where(measured | unknown | np.isinf(distances), away, away + 10.0)
        best = np.argmin(cost, axis=1)
        closest = float(np.min(distances[measured]))
        return Look(values[best], closest, self._angles, distances, unknown, measured)

    def _fill(
        self, distances: np.ndarray, zero: np.ndarray, measured: np.ndarray, high: float
    ) -> np.ndarray:
        """Fill the runs without a measurement, in place; return which of their readings are near."""
        unknown, at = np.zeros(distances.size, bool), np.flatnonzero(measured)
        if at.size == distances.size:
            return unknown
        step = abs(self._layout[2])
        # All around, the first reading follows the last. Otherwise runs at the ends have no bounds.
        around = step * (distances.size + 0.5) >= 2 * math.pi
        following = np.concatenate([at[1:], at[:1]])
        missing = (following - at - 1) % distances.size
        for index in np.flatnonzero(missing):
            before, after, between = at[index], following[index], missing[index]
            run = (before + 1 + np.arange(between)) % distances.size
            bounded = around or before < after
            gap = (between + 1) * step
            sides = np.minimum(distances[[before, after]], high)
            nearer, far = float(sides.min()), bool((sides >= END * high).all())
            if bounded and gap <= HIDING:
                distances[run] = nearer if nearer < high else np.inf
            elif self._zero_is_far and zero[run].all() and (far or (gap > SPAN and nearer > BESIDE)):
                distances[run] = np.inf
            else:
                unknown[run] = True
                distances[run] = np.inf
        return unknown

    def _what_is_missing(self, blind: np.ndarray) -> str:
        where = ", ".join(f"{360 * beam / self._task.beams:.0f}°" for beam in np.flatnonzero(blind)[:4])
        more = " and elsewhere" if blind.sum() > 4 else ""
        return (
            f"the scan has no valid reading within {180 / self._task.beams:g}° of {where}{more}; expected"
            f" one for each of {self._task.beams} beams."
        )

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
        self._layout, self._away, self._angles = layout, away, wrap(readings)
        return away


def observation_of(look: Look, pose: Pose, goal: tuple[float, float], task: Task) -> np.ndarray:
    """Return what the training environment shows: the beams, the angle to the goal, its distance."""
    dx, dy = goal[0] - pose.x, goal[1] - pose.y
    heading = wrap(math.atan2(dy, dx) - pose.yaw)
    # Beyond what it was trained with the policy knows only that the goal is far.
    return np.array([*look.beams, heading, min(math.hypot(dx, dy), task.reach)], np.float32)
