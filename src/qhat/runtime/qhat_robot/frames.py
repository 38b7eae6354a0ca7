"""Goals in other frames than the odometry's (`map`), with tf2 if it is installed."""

# tf2_ros and rclpy come with ROS 2.
# pyright: reportMissingImports=false

from __future__ import annotations

import math
from typing import Any

from .control import Control
from .task import UnusableError

WAIT = 2.0
"""Seconds until a goal without a transform is refused: /tf has to arrive first."""


class Goals:
    """Keeps the goal of a control at its place in the frame in which it was given.

    Args:
        node: the node; tf2's listener subscribes in it when the first goal in another frame comes.
    """

    def __init__(self, node: Any, control: Control):
        self._node, self._control = node, control
        self._buffer: Any = None
        self._pending: tuple[str, float, float, float] | None = None
        self._fixed: tuple[str, float, float] | None = None

    def take(self, frame: str, x: float, y: float, now: float) -> None:
        """Process a new goal. A goal that cannot be used is logged and ignored."""
        self._pending = (frame, x, y, now)
        self.update(now)

    def forget(self) -> None:
        """Drop what waits for a transform."""
        self._pending = self._fixed = None

    def update(self, now: float) -> None:
        """Set the goal that waits, and correct the one that the robot drives to."""
        if self._pending is not None:
            self._try(now)
        if self._control.goal is None:
            self._fixed = None
        elif self._fixed is not None and self._fixed[0] not in ("", self._control.frame):
            try:
                self._control.move_goal(*self._place(*self._fixed))
            except UnusableError:
                # The robot keeps to the last transform: odometry drifts slowly.
                return

    def _try(self, now: float) -> None:
        assert self._pending is not None
        frame, x, y, since = self._pending
        try:
            place = (x, y)
            if frame and self._control.frame and frame != self._control.frame:
                try:
                    place = self._place(frame, x, y)
                except _NotYetError:
                    if now - since < WAIT:
                        return
                    raise
            self._control.set_goal(*place)
            self._fixed = (frame, x, y)
        except UnusableError as fault:
            self._node.get_logger().error(f"{fault} The goal is ignored.")
        self._pending = None

    def _place(self, frame: str, x: float, y: float) -> tuple[float, float]:
        """Return a place of another frame in the odometry's."""
        target = self._control.frame
        said = f"the goal is in frame '{frame}' and the odometry in '{target}'"
        try:
            import tf2_ros
            from rclpy.time import Time
        except ImportError:
            raise UnusableError(
                f"{said}, and tf2_ros is not installed; expected a goal in '{target}', or apt install"
                " ros-$ROS_DISTRO-tf2-ros."
            ) from None
        if self._buffer is None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)
        try:
            found = self._buffer.lookup_transform(target, frame, Time()).transform
        except tf2_ros.TransformException as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise _NotYetError(
                f"{said}, and tf has no transform between them ({why}); expected one, from a localisation"
                f" such as AMCL or slam_toolbox, or a goal in '{target}' (RViz: Global Options, Fixed"
                " Frame)."
            ) from None
        turn, shift = found.rotation, found.translation
        yaw = math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2))
        cos, sin = math.cos(yaw), math.sin(yaw)
        return shift.x + cos * x - sin * y, shift.y + sin * x + cos * y


class _NotYetError(UnusableError):
    """A transform that may still arrive."""
