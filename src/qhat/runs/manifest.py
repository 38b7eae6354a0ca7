"""Reads the manifest of a run's checkpoint: the fields besides its files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from qhat.runs import checkpoint
from qhat.system.errors import require
from qhat.system.files import quote

STOPPED_BY = ("stop_at", "stop_below", "callback", "max_seconds")
"""What can end a run before its last step, beside a signal."""


def read_about(source: Path) -> dict[str, Any]:
    """Return a manifest with checked fields: step, best_score, best_step, halted and stopped_by.

    Raises:
        UsageError: there is no checkpoint, or it is damaged or of something else.
    """
    about = checkpoint.read_manifest(source)
    step, scores, steps = (about.get(name) for name in ("step", "best_score", "best_step"))
    damaged = f"'{source / checkpoint.MANIFEST}' is damaged:"
    require(_is_step(step), f"{damaged} step is {quote(step)}; expected a whole number.")
    require(
        isinstance(scores, list) and len(scores) > 0 and all(map(_is_score, scores)),
        f"{damaged} best_score is {quote(scores)}; expected a number or null for each seed.",
    )
    seeds = len(scores or ())
    require(
        isinstance(steps, list) and len(steps) == seeds and all(map(_is_step, steps)),
        f"{damaged} best_step is {quote(steps)}; expected {seeds} whole numbers, one for each seed.",
    )
    halted = about.get("halted")
    require(
        isinstance(halted, list) and len(halted) == seeds and all(type(one) is bool for one in halted),
        f"{damaged} halted is {quote(halted)}; expected {seeds} of true and false, one for each seed.",
    )
    stopped = about.setdefault("stopped_by", None)
    require(
        stopped in (None, *STOPPED_BY),
        f"{damaged} stopped_by is {quote(stopped)}; expected null or one of {', '.join(STOPPED_BY)}.",
    )
    return about


def _is_step(value: Any) -> bool:
    # A run ends with the iteration that reaches its last step; copies may carry it past that step.
    return type(value) is int and 0 <= value < 2**32


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
