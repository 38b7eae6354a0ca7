"""Measure qhat and its peers side by side: what `make bench` runs.

In every round each contender runs once, in a process of its own; every other round goes in the
opposite order. Ratios are taken within a round, and their median is reported, as a machine's speed
drifts from minute to minute.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import peers_environment
from contenders import CONTENDERS, FULL, PARTS, QUICK, Contender
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


def run_one(contender: Contender, peers: Path, size: int, turn: int, console: Console) -> dict | None:
    """Run one contender once. Returns what it measured, or `None` (said on stderr) if it failed."""
    python = str(peers) if contender.peer else sys.executable
    command = [python, str(HERE / contender.script), *contender.command(size, turn)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        measured = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.CalledProcessError as failure:
        console.print(f"{contender.name} failed:\n{failure.stderr[-2_000:]}", markup=False)
        return None
    except (subprocess.TimeoutExpired, ValueError, IndexError) as failure:
        console.print(f"{contender.name} failed: {failure}", markup=False)
        return None
    if "updates" in measured and measured["updates"] != measured["steps"] * contender.replay_ratio:
        wanted = f"{contender.replay_ratio:g} updates per step"
        console.print(f"{contender.name} did not do {wanted}: {measured}", markup=False)
        return None
    return measured


def run_all(chosen: list[Contender], peers: Path, size: int, rounds: int, console: Console) -> Results:
    """Run every contender `rounds` times, part by part, in alternating order."""
    results: Results = {contender.name: [] for contender in chosen}
    for part in PARTS:
        members = [contender for contender in chosen if contender.part == part]
        for turn in range(rounds):
            for contender in members if turn % 2 == 0 else reversed(members):
                console.print(f"{part}, round {turn + 1} of {rounds}: {contender.name}")
                results[contender.name].append(run_one(contender, peers, size, turn, console))
    return results


def page(tables: list[Table], facts: dict[str, str]) -> str:
    """Return the page that is written to the documentation."""
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`; do not edit. All systems ran in one go, in alternating order,"
            " each in a process of its own. The figure is the median of the rounds, beside it the"
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
    options = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    chosen = choose(options.only)
    partial = options.quick or bool(options.only)
    out = options.out or (None if partial else OUT)
    needs_peers = any(contender.peer for contender in chosen)
    ensured = peers_environment.ensure if needs_peers else lambda: Path(sys.executable)
    peers = options.peers_python or ensured()
    rounds = 1 if options.quick else ROUNDS
    facts = {
        "machine": peers_environment.machine(),
        "load before the start": peers_environment.load(),
        "date": datetime.date.today().isoformat(),
        "command": _command(options.quick, options.only),
        "rounds": "1, cut short: these figures mean nothing" if options.quick else str(rounds),
        "qhat's environment": _list(peers_environment.versions(sys.executable, *OURS)),
    }
    if needs_peers:
        peer_versions = peers_environment.versions(peers, *peers_environment.required())
        facts["the peers' environment"] = _list(peer_versions)
    results = run_all(chosen, peers, QUICK if options.quick else FULL, rounds, console)
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
