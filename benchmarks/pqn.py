"""PQN in MinAtar's five games, ten million frames each: `python benchmarks/pqn.py`.

The games are those of the authors' program (github.com/mttga/purejaxql): actions do not stick, only actions
that do something can be chosen, and episodes are cut at 1,000 steps. What is done is kept in
docs/results/pqn.json, and a second call continues with what is missing; `--only Breakout`, `--seeds 2` do
less. `--speed 1` measures frames per second on core 1, and with `--purejaxql FOLDER`, a checkout with the
environment that benchmarks/peers/purejaxql_pqn.py describes, those of the authors' program.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import qhat
from pqn_speed import OPTIONS, RECIPES
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

ROOT = Path(__file__).resolve().parent.parent
GAMES = ("Breakout", "SpaceInvaders", "Freeway", "Asterix", "Seaquest")
STEPS, EVAL_EVERY, EPISODES = 10_000_000, 500_000, 100
SHOWN = (1_000_000, 2_500_000, 5_000_000, 7_500_000, STEPS)
"""Frames at which the page has a learning curve."""
ROUNDS = 3
ENOUGH = 5
"""Seeds from which on an interval says something."""
SYSTEMS = {
    "pqn_minatar": "qhat, `pqn_minatar`",
    "minatar-5m": "qhat from replay, the recipe of [five million frames](minatar-5m.md)",
    "preset": "qhat from replay, the preset of MinAtar",
    "purejaxql": "purejaxql, `pqn_minatar.py`",
}
RIVALS = tuple((env, recipe) for env in ("CartPole-v1", "MountainCar-v0") for recipe in ("pqn", "qhat"))
FRAMES = {"preset": 40_960, "purejaxql": 81_920}
"""Frames of one measurement; of the others 163,840."""

ABOUT = f"""# PQN in MinAtar

Written by `benchmarks/pqn.py`; do not edit.

The recipe `pqn_minatar`: 128 environments, 32 steps, 2 passes of 32 batches, a learning rate that
falls from 5e-4 to 0, γ 0.99, λ 0.65, ε from 1 to 0.05 in a tenth of the run, gradients clipped to
norm 10, RAdam, a 3×3 convolution of 16 filters and a layer of 128, both with layer normalisation.
These are the settings of the authors' `pqn_minatar.yaml`
([purejaxql](https://github.com/mttga/purejaxql)), in their games: gymnax's, without sticky actions,
with the actions that do something, and cut at 1,000 steps. The other pages of MinAtar have sticky
actions and six actions: their scores are not comparable.

    python benchmarks/pqn.py

## Scores

Mean return of {EPISODES} greedy episodes of the last weights, in the reference environment:
interquartile mean over seeds, with the stratified bootstrap's 95% interval from five seeds on.
"""
BESIDE = f"""We know of no scores in MinAtar that the authors of PQN have published: their repository
has none. What stands beside ours is their program's speed. It differs in what it learns: there a cut
at 1,000 steps counts as the end of an episode, and the ones of a picture are 1/255 at the network's
input.

## Learning curves

Mean return of the seeds' evaluations ({EPISODES} episodes each) after so many frames.
"""
FEW = """## Small tasks

The recipes `pqn` (16 environments) and `qhat` (from replay), a run of 100,000 steps, seeds 0 to 4: mean
return of the evaluations after so many steps, and that of the lowest seed.
"""
SPEED = f"""## Speed

Breakout on one core of an Intel Xeon, one seed: frames per second of the processor's time, and of the
clock's (medians of {ROUNDS} interleaved rounds of 2 calls). Other programs ran on the machine at the same
time: the clock says little, and caches were shared.

    python benchmarks/pqn.py --page --speed 1 --purejaxql purejaxql
"""


def main() -> None:
    """Do what is missing; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=GAMES, action="append", help="games to train")
    parser.add_argument("--page", action="store_true", help="train nothing")
    parser.add_argument("--speed", type=int, metavar="CORE", help="measure speed again, on this core")
    parser.add_argument("--purejaxql", type=Path, metavar="FOLDER")
    parser.add_argument("--keep", type=Path, default=ROOT / "docs" / "results" / "pqn.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "pqn.md")
    options = parser.parse_args()
    done: dict[str, Any] = json.loads(options.keep.read_text()) if options.keep.exists() else {}

    def keep() -> None:
        options.keep.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        options.out.write_text(page(done), encoding="utf-8")

    rows = done.setdefault("runs", {})
    few = done.setdefault("few", {})
    for env, recipe in RIVALS:
        if f"{env} {recipe}" not in few:
            few[f"{env} {recipe}"] = small(env, recipe)
            keep()
    if options.speed is not None:
        done["speed"] = {}
        for _ in range(ROUNDS):
            for name in SYSTEMS:
                if measured := speed(name, options.speed, options.purejaxql):
                    done["speed"].setdefault(name, []).append(measured)
                    keep()
    for game in () if options.page else options.only or GAMES:
        for seed in range(options.seeds):
            if f"{game} {seed}" not in rows:
                rows[f"{game} {seed}"] = trained(game, seed)
                print(game, seed, rows[f"{game} {seed}"], flush=True)
                keep()
    keep()


def trained(game: str, seed: int) -> dict[str, Any]:
    """Train a seed; return its learning curve and the score of its last weights."""
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        run = qhat.train(
            f"{game}-MinAtar", recipe="pqn_minatar", steps=STEPS, seed=seed, env_kwargs=OPTIONS,
            eval_every=EVAL_EVERY, eval_episodes=EPISODES, save_every=STEPS, run_dir=Path(folder) / "run",
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        with run.folder.evaluations.open(encoding="utf-8") as file:
            curve = {row["step"]: round(float(row["mean_return"]), 3) for row in csv.DictReader(file)}
        score = qhat.evaluate(run, episodes=EPISODES, checkpoint="last")
    return {
        "curve": curve, "last": score.mean_return, "seconds": round(seconds), "cpu_seconds": round(cpu),
        "version": qhat.__version__,
    }  # fmt: skip


def small(env: str, recipe: str) -> dict[str, list[float]]:
    """Return what the seeds' evaluations gave, by step."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = qhat.train(
            env, recipe=recipe, steps=100_000, seeds=5, eval_every=10_000, eval_episodes=50,
            run_dir=Path(folder) / "run",
        )  # fmt: skip
        with run.folder.evaluations.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["step"], []).append(round(float(row["mean_return"]), 1))
    return found


def speed(name: str, core: int, purejaxql: Path | None) -> dict[str, Any] | None:
    """Return the seconds of one measurement of a system; `None` without it."""
    here = Path(__file__).parent
    command = [sys.executable, here / "pqn_speed.py", "--recipe", name]
    if name not in RECIPES:
        if purejaxql is None:
            return None
        command = [purejaxql / ".venv/bin/python", here / "peers" / "purejaxql_pqn.py", purejaxql]
    command += ["--repeats", "2", "--frames", str(FRAMES.get(name, 163_840))]
    environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    parts = ["taskset", "-c", str(core), *map(str, command)]
    done = subprocess.run(parts, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def page(done: dict[str, Any]) -> str:
    """Write the page of what is there."""
    missing = [game for game in GAMES if not _runs(done, game)]
    few = [game for game in GAMES if 0 < len(_runs(done, game)) < ENOUGH]
    shown = " | ".join(f"{frames / 1e6:g} M" for frames in SHOWN)
    notes = []
    if missing:
        notes += [f"Not run yet: {', '.join(missing)}.", ""]
    if few:
        notes += [f"Fewer than five seeds so far, no result yet: {', '.join(few)}.", ""]
    return "\n".join(
        [
            ABOUT,
            "| game | seeds | after ten million frames | lowest, highest seed | seconds of a core, each |",
            "|---|---:|---:|---:|---:|",
            *(_score(done, game) for game in GAMES),
            "",
            *notes,
            BESIDE,
            f"| game | {shown} |",
            "|---|" + "---:|" * len(SHOWN),
            *(_curve(done, game) for game in GAMES if _runs(done, game)),
            "",
            *_few_lines(done.get("few", {})),
            *_speed_lines(done.get("speed", {})),
        ]
    )


def _runs(done: dict[str, Any], game: str) -> list[dict[str, Any]]:
    return [run for name, run in done["runs"].items() if name.split()[0] == game]


def _score(done: dict[str, Any], game: str) -> str:
    runs = _runs(done, game)
    if not runs:
        return f"| {game} | | not run yet | | |"
    scores = [run["last"] for run in runs]
    middle, spread = f"{iqm(scores):.1f}", f"{min(scores):.1f}, {max(scores):.1f}"
    if len(scores) >= ENOUGH:
        low, high = stratified_bootstrap_ci([[score] for score in scores], iqm).ravel()
        middle = f"{middle} [{low:.1f}, {high:.1f}]"
    cpu = statistics.median(run["cpu_seconds"] for run in runs)
    return f"| {game} | {len(runs)} | {middle} | {spread} | {cpu:.0f} |"


def _curve(done: dict[str, Any], game: str) -> str:
    cells = []
    for frames in SHOWN:
        at = [
            min(run["curve"].items(), key=lambda point: abs(int(point[0]) - frames))[1]
            for run in _runs(done, game)
        ]
        cells.append(f"{statistics.mean(at):.1f}")
    return f"| {game} | " + " | ".join(cells) + " |"


def _few_lines(few: dict[str, dict[str, list[float]]]) -> list[str]:
    if not few:
        return []
    shown = (10_000, 20_000, 30_000, 50_000, 100_000)
    lines = []
    for name, curve in few.items():
        at = [min(curve.items(), key=lambda point: abs(int(point[0]) - step))[1] for step in shown]
        cells = [f"{statistics.mean(scores):.0f} ({min(scores):.0f})" for scores in at]
        env, recipe = name.split()
        lines.append(f"| {env} | `{recipe}` | " + " | ".join(cells) + " |")
    heads = " | ".join(f"{step:,}" for step in shown)
    return [FEW, f"| task | recipe | {heads} |", "|---|---|" + "---:|" * len(shown), *lines, ""]


def _speed_lines(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    cpu = {name: _frames(rounds, "cpu") for name, rounds in measured.items()}
    best = cpu.get("purejaxql") or cpu["pqn_minatar"]
    lines = [
        f"| {SYSTEMS[name]} | {cpu[name]:,.0f} | {cpu[name] / best:.1f} | {_frames(rounds, 'wall'):,.0f} |"
        for name, rounds in measured.items()
    ]
    return [
        SPEED,
        "| system | frames/s of one core | relative | frames/s by the clock |",
        "|---|---:|---:|---:|",
        *lines,
        "",
    ]


def _frames(rounds: list[dict[str, Any]], clock: str) -> float:
    return statistics.median(one["frames"] / seconds for one in rounds for seconds in one[clock])


if __name__ == "__main__":
    main()
