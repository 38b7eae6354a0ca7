"""Joins metrics.csv and eval.csv of groups in the order in which one process writes them, and cuts them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from qhat.runs.folder import RunFolder
from qhat.runs.spread.groups import Group
from qhat.runs.tables import speed
from qhat.system.errors import UsageError
from qhat.system.files import write_text

Row = dict[str, str]


@dataclasses.dataclass
class _Call:
    """Rows of metrics.csv of one compiled call, of all groups."""

    episodes: list[Row] = dataclasses.field(default_factory=list)
    progress: list[Row] = dataclasses.field(default_factory=list)
    rate: float = 0.0
    """Steps per second of the groups with rows, together."""


def merge_tables(
    run: RunFolder, parts: Sequence[tuple[Group, RunFolder]], step: int, before: Path
) -> tuple[list[Row], list[Row]]:
    """Write the run's tables up to `step` from those of its groups; return the rows of both.

    Args:
        before: file with rows of metrics.csv from before the run was divided, if it exists.
    """
    first = parts[0][0].first
    tables = [(group, folder, group.first - first) for group, folder in parts]
    calls: dict[int, _Call] = {}
    fields: list[str] = []
    for _, folder, shift in tables:
        fields, rows = read_rows(folder.metrics)
        _sort_into(calls, [_shifted(row, shift) for row in rows])
    metrics = read_rows(before)[1] if before.exists() else []
    seeds = sum(group.count for group, _ in parts)
    for at in sorted(calls):
        metrics += _written(calls[at], seeds)
    metrics = [row for row in metrics if int(row["step"]) <= step]
    evaluations = [
        _shifted(row, shift)
        for _, folder, shift in tables
        for row in read_rows(folder.evaluations)[1]
        if int(row["step"]) <= step
    ]
    evaluations.sort(key=lambda row: (int(row["step"]), int(row["seed_index"])))
    write_rows(run.metrics, fields, metrics)
    write_rows(run.evaluations, read_rows(tables[0][1].evaluations)[0], evaluations)
    return metrics, evaluations


def cut_tables(run: RunFolder, parts: Sequence[tuple[Group, RunFolder]], step: int, before: str) -> None:
    """Give each group its evaluations up to `step`, and an empty metrics.csv; store the run's in `before`.

    Speeds in metrics.csv are of all seeds together, so those rows stay together.
    """
    fields, metrics = read_rows(run.metrics)
    names, evaluations = read_rows(run.evaluations)
    first = parts[0][0].first
    for group, folder in parts:
        shift = group.first - first
        mine = [
            _shifted(row, -shift)
            for row in evaluations
            if int(row["step"]) <= step and shift <= int(row["seed_index"]) < shift + group.count
        ]
        write_rows(folder.metrics, fields, [])
        write_rows(folder.evaluations, names, mine)
    kept = [row for row in metrics if int(row["step"]) <= step]
    write_rows(parts[0][1].path.parent / before, fields, kept)


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the columns of a table and its whole lines. Raises `UsageError` if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        rows = [row for row in reader if (row.get("step") or "").isdigit()]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UsageError(f"'{path}' cannot be read: the run is damaged.") from None
    return list(reader.fieldnames or ()), rows


def write_rows(path: Path, fields: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a table."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([row.get(field) or "" for field in fields] for row in rows)
    write_text(path, stream.getvalue())


def _shifted(row: Row, by: int) -> Row:
    return {**row, "seed_index": str(int(row["seed_index"]) + by)}


def _sort_into(calls: dict[int, _Call], rows: Sequence[Row]) -> None:
    """Add the rows of one group to the calls that end at the same steps."""
    episodes: list[Row] = []
    for index, row in enumerate(rows):
        if row["kind"] == "episode":
            episodes.append(row)
            continue
        call = calls.setdefault(int(row["step"]), _Call())
        call.episodes += episodes
        episodes = []
        call.progress.append(row)
        after = rows[index + 1] if index + 1 < len(rows) else None
        if after is None or (after["kind"], after["step"]) != (row["kind"], row["step"]):
            call.rate += float(row["steps_per_second"] or 0)


def _written(call: _Call, seeds: int) -> list[Row]:
    """Return the rows of a call in order: episodes by step, then seed; then progress by seed."""
    call.episodes.sort(key=lambda row: (int(row["step"]), int(row["seed_index"])))
    call.progress.sort(key=lambda row: int(row["seed_index"]))
    # Where a group stopped within a call, the speed of the others stands for it.
    rate = speed(call.rate * seeds / len(call.progress))
    return [*call.episodes, *({**row, "steps_per_second": rate} for row in call.progress)]
