"""`qhat.plot`: a picture of a run's progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qhat.recipes.labels import label_of_run
from qhat.reports.plot import plot_progress, require_format
from qhat.runs.curves import read_clock, read_run
from qhat.runs.folder import RunFolder, path_of
from qhat.system.errors import require, setting, warn

if TYPE_CHECKING:
    from qhat.runs.run import Run


def plot(
    run: Run | Path | str, out: Path | str | None = None, *, axis: Literal["steps", "seconds"] = "steps"
) -> Path:
    """Plot a run's progress: scores, their moving average, and a histogram of the last 100.

    Args:
        run: a run, or its folder.
        out: file to write, `.png`, `.svg` or `.pdf`. Default: progress.png in the run folder.
        axis: horizontal axis: environment `steps`, or wall-clock `seconds` of the training.

    Returns:
        the file.

    Raises:
        UsageError: there is no run, or nothing was evaluated in it, or the file has another ending.

    Warns:
        UserWarning: the run's last evaluation was before its last step.
    """
    known = axis in ("steps", "seconds")
    require(known, f"{setting('axis')} is {axis!r}; expected steps or seconds.")
    folder = RunFolder.open(path_of(run))
    config = folder.read_config()
    target = require_format(folder.figure if out is None else Path(out))
    episodes, evaluations = read_run(folder.path)
    reached, steps = evaluations.step[-1:], config.get("steps")
    if isinstance(steps, int) and reached.size and reached[0] < steps:
        at = f"step {int(reached[0]):,} of {steps:,}"
        warn(f"'{folder.path}' was last evaluated at {at}; only that part is plotted.")
    clock = read_clock(folder.path) if axis == "seconds" else None
    seeds = max(len(episodes), len(evaluations.score))
    title = f"{config['env']} · {label_of_run(config)} · {seeds} seed(s)"
    plot_progress(episodes, evaluations, title, target, clock=clock)
    return target
