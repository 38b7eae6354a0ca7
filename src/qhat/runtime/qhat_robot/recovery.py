"""Gets a robot away from a near obstacle: it turns on the spot until a way is free, and drives a little."""

from __future__ import annotations

import math

import numpy as np

from .body import Guard
from .task import STOP, Command, Pose

PAUSE = 0.4
"""Seconds to wait first, until the robot stands and two scans were taken from there."""
RATE = 0.75
"""Turning rate, rad/s."""
LEG = 0.25
"""Metres to drive straight ahead after turning, before the policy drives again."""


class Recovery:
    """One recovery; `reason` is its cause."""

    def __init__(self, guard: Guard, speed: float, reason: str, now: float):
        self.reason = reason
        self._guard, self._speed, self._begun = guard, speed, now
        self._side = 0.0
        self._from: Pose | None = None

    def step(self, places: np.ndarray, pose: Pose, toward: float, now: float) -> tuple[str, Command] | None:
        """Return a word for the motion and the velocity, or `None` if the policy may drive again.

        Args:
            places: obstacles around the robot.
            toward: direction of the goal.
        """
        clear = self._guard.is_clear(places)
        if now - self._begun < PAUSE:
            return None if clear else ("standing", STOP)
        straight = Command(self._speed, 0.0)
        if self._from is not None:
            driven = math.hypot(pose.x - self._from.x, pose.y - self._from.y)
            if driven >= LEG or self._guard.refuses(places, straight) is not None:
                return None
            return "driving out", straight
        if clear:
            if self._side == 0.0:
                return None
            self._from = pose
            return "driving out", straight
        return self._turn(places, toward, straight)

    def _turn(self, places: np.ndarray, toward: float, straight: Command) -> tuple[str, Command]:
        heading = self._guard.way_out(places, toward)
        if heading is not None:
            if self._side == 0.0:
                self._side = math.copysign(1.0, heading)
            for side in (self._side, -self._side):
                turn = Command(0.0, side * RATE)
                if self._guard.refuses(places, turn) is None:
                    self._side = side
                    return "turning away", turn
        # An obstacle, such as a wall behind it, is in the circle in which it turns: drive away from that.
        if self._guard.refuses(places, straight) is None:
            return "driving out", straight
        return ("no way is free" if heading is None else "no room to turn"), STOP
