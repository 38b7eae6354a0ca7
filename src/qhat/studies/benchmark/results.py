"""The results of a benchmark: one row per task, seed and checkpoint, stored as CSV."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci
from qhat.system.errors import UsageError, ranges, require
from qhat.system.files import quote, read_text, write_text

WHICH = ("best", "last")
"""The weights that were best in the evaluations during training, and the final ones."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of one seed."""

    task: str
    seed: int
    which: str
    mean_return: float
    """Mean over the fresh episodes."""
    success_rate: float | None
    """Share of the attempts that succeeded, if the task reports it."""
    episodes: int
    steps: int
    """Environment steps of the run."""
    seconds: float | None
    """Wall-clock seconds of the training, all seeds of its run together; None if not measured."""
    run_seeds: int
    """Number of seeds trained together in that run."""
    date: str
    qhat: str
    jax: str
    python: str
    machine: str
    command: str


FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a CSV of rows."""
    lines = [",".join(FIELDS)]
    for row in rows:
        values = (getattr(row, name) for name in FIELDS)
        lines.append(",".join(_cell("" if value is None else value) for value in values))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote.

    Raises:
        UsageError: it is missing or damaged; the sentence names the line.
    """
    try:
        lines = list(csv.reader(read_text(path).splitlines(), strict=True))
    except FileNotFoundError:
        raise UsageError(f"There is no file '{path}'.") from None
    except csv.Error as error:
        raise UsageError(f"'{path}' cannot be read as CSV: {error}.") from None
    require(
        bool(lines) and tuple(lines[0]) == FIELDS,
        f"'{path}' is not a table of a benchmark: its first line is not {','.join(FIELDS)}.",
    )
    return [_row(values, f"'{path}', line {number}") for number, values in enumerate(lines[1:], 2)]


def _row(values: Sequence[str], where: str) -> Row:
    require(len(values) == len(FIELDS), f"{where} has {len(values)} values; expected {len(FIELDS)}.")
    fields: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    try:
        for name in ("seed", "episodes", "steps", "run_seeds"):
            fields[name] = int(fields[name])
        fields["mean_return"] = float(fields["mean_return"])
        for name in ("success_rate", "seconds"):
            fields[name] = float(fields[name]) if fields[name] else None
    except ValueError as error:
        raise UsageError(f"{where} is damaged: {error}.") from None
    numbers = (
        fields["mean_return"],
        fields["success_rate"] or 0.0,
        fields["seconds"] or 0.0,
    )
    require(all(map(math.isfinite, numbers)), f"{where} is damaged: a number is not finite.")
    require(
        fields["which"] in WHICH,
        f"{where} has which {quote(fields['which'])}; expected best or last.",
    )
    return Row(**fields)


def _cell(value: Any) -> str:
    text = str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(mark in text for mark in ',"\n') else text


@dataclasses.dataclass(frozen=True)
class Summary:
    """A task's score over its seeds."""

    seeds: tuple[int, ...]
    mean: float
    iqm: float
    interval: tuple[float, float] | None
    """Bootstrap 95% interval of the IQM over seeds; None with one seed."""
    per_seed: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {**dataclasses.asdict(self), "interval": list(self.interval) if self.interval else None}


def summary(
    rows: Iterable[Row], which: str = "best", measure: Literal["return", "success"] = "return"
) -> Summary | None:
    """Summarise the rows of one task; `None` if there are none.

    Raises:
        UsageError: a row does not have the measure.
    """
    chosen = sorted((row for row in rows if row.which == which), key=lambda row: row.seed)
    if not chosen:
        return None
    values = [row.mean_return if measure == "return" else row.success_rate for row in chosen]
    require(None not in values, f"Task '{chosen[0].task}' has no success rate; every seed needs one.")
    numbers = [float(value) for value in values if value is not None]
    interval = None
    if len(numbers) > 1:
        low, high = stratified_bootstrap_ci([[value] for value in numbers], iqm).ravel()
        interval = (float(low), float(high))
    mean = sum(numbers) / len(numbers)
    return Summary(tuple(row.seed for row in chosen), mean, iqm(numbers), interval, tuple(numbers))


def moved_down(name: str, fresh: Summary | None, pin: Summary | None) -> str | None:
    """Return a sentence if a task got worse or cannot be compared; `None` if it did not get worse.

    Worse means that the fresh interval ends below the start of the pinned one.
    """
    if fresh is None:
        return f"{name}: there is no fresh result."
    if pin is None:
        return f"{name}: the pinned table has no such task."
    if fresh.interval is None or pin.interval is None:
        return f"{name}: one seed has no interval; expected two or more, fresh and pinned."
    if fresh.interval[1] < pin.interval[0]:
        return (
            f"{name} moved down: IQM {fresh.iqm:.4g}, 95% interval {_interval(fresh)}, of seeds"
            f" {_seeds(fresh)}, ends below the pinned {pin.iqm:.4g}, {_interval(pin)}, of seeds"
            f" {_seeds(pin)}."
        )
    return None


def _interval(summary: Summary) -> str:
    assert summary.interval is not None
    return f"[{summary.interval[0]:.4g}, {summary.interval[1]:.4g}]"


def _seeds(summary: Summary) -> str:
    return ranges(summary.seeds)
