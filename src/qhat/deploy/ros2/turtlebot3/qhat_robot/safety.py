"""Your own filter between the policy and the wheels."""

from __future__ import annotations

from typing import Any


def safety(command: Any, look: Any, pose: Any) -> Any:
    """Filter a velocity before it is published.

    Args:
        command: `linear` in m/s and `angular` in rad/s; return such a `Command` (task.py).
        look: the scan (scan.py).
        pose: the odometry (task.py).
    """
    return command
