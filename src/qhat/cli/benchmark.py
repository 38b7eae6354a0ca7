"""`qhat benchmark SUITE`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.axes.axis import AxisValue, spell
from qhat.cli.parsing import read
from qhat.cli.parts import OtherParts, check_spelling, with_parts
from qhat.environments.catalogue import find
from qhat.studies.benchmark.results import Row, moved_down, read_rows, summary, write_rows
from qhat.studies.benchmark.suites import suite_of
from qhat.studies.benchmark.tasks import Suite, Task
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import write_text
from qhat.system.machine import install_extra
from qhat.system.ray_address import require_address

RESULTS = Path("docs") / "results"
"""Folder of the repository's tables."""


@dataclasses.dataclass(frozen=True)
class Benchmark(OtherParts):
    """Train a suite of tasks over several seeds, score them in fresh episodes, and write a table.

    Suites: classic, minatar, minatar-5m, minatar-dqn, atari-100k, pong-dqn, pong-rainbow, robots, smoke.
    Finished tasks are reused; interrupted ones resume when the same command is run again. Parts (--head
    and so on) replace those of every task's recipe; such runs and their table have a folder of their own.
    """

    suite: Annotated[str, tyro.conf.Positional]
    """Name of the suite."""
    seeds: int | None = None
    """Number of seeds per task. Default: the task's."""
    seed: int | None = None
    """First seed. Default: the task's (0, or 100 if lower seeds were used to choose settings); with --check
    the first one after the pinned seeds, from 1020 on."""
    only: tuple[str, ...] = ()
    """Tasks of the suite, named by environment. Default: all."""
    episodes: int = 100
    """Number of fresh episodes per seed for the score."""
    run_dir: Path | None = None
    """Folder of the suite's runs. Default: runs/benchmark/SUITE, with other parts SUITE and their names;
    with --check a new one in runs/check/SUITE."""
    out: Path | None = None
    """Page to write, .md, with its data as .csv beside it. Default: docs/results/SUITE.md if that folder
    exists, without --check and other parts, otherwise SUITE.md in the folder of the runs."""
    cluster: str | None = None
    """Ray cluster over which the seeds of each task are spread: auto, local, or HOST:PORT."""
    table: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not train; write the table of the finished runs."""
    check: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compare fresh runs with the pinned table; fail if an interval ends below the pinned one."""
    pin: Path | None = None
    """Pinned table for --check. Default: docs/results/SUITE.csv."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout; progress goes to stderr."""


def run(words: Sequence[str]) -> int:
    """Parse, check everything that can be checked early, then train, score, write and compare."""
    words, parts = with_parts(words)
    check_spelling(words, parts, "benchmark")
    args = read(Benchmark, words, "benchmark", parts=parts)
    outcome, exit_code = benchmarked(args)
    if args.json:
        print(json.dumps(outcome))
    return exit_code


def benchmarked(args: Benchmark) -> tuple[dict[str, Any], int]:
    """Train, score, write and compare; return the outcome and the exit status."""
    suite = suite_of(args.suite).changed(args.chosen())
    tasks = [suite.task(name) for name in args.only] or list(suite.tasks)
    require(args.episodes >= 1, f"{setting('episodes')} is {args.episodes}; expected 1 or more.")
    require(
        args.seeds is None or args.seeds >= 1, f"{setting('seeds')} is {args.seeds}; expected 1 or more."
    )
    if args.cluster is not None:
        require_address(args.cluster)
    require(not (args.pin and not args.check), f"{setting('pin')} needs {setting('check')}.")
    require(
        not (args.table and args.check and args.run_dir is None),
        f"{setting('table')} with {setting('check')} needs {setting('run_dir')}, the folder of the runs to"
        " compare.",
    )
    require(
        args.out is None or args.out.suffix == ".md",
        f"{setting('out')} is '{args.out}'; expected a page, a name that ends in .md (its data goes"
        " beside it).",
    )
    pins = _pins(args, suite, tasks) if args.check else {}
    first = _first_seed(args, tasks, pins)
    for task in tasks:
        _require_playable(task)
    from qhat.cli.suite import Session

    base = args.run_dir or _folder(args)
    command = _command(args, first)
    session = Session(suite, tasks, base, first, args.seeds, args.episodes, command, args.cluster)
    rows = session.measure(train=not args.table, check=args.check)
    require(
        not args.table or any(rows.values()),
        f"No task of suite '{suite.name}' has a finished run in '{base}', so there is no table to write."
        f" Train it: qhat benchmark {suite.name}",
    )
    page, kept = _written(args, suite, base, rows)
    outcome: dict[str, Any] = {
        "suite": suite.name,
        "page": None if page is None else str(page),
        "table": None if page is None else str(page.with_suffix(".csv")),
        "runs": str(base),
        "interrupted": session.stop() if session.stop else False,
        "tasks": {task.env: _scores(task, kept.get(task.env, ())) for task in suite.tasks},
    }
    failures = []
    if args.check and not outcome["interrupted"]:
        failures = [_compared(task, rows.get(task.env, ()), pins[task.env]) for task in tasks]
        failures = [sentence for sentence in failures if sentence]
        outcome["check"] = {"passed": not failures, "failures": failures}
    session.close(outcome, failures)
    return outcome, session.exit_code or (1 if failures else 0)


def _pins(args: Benchmark, suite: Suite, tasks: Sequence[Task]) -> dict[str, list[Row]]:
    path = args.pin or RESULTS / f"{suite.name}.csv"
    require(
        path.exists(),
        f"There is no pinned table '{path}'; expected --pin FILE, a .csv that `qhat benchmark {suite.name}`"
        " wrote (the repository has them in docs/results).",
    )
    rows = read_rows(path)
    pins = {task.env: [row for row in rows if row.task == task.env] for task in tasks}
    for name, pinned in pins.items():
        require(bool(pinned), f"'{path}' has no row for task '{name}'; select other tasks with --only.")
    return pins


def _first_seed(args: Benchmark, tasks: Sequence[Task], pins: dict[str, list[Row]]) -> int | None:
    """Return the first seed; `None` if each task has its default.

    Raises:
        UsageError: a seed was used to choose settings, or is pinned.
    """
    from qhat.studies.benchmark.page import CHECKING, REPORTING

    pinned = {row.seed for rows in pins.values() for row in rows}
    first = args.seed
    if first is None and args.check:
        first = max([CHECKING[0] - 1, *pinned]) + 1
    for task in tasks:
        begin = task.first if first is None else first
        seeds = range(begin, begin + (args.seeds or task.seeds))
        allowed = CHECKING if args.check else range(task.first, REPORTING[-1] + 1)
        require(
            seeds[0] in allowed and seeds[-1] in allowed,
            f"The seeds of {task.env} are {seeds[0]} to {seeds[-1]}; expected {allowed[0]} to"
            f" {allowed[-1]}: other seeds were used to choose settings, and {CHECKING[0]} to {CHECKING[-1]}"
            " are for --check.",
        )
        same = sorted(pinned & set(seeds))
        require(
            not same,
            f"Seed {same[0] if same else ''} is pinned, so it would be compared with itself;"
            " expected other seeds (--seed).",
        )
    return first


def _require_playable(task: Task) -> None:
    """Raise `UsageError` if a task or its reference environment is not installed."""
    from qhat.environments.reference import lacks

    config = task.config(1, 0)
    entry = find(config.env, config.env_kwargs)
    if (missing := lacks(entry.reference)) is not None:
        raise UsageError(
            f"Task '{task.env}' is scored in {entry.reference}, which is not installed; type:"
            f" {install_extra(missing)}"
        )


def _folder(args: Benchmark) -> Path:
    if not args.check:
        return (
            Path("runs") / "benchmark" / "-".join([args.suite, *map(_folder_word, args.chosen().items())])
        )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path("runs") / "check" / args.suite / now


def _folder_word(chosen: tuple[str, AxisValue]) -> str:
    return re.sub(r"[^\w.+=-]", "-", f"{chosen[0]}-{spell(chosen[1])}")


def _command(args: Benchmark, first: int | None) -> str:
    """Return the command that reproduces the runs, without folders."""
    words = ["qhat", "benchmark", args.suite]
    words += ["--seeds", str(args.seeds)] if args.seeds else []
    words += [] if first is None else ["--seed", str(first)]
    words += ["--only", *args.only] if args.only else []
    return shlex.join([*words, *args.words()])


def _written(
    args: Benchmark, suite: Suite, base: Path, rows: dict[str, list[Row]]
) -> tuple[Path | None, dict[str, list[Row]]]:
    """Write the page and its data; return its path and its rows.

    Tasks without a finished run keep their rows of the existing table. Without rows nothing is written.
    """
    from qhat.studies.benchmark.page import page

    out = (
        args.out
        or (base if args.check or args.chosen() or not RESULTS.is_dir() else RESULTS) / f"{suite.name}.md"
    )
    data, kept = out.with_suffix(".csv"), {name: fresh for name, fresh in rows.items() if fresh}
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
    return {which: score.to_json() for which, score in found.items() if score}


def _compared(task: Task, fresh: Sequence[Row], pin: Sequence[Row]) -> str | None:
    return moved_down(task.env, summary(fresh, "best", task.measure), summary(pin, "best", task.measure))
