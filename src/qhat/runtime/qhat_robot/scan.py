"""Reads LaserScan messages: the beams for the policy, and the obstacles around the robot.

Drivers publish more than LaserScan allows. The driver of the LDS-01 (hls_lfcd_lds_driver) divides the raw
millimetres by 1000 and filters nothing: readings below its `range_min` of 0.12 m occur, and 0.0 means too
near, too dark or beyond 3.5 m. A reading below the minimum therefore counts as near. A missing reading also
counts as near, unless the readings beside it show that nothing can be there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .task import Pose, Task, UnusableError, wrap

HIDING = math.radians(4.5)
"""Widest gap between two measurements that hides nothing: an object 2 cm wide fills more at 0.25 m."""
END = 0.75
"""Share of `range_max` from which a measurement is near the lidar's limit."""
SPAN = math.radians(60)
"""Widest gap of an object that is too near to be measured. The ends of a wider object are measured: a gap
of 60° at `range_min`, 0.12 m, is an object within 0.12 cos(30°) = 0.10 m of the lidar, so within 3 cm of a
Burger, which could not have come there undetected."""
BESIDE = 0.6
"""A gap beside a measurement that is nearer than this belongs to that object, however wide the gap is."""
CLOSE = 0.09
"""Distance for −∞, "too close to measure": three quarters of the LDS-01's smallest reading."""


@dataclasses.dataclass(frozen=True)
class Look:
    """The content of a scan."""

    beams: np.ndarray
    """`[beams]`, in the order and within the bounds of the training."""
    closest: float
    """The smallest measurement, also between the beams and below `range_min`."""
    angles: np.ndarray
    """`[readings]`, the direction of every reading from the lidar; 0 is straight ahead of the robot."""
    ranges: np.ndarray
    """`[readings]`, metres; infinite if nothing is in range, or if a gap hides nothing."""
    unknown: np.ndarray
    """`[readings]`, whether nothing was measured and the way may be blocked: counts as near."""
    measured: np.ndarray
    """`[readings]`, whether the lidar measured there."""


@dataclasses.dataclass(frozen=True)
class Beams:
    """Number and bounds of the beams of the training."""

    beams: int
    nearest: float
    farthest: float


class ScanReader:
    """Converts LaserScan messages of any layout to the beams of the training, and to obstacles.

    Args:
        yaw: angle by which the lidar is turned on the robot.
        zero_is_far: whether a reading of 0.0 may mean that nothing is in range (LDS-01 in large rooms).
        directions: `[beams]`, angles of the beams; default: evenly around the robot.
        half: half of the angle that belongs to a beam.
        smallest: whether a beam is its smallest reading, and not the one in the nearest direction.
    """

    def __init__(
        self,
        task: Task | Beams,
        yaw: float = 0.0,
        zero_is_far: bool = False,
        directions: np.ndarray | None = None,
        half: float | None = None,
        smallest: bool = False,
    ):
        around = np.arange(task.beams) * (2 * math.pi / task.beams)
        self._task, self._yaw, self._zero_is_far, self._smallest = task, yaw, zero_is_far, smallest
        self._beams = around if directions is None else directions
        self._half = math.pi / task.beams if half is None else half
        self._layout: Any = None
        self._away = self._angles = np.zeros((0, 0))

    def read(self, message: Any) -> Look:
        """Return the content of a scan.

        +inf, or more than `range_max`, means that nothing is in range. −inf and everything between 0 and
        `range_min` is near. NaN and 0.0 are missing measurements. A run of them is a gap between the
        measurements before and after it:

        - a gap of at most 4.5° hides nothing: it counts as far as the nearer of the two measurements;
        - with `zero_is_far`, zeros are far if both measurements are beyond 3/4 of `range_max`, or if
          the gap is wider than 60° and neither is within 0.6 m;
        - everything else is near. Beams there get the smallest reading of the training.

        A beam gets the reading in the nearest direction, at most half the angle between two beams away.

        Raises:
            UnusableError: nothing was measured, or a beam has no reading in its direction.
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
        # A gap that hides nothing is as far as its neighbours: beams prefer the readings of these.
        cost = np.where(measured | unknown | np.isinf(distances), away, away + 10.0)
        beams = values[np.argmin(cost, axis=1)]
        if self._smallest:
            beams = np.where(np.isinf(away), task.farthest, values).min(axis=1)
        closest = float(np.min(distances[measured]))
        return Look(beams, closest, self._angles, distances, unknown, measured)

    def _fill(
        self, distances: np.ndarray, zero: np.ndarray, measured: np.ndarray, high: float
    ) -> np.ndarray:
        """Fill the gaps, in place; return which of their readings are near."""
        unknown, at = np.zeros(distances.size, bool), np.flatnonzero(measured)
        if at.size == distances.size:
            return unknown
        step = abs(self._layout[2])
        # In a full circle the first reading follows the last. Otherwise gaps at the ends have one bound.
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
        where = ", ".join(f"{math.degrees(self._beams[beam]):.0f}°" for beam in np.flatnonzero(blind)[:4])
        more = " and elsewhere" if blind.sum() > 4 else ""
        return (
            f"the scan has no valid reading within {math.degrees(self._half):g}° of {where}{more}; expected"
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
        away = np.abs(wrap(readings - self._beams[:, None]))
        # Slightly more than half, so that a reading in the middle of two beams belongs to both.
        away[away > self._half + 1e-6] = np.inf
        self._layout, self._away, self._angles = layout, away, wrap(readings)
        return away


def observation_of(look: Look, pose: Pose, goal: tuple[float, float], task: Task) -> np.ndarray:
    """Return the observation of the training: the beams, the angle to the goal, and its distance."""
    dx, dy = goal[0] - pose.x, goal[1] - pose.y
    heading = wrap(math.atan2(dy, dx) - pose.yaw)
    # The policy was trained up to this distance; a goal beyond it is shown there.
    return np.array([*look.beams, heading, min(math.hypot(dx, dy), task.reach)], np.float32)
