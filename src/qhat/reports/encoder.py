"""The optional library that writes videos."""

from __future__ import annotations

from typing import Any

from qhat.system.errors import UsageError


def require_encoder() -> Any:
    """Return PyAV. Raises `UsageError` if it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError(
            "Videos need PyAV, which is not installed; type: pip install 'qhat[video]'"
        ) from None
    return av
