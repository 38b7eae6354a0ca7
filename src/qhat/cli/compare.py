"""`qhat compare RUN…`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qhat.cli.parsing import read
from qhat.evaluation.statistics.bootstrap import REPETITIONS
from qhat.reports.compare import draw_comparison
from qhat.reports.comparison.comparing import EPISODES, compare
from qhat.reports.comparison.result import Comparison, Estimate, Part
from qhat.reports.plot import require_format
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Compare:
    """Put runs side by side: scores over seeds with intervals, curves, profiles, and who beats whom.

    Runs of one environment, recipe and settings are one group, and their seeds are its seeds.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path | None = None
    """Figure to write; PNG, SVG or PDF by its ending. None is compare.png here, with --json none."""
    episodes: int = EPISODES
    """Fresh episodes per seed to score by; 0 takes the runs' own evaluations (selection scores)."""
    checkpoint: Literal["best", "last"] = "best"
    """Which weights of each seed: best (by the run's own evaluations) or last."""
    axis: Literal["steps", "seconds"] = "steps"
    """Draw curves against environment steps, or against the wall clock of the training."""
    repetitions: int = REPETITIONS
    """Resamples of the bootstrap behind every interval."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, score, tell, draw."""
    told = read(Compare, words, "compare")
    require(len(told.runs) > 0, "There is no run to compare; expected run folders: qhat compare RUN RUN.")
    require(told.episodes >= 0, f"--episodes is {told.episodes}; expected 0 or more.")
    require(told.repetitions >= 1, f"--repetitions is {told.repetitions}; expected 1 or more.")
    out = told.out or (None if told.json else Path("compare.png"))
    if out is not None:
        require_format(out)
    for path in told.runs:
        RunFolder.open(path)

    console = Console(stderr=True, highlight=False)
    with console.status("reading") as status:
        if told.episodes:
            status.update("starting JAX")
            from qhat.system import devices

            devices.prepare(1)
        comparison = compare(
            told.runs, told.episodes, told.checkpoint, told.axis, told.repetitions,
            lambda words: status.update(escape(words)),
        )  # fmt: skip
    if not told.json:
        # Before the drawing: what took long to play is not lost where a figure cannot be written.
        _show(comparison)
    if out is not None:
        draw_comparison(comparison, out)
    if told.json:
        print(json.dumps({**comparison.to_json(), "figure": None if out is None else str(out)}))
    else:
        print(f"\nfigure: {out}")
    return 0


def _show(comparison: Comparison) -> None:
    """Print a table for each environment, one for all of them, and what there is to know about them."""
    console = Console(highlight=False)
    for part in comparison.parts:
        console.print(_table(part))
        for x, y in _once(part):
            console.print(
                f"P({escape(x)} > {escape(y)}) = {_told(part.improvement[x, y], 2)}", soft_wrap=True
            )
        console.print()
    for env, (zero, one, rule) in comparison.scales.items():
        console.print(f"scale of {escape(env)}: 0 is {zero:g}, 1 is {one:g} ({rule})", soft_wrap=True)
    if any(own.iqm.ci95 is not None for part in comparison.parts for own in part.standings):
        console.print(escape("[low, high]: 95% intervals by a stratified bootstrap over seeds."))
    for note in comparison.notes:
        console.print(f"· {escape(note)}", soft_wrap=True)


def _table(part: Part) -> Table:
    until = "" if part.steps is None else f" · up to step {part.steps:,}"
    table = Table(title=escape(f"{part.name}{until}\n{part.source}"), title_justify="left", box=None)
    digits = 1 if part.steps is not None else 3
    # For one environment the median seed; for several the median environment.
    table.add_column("", overflow="fold")
    gap = [] if part.gamma is None else [f"gap to {part.gamma:g}"]
    for name in ("seeds", "IQM", "median", "mean", *gap):
        table.add_column(name, justify="right", no_wrap=True)
    for own in part.standings:
        shown = [own.iqm, own.median, own.mean, *([] if own.gap is None else [own.gap])]
        # The interval stands below: four of them beside each other are wider than a terminal.
        cells = [escape(_told(estimate, digits).replace(" [", "\n[")) for estimate in shown]
        table.add_row(escape(own.label), str(len(own.scores)), *cells)
    return table


def _once(part: Part) -> list[tuple[str, str]]:
    """Return every pair of groups once, the later one first: what was added beside what was there."""
    labels = [own.label for own in part.standings]
    return [(x, y) for at, y in enumerate(labels) for x in labels[at + 1 :]]


def _told(estimate: Estimate, digits: int) -> str:
    """Write an estimate with its interval, where there is one."""
    value = f"{estimate.value:.{digits}f}"
    if estimate.ci95 is None:
        return value
    low, high = estimate.ci95
    return f"{value} [{low:.{digits}f}, {high:.{digits}f}]"
