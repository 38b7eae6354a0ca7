"""What stands around the robot now: the newest scan, moved along with the odometry, and what was near
before."""

from __future__ import annotations

import collections

import numpy as np

from .body import Body
from .scan import Look
from .task import Pose, wrap

TURN = 0.25
"""Seconds that one turn of the lidar takes at most; an LDS-01 takes 0.2."""
LATE = 0.5
"""Seconds after which scans do not follow each other."""
KEEP = 60.0
"""Seconds for which a near object is remembered where the lidar measures nothing any more."""
NEAR = 0.3
"""What is as near as this to the circle in which the robot turns is remembered."""
MOST = 400
"""Remembered places at most, the newest."""
BESIDE = 0.1
"""What comes nearer to the circle than this by itself,"""
CAME = 0.02
"""by more than this within four turns of the lidar, which is more than its errors, moves."""


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

        A reading is as old as one turn of the lidar, or new: drivers do not say which ones are. So every
        place is put to where it is if it was measured now, half a turn ago, and a turn ago.
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
        """Return the places `[N, 2]` from where the robot is now, and which of them were not measured."""
        if not self._poses:
            return np.zeros((0, 2)), np.zeros(0, bool)
        return _from_world(self._places, self._poses[-1][1]), self._unknown

    def _notice(self, placed: list[np.ndarray], pose: Pose, now: float) -> None:
        """Notice what comes nearer by itself: what was there before would be farther from where the robot
        is now."""
        if len(placed[0]):
            # Of the times at which it may have been measured the one that says least.
            nearest = max(_nearest(one, pose) for one in placed)
            before = _nearest(self._earlier[0], pose) if self._earlier else 0.0
            if nearest < self._body.radius + BESIDE and nearest < before - CAME:
                self.approached = now
        self._earlier.append(np.concatenate(placed))

    def _pose_at(self, time: float) -> Pose:
        """Return the last pose before a time, or the oldest."""
        return next((pose for when, pose in reversed(self._poses) if when <= time), self._poses[0][1])

    def _remember(self, look: Look, places: np.ndarray, pose: Pose, now: float) -> None:
        """Forget what the lidar looks through again, and add what is near now.

        An object that comes nearer than the lidar can measure becomes 0.0, as if nothing were there.
        """
        places = places[np.hypot(places[:, 0], places[:, 1]) < self._body.radius + NEAR]
        if len(self._remembered):
            here = _from_world(self._remembered, pose) - np.array([self._body.lidar, 0.0])
            bearing = np.arctan2(here[:, 1], here[:, 0])
            nearest = np.argmin(np.abs(wrap(look.angles - bearing[:, None])), axis=1)
            beside = (nearest[:, None] + np.array([-1, 0, 1])) % len(look.angles)
            kept = ~look.measured[beside].any(axis=1) & (now - self._since < KEEP)
            self._remembered, self._since = self._remembered[kept], self._since[kept]
        # Every third reading is enough to remember an object by; it is measured again, or gone.
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
