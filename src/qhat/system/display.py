"""How values show themselves: a short `repr`, and a card of HTML in a notebook."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT, LEFT, BELOW = 520, 190, 56, 34
"""Of a curve's picture, and of its margins, in pixels."""
BLUE, ORANGE = "#0b3c5d", "#d55e00"


def short(value: Any, hide: Iterable[str] = ()) -> str:
    """Return `Name(field=…)` of a dataclass, with the fields that differ from their defaults.

    Args:
        hide: fields that are left out.
    """
    if not dataclasses.is_dataclass(value):
        return repr(value)
    words = []
    for field in dataclasses.fields(value):
        hidden = field.name in hide or not field.repr
        default = field.default_factory() if callable(field.default_factory) else field.default
        now = getattr(value, field.name)
        if not hidden and not _same(now, default):
            words.append(f"{field.name}={short(now)}")
    return f"{type(value).__name__}({', '.join(words)})"


def card(
    title: str, rows: Mapping[str, Any], picture: str = "", commands: Sequence[tuple[str, str]] = ()
) -> str:
    """Return HTML with a title, a table, a picture, and what to type next with the reason of each line."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    lines = "".join(f"{html.escape(f'{line:<34}')}# {html.escape(why)}\n" for line, why in commands)
    after = f"<pre style='margin:0.6em 0 0'>{lines}</pre>" if lines else ""
    return f"<div><b>{html.escape(title)}</b><table>{cells}</table>{picture}{after}</div>"


def curve(steps: Sequence[float], scores: np.ndarray, label: str) -> str:
    """Return an SVG of scores `[S, T]` at `steps`: thin lines are seeds, the thick one is their mean."""
    if len(steps) < 2:
        return ""
    low, high = float(scores.min()), float(scores.max())
    span, first, last = (high - low) or 1.0, float(steps[0]), float(steps[-1])

    def path(row: np.ndarray, style: str) -> str:
        points = " ".join(
            f"{LEFT + (WIDTH - LEFT - 12) * (step - first) / (last - first):.1f},"
            f"{10 + (HEIGHT - BELOW - 10) * (high - score) / span:.1f}"
            for step, score in zip(steps, row.tolist(), strict=True)
        )
        return f"<polyline fill='none' points='{points}' {style}/>"

    thin = (
        [path(row, f"stroke='{BLUE}' stroke-opacity='0.35'") for row in scores] if len(scores) > 1 else []
    )
    thick = path(scores.mean(axis=0), f"stroke='{ORANGE}' stroke-width='2.5'")
    floor = HEIGHT - BELOW
    words = (
        (LEFT - 6, 16, "end", f"{high:.4g}"), (LEFT - 6, floor + 4, "end", f"{low:.4g}"),
        (LEFT, floor + 16, "start", f"{first:,.0f}"), (WIDTH - 12, floor + 16, "end", f"{last:,.0f}"),
        ((LEFT + WIDTH) / 2, HEIGHT - 4, "middle", label),
    )  # fmt: skip
    texts = "".join(
        f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='#444'>{html.escape(word)}</text>"
        for x, y, anchor, word in words
    )
    axes = f"<path d='M{LEFT} 6V{floor}H{WIDTH - 12}' fill='none' stroke='#888'/>"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' role='img'"
        f" style='background:white;font:11px sans-serif'>"
        f"<title>{html.escape(label)}</title>{axes}{''.join(thin)}{thick}{texts}</svg>"
    )


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return False
