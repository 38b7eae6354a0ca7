"""`qhat benchmark SUITE`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read
from qhat.environments.catalogue import find
from qhat.runs.folder import write_text
from qhat.studies.benchmark.results import Row, moved_down, read_rows, summary, write_rows
from qhat.studies.benchmark.suites import Suite, Task, suite_of
from qhat.system.errors import UsageError, require

RESULTS = Path("docs") / "results"
"""Where the repository keeps its tables."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train a suite of tasks over seeds, judge them by fresh episodes, and write a table.

    Suites: classic, minatar, minatar-5m, minatar-dqn, robots, smoke. What is finished is taken as it is,
    and what was interrupted is gone on with: type the command again.
    """

    suite: Annotated[str, tyro.conf.Positional]
    """Name of the suite."""
    seeds: int | None = None
    """Seeds per task; none is the task's own count."""
    seed: int | None = None
    """Number of the first seed; none is the task's own (0, or 100 where lower ones were looked at while
    settings were chosen), with --check the first after the pinned ones, from 1020 on."""
    only: tuple[str, ...] = ()
    """Tasks of the suite, by their environments; all unless given."""
    episodes: int = 100
    """Fresh episodes per seed that judge it."""
    run_dir: Path | None = None
    """Folder of the suite's runs; none is runs/benchmark/SUITE, with --check a new one in
    runs/check/SUITE."""
    out: Path | None = None
    """Page to write, with its data as .csv beside it; none is docs/results/SUITE.md where there is such a
    folder, else SUITE.md in the folder of the runs, as with --check."""
    table: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train nothing: write the table of the runs that are finished."""
    check: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compare fresh runs with the pinned table; fail where an interval ends below the pinned one."""
    pin: Path | None = None
    """Pinned table for --check; none is docs/results/SUITE.csv."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout; progress goes to stderr."""


def run(words: Sequence[str]) -> int:
    """Parse, check all that can be checked at once, then train, judge, write and compare."""
    told = read(Benchmark, words, "benchmark")
    suite = suite_of(told.suite)
    tasks = [suite.task(name) for name in told.only] or list(suite.tasks)
    require(told.episodes >= 1, f"--episodes is {told.episodes}; expected 1 or more.")
    require(told.seeds is None or told.seeds >= 1, f"--seeds is {told.seeds}; expected 1 or more.")
    require(not (told.pin and not told.check), "--pin has no meaning without --check.")
    require(
        not (told.table and told.check and told.run_dir is None),
        "--table with --check needs --run-dir, the folder of the runs to compare.",
    )
    require(
        told.out is None or told.out.suffix == ".md",
        f"--out is '{told.out}'; expected a page, a name that ends in .md (its data goes beside it).",
    )
    pins = _pins(told, suite, tasks) if told.check else {}
    first = _first_seed(told, tasks, pins)
    for task in tasks:
        _require_playable(task)
    from qhat.cli.suite import Session

    base = told.run_dir or _folder(told)
    session = Session(suite, tasks, base, first, told.seeds, told.episodes, _command(told, first))
    rows = session.measure(train=not told.table, check=told.check)
    require(
        not told.table or any(rows.values()),
        f"No task of suite '{suite.name}' has a finished run in '{base}': no table to write. Train it:"
        f" qhat benchmark {suite.name}",
    )
    page, kept = _written(told, suite, base, rows)
    outcome: dict[str, Any] = {
        "suite": suite.name,
        "page": None if page is None else str(page),
        "table": None if page is None else str(page.with_suffix(".csv")),
        "runs": str(base),
        "interrupted": session.stop() if session.stop else False,
        "tasks": {task.env: _scores(task, kept.get(task.env, ())) for task in suite.tasks},
    }
    failures = []
    if told.check and not outcome["interrupted"]:
        failures = [_compared(task, rows.get(task.env, ()), pins[task.env]) for task in tasks]
        failures = [sentence for sentence in failures if sentence]
        outcome["check"] = {"passed": not failures, "failures": failures}
    session.close(outcome, failures)
    if told.json:
        print(json.dumps(outcome))
    return session.exit_code or (1 if failures else 0)


def _pins(told: Benchmark, suite: Suite, tasks: Sequence[Task]) -> dict[str, list[Row]]:
    path = told.pin or RESULTS / f"{suite.name}.csv"
    require(
        path.exists(),
        f"There is no pinned table '{path}'; expected --pin FILE, a .csv that `qhat benchmark {suite.name}`"
        " wrote (the repository has them in docs/results).",
    )
    rows = read_rows(path)
    pins = {task.env: [row for row in rows if row.task == task.env] for task in tasks}
    for name, own in pins.items():
        require(bool(own), f"'{path}' has no row of task '{name}'; name others by --only.")
    return pins


def _first_seed(told: Benchmark, tasks: Sequence[Task], pins: dict[str, list[Row]]) -> int | None:
    """Return the first seed; `None` for each task's own.

    Raises:
        UsageError: settings were chosen by one of the seeds, or it is pinned.
    """
    from qhat.studies.benchmark.page import CHECKING, REPORTING

    pinned = {row.seed for rows in pins.values() for row in rows}
    first = told.seed
    if first is None and told.check:
        first = max([CHECKING[0] - 1, *pinned]) + 1
    for task in tasks:
        begin = task.first if first is None else first
        seeds = range(begin, begin + (told.seeds or task.seeds))
        allowed = CHECKING if told.check else range(task.first, REPORTING[-1] + 1)
        require(
            seeds[0] in allowed and seeds[-1] in allowed,
            f"The seeds of {task.env} are {seeds[0]} to {seeds[-1]}; expected {allowed[0]} to"
            f" {allowed[-1]}: settings were chosen on others, and {CHECKING[0]} to {CHECKING[-1]} are for"
            " --check.",
        )
        same = sorted(pinned & set(seeds))
        require(
            not same,
            f"Seed {same[0] if same else ''} is one of the pinned ones, which would be compared with"
            " themselves; expected others, by --seed.",
        )
    return first


def _require_playable(task: Task) -> None:
    """Raise `UsageError` where a task or its judge is not installed."""
    from qhat.environments.reference import lacks

    config = task.config(1, 0)
    entry = find(config.env, config.env_kwargs)
    if (missing := lacks(entry.reference)) is not None:
        raise UsageError(
            f"Task '{task.env}' is judged in {entry.reference}, which is not installed; type:"
            f" pip install 'qhat[{missing}]'"
        )


def _folder(told: Benchmark) -> Path:
    if not told.check:
        return Path("runs") / "benchmark" / told.suite
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path("runs") / "check" / told.suite / now


def _command(told: Benchmark, first: int | None) -> str:
    """Return the command that makes the same runs, without folders."""
    words = ["qhat", "benchmark", told.suite]
    words += ["--seeds", str(told.seeds)] if told.seeds else []
    words += [] if first is None else ["--seed", str(first)]
    words += ["--only", *told.only] if told.only else []
    return shlex.join(words)


def _written(
    told: Benchmark, suite: Suite, base: Path, rows: dict[str, list[Row]]
) -> tuple[Path | None, dict[str, list[Row]]]:
    """Write the page and its data; return where, and the rows in it.

    Tasks without a finished run keep the rows that the table had. Without any row nothing is written.
    """
    from qhat.studies.benchmark.page import page

    out = told.out or (base if told.check or not RESULTS.is_dir() else RESULTS) / f"{suite.name}.md"
    data, kept = out.with_suffix(".csv"), {name: own for name, own in rows.items() if own}
    if data.exists():
        names = {task.env for task in suite.tasks}
        for row in read_rows(data):
            if row.task in names and not rows.get(row.task):
                kept.setdefault(row.task, []).append(row)
    if not kept:
        return None, kept
    write_rows(data, [row for task in suite.tasks for row in kept.get(task.env, ())])
    write_text(out, page(suite, kept))
    return out, kept


def _scores(task: Task, rows: Sequence[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    found = {which: summary(rows, which, task.measure) for which in ("best", "last")}
    return {which: own.to_json() for which, own in found.items() if own}


def _compared(task: Task, fresh: Sequence[Row], pin: Sequence[Row]) -> str | None:
    return moved_down(task.env, summary(fresh, "best", task.measure), summary(pin, "best", task.measure))
