"""Measure qhat and its peers side by side: what `make bench` runs.

In every round each contender runs once, in a separate process; every other round goes in the
opposite order. Ratios are taken within a round, and their median is reported, as a machine's speed
drifts from minute to minute.
"""

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

import peers_environment
from contenders import CONTENDERS, FULL, PARTS, QUICK, Contender
from qhat.system.machine import machine
from tables import TABLES, Results, Table

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs" / "results" / "benchmarks.md"
ROUNDS = 3
TIMEOUT = 1_800.0
OURS = ("qhat", "jax", "jaxlib", "equinox", "optax", "gymnax", "gymnasium", "numpy")


def choose(only: Sequence[str]) -> list[Contender]:
    """Return the contenders whose part, group or name is in `only`; all, where it is empty."""
    known = {*PARTS, *(c.name for c in CONTENDERS), *(c.group for c in CONTENDERS if c.group)}
    if unknown := [name for name in only if name not in known]:
        raise SystemExit(f"--only {unknown[0]} is not known; expected one of {', '.join(sorted(known))}.")
    return [c for c in CONTENDERS if not only or {c.part, c.group, c.name} & set(only)]


def run_one(contender: Contender, python: Path, size: int, turn: int, console: Console) -> dict | None:
    """Run one contender once. Returns what it measured, or `None` (said on stderr) if it failed."""
    command = [str(python), str(HERE / contender.script), *contender.command(size, turn)]
    status, out, said, peak = run_alone(command, TIMEOUT)
    try:
        measured = {**json.loads(out.strip().splitlines()[-1]), "peak_mib": peak} if status == 0 else None
    except (ValueError, IndexError):
        measured = None
    if measured is None:
        console.print(f"{contender.name} failed (status {status}):\n{said[-2_000:]}", markup=False)
        return None
    if "updates" in measured and measured["updates"] != measured["steps"] * contender.replay_ratio:
        wanted = f"{contender.replay_ratio:g} updates per step"
        console.print(f"{contender.name} did not do {wanted}: {measured}", markup=False)
        return None
    return measured


def run_alone(command: Sequence[str], timeout: float) -> tuple[int, str, str, float]:
    """Run a command; return its status, stdout, stderr, and the most memory that it had, in MiB.

    That is the kernel's own count of the process (`ru_maxrss`), children that it waited for excluded.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=out, stderr=said)
        timer = threading.Timer(timeout, _kill, [process.pid])
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return process.returncode, out.read(), said.read(), usage.ru_maxrss / unit


def _kill(pid: int) -> None:
    """Kill a process and what it started: Ray's processes outlive a driver that is killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def run_all(
    chosen: list[Contender], pythons: dict[str, Path], size: int, rounds: int, console: Console
) -> Results:
    """Run every contender `rounds` times, part by part, in alternating order."""
    results: Results = {contender.name: [] for contender in chosen}
    for part in PARTS:
        members = [contender for contender in chosen if contender.part == part]
        for turn in range(rounds):
            for contender in members if turn % 2 == 0 else reversed(members):
                console.print(f"{part}, round {turn + 1} of {rounds}: {contender.name}")
                results[contender.name].append(
                    run_one(contender, pythons[contender.home], size, turn, console)
                )
    return results


def page(tables: list[Table], facts: dict[str, str]) -> str:
    """Return the page that is written to the documentation."""
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`; do not edit. All systems ran in one go, in alternating order,"
            " each in a separate process. The figure is the median of the rounds, beside it the"
            " lowest and the highest; a ratio is the median of the ratios within each round. Quote"
            " the ratios: the figures belong to the machine.",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            "\n\n".join(table.markdown() for table in tables),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a part or a contender; repeatable",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write; docs/results/benchmarks.md for a whole run, else none",
    )
    parser.add_argument(
        "--peers-python",
        type=Path,
        metavar="FILE",
        help="a Python that has the peers, in place of .venv-bench's",
    )
    parser.add_argument(
        "--rejax-python",
        type=Path,
        metavar="FILE",
        help="a Python that has rejax, in place of .venv-bench-rejax's",
    )
    options = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    chosen = choose(options.only)
    partial = options.quick or bool(options.only)
    out = options.out or (None if partial else OUT)
    given = {"qhat": Path(sys.executable), "peers": options.peers_python, "rejax": options.rejax_python}
    homes = dict.fromkeys(contender.home for contender in chosen)
    pythons = {home: given[home] or peers_environment.ensure(home) for home in homes}
    rounds = 1 if options.quick else ROUNDS
    facts = {
        "machine": machine(),
        "processors in use before the start": peers_environment.load(),
        "date": datetime.date.today().isoformat(),
        "command": _command(options.quick, options.only),
        "rounds": "1, cut short: these figures mean nothing" if options.quick else str(rounds),
        "qhat's environment": _list(peers_environment.versions(sys.executable, *OURS)),
    }
    for home in pythons:
        if home != "qhat":
            peer_versions = peers_environment.versions(pythons[home], *peers_environment.required(home))
            facts[f"the environment of the {home}" if home == "peers" else f"{home}'s environment"] = _list(
                peer_versions
            )
    results = run_all(chosen, pythons, QUICK if options.quick else FULL, rounds, console)
    tables = [
        TABLES[part](members, results)
        for part in PARTS
        if (members := [contender for contender in chosen if contender.part == part])
    ]
    screen = Console()
    for table in tables:
        screen.print(table.rich())
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(tables, facts), encoding="utf-8")
        console.print(f"Written: {out.name}")
    return 1 if any(None in measured for measured in results.values()) else 0


def _command(quick: bool, only: Sequence[str]) -> str:
    if not quick and not only:
        return "`make bench`"
    words = ["--quick"] * quick + [f"--only {name}" for name in only]
    return f"`python benchmarks/run.py {' '.join(words)}`"


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


if __name__ == "__main__":
    sys.exit(main())
