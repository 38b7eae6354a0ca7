"""The optional library that writes videos."""

from __future__ import annotations

from typing import Any

from qhat.system.machine import require_installed


def require_encoder() -> Any:
    """Return PyAV. Raises `UsageError` if it is not installed."""
    require_installed("av", "Videos need", "PyAV")
    import av

    return av
