"""qhat beside RLlib's and TorchRL's DQN on a local Ray cluster: `python benchmarks/cluster_peers.py`.

Writes docs/results/cluster_peers.md: seconds until 475 on CartPole-v1 with two runners, and steps/s with
learning on a simulator that waits 5 ms. Each measurement is a process with a cluster of this machine; the
three systems take turns, in the opposite order every other round. `make bench` runs it after its own parts.
"""

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers_environment
from cluster_peers_page import page
from contenders import CLUSTER, CLUSTER_PARTS, FULL, Contender
from run import run_alone
from tables import Results

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs" / "results" / "cluster_peers.md"
PARTS = ("cartpole", "slow")
SEEDS, LIMIT = 3, 600.0
FIRST_SEED = 100
"""CartPole's lower seeds chose the default recipe (docs/benchmarks.md)."""
STARTS = 180.0
"""Seconds that a process has for its start and its end, beside the limit."""
OURS = ("qhat", "jax", "ray", "gymnasium", "numpy")


def python_of_peers(given: Path | None) -> Path:
    """Return the Python that has both peers. Ends the program with a sentence where there is none."""
    if given and not given.exists():
        raise SystemExit(f"--peers-python is '{given}'; expected a Python that has RLlib and TorchRL.")
    found = given or peers_environment.installed("cluster")
    if found is None:
        folder = peers_environment.PLACES["cluster"][1]
        raise SystemExit(
            f"{folder} does not have RLlib and TorchRL in the versions of requirements-cluster.txt;"
            " `python benchmarks/peers_environment.py cluster` installs them there (1.7 GB)."
        )
    return found


def chosen(only: Sequence[str], limit: float) -> list[Contender]:
    """Return the contenders of some parts, CartPole's with a limit of seconds."""
    size = ("--max-seconds", round(limit), round(limit))
    return [
        dataclasses.replace(each, size=size) if each.part == "cartpole" else each
        for each in CLUSTER
        if each.part.partition("-")[0] in only
    ]


def measured(contender: Contender, python: Path, seed: int, limit: float) -> dict[str, Any] | None:
    """Run one contender; return what it printed, or `None` (said on stderr) where it failed."""
    command = [str(python), str(HERE / contender.script), *contender.command(FULL, seed)]
    status, out, said, _ = run_alone(command, limit + STARTS)
    try:
        found = json.loads(out.strip().splitlines()[-1]) if status == 0 else None
    except (ValueError, IndexError):
        found = None
    if found is None:
        print(f"{contender.name} failed (status {status}):\n{said[-2_000:]}", file=sys.stderr)
    return found


def measure(contenders: list[Contender], python: Path, seeds: int, limit: float) -> Results:
    """Run every contender with every seed, part by part."""
    results: Results = {each.name: [] for each in contenders}
    for part in CLUSTER_PARTS:
        members = [each for each in contenders if each.part == part]
        for turn in range(seeds):
            for each in members if turn % 2 == 0 else reversed(members):
                home = Path(sys.executable) if each.home == "qhat" else python
                found = measured(each, home, FIRST_SEED + turn, limit)
                print(f"{each.name}, seed {FIRST_SEED + turn}: {json.dumps(found)}", file=sys.stderr)
                results[each.name].append(found)
    return results


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="rounds, each with another seed")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a training on CartPole")
    parser.add_argument("--out", type=Path, default=OUT, help="page to write")
    parser.add_argument("--peers-python", type=Path, metavar="FILE", help="a Python that has the peers")
    options = parser.parse_args()
    if options.seeds < 1 or options.limit <= 0:
        parser.error("expected --seeds of at least 1, and a --limit above 0.")
    python = python_of_peers(options.peers_python)
    from qhat.system.machine import machine

    busy = peers_environment.load()
    contenders = chosen(options.only, options.limit)
    results = measure(contenders, python, options.seeds, options.limit)
    facts = {
        "command": _command(options),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": busy,
        "qhat": _versions(Path(sys.executable), OURS),
        "peers": _versions(python, peers_environment.required("cluster")),
    }
    options.out.write_text(page(contenders, results, facts, FIRST_SEED), encoding="utf-8")
    print(f"Written: {options.out.name}")
    return 1 if any(None in rows for rows in results.values()) else 0


def _command(options: argparse.Namespace) -> str:
    words = ["python benchmarks/cluster_peers.py"]
    words += [f"--only {' '.join(options.only)}"] * (set(options.only) != set(PARTS))
    words += [f"--seeds {options.seeds}"] * (options.seeds != SEEDS)
    words += [f"--limit {options.limit:g}"] * (options.limit != LIMIT)
    return " ".join(words)


def _versions(python: Path, packages: Sequence[str]) -> str:
    found = peers_environment.versions(python, *packages)
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    sys.exit(main())
