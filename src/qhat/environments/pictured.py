"""Whether observations have pictures, from what describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhat.axes.torso.auto import LARGE
from qhat.axes.torso.pictures import read_picture


def pictured(space: Any) -> bool:
    """Whether there are pictures of `LARGE` pixels or more a side.

    Args:
        space: one of Gymnasium's, a `Spec`, or `None` where neither is known, which counts as pictures.
    """
    if space is None:
        return True
    if (layout := getattr(space, "layout", None)) is not None:
        return any(pictured(picture) for picture in layout.pictures)
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return any(pictured(part) for part in (parts.values() if isinstance(parts, Mapping) else parts))
    picture = read_picture(tuple(getattr(space, "shape", None) or ()))
    return picture is not None and min(picture[:2]) >= LARGE
