"""What benchmarks of qhat beside one peer share: their flags, and results that are kept between starts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
Keep = dict[str, dict[str, dict[str, Any]]]
"""What a seed did, by `task system` and the seed's number."""


def flags(description: str | None, tasks: Sequence[str], seeds: int, name: str) -> argparse.ArgumentParser:
    """Return the flags of a benchmark with results in `docs/results/NAME.json` and `NAME.md`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--seed", type=int, default=0, help="number of the first seed")
    parser.add_argument("--only", nargs="*", default=[], choices=tasks, help="all unless given")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's")
    parser.add_argument("--keep", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.md")
    return parser


def trained(
    args: argparse.Namespace,
    tasks: Sequence[str],
    systems: Mapping[str, Callable[[str, int], dict[str, Any]]],
) -> Keep:
    """Train and judge every system on each task, but for the seeds that are done; keep each result.

    Args:
        systems: by name, a function of a task and a seed that returns what the seed did.
    """
    done: Keep = json.loads(args.keep.read_text()) if args.keep.exists() else {}
    for seed in range(args.seed, args.seed + args.seeds):
        for task in args.only or tasks:
            for system, train in systems.items():
                results = done.setdefault(f"{task} {system}", {})
                if str(seed) not in results:
                    results[str(seed)] = train(task, seed)
                    print(task, system, seed, results[str(seed)], flush=True)
                    args.keep.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done
