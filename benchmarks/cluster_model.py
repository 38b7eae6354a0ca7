"""How many environment steps per second N actors and one learner do, predicted from what their parts cost.

    python benchmarks/cluster_model.py --measure    # the parts: into benchmarks/cluster_costs.json
    python benchmarks/cluster_model.py --check      # real runs of 1 to 16 actors: into the same file
    python benchmarks/cluster_model.py              # writes docs/results/cluster_model.md from that file

Measure where nothing else runs. `cluster_simulation.py` is the model, `cluster_measure.py` and
`cluster_check.py` do what their names say.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cluster_page
from cluster_check import checked
from qhat.system.devices import prepare
from qhat.system.machine import machine

HERE = Path(__file__).resolve().parent
COSTS = HERE / "cluster_costs.json"
PAGE = HERE.parent / "docs" / "results" / "cluster_model.md"


def main() -> None:
    """Measure, run or predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the costs on this machine")
    parser.add_argument("--check", action="store_true", help="do real runs, for comparison")
    parser.add_argument("--case", help="measure this case alone, and print its costs")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(_measured(options.case)))
        return
    known: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.exists() else {}
    if options.measure:
        known |= {"cases": dict(_cases()), "machine": machine(), "date": str(datetime.date.today())}
        _write(known)
    if options.check:
        known["runs"] = []
        for run in checked():
            known["runs"].append(run)
            print(run, flush=True)
            _write(known)
    PAGE.write_text(cluster_page.page(known), encoding="utf-8")
    print(f"Written: {PAGE.name}")


def _write(known: dict[str, Any]) -> None:
    COSTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _cases() -> Iterable[tuple[str, dict[str, Any]]]:
    """Measure every case in a process."""
    for name in ("small", "robot", "frames"):
        command = [sys.executable, __file__, "--case", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1], flush=True)
        yield name, json.loads(done.stdout.splitlines()[-1])


def _measured(name: str) -> dict[str, Any]:
    import cluster_measure
    from qhat.runs.threads import threads_for

    case = next(case for case in cluster_measure.CASES if case.name == name)
    prepare(1, threads=threads_for(case.recipe, pictures=case.kind == "frames"))
    costs = cluster_measure.measure(case)
    return {"about": case.about, "costs": dataclasses.asdict(costs)}


if __name__ == "__main__":
    main()
