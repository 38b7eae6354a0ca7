"""What actors on a cluster gain, and that they learn the same: `python benchmarks/cluster_actors.py`.

Writes docs/results/cluster_actors.md: steps/s of a simulator that waits 5 ms, with 1 to 16 actors; a task
that computes, beside `--vector async`; LunarLander's curve beside that of one process, over 5 seeds; a run
in which 100 processes are killed, and one in which 10 are, each on its own. Each run is a process with a
local cluster of this machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_kills import kills, lines_of_kills, lines_of_one, one_by_one

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs" / "results" / "cluster_actors.md"
SLOW, BUSY = "gym:cluster_tasks:Slow-v0", "gym:cluster_tasks:Busy-v0"
COUNTS = (1, 2, 4, 8, 16)
SECONDS = 12.0
"""Of a measurement, about."""
ROUNDS = 3
CURVE: dict[str, Any] = {"steps": 60_000, "eval_every": 10_000, "eval_episodes": 10, "num_envs": 4}
SEEDS = 5
EPSILON = sum(0.4 ** (1 + 7 * actor / 3) for actor in range(4)) / 4
"""Mean ε of the four actors, where it has fallen."""


def rate(env: str, steps: int, **settings: Any) -> float:
    """Train, and return the environment steps/s from a fifth of the run to its end."""
    import qhat

    times: list[tuple[float, int]] = []

    def note(now: Any) -> None:
        times.append((time.perf_counter(), now.step))

    every = {"eval_every": steps, "save_every": steps, "eval_episodes": 1, "progress": note}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qhat.train(env, "dqn", steps=steps, run_dir=Path(folder) / "run", **every, **settings)
    # The last row comes after an evaluation.
    inner = [each for each in times if steps / 5 <= each[1] < steps]
    (began, first), (ended, last) = inner[0], inner[-1]
    return (last - first) / (ended - began)


def scale(actors: int) -> dict[str, Any]:
    steps = int(actors * 200 * SECONDS)
    return {"rate": rate(SLOW, steps, actors=actors, actor_cpus=0.1, cluster="local")}


def busy(kind: str) -> dict[str, Any]:
    """Two copies of a task that computes, in two processes: `async`, or `actors`."""
    steps = int(4_000 * SECONDS)
    if kind == "async":
        return {"rate": rate(BUSY, steps, num_envs=2, vector="async")}
    return {"rate": rate(BUSY, steps, num_envs=2, actors=2, actor_cpus=0.5, cluster="local")}


def curve(kind: str) -> dict[str, Any]:
    """Every seed's evaluations: of `one` process, of one with the actors' `mean` ε, or of `actors`."""
    import numpy as np

    import qhat
    from qhat.axes.explore import EpsilonGreedy
    from qhat.runs.curves import read_evaluations

    found = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind != "actors":
            # The second process explores as much as four actors do together.
            explore = EpsilonGreedy(end=EPSILON)
            more: dict[str, Any] = {"explore": explore} if kind == "mean" else {}
            place = Path(folder) / "run"
            run = qhat.train("gym:LunarLander-v3", seeds=SEEDS, run_dir=place, **CURVE, **more)
            found.append(read_evaluations(run.folder.path))
        for seed in range(SEEDS) if kind == "actors" else ():
            more = {"actors": 4, "actor_cpus": 0.25, "cluster": "local", "seed": seed}
            run = qhat.train("gym:LunarLander-v3", run_dir=Path(folder) / str(seed), **CURVE, **more)
            found.append(read_evaluations(run.folder.path))
    scores = np.concatenate([each.score for each in found])
    return {"steps": found[0].step.tolist(), "scores": scores.tolist()}


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "scale": lambda word: scale(int(word)), "busy": busy, "curve": curve,
    "kills": lambda word: kills(int(word)), "one": lambda word: one_by_one(int(word)),
}  # fmt: skip


def alone(part: str, word: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--one", part, word]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def tables(parts: list[str], times: int) -> list[str]:
    """Measure the parts, and return the lines of their tables.

    Args:
        times: rounds of what has ratios.
    """
    lines: list[str] = []
    if "scale" in parts:
        rounds = [{n: alone("scale", str(n))["rate"] for n in COUNTS} for _ in range(times)]
        lines += [
            "## A simulator that waits 5 ms",
            "",
            "| actors | steps/s | times one actor |",
            "|---|---|---|",
        ]
        for n in COUNTS:
            ratio = statistics.median(each[n] / each[1] for each in rounds)
            lines.append(f"| {n} | {statistics.median(each[n] for each in rounds):,.0f} | {ratio:.1f} |")
        lines.append("")
    if "busy" in parts:
        pairs = [(alone("busy", "actors")["rate"], alone("busy", "async")["rate"]) for _ in range(times)]
        actors, processes = (statistics.median(each[at] for each in pairs) for at in (0, 1))
        ratio = statistics.median(one / other for one, other in pairs)
        lines += [
            "## A task that computes, on two cores", "", "| two copies in | steps/s |", "|---|---|",
            f"| actors | {actors:,.0f} |", f"| processes (`--vector async`) | {processes:,.0f} |", "",
            f"Ratio: {ratio:.2f} (median of {times} rounds).", "",
        ]  # fmt: skip
    if "curve" in parts:
        lines += _curve()
    if "kills" in parts:
        lines += lines_of_kills(alone("kills", "100"))
    if "one" in parts:
        lines += lines_of_one(alone("one", "10"))
    return lines


def _curve() -> list[str]:
    import numpy as np

    kinds = ("one", "mean", "actors")
    found = {kind: alone("curve", kind) for kind in kinds}
    lines = [
        f"## LunarLander at equal steps, {SEEDS} seeds", "",
        f"| steps | one process | one process, ε ends at {EPSILON:.3f} | 4 actors |"
        " actors − one, 95% interval | actors − one with their ε, 95% interval |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    random_ = np.random.default_rng(0)
    for at, step in enumerate(found["one"]["steps"]):
        scores = {kind: np.array(found[kind]["scores"])[:, at] for kind in kinds}
        cells = [f"{step:,.0f}", *(f"{scores[kind].mean():.0f}" for kind in kinds)]
        draws, b = random_.integers(0, SEEDS, (2, 10_000, SEEDS)), scores["actors"]
        for a in (scores["one"], scores["mean"]):
            differences = b[draws[1]].mean(axis=1) - a[draws[0]].mean(axis=1)
            low, high = np.percentile(differences, [2.5, 97.5])
            cells.append(f"{b.mean() - a.mean():+.0f} ({low:.0f} to {high:.0f})")
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines, "",
        "Means of the seeds' evaluations; the interval is a bootstrap over seeds. Each actor's ε falls to"
        f" one of Ape-X's, and {EPSILON:.3f} is the mean of these.", "",
    ]  # fmt: skip


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--one", nargs=2, help="measure one thing, and print it")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of what has ratios")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(PARTS[options.one[0]](options.one[1])))
        return
    from qhat.system.machine import machine

    lines = tables(options.only, options.rounds)
    words = f" --only {' '.join(options.only)}" if options.only != list(PARTS) else ""
    words += f" --rounds {options.rounds}" if options.rounds != ROUNDS else ""
    head = [
        "# Actors on a cluster", "",
        f"Written by `python benchmarks/cluster_actors.py{words}` on {datetime.date.today()};"
        f" {machine()}. A local Ray cluster of this machine; docs/cluster.md says what actors are.", "",
    ]  # fmt: skip
    options.out.write_text("\n".join([*head, *lines]).rstrip() + "\n", encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
