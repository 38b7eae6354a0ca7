"""The figure of one run: its learning curve, and the distribution of its last scores.

Matplotlib is imported inside the functions, so that importing this module is cheap, and only
`Figure` is used: no pyplot, no window, no global state.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.reports.comparison.result import X_LABELS
from qhat.runs.curves import Clock, Episodes, Evaluations, read_run
from qhat.system.errors import QhatError, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "Episodes", "Evaluations", "plot_progress", "read_run", "require_format"]

FORMATS = (".png", ".svg", ".pdf")

# Blue and orange are safe for colour-blind readers. They also differ in lightness, line style and
# markers, which remain visible in black and white.
_TRAINING = "#0b3c5d"
_EVALUATION = "#d55e00"
_RAW = "#9db4c6"
_DASHED = (0, (4, 1.5))
_TAIL = 100  # episodes per seed in the histogram: the textbook's "last 100 episodes"


def plot_progress(
    episodes: Sequence[Episodes],
    evaluations: Evaluations,
    title: str,
    out: str | Path,
    window: int = 100,
    clock: Clock | None = None,
) -> Path:
    """Draw a run's learning curve and the distribution of its last scores, and write the figure.

    Args:
        episodes: One per seed, each with at least one episode; or none, of a run from logs.
        evaluations: The greedy evaluations; if empty, that curve is omitted.
        title: Printed above the figure.
        out: The file to write; its suffix (.png, .svg or .pdf) chooses the format.
        window: Episodes in the trailing moving average; the first episodes average fewer.
        clock: If given, the x axis is seconds of training instead of environment steps.

    Returns:
        The path written.

    Raises:
        UsageError: If the suffix is unknown, the window is not positive or an episode is missing.
    """
    out = require_format(out)
    return write_figure(draw_progress(episodes, evaluations, title, window, clock), out)


def draw_progress(
    episodes: Sequence[Episodes],
    evaluations: Evaluations,
    title: str,
    window: int = 100,
    clock: Clock | None = None,
) -> Figure:
    """Return the figure of `plot_progress`; its first axes are the learning curve."""
    require(window >= 1, f"window is {window} episodes; expected 1 or more.")
    require(
        len(episodes) + evaluations.step.size > 0 and all(seed.score.size for seed in episodes),
        "There is nothing to plot: expected at least one finished episode for each seed.",
    )

    if clock is not None:
        episodes = [dataclasses.replace(seed, step=clock.at(seed.step)) for seed in episodes]
        evaluations = dataclasses.replace(evaluations, step=clock.at(evaluations.step))

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08, wspace=0.03)
    # The legend is below the axes, where it cannot hide a curve.
    if episodes:
        curve, spread = figure.subplots(1, 2, width_ratios=(2.1, 1))
        _draw_spread(spread, episodes)
    else:
        curve = figure.subplots()
    _draw_curve(curve, episodes, evaluations, window)
    if clock is not None:
        curve.set_xlabel(X_LABELS["seconds"])
    figure.suptitle(title, fontsize=13, fontweight="bold")
    handles, labels = curve.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9,
        handlelength=3,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)  # faint dots and thin lines must be legible in the legend
    return figure


def require_format(out: str | Path) -> Path:
    """Return the path, or raise `UsageError` if its suffix is not a supported format."""
    out = Path(out)
    require(
        out.suffix.lower() in FORMATS,
        f"'{out}' ends in '{out.suffix}'; expected a file that ends in .png, .svg or .pdf.",
    )
    return out


def write_figure(figure: Figure, out: Path) -> Path:
    """Write a figure in the format of its suffix. Raises `QhatError` if it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, format=out.suffix.lower()[1:])
    except OSError as error:
        raise QhatError(f"The figure '{out}' cannot be written: {error.strerror or error}.") from error
    return out


def _draw_curve(axes: Axes, episodes: Sequence[Episodes], evaluations: Evaluations, window: int) -> None:
    """Draw training scores and greedy evaluations against environment steps."""
    from matplotlib.ticker import EngFormatter

    if episodes:
        _draw_episodes(axes, episodes, window)
    if evaluations.step.size:
        _draw_evaluations(axes, evaluations)

    name = "Environment steps" if episodes else "Updates"
    several = max(len(episodes), len(evaluations.score)) > 1
    axes.set_xlabel(f"{name} per seed" if several else name)
    axes.set_ylabel("Score (undiscounted return per episode)")
    axes.set_title("Learning curve", fontsize=11, loc="left")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.grid(color="0.9", linewidth=0.7)
    _tidy(axes)


def _draw_episodes(axes: Axes, episodes: Sequence[Episodes], window: int) -> None:
    """Draw every training score, and their moving averages."""
    several = len(episodes) > 1
    averages = [_moving_average(seed.score, window) for seed in episodes]
    # More dots are fainter, so that they do not hide the curves.
    faint = float(np.clip(30 / np.sqrt(sum(seed.score.size for seed in episodes)), 0.15, 0.7))
    # Rasterised dots keep SVG and PDF files small.
    axes.scatter(
        np.concatenate([seed.step for seed in episodes]),
        np.concatenate([seed.score for seed in episodes]),
        s=9, color=_RAW, alpha=faint, linewidths=0, rasterized=True, label="training episode",
    )  # fmt: skip
    bold = {"color": _TRAINING, "linewidth": 2.4, "zorder": 4}
    thin = {"color": _TRAINING, "linewidth": 0.8, "alpha": 0.55, "zorder": 3}
    name = f"training, mean of last {window} episodes"
    for index, (seed, average) in enumerate(zip(episodes, averages, strict=True)):
        label = (f"{name}, each seed" if several else name) if index == 0 else None
        axes.plot(seed.step, average, label=label, **(thin if several else bold))
    if several:
        # Episodes end at different steps in each seed: average where every seed has a value.
        first = max(seed.step[0] for seed in episodes)
        last = max(first, min(seed.step[-1] for seed in episodes))
        grid = np.linspace(first, last, 500)
        pairs = zip(episodes, averages, strict=True)
        curves = np.stack([np.interp(grid, seed.step, average) for seed, average in pairs])
        axes.plot(grid, iqm(curves, axis=0), label=f"IQM of {len(episodes)} seeds", **bold)


def _draw_evaluations(axes: Axes, evaluations: Evaluations) -> None:
    """Draw the IQM of the greedy evaluations, with a 95% band if there are several seeds."""
    label = "greedy evaluation"
    if len(evaluations.score) > 1:
        label = "greedy evaluation, IQM and 95% interval"
        pointwise = partial(iqm, axis=0)  # one interval per evaluation
        low, high = stratified_bootstrap_ci(evaluations.score, pointwise)
        # Drawn edges keep the band visible on a printer that drops the light fill.
        axes.fill_between(
            evaluations.step, low, high, facecolor=(_EVALUATION, 0.18),
            edgecolor=(_EVALUATION, 0.6), linewidth=0.6, zorder=2,
        )  # fmt: skip
    # About 20 markers.
    axes.plot(
        evaluations.step, iqm(evaluations.score, axis=0), color=_EVALUATION, linestyle=_DASHED,
        linewidth=1.6, marker="o", markersize=5, markerfacecolor="white", markeredgewidth=1.3,
        markevery=max(1, math.ceil(evaluations.step.size / 20)), zorder=5, label=label,
    )  # fmt: skip


def _draw_spread(axes: Axes, episodes: Sequence[Episodes]) -> None:
    """Draw the histogram of the last scores of all seeds, with their mean."""
    from matplotlib.ticker import MaxNLocator

    last = np.concatenate([seed.score[-_TAIL:] for seed in episodes])
    mean = float(last.mean())
    axes.hist(last, bins=_bins(last), color=_RAW, edgecolor=_TRAINING, linewidth=0.7)
    axes.axvline(mean, color=_EVALUATION, linewidth=2, linestyle=_DASHED)
    # Leave room above the bars for the label, and place it towards the middle.
    axes.set_ylim(top=axes.get_ylim()[1] * 1.1)
    left, right = axes.get_xlim()
    beyond = mean > (left + right) / 2
    axes.annotate(
        f"mean {_short(mean)}", (mean, 1), xycoords=("data", "axes fraction"),
        xytext=(-6 if beyond else 6, -4), textcoords="offset points", va="top",
        ha="right" if beyond else "left", color=_EVALUATION, fontweight="bold",
    )  # fmt: skip
    count = min(_TAIL, max(seed.score.size for seed in episodes))
    which = f"episodes per seed (n = {last.size})" if len(episodes) > 1 else "training episodes"
    axes.set_title(f"Last {count} {which}", fontsize=11, loc="left")
    axes.set_xlabel("Score (undiscounted return per episode)")
    axes.set_ylabel("Number of episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)


def _bins(scores: np.ndarray) -> list[float]:
    """Return the histogram's bin edges: one bin per integer score if there are few, otherwise 20."""
    low, high = float(scores.min()), float(scores.max())
    if high - low <= 20 and np.all(scores == np.round(scores)):
        return (np.arange(low, high + 2) - 0.5).tolist()
    return np.histogram_bin_edges(scores, bins=20).tolist()


def _moving_average(scores: np.ndarray, window: int) -> np.ndarray:
    """Return at each episode the mean of the last `window` scores, or of fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    end = np.arange(1, len(scores) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def _short(value: float) -> str:
    """Return a score as text with about four significant digits."""
    return f"{value:.1f}" if 10 <= abs(value) < 1e5 else f"{value:.3g}"


def _tidy(axes: Axes) -> None:
    """Remove the top and right spines, and put the grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
