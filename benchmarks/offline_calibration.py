"""Does the interval of fitted Q evaluation contain the true return? Fifty policies of one training run.

    python benchmarks/offline_calibration.py            # CartPole-v1, ten checkpoints of five seeds

The policies are the checkpoints of a run. The data are 120 episodes of the worst, a middling and the best
of them, with 30% of random actions. The truth is the mean discounted return of 400 episodes played in
Gymnasium, without CartPole's limit of 500 steps, as values have none: γ^1500 is nothing. Rows that are done
are kept, and a second call continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import qhat
from qhat.demonstrations.reading import read
from qhat.evaluation.fitted import UPDATES, Choose, OfflineEvaluation, choose_by

ENV, SEEDS, STEPS, EVERY = "CartPole-v1", 5, 20_000, 2_000
GAMMA, EPISODES = 0.99, 400
LIMIT = 1_500
PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "offline_calibration.md"
CHOSEN = (*range(26), 35)
"""Policies that were known when the weight decay and the width of the interval were decided."""


def play(
    choose: Choose, episodes: int, seed: int, epsilon: float = 0.0, limit: int | None = None
) -> list[dict[str, np.ndarray]]:
    """Play copies of the environment side by side, each for one episode; return the episodes' steps."""
    made = [gymnasium.make(ENV, max_episode_steps=limit) for _ in range(episodes)]
    rng, envs = np.random.default_rng(seed), made
    now = np.stack([env.reset(seed=seed + index)[0] for index, env in enumerate(envs)])
    rows: list[list[tuple[Any, ...]]] = [[] for _ in envs]
    active = np.arange(episodes)
    while len(active):
        # Of all copies, so that the policy is compiled for one shape.
        action = choose(now, None)[active, 0]
        random = rng.random(len(active)) < epsilon
        action = np.where(random, rng.integers(0, 2, len(active)), action)
        still = []
        for index, act in zip(active, action, strict=True):
            after, reward, terminated, truncated, _ = envs[index].step(int(act))
            rows[index].append((now[index].copy(), act, reward, after, terminated, truncated))
            now[index] = after
            if not (terminated or truncated):
                still.append(index)
        active = np.array(still, int)
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    return [dict(zip(names, map(np.asarray, zip(*each, strict=True)), strict=True)) for each in rows]


def discounted(episodes: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Return the discounted return of each episode."""
    return np.array([np.sum(each["reward"] * GAMMA ** np.arange(len(each["reward"]))) for each in episodes])


def main() -> None:
    """Train, record, estimate and print; write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/offline_calibration"))
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--policies", type=int, default=50)
    args = parser.parse_args()
    folder = args.runs / "policies"
    if not folder.exists():
        qhat.train(
            ENV, recipe="dqn", seeds=SEEDS, steps=STEPS, save_every=EVERY, keep=STEPS // EVERY,
            eval_every=STEPS, eval_episodes=5, run_dir=folder,
        )  # fmt: skip
    run = qhat.Run.open(folder)
    steps = range(EVERY, STEPS + 1, EVERY)
    policies = []
    for step in steps:
        weights = run.weights(step)
        for seed in range(SEEDS):
            one = jax.tree.map(lambda leaf, seed=seed: jnp.asarray(leaf[seed]), weights)
            policies.append((f"{step} steps, seed {seed}", choose_by(run.program.learner, one)))
    truths = [discounted(play(choose, EPISODES, 1_000, limit=LIMIT)) for _, choose in policies]
    means = np.array([each.mean() for each in truths])
    data = args.runs / "data.npz"
    if not data.exists():
        # A third each of the worst, a middling and the best policy, with random actions.
        order = np.argsort(means)
        chosen = [order[0], order[len(order) // 2], order[-1]]
        episodes = [each for index in chosen for each in play(policies[index][1], 40, 9_000, 0.3)]
        columns: Any = {name: np.concatenate([each[name] for each in episodes]) for name in episodes[0]}
        np.savez(data, **columns)
    recorded, keep = read(str(data), run.spec), PAGE.with_suffix(".json")
    done: dict[str, Any] = json.loads(keep.read_text()) if keep.exists() else {}
    evaluation = OfflineEvaluation(
        run.program.recipe, run.spec, recorded, gamma=GAMMA, updates=args.updates
    )
    for (name, choose), truth in list(zip(policies, truths, strict=True))[: args.policies]:
        if name in done:
            continue
        score = evaluation.score(choose)
        (low, high), exact = score.interval, float(truth.mean())
        done[name] = {
            "truth": exact, "error": float(1.96 * truth.std(ddof=1) / np.sqrt(len(truth))),
            "value": score.value, "interval": [low, high], "residual": score.residual,
            "agreement": score.agreement, "verdict": score.verdict,
            "behaviour": list(score.behaviour_interval),
        }  # fmt: skip
        where = "inside" if low <= exact <= high else "OUTSIDE"
        print(
            f"{name:<22} true {exact:6.1f}  estimate {score.value:6.1f}  [{low:.1f}, {high:.1f}]  {where}",
            flush=True,
        )
        keep.write_text(json.dumps(done, indent=1) + "\n")
        PAGE.write_text(page(done, len(recorded), evaluation.episodes, args.updates))


def page(done: dict[str, Any], steps: int, episodes: int, updates: int) -> str:
    """Return the page."""

    def inside(row: dict[str, Any]) -> bool:
        return bool(row["interval"][0] <= row["truth"] <= row["interval"][1])

    rows = list(done.items())
    others = [row for index, (_, row) in enumerate(rows) if index not in CHOSEN]
    kept, untouched = sum(inside(row) for row in done.values()), sum(map(inside, others))
    errors = np.array([row["value"] - row["truth"] for row in done.values()])
    widths = [row["interval"][1] - row["interval"][0] for row in done.values()]
    said = [row for row in done.values() if row["verdict"].startswith(("better", "worse"))]
    right = sum(
        row["truth"] > row["behaviour"][1]
        if row["verdict"].startswith("better")
        else row["truth"] < row["behaviour"][0]
        for row in said
    )
    lines = [
        "# Is the interval of `qhat evaluate --offline` right?",
        "",
        "Written by `python benchmarks/offline_calibration.py`; do not edit.",
        "",
        f"Policies of {ENV} at {EVERY:,} to {STEPS:,} steps of five seeds of the recipe `dqn`, scored from",
        f"{steps:,} steps in {episodes} episodes of three of them, which also acted at random in 30% of",
        f"the steps. {updates:,} updates, ten networks each. The truth is the mean discounted return",
        f"(γ = {GAMMA}) of {EPISODES} episodes in Gymnasium, without CartPole's limit of 500 steps.",
        "",
        f"**{kept} of {len(rows)} intervals contain the truth** (asked: 90%), and {untouched} of the"
        f" {len(others)} that were scored",
        f"after the method was fixed. Root of the mean squared error {np.sqrt(np.mean(errors**2)):.1f};"
        f" median width of the interval {np.median(widths):.1f}.",
        f"Verdicts: {len(said)} of {len(rows)} say better or worse than recorded, {right} of them rightly.",
        "",
        "| policy | truth | estimate | interval | | does as recorded | verdict |",
        "|---|---:|---:|---|---|---:|---|",
    ]
    for name, row in rows:
        low, high = row["interval"]
        lines.append(
            f"| {name} | {row['truth']:.1f} ± {row['error']:.1f} | {row['value']:.1f}"
            f" | {low:.1f} to {high:.1f} | {'' if inside(row) else 'outside'} | {row['agreement']:.0%}"
            f" | {row['verdict']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
