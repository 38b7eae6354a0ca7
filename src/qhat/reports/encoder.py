"""The library that writes videos, which is an extra."""

from __future__ import annotations

from typing import Any

from qhat.system.errors import UsageError


def require_encoder() -> Any:
    """Return the library that writes videos. Raises `UsageError` where there is none."""
    try:
        import av
    except ImportError:
        raise UsageError(
            "Videos need PyAV, which is not installed; type: pip install 'qhat[video]'"
        ) from None
    return av
