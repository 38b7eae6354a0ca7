"""`qhat plot RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qhat.cli.parsing import read
from qhat.reports.plotting import plot


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
    print(plot(args.run, args.out, axis=args.axis))
    return 0
