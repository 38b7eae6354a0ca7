"""`qhat.report`: one page about one or several runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from qhat.axes.axis import AxisValue
from qhat.reports.findings import findings
from qhat.reports.measure import measure
from qhat.reports.page import RunReport, page
from qhat.reports.place import place_of, require_writable
from qhat.reports.reading import read_facts
from qhat.runs.folder import path_of
from qhat.runs.run import Run
from qhat.system.files import write_text

COMMANDS = ("train", "evaluate", "play", "export", "plot", "compare", "report")
"""Commands that the page suggests."""


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report."""

    path: Path
    """The page."""
    runs: tuple[RunReport, ...]
    """What was read and measured of each run, and what was found."""

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r}, {len(self.runs)} run(s))"


def report(
    runs: Run | Path | str | Sequence[Run | Path | str],
    out: Path | str | None = None,
    *,
    episodes: int = 100,
    video: bool = True,
    parts: Sequence[type[AxisValue]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Write one self-contained HTML page about runs: score, warnings, curves, a film, settings, commands.

    Args:
        runs: a run or its folder, or several.
        out: file to write, `.html`. Default: report.html in the run folder, or here for several runs.
        episodes: fresh episodes per seed for the score.
        video: whether to film runs that have no film yet.
        parts: classes of the recipes' parts from outside the package.
        progress: called with the current activity.

    Raises:
        UsageError: a folder is no run or is named twice, or the file cannot be written.
    """
    several = list(runs) if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    folders = [path_of(run) for run in several]
    target = place_of(folders, out, episodes)
    facts = [read_facts(folder, tuple(parts)) for folder in folders]
    require_writable(target)
    made = []
    for one in facts:
        name = str(one.folder.path)
        measured = measure(
            one.folder.path,
            episodes,
            video,
            lambda now, name=name: progress(f"{name}: {now}"),
            tuple(parts),
        )
        made.append(RunReport(one, measured, findings(one, measured)))
    write_text(target, page(made, COMMANDS))
    return Report(target, tuple(made))
