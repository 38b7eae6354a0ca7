"""`qhat compare RUN…`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qhat.cli.parsing import read
from qhat.cli.parts import with_parts
from qhat.cli.tables import console
from qhat.evaluation.statistics.bootstrap import REPETITIONS
from qhat.reports.compare import draw_comparison
from qhat.reports.comparison.comparing import EPISODES, compare
from qhat.reports.comparison.result import Comparison, Estimate, Part
from qhat.reports.plot import require_format
from qhat.runs.folder import RunFolder
from qhat.system.errors import require

if TYPE_CHECKING:
    from qhat.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare runs: scores over seeds with intervals, curves, profiles, and probabilities of improvement.

    Runs with the same environment, recipe and settings form one group; their seeds are pooled.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path | None = None
    """Figure, .png, .svg or .pdf. Default: ./compare.png; no figure with --json."""
    episodes: int = EPISODES
    """Number of fresh episodes per seed; 0 uses the evaluations during training (selection scores)."""
    checkpoint: Literal["best", "last"] = "best"
    """Weights of each seed: best (by the evaluations during training) or last."""
    axis: Literal["steps", "seconds"] = "steps"
    """Horizontal axis: environment steps or wall-clock seconds of the training."""
    repetitions: int = REPETITIONS
    """Number of bootstrap resamples for each interval."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, score, print, draw."""
    words, parts = with_parts(words)
    args = read(Compare, words, "compare")
    require(len(args.runs) > 0, "There is no run to compare; expected run folders: qhat compare RUN RUN.")
    require(args.episodes >= 0, f"--episodes is {args.episodes}; expected 0 or more.")
    require(args.repetitions >= 1, f"--repetitions is {args.repetitions}; expected 1 or more.")
    out = args.out or (None if args.json else Path("compare.png"))
    if out is not None:
        require_format(out)
    for path in args.runs:
        RunFolder.open(path)

    with Console(stderr=True, highlight=False).status("reading") as status:
        runs: list[Path | Run] = list(args.runs)
        if args.episodes:
            status.update("starting JAX")
            from qhat.system import devices

            devices.prepare(1)
            if parts:
                from qhat.runs.run import Run

                runs = [Run.open(path, parts) for path in args.runs]
        comparison = compare(
            runs, args.episodes, args.checkpoint, args.axis, args.repetitions,
            lambda words: status.update(escape(words)),
        )  # fmt: skip
    if not args.json:
        # Print before drawing, so that the scores are not lost if the figure cannot be written.
        _show(comparison)
    if out is not None:
        draw_comparison(comparison, out)
    if args.json:
        print(json.dumps({**comparison.to_json(), "figure": None if out is None else str(out)}))
    else:
        print(f"\nfigure: {out}")
    return 0


def _show(comparison: Comparison) -> None:
    """Print a table for each environment, one for all environments, and the notes."""
    page = console()
    for part in comparison.parts:
        page.print(_table(part))
        for x, y in _pairs(part):
            page.print(
                f"P({escape(x)} > {escape(y)}) = {_with_interval(part.improvement[x, y], 2)}",
                soft_wrap=True,
            )
        page.print()
    for env, (zero, one, rule) in comparison.scales.items():
        page.print(f"scale of {escape(env)}: 0 is {zero:g}, 1 is {one:g} ({rule})", soft_wrap=True)
    if any(standing.iqm.ci95 is not None for part in comparison.parts for standing in part.standings):
        page.print(escape("[low, high]: 95% intervals by a stratified bootstrap over seeds."))
    for note in comparison.notes:
        page.print(f"· {escape(note)}", soft_wrap=True)


def _table(part: Part) -> Table:
    until = "" if part.steps is None else f" · up to step {part.steps:,}"
    table = Table(title=escape(f"{part.name}{until}\n{part.source}"), title_justify="left", box=None)
    largest = max((abs(standing.iqm.value) for standing in part.standings), default=0.0)
    digits = 1 if part.steps is not None and largest >= 10 else 3
    # For one environment: over seeds; for several: over environments.
    table.add_column("", overflow="fold")
    gap = [] if part.gamma is None else [f"gap to {part.gamma:g}"]
    for name in ("seeds", "IQM", "median", "mean", *gap):
        table.add_column(name, justify="right", no_wrap=True)
    for standing in part.standings:
        shown = [
            standing.iqm,
            standing.median,
            standing.mean,
            *([] if standing.gap is None else [standing.gap]),
        ]
        # The interval goes on a second line: four of them in one line are wider than a terminal.
        cells = [escape(_with_interval(estimate, digits).replace(" [", "\n[")) for estimate in shown]
        table.add_row(escape(standing.label), str(len(standing.scores)), *cells)
    return table


def _pairs(part: Part) -> list[tuple[str, str]]:
    """Return every pair of groups, the later group first: the new method against the baseline."""
    labels = [standing.label for standing in part.standings]
    return [(x, y) for at, y in enumerate(labels) for x in labels[at + 1 :]]


def _with_interval(estimate: Estimate, digits: int) -> str:
    """Format an estimate, with its interval if it has one."""
    value = f"{estimate.value:.{digits}f}"
    if estimate.ci95 is None:
        return value
    low, high = estimate.ci95
    return f"{value} [{low:.{digits}f}, {high:.{digits}f}]"
