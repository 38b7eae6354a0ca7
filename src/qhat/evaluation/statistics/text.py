"""Scores as text."""

from __future__ import annotations

import math


def score_text(value: float | None) -> str:
    """Write a score with one decimal, below 10 with three digits: 475.2, 0.047; `–` if there is none."""
    if value is None or math.isnan(value):
        return "–"
    # 9.999 with three digits is 10.0.
    return f"{value:.1f}" if abs(value) >= 9.995 or value == 0 else f"{value:.3g}"
