"""What stream Q(λ) reaches and costs: `python benchmarks/streaming.py` writes docs/results/streaming.md.

CartPole with the recipe, and with one change at a time; a DQN with replay beside it, and one without; one
of MinAtar's games; bytes and microseconds. All rows of a task train the same seeds; each seed's last
checkpoint plays fresh greedy episodes. `--keep FILE` continues from rows that are done.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import qhat
from qhat.deploy.learner.qhat_learner import Learner
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.environments.base import Environment
from qhat.environments.make import make_any
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
DQN: dict[str, Any] = {"recipe": "dqn", "hidden": (32, 32)}
CARTPOLE: dict[str, dict[str, Any]] = {
    "`stream_q`": {},
    "λ = 0: no trace": {"training": "stream:trace_decay=0"},
    "λ = 1": {"training": "stream:trace_decay=1"},
    "traces not cut by exploration": {"n_step_cut": None},
    "rewards as they are": {"training": "stream:scale_rewards=false"},
    "observations as they are": {"normalise": False},
    "without layer norm": {"layer_norm": False},
    "`dense dense`: no zeros": {"dense": "dense"},
    "κ = 1": {"optimiser": "obgd:kappa=1"},
    "κ = 4": {"optimiser": "obgd:kappa=4"},
    "`dqn`, replay of 100,000": DQN,
    "`dqn`, batches of 1 from the last 3 steps": {**DQN, "batch_size": 1, "replay_capacity": 4},
}
GAME = "Breakout-MinAtar"
PICTURES: dict[str, Any] = {"hidden": 128, "explore": "epsilon:end=0.01,fraction=0.2"}
"""What the authors change for MinAtar; their convolution is normalised and sparse too."""


def main() -> None:
    """Train and judge every row; write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=400, help="number of the first seed")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--game-seeds", type=int, default=5)
    parser.add_argument("--game-steps", type=int, default=400_000)
    parser.add_argument("--only", nargs="*", default=[], help="words of rows; all unless given")
    parser.add_argument("--keep", type=Path, default=RESULTS / "streaming.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "streaming.md")
    args = parser.parse_args()
    done: dict[str, Any] = json.loads(args.keep.read_text()) if args.keep.exists() else {}
    jobs = {
        f"CartPole-v1 {name}": ("CartPole-v1", changes, args.steps, args.seeds)
        for name, changes in CARTPOLE.items()
    }
    jobs["CartPole-v1 long"] = ("CartPole-v1", {}, 5 * args.steps, args.seeds)
    jobs[GAME] = (GAME, PICTURES, args.game_steps, args.game_seeds)
    for name, job in jobs.items():
        wanted = not args.only or any(word in name for word in args.only)
        if wanted and name not in done:
            # Other processes may have added rows meanwhile.
            row = trained(*job, args.seed)
            done = json.loads(args.keep.read_text()) if args.keep.exists() else {}
            done[name] = row
            print(name, row, flush=True)
            args.keep.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if "costs" not in done and not args.only:
        done["costs"] = costs()
        args.keep.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    args.out.write_text(page(args, done), encoding="utf-8")


def trained(env: str, changes: dict[str, Any], steps: int, seeds: int, seed: int) -> dict[str, Any]:
    """Train all seeds of a row; return the scores of the last weights, and the curve of the run."""
    settings = {"recipe": "stream_q", **changes}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = qhat.train(
            env, run_dir=Path(folder) / "run", steps=steps, seeds=seeds, seed=seed, eval_every=steps // 10,
            eval_episodes=10, **settings,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        rows = (run.folder.path / "eval.csv").read_text().splitlines()
        scores = list(run.evaluate(30, "last").per_seed)
    head, *body = (row.split(",") for row in rows)
    at, mean = head.index("step"), head.index("mean_return")
    curve: dict[str, list[float]] = {}
    for row in body:
        curve.setdefault(row[at], []).append(round(float(row[mean]), 2))
    return {"steps": steps, "last": scores, "curve": curve, "seconds": seconds}


def costs() -> dict[str, Any]:
    """Return bytes of everything that learns, and processor time of a step, of a stream and of a DQN."""
    rows: dict[str, Any] = {}
    for env, hidden in (("CartPole-v1", (32, 32)), (GAME, (128,))):
        for name in ("stream_q", "dqn"):
            environment = make_any(env, 1)
            assert isinstance(environment, Environment)
            spec = environment.spec
            recipe = dataclasses.replace(qhat.recipes.get(name), hidden=hidden)
            program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, layout=spec.layout)
            loop = Loop(program, environment)
            state = loop.init(jax.random.split(jax.random.key(0), 1))
            count = 5_000 if env != GAME else 300
            advance, times = loop.compile(count), []
            for _ in range(6):
                began = time.process_time()
                state, _ = advance(state, count)
                jax.block_until_ready(state)
                times.append((time.process_time() - began) / count * 1e6)
            seeds = state.seeds
            kept = (seeds.learner, seeds.ring, seeds.sampler)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(kept))
            rows[f"{env} {name}"] = {"bytes": size, "us": sorted(times[1:])[2]}
    return {**rows, "CartPole-v1 NumPy": {**_numpy(), "bytes": None}}


def _numpy() -> dict[str, float]:
    """Return microseconds of `act` and `learn` of the exported learner."""
    with tempfile.TemporaryDirectory() as folder:
        run = qhat.train("CartPole-v1", "stream_q", steps=2_000, run_dir=Path(folder) / "run")
        made = qhat.export(run, targets="learner", observations=200)
        learner = Learner.load(made.path / "learner.safetensors")
    draw = np.random.default_rng(0)
    rows, times = draw.normal(size=(2_001, 4)).astype(np.float32) / 10, []
    for _ in range(5):
        began = time.process_time()
        for now, after in itertools.pairwise(rows):
            learner.learn(now, learner.act(now), 1.0, after, False)
        times.append((time.process_time() - began) / 2_000 * 1e6)
    return {"us": sorted(times)[2]}


def page(args: argparse.Namespace, done: dict[str, Any]) -> str:
    """Write the page of the rows that are done."""
    date = datetime.date.today()
    lines = [
        "# Streaming: what it reaches, and what it costs",
        "",
        f"Seeds from {args.seed} on, {date}; one core of a shared machine. The last weights of each seed"
        " play 30",
        "fresh greedy episodes: IQM over the seeds [95% interval]. Early is the mean of the run's own"
        " evaluations (10 episodes",
        "each) at a fifth of its steps. **Bold** is above, *italic* below the first row's interval. The two"
        " rows of `dqn` have the",
        "widths of `stream_q`, and else the recipe's settings, which were chosen for wider layers.",
        "",
        "    python benchmarks/streaming.py",
        "",
        f"## CartPole-v1: {args.steps:,} steps, {args.seeds} seeds",
        "",
        "| change | last weights | early |",
        "|---|---:|---:|",
    ]
    first = done.get(f"CartPole-v1 {next(iter(CARTPOLE))}")
    for name in CARTPOLE:
        lines.append(f"| {name} | {_cells(done.get(f'CartPole-v1 {name}'), first)} |")
    long, game = done.get("CartPole-v1 long"), done.get(GAME)
    lines += ["", *_curve(f"CartPole-v1, {5 * args.steps:,} steps", long), *_curve(GAME, game)]
    if "costs" in done:
        lines += [
            "## Memory and time",
            "",
            "Everything that learns: weights, optimiser, traces and replay (100,000 rows of a DQN). Time",
            "is of the processor, for one step of the environment, one update and one action, with one",
            "seed: the median of five.",
            "",
            "| task and recipe | bytes | µs per step |",
            "|---|---:|---:|",
        ]
        for name, row in done["costs"].items():
            size = "" if row["bytes"] is None else f"{row['bytes']:,}"
            lines.append(f"| {name} | {size} | {row['us']:.0f} |")
        lines.append("")
    return "\n".join(lines)


def _cells(row: dict[str, Any] | None, first: dict[str, Any] | None) -> str:
    if row is None or first is None:
        return "not run yet | "
    (low, high), (least, most) = _interval(row["last"]), _interval(first["last"])
    mark = "**" if low > most else "*" if high < least else ""
    early = list(row["curve"].values())[1]
    return f"{mark}{iqm(row['last']):.0f}{mark} [{low:.0f}, {high:.0f}] | {sum(early) / len(early):.0f}"


def _curve(title: str, row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return [f"## {title}", "", "Not run yet.", ""]
    low, high = _interval(row["last"])
    lines = [f"## {title}", "", "| steps | mean of the seeds, 10 episodes each | lowest | highest |"]
    lines.append("|---:|---:|---:|---:|")
    for step, scores in row["curve"].items():
        mean = sum(scores) / len(scores)
        lines.append(f"| {int(step):,} | {mean:.1f} | {min(scores):.1f} | {max(scores):.1f} |")
    return [
        *lines,
        "",
        f"Last weights, 30 fresh episodes: {iqm(row['last']):.1f} [{low:.1f}, {high:.1f}].",
        "",
    ]


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = stratified_bootstrap_ci([[value] for value in values], iqm).ravel()
    return float(low), float(high)


if __name__ == "__main__":
    main()
