"""Curves as inline SVG for the HTML report, readable at any width, in light, dark and black and white.

Lines are drawn in a square that is stretched to the page, with strokes of constant width; labels and marks
are placed by percent, so that they keep their size on a phone. Colours come from the page's style sheet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.reports.html import Html, tag
from qhat.reports.reading import Evaluated, Trace

Place = Callable[[float], float]
"""Maps a value to its share of an axis."""
SIDE = 1_000
"""Side of the square that lines are drawn in."""
COLOURS = 6
"""Number of colours; further series reuse them with other dashes."""
DASHES = (None, "7 4", "2 3", "9 3 2 3")
"""Dashes distinguish lines without colour."""
MARKED = 40
"""Maximum number of points that all get a visible mark."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    x: np.ndarray
    """`[T]`"""
    y: np.ndarray
    """`[T]`; NaN is a gap."""
    band: tuple[np.ndarray, np.ndarray] | None = None
    """Low and high end of the 95% interval."""
    each: np.ndarray | None = None
    """`[S, T]`, each seed's curve."""
    colour: int = 0
    marks: bool = True


def of_evaluations(evaluated: Evaluated, name: str, colour: int = 0, each: bool = True) -> Line:
    """Return the IQM of the seeds' evaluations, with its interval if there are several seeds."""
    several = len(evaluated.score) > 1
    band = None
    if several:
        # Pointwise intervals, one per evaluation, as in `qhat plot`.
        low, high = stratified_bootstrap_ci(evaluated.score, partial(iqm, axis=0))
        band = (low, high)
    middle = iqm(evaluated.score, axis=0)
    return Line(name, evaluated.step, middle, band, evaluated.score if several and each else None, colour)


def of_trace(trace: Trace, name: str) -> Line:
    """Return the mean over seeds and each seed's curve."""
    counted = np.isfinite(trace.value)
    total = np.where(counted, trace.value, 0.0).sum(axis=0)
    mean = np.where(counted.any(axis=0), total / np.maximum(counted.sum(axis=0), 1), np.nan)
    several = (
        len(trace.value) > 1 and np.nanmax(np.nanstd(trace.value, axis=0)) > 0 if counted.all() else True
    )
    each = trace.value if several and len(trace.value) > 1 else None
    return Line(name, trace.step, mean, each=each, marks=False)


def chart(
    lines: Sequence[Line],
    title: str,
    y_label: str,
    small: bool = False,
    largest: float | None = None,
    unit: str = "environment steps",
) -> Html:
    """Draw curves over the steps of a run.

    Args:
        largest: largest possible value, where the axis ends.
        unit: what a step is.
    """
    left, right = 0.0, max(float(line.x[-1]) for line in lines)
    low, high = _reach(lines)
    if largest is not None and _top(lines) <= largest:
        high = largest
    x_ticks, y_ticks = ticks(left, right, 4), ticks(low, high, 3 if small else 6)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])

    def across(x: float) -> float:
        return (x - left) / max(right - left, 1e-12)

    def down(y: float) -> float:
        return 1.0 - (y - low) / max(high - low, 1e-12)

    grid = [
        part
        for y in y_ticks
        for part in (
            tag("line", x1="0", x2="100%", y1=_percent(down(y)), y2=_percent(down(y)), class_="grid"),
            tag("text", _short(y), x="0", y=_percent(down(y)), dx="-8", dy="4", class_="tick end"),
        )
    ]
    grid += [
        tag("text", _short(x), x=_percent(across(x)), y="100%", dy="18", class_="tick middle")
        for x in x_ticks
    ]
    drawn = [part for line in lines for part in _drawn(line, across, down)]
    marks = [part for line in lines if line.marks for part in _marks(line, across, down)]
    square = tag(
        "svg", *drawn, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", width="100%", height="100%"
    )
    label = f"{title}. {y_label} over {unit} per seed; " + _described(lines)
    picture = tag(
        "svg", *grid, tag("line", x1="0", x2="100%", y1="100%", y2="100%", class_="axis"), square, *marks,
        class_="chart small" if small else "chart", role="img", aria_label=label,
    )  # fmt: skip
    return tag(
        "div",
        tag("p", y_label, class_="axis-label"),
        picture,
        tag("p", f"{unit.capitalize()} per seed", class_="axis-label below"),
        class_="plot",
    )


def legend(lines: Sequence[Line], seeds: bool) -> Html:
    """Return the legend.

    Args:
        seeds: whether to include single seeds and intervals.
    """

    def swatch(words: str, *parts: Html) -> Html:
        picture = tag("svg", *parts, class_="swatch", viewBox="0 0 36 12", aria_hidden="true")
        return tag("li", picture, " ", words)

    def stroke(line: Line, kind: str) -> Html:
        return tag(
            "path", d="M0 6H36", class_=f"{kind} c{line.colour % COLOURS}", stroke_dasharray=_dash(line)
        )

    entries = [swatch(line.name, stroke(line, "line")) for line in lines]
    if seeds and any(line.band for line in lines):
        box = tag("rect", width="36", height="12", class_=f"band c{lines[0].colour % COLOURS}")
        entries.append(swatch("95% interval", box))
    if seeds and any(line.each is not None for line in lines):
        entries.append(swatch("each seed", tag("path", d="M0 6H36", class_="each c0")))
    return tag("ul", *entries, class_="legend")


def strip(
    per_seed: Sequence[float],
    middle: float,
    interval: Sequence[float] | None,
    largest: float | None = None,
) -> Html:
    """Draw each seed's score as a dot on a line, with the IQM and its interval.

    Args:
        largest: largest possible score, where the line ends.
    """
    values = [*per_seed, middle, *(interval or ())]
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or max(1.0, 0.1 * abs(high))
    top = largest if largest is not None and high <= largest else high + room
    marks = ticks(low - room, top, 4)
    low, high = min(low - room, marks[0]), max(top, marks[-1])

    def at(value: float) -> str:
        return _percent((value - low) / (high - low))

    parts = [tag("line", x1="0", x2="100%", y1="32", y2="32", class_="grid")]
    parts += [tag("text", _short(mark), x=at(mark), y="62", class_="tick middle") for mark in marks]
    if interval:
        title = tag("title", f"95% interval: {interval[0]:.4g} to {interval[1]:.4g}")
        parts.append(
            tag("line", title, x1=at(interval[0]), x2=at(interval[1]), y1="32", y2="32", class_="span")
        )
    for seed, score in enumerate(per_seed):
        parts.append(
            tag(
                "circle",
                tag("title", f"seed {seed}: {score:.4g}"),
                cx=at(score),
                cy="32",
                r="5",
                class_="seed",
            )
        )
    parts.append(
        tag(
            "line",
            tag("title", f"IQM {middle:.4g}"),
            x1=at(middle),
            x2=at(middle),
            y1="14",
            y2="50",
            class_="mid",
        )
    )
    words = (
        f"Scores of {len(per_seed)} seeds from {min(per_seed):.4g} to {max(per_seed):.4g}; IQM {middle:.4g}"
    )
    return tag("svg", *parts, class_="strip", role="img", aria_label=words)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return about that many round numbers between `low` and `high`."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * at for at in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def _top(lines: Sequence[Line]) -> float:
    """Return the largest value that is drawn."""
    return float(_values(lines).max())


def _values(lines: Sequence[Line]) -> np.ndarray:
    parts = [part for line in lines for part in (line.y, *(line.band or ()), line.each) if part is not None]
    values = np.concatenate([np.ravel(part) for part in parts])
    return values[np.isfinite(values)]


def _reach(lines: Sequence[Line]) -> tuple[float, float]:
    values = _values(lines)
    low, high = float(values.min()), float(values.max())
    if 0 <= low < 0.5 * high:
        low = 0.0
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return (low if low == 0.0 else low - room), high + room


def _drawn(line: Line, across: Place, down: Place) -> list[Html]:
    kind = f"c{line.colour % COLOURS}"
    parts = []
    if line.band is not None:
        there = _path(line.x, line.band[1], across, down)
        back = _path(line.x[::-1], line.band[0][::-1], across, down)
        parts.append(tag("path", d=f"{there}L{back[1:]}Z", class_=f"band {kind}"))
        # Drawn edges stay visible on a printer that drops the fill.
        parts.append(tag("path", d=there + back, class_=f"edge {kind}"))
    if line.each is not None:
        parts += [
            tag("path", d=_path(line.x, values, across, down), class_=f"each {kind}")
            for values in line.each
        ]
    parts.append(
        tag(
            "path",
            d=_path(line.x, line.y, across, down),
            class_=f"line {kind}",
            stroke_dasharray=_dash(line),
        )
    )
    return parts


def _marks(line: Line, across: Place, down: Place) -> list[Html]:
    """Return circles with tooltips; they are invisible if there are many points."""
    shown = "mark" if len(line.x) <= MARKED else "mark unseen"
    parts = []
    for at, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        words = f"{line.name}, step {x:,.0f}: {y:.4g}"
        if line.band is not None:
            words += f" (95%: {line.band[0][at]:.4g} to {line.band[1][at]:.4g})"
        where = {"cx": _percent(across(x)), "cy": _percent(down(y))}
        parts.append(
            tag("circle", tag("title", words), **where, r="3", class_=f"{shown} c{line.colour % COLOURS}")
        )
    return parts


def _path(x: np.ndarray, y: np.ndarray, across: Place, down: Place) -> str:
    words, pen = [], "M"
    for one, other in zip(x, y, strict=True):
        if not math.isfinite(other):
            pen = "M"
            continue
        at = f"{SIDE * across(one):.1f} {SIDE * down(other):.1f}"
        words.append(f"{pen}{at}")
        pen = "L"
    # Round line ends make a single point visible.
    return "".join(words) + ("h0" if len(words) == 1 else "")


def _dash(line: Line) -> str | None:
    return DASHES[line.colour % len(DASHES)]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _short(value: float) -> str:
    """Format a number for an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}".replace("-", "−")


def _described(lines: Sequence[Line]) -> str:
    ends = []
    for line in lines:
        good = line.y[np.isfinite(line.y)]
        if good.size:
            ends.append(f"{line.name} from {good[0]:.4g} to {good[-1]:.4g}")
    return "; ".join(ends) + "."
