"""The figure of a comparison: learning curves, performance profiles, probabilities of improvement.

One row per environment and one for all of them together. Groups differ in colour, lightness, line style and
marker, and bands have drawn edges, so that a black-and-white print is readable.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhat.reports.comparison.result import Band, Comparison, Part
from qhat.reports.plot import require_format, write_figure
from qhat.system.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, safe for colour-blind readers; ordered so that neighbours differ in lightness.
COLOURS = ("#0b3c5d", "#d55e00", "#56b4e9", "#7a5200", "#e69f00", "#009e73", "#cc79a7", "#000000")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST = len(COLOURS) * len(LINES)
"""Maximum number of groups that look different from each other."""
PAIRS = 10
"""With more pairs than this, only the pairs with the first group are drawn."""


def draw_comparison(comparison: Comparison, out: str | Path, title: str = "") -> Path:
    """Draw a comparison and write the figure.

    Args:
        comparison: result of `qhat.compare`.
        out: file to write; its suffix (.png, .svg or .pdf) chooses the format.
        title: title of the figure. Default: what was compared.

    Returns:
        the path of the figure.

    Raises:
        UsageError: the suffix is unknown, or there are too many groups.
        QhatError: the file cannot be written.
    """
    out = require_format(out)
    return write_figure(comparison_figure(comparison, title), out)


def comparison_figure(comparison: Comparison, title: str = "") -> Figure:
    """Return the matplotlib figure; see `draw_comparison`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(standing.label for part in comparison.parts for standing in part.standings))
    require(len(labels) <= MOST, f"There are {len(labels)} groups; expected at most {MOST} in one figure.")
    styles = {label: _style(index) for index, label in enumerate(labels)}
    rows = [(part, _pairs(part)) for part in comparison.parts]
    several = any(pairs for _, pairs in rows)
    heights = [max(3.6, 1.4 + 0.42 * len(pairs)) for _, pairs in rows]
    width = (2.0, 1.25, 1.25) if several else (2.0, 1.25)
    figure = Figure(figsize=(13 if several else 9.5, sum(heights) + 1.1), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1, wspace=0.03)
    grid = figure.subplots(len(rows), len(width), squeeze=False, width_ratios=width, height_ratios=heights)
    for (part, pairs), axes in zip(rows, grid, strict=True):
        _draw_curves(axes[0], part, styles)
        _draw_profiles(axes[1], part, styles)
        if several:
            _draw_improvement(axes[2], part, pairs)
    figure.suptitle(title or _title(comparison, labels), fontsize=13, fontweight="bold")
    handles = {}
    for axes in grid[:, 0]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        [handles[label] for label in labels], labels, loc="outside lower center",
        ncols=min(len(labels), 6), frameon=False, fontsize=10, handlelength=4,
    )  # fmt: skip
    return figure


def _title(comparison: Comparison, labels: list[str]) -> str:
    envs = [part.name for part in comparison.environments]
    where = envs[0] if len(envs) == 1 else f"{len(envs)} environments"
    return f"{where} · {' and '.join(labels)}" if len(labels) < 4 else f"{where} · {len(labels)} groups"


def _style(index: int) -> dict[str, Any]:
    """Return the line style of a group: the first 32 all differ."""
    round_, place = divmod(index, len(COLOURS))
    return {
        "color": COLOURS[place],
        "linestyle": LINES[(place + round_) % len(LINES)],
        "marker": MARKERS[place],
    }


def _draw_band(axes: Axes, band: Band, style: dict[str, Any], label: str, steps: bool = False) -> None:
    """Draw a curve with its interval, if it has one."""
    how: dict[str, Any] = {"drawstyle": "steps-post"} if steps else {}
    if band.low is not None and band.high is not None:
        # Drawn edges keep the band visible on a printer that drops the light fill.
        axes.fill_between(
            band.x, band.low, band.high, step="post" if steps else None,
            facecolor=(style["color"], 0.13), edgecolor=(style["color"], 0.55),
            linestyle=style["linestyle"], linewidth=0.6, zorder=2,
        )  # fmt: skip
    # About 9 markers per curve, at different places for each group.
    every = max(1, math.ceil(band.x.size / 9))
    first = MARKERS.index(style["marker"]) * 3 % len(MARKERS) * every // len(MARKERS)
    axes.plot(
        band.x, band.value, label=label, linewidth=1.9, markersize=6, markerfacecolor="white",
        markeredgewidth=1.3, markevery=(min(first, band.x.size - 1), every), zorder=4, **style, **how,
    )  # fmt: skip


def _draw_curves(axes: Axes, part: Part, styles: dict[str, dict[str, Any]]) -> None:
    from matplotlib.ticker import EngFormatter

    for standing in part.standings:
        _draw_band(axes, standing.curve, styles[standing.label], standing.label)
    axes.set_xlabel(part.x_label)
    axes.set_ylabel(part.unit)
    what = (
        "IQM" if all(standing.curve.low is None for standing in part.standings) else "IQM and 95% interval"
    )
    axes.set_title(f"{part.name}: evaluations during training, {what}", fontsize=10, loc="left")
    if part.steps is not None:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    _tidy(axes)


def _draw_profiles(axes: Axes, part: Part, styles: dict[str, dict[str, Any]]) -> None:
    for standing in part.standings:
        _draw_band(axes, standing.profile, styles[standing.label], standing.label, steps=True)
    if part.gamma is not None and _within(part):
        axes.axvline(part.gamma, color="0.35", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            "solved", (part.gamma, 0.5), xycoords=("data", "axes fraction"), xytext=(-3, 0),
            textcoords="offset points", rotation=90, ha="right", va="center", fontsize=8, color="0.3",
        )  # fmt: skip
    axes.set_xlabel(f"τ: {part.unit[0].lower()}{part.unit[1:]}")
    axes.set_ylabel("Share of seeds with a score > τ" if part.steps is not None else "Share of runs > τ")
    axes.set_ylim(-0.03, 1.03)
    how = "fresh episodes" if part.fresh else "selection scores"
    axes.set_title(f"Performance profile, {how}", fontsize=10, loc="left")
    _tidy(axes)


def _within(part: Part) -> bool:
    """Whether the solved score lies within the profile."""
    x = part.standings[0].profile.x
    return part.gamma is not None and bool(x[0] <= part.gamma <= x[-1])


def _pairs(part: Part) -> list[tuple[str, str]]:
    """Return the pairs to draw: all pairs, or only those with the first group if there are many."""
    labels = [standing.label for standing in part.standings]
    pairs = [(x, y) for at, y in enumerate(labels) for x in labels[at + 1 :]]
    return pairs if len(pairs) <= PAIRS else [(x, labels[0]) for x in labels[1:]]


def _draw_improvement(axes: Axes, part: Part, pairs: list[tuple[str, str]]) -> None:
    """Draw the probability that a run of X beats one of Y, with an interval if both have several seeds."""
    axes.set_title("Probability of improvement P(X > Y)", fontsize=10, loc="left")
    if not pairs:
        axes.text(0.5, 0.5, "only one group: nothing to compare", ha="center", va="center", color="0.3")
        axes.set_axis_off()
        return
    for at, pair in enumerate(pairs):
        estimate = part.improvement[pair]
        if estimate.ci95 is not None:
            low, high = estimate.ci95
            axes.plot(
                [low, high],
                [at, at],
                color=COLOURS[0],
                linewidth=5,
                alpha=0.35,
                zorder=2,
                solid_capstyle="butt",
            )
            axes.plot([low, high], [at, at], color=COLOURS[0], linewidth=0, marker="|", markersize=11)
        axes.plot(
            [estimate.value], [at], color=COLOURS[0], marker="o", markersize=7, markerfacecolor="white",
            markeredgewidth=1.6, zorder=4, clip_on=False,
        )  # fmt: skip
    axes.axvline(0.5, color="0.35", linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axes.set_yticks(range(len(pairs)), [f"{x}\n> {y}" for x, y in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("0.5: neither; 95% interval over seeds")
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
