"""Does the interval of fitted Q evaluation contain the true return? Fifty policies of one training run.

    python benchmarks/offline_calibration.py            # CartPole-v1, ten checkpoints of five seeds

The policies are the checkpoints of a run; the data are steps of other policies; the truth is the mean
discounted return of 400 episodes played in Gymnasium.
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
from qhat.evaluation.fitted import Choose, OfflineEvaluation, choose_by

ENV, SEEDS, STEPS, EVERY = "CartPole-v1", 5, 20_000, 2_000
GAMMA, EPISODES = 0.99, 400
RESULT = Path("docs/results/offline_calibration.json")


def play(choose: Choose, episodes: int, seed: int, epsilon: float = 0.0) -> list[dict[str, np.ndarray]]:
    """Play copies of the environment side by side, each for one episode; return the episodes' steps."""
    rng, envs = np.random.default_rng(seed), [gymnasium.make(ENV) for _ in range(episodes)]
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
    parser.add_argument("--updates", type=int, default=10_000)
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
    truths = [discounted(play(choose, EPISODES, 1_000)) for _, choose in policies]
    means = np.array([each.mean() for each in truths])
    data = args.runs / "data.npz"
    if not data.exists():
        # A third each of the worst, a middling and the best policy, with random actions.
        order = np.argsort(means)
        chosen = [order[0], order[len(order) // 2], order[-1]]
        episodes = [each for index in chosen for each in play(policies[index][1], 40, 9_000, 0.3)]
        columns: Any = {name: np.concatenate([each[name] for each in episodes]) for name in episodes[0]}
        np.savez(data, **columns)
    recorded, rows = read(str(data), run.spec), []
    recipe = run.program.recipe
    evaluation = OfflineEvaluation(recipe, run.spec, recorded, gamma=GAMMA, updates=args.updates)
    for (name, choose), truth in list(zip(policies, truths, strict=True))[: args.policies]:
        score = evaluation.score(choose)
        low, high = score.interval
        error = 1.96 * truth.std(ddof=1) / np.sqrt(len(truth))
        inside = bool(low - error <= truth.mean() <= high + error)
        strict = bool(low <= truth.mean() <= high)
        rows.append({
            "policy": name, "truth": float(truth.mean()), "value": score.value, "interval": [low, high],
            "inside": strict, "inside_with_the_truths_interval": inside, "residual": score.residual,
            "agreement": score.agreement, "verdict": score.verdict,
        })  # fmt: skip
        print(f"{name:<22} true {truth.mean():6.1f}  estimate {score.value:6.1f}  [{low:.1f}, {high:.1f}]"
              f"  {'inside' if strict else 'OUTSIDE'}  {score.verdict}", flush=True)  # fmt: skip
    inside = sum(row["inside"] for row in rows)
    print(f"{inside} of {len(rows)} intervals contain the true return; {len(recorded):,} recorded steps")
    RESULT.write_text(json.dumps({"env": ENV, "steps": len(recorded), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
