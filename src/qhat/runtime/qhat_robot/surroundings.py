"""Obstacles around the robot now: the newest scan, moved with the odometry, and remembered objects."""

from __future__ import annotations

import collections

import numpy as np

from .body import Body
from .scan import Look
from .task import Pose, wrap

TURN = 0.25
"""Longest time of one turn of the lidar in seconds; an LDS-01 takes 0.2."""
LATE = 0.5
"""Seconds after which two scans are not compared."""
KEEP = 60.0
"""Seconds for which a near object is remembered if the lidar measures nothing there."""
NEAR = 0.3
"""Objects within this distance of the circle in which the robot turns are remembered."""
MOST = 400
"""Largest number of remembered places; the newest stay."""
BESIDE = 0.1
"""An object within this distance of the circle is moving"""
CAME = 0.02
"""if it came nearer by more than this within four turns of the lidar, which is more than its errors."""


class Surroundings:
    """Obstacle positions in the robot's frame, at any time."""

    def __init__(self, body: Body):
        self._body = body
        self._poses: collections.deque[tuple[float, Pose]] = collections.deque(maxlen=64)
        self._scanned = -np.inf
        self._turn = TURN
        self._places, self._unknown = np.zeros((0, 2)), np.zeros(0, bool)
        self._remembered, self._since = np.zeros((0, 2)), np.zeros(0)
        self._waiting: Look | None = None
        self._earlier: collections.deque[np.ndarray] = collections.deque(maxlen=4)
        self.approached = -np.inf
        """Time of the last approach of a near obstacle that the robot's motion does not explain."""

    def see_pose(self, pose: Pose, now: float) -> None:
        """Record the pose of the robot."""
        self._poses.append((now, pose))
        if self._waiting is not None:
            look, self._waiting = self._waiting, None
            self.see(look, now)

    def see(self, look: Look, now: float) -> None:
        """Process a new scan.

        A reading is between zero and one turn of the lidar old, and drivers do not say how old. Every place
        is therefore added three times: as if measured now, half a turn ago, and a turn ago.
        """
        if not self._poses:
            self._waiting = look
            return
        if now - self._scanned > LATE:
            self._earlier.clear()
        self._turn, self._scanned = min(now - self._scanned, TURN), now
        places, unknown = self._body.obstacles(look)
        pose = self._poses[-1][1]
        self._remember(look, places[~unknown], pose, now)
        taken = [pose]
        for age in (self._turn / 2, self._turn):
            before = self._pose_at(now - age)
            moved = abs(before.x - pose.x) + abs(before.y - pose.y) + 0.2 * abs(wrap(before.yaw - pose.yaw))
            if moved > 0.004:
                taken.append(before)
        placed = [_to_world(places, one) for one in taken]
        self._notice([one[~unknown] for one in placed], pose, now)
        self._places = np.concatenate([*placed, self._remembered])
        self._unknown = np.concatenate(
            [np.tile(unknown, len(taken)), np.zeros(len(self._remembered), bool)]
        )

    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places `[N, 2]` relative to the robot now, and which of them were not measured."""
        if not self._poses:
            return np.zeros((0, 2)), np.zeros(0, bool)
        return _from_world(self._places, self._poses[-1][1]), self._unknown

    def _notice(self, placed: list[np.ndarray], pose: Pose, now: float) -> None:
        """Record an object that approaches by itself: earlier places of all objects are farther from the
        robot's place now."""
        if len(placed[0]):
            # Of the possible times of measurement, the one that shows the smallest approach.
            nearest = max(_nearest(one, pose) for one in placed)
            before = _nearest(self._earlier[0], pose) if self._earlier else 0.0
            if nearest < self._body.radius + BESIDE and nearest < before - CAME:
                self.approached = now
        self._earlier.append(np.concatenate(placed))

    def _pose_at(self, time: float) -> Pose:
        """Return the last pose before a time, or the oldest."""
        return next((pose for when, pose in reversed(self._poses) if when <= time), self._poses[0][1])

    def _remember(self, look: Look, places: np.ndarray, pose: Pose, now: float) -> None:
        """Forget places at which the lidar measures again, and add objects that are near now.

        The reading of an object that is too near to measure becomes 0.0, as if nothing were there.
        """
        places = places[np.hypot(places[:, 0], places[:, 1]) < self._body.radius + NEAR]
        if len(self._remembered):
            here = _from_world(self._remembered, pose) - np.array([self._body.lidar, 0.0])
            bearing = np.arctan2(here[:, 1], here[:, 0])
            nearest = np.argmin(np.abs(wrap(look.angles - bearing[:, None])), axis=1)
            beside = (nearest[:, None] + np.array([-1, 0, 1])) % len(look.angles)
            kept = ~look.measured[beside].any(axis=1) & (now - self._since < KEEP)
            self._remembered, self._since = self._remembered[kept], self._since[kept]
        # Every third reading is enough to remember an object.
        added = _to_world(places[::3], pose)
        self._remembered = np.concatenate([self._remembered, added])[-MOST:]
        self._since = np.concatenate([self._since, np.full(len(added), now)])[-MOST:]


def _nearest(places: np.ndarray, pose: Pose) -> float:
    return float(np.hypot(places[:, 0] - pose.x, places[:, 1] - pose.y).min(initial=np.inf))


def _to_world(places: np.ndarray, pose: Pose) -> np.ndarray:
    cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
    return places @ np.array([[cos, sin], [-sin, cos]]) + np.array([pose.x, pose.y])


def _from_world(places: np.ndarray, pose: Pose) -> np.ndarray:
    cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
    return (places - np.array([pose.x, pose.y])) @ np.array([[cos, -sin], [sin, cos]])
