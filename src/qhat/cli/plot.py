"""`qhat plot RUN`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qhat.cli.parsing import read
from qhat.recipes.labels import label_of_run
from qhat.reports.plot import plot_progress, require_format
from qhat.runs.curves import read_clock, read_run
from qhat.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Plot:
    """Plot a run's progress: scores, their moving average, and a histogram of the last 100."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    out: Path | None = None
    """Output file, .png, .svg or .pdf. Default: progress.png in the run folder."""
    axis: Literal["steps", "seconds"] = "steps"
    """Horizontal axis: environment steps or wall-clock seconds of the training."""


def run(words: Sequence[str]) -> int:
    """Parse, read, plot, print the path."""
    args = read(Plot, words, "plot")
    folder = RunFolder.open(args.run)
    config = folder.read_config()
    out = require_format(args.out or folder.figure)
    episodes, evaluations = read_run(folder.path)
    reached, steps = evaluations.step[-1:], config.get("steps")
    if isinstance(steps, int) and reached.size and reached[0] < steps:
        at = f"step {int(reached[0]):,} of {steps:,}"
        print(f"'{folder.path}' was last evaluated at {at}; only that part is plotted.", file=sys.stderr)
    clock = read_clock(folder.path) if args.axis == "seconds" else None
    title = f"{config['env']} · {label_of_run(config)} · {len(episodes)} seed(s)"
    plot_progress(episodes, evaluations, title, out, clock=clock)
    print(out)
    return 0
