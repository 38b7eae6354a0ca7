"""Where a film of a robot is seen from."""

from typing import Any

FOLLOWS = (1, 2)
"""MuJoCo's modes of cameras that move with a body: `TRACK` and `TRACKCOM`."""


def camera_of(model: Any) -> str | None:
    """Return the name of the camera that follows the robot, or of the first; `None` is the free one."""
    names = [model.camera(index).name for index in range(model.ncam)]
    moving = [name for name, mode in zip(names, model.cam_mode, strict=True) if mode in FOLLOWS]
    return next((name for name in (*moving, *names) if name), None)
