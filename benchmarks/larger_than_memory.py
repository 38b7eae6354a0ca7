"""Learning from more logs than memory has room for: writes docs/results/larger_than_memory.md.

    python benchmarks/larger_than_memory.py --gib 26

The mixed log of TurtleBot3-v0 (benchmarks/offline_data.py) is written again and again, each time with its
episodes in another order, until the data have so many GiB. The same network learns from them through
windows of two sizes, and from the log itself, which replay has as a whole.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import qhat
from offline_data import TASKS, made, path_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "larger_than_memory.md"
ENV, SET, SEEDS, FIRST, EPISODES = "TurtleBot3-v0", "mixed", 5, 400, 200
UPDATES = 20_000
SETTINGS: dict[str, Any] = {"hidden": (128, 128), "batch_size": 64}


def write(folder: Path, gib: float) -> int:
    """Write the arrays of a folder; return the rows."""
    log = dict(np.load(path_of(ENV, SET)))
    ends = np.flatnonzero(log["terminated"] | log["truncated"]) + 1
    episodes = np.split(np.arange(len(log["reward"])), ends[:-1])
    size = sum(column.nbytes for column in log.values())
    copies, rng = max(1, round(gib * 2**30 / size)), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    orders = [rng.permutation(len(episodes)) for _ in range(copies)]
    for name, column in log.items():
        path, shape = folder / f"{name}.npy", (copies * len(column), *column.shape[1:])
        if path.exists():
            continue
        mapped = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", column.dtype, shape)
        for copy, order in enumerate(orders):
            rows = np.concatenate([episodes[each] for each in order])
            mapped[copy * len(column) : (copy + 1) * len(column)] = column[rows]
        mapped.flush()
        path.with_suffix(".part").rename(path)
    return copies * len(log["reward"])


class Watch(threading.Thread):
    """Looks at a process's own memory (`RssAnon`), without what is mapped from files."""

    def __init__(self, process: psutil.Popen) -> None:
        super().__init__(daemon=True)
        self.process, self.most = process, 0

    def run(self) -> None:
        while self.process.is_running():
            try:
                text = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            found = next((line for line in text.splitlines() if line.startswith("RssAnon")), None)
            self.most = max(self.most, 0 if found is None else int(found.split()[1]) * 1024)
            time.sleep(0.2)


def trained(folder: Path, source: Path, window: int) -> dict[str, Any]:
    """Learn in a process of its own; return its time, memory and score."""
    words = [
        "learn", source, "--env", ENV, "--hidden", "128,128", "--batch-size", 64, "--steps", UPDATES,
        "--seeds", SEEDS, "--seed", FIRST, "--eval-every", UPDATES, "--eval-episodes", 1,
        "--run-dir", folder,
    ]  # fmt: skip
    words += ["--training", f"logs:window={window}"] if window else []
    if not (folder / "best").exists():
        began = time.perf_counter()
        process = psutil.Popen([sys.executable, "-m", "qhat", *map(str, words)], stdout=subprocess.DEVNULL)
        watch = Watch(process)
        watch.start()
        if process.wait() != 0:
            raise SystemExit(f"{folder.name} failed")
        took = {"seconds": time.perf_counter() - began, "memory": watch.most}
        (folder / "took.json").write_text(json.dumps(took))
    lines = (folder / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rates = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
    speeds = [float(row["steps_per_second"]) for row in rates if row.get("steps_per_second")]
    score = qhat.evaluate(folder, episodes=EPISODES, checkpoint="last")
    low, high = score.ci95 or (float("nan"), float("nan"))
    return {
        **json.loads((folder / "took.json").read_text()),
        "updates_per_second": float(np.median(speeds)),
        "score": [score.iqm, low, high],
    }


def page(rows: int, gib: float, results: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    memory = psutil.virtual_memory().total / 2**30
    lines = [
        "# Logs that are larger than memory",
        "",
        f"Written by `python benchmarks/larger_than_memory.py --gib {gib:g}`; do not edit.",
        "",
        f"The mixed log of {ENV} ([its data](offline.md)), written again and again with its episodes in",
        f"other orders: {rows:,} rows, {gib:g} GiB, on a machine with {memory:.1f} GiB of memory.",
        f"`qhat learn` with the recipe `cql`, {UPDATES:,} updates of {SEEDS} seeds in one program, two",
        "layers of 128, batches of 64. Time is that of the command: start, compilation, reading all rows",
        "once before training, updates, one evaluation. Memory is the most that the process had of its own",
        "(`RssAnon`), without the pages of the files. Updates per second are of all seeds together, while",
        f"it learns. Score: IQM of the last weights in {EPISODES} fresh episodes of each seed [95%",
        "interval over seeds].",
        "",
        "| replay | seconds | own memory, GiB | updates/s | score |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, each in results.items():
        iqm, low, high = each["score"]
        lines.append(
            f"| {name} | {each['seconds']:,.0f} | {each['memory'] / 2**30:.2f} |"
            f" {each['updates_per_second']:,.0f} | {iqm:.1f} [{low:.1f}, {high:.1f}] |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the data, learn, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gib", type=float, default=26.0)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "larger_than_memory")
    args = parser.parse_args()
    made(TASKS[ENV])
    data = args.runs / f"data_{args.gib:g}"
    rows = write(data, args.gib)
    log = path_of(ENV, SET)
    results = {"the log itself, all of it": trained(args.runs / "whole", log, 0)}
    for window in (50_000, 500_000):
        name = f"a window of {window:,} rows over {args.gib:g} GiB"
        results[name] = trained(args.runs / f"window_{window}", data, window)
        print(name, results[name], flush=True)
    PAGE.write_text(page(rows, args.gib, results))


if __name__ == "__main__":
    main()
