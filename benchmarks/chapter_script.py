"""The chapter's example with `qhat.chapter`'s classes: `python benchmarks/chapter_script.py --seeds 5`.

Each seed trains the chapter's `RainbowDQN` for at most 1,000 episodes of 200 steps, until the mean of the
last 100 scores is 195 or more, and then plays 100 greedy episodes of CartPole-v1. With `--as-printed` the
target network is copied where the chapter's script does it: where the episode is a multiple of 1,000.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

import gymnasium
import numpy as np

from qhat.chapter import RainbowDQN, evaluate_agent, train_dqn_robot_example
from qhat.evaluation.statistics import iqm, stratified_bootstrap_ci


def main() -> None:
    """Train the seeds one after the other; print one line for each, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--as-printed", action="store_true")
    options = parser.parse_args()
    rows = [_row(seed, options) for seed in range(options.seeds)]
    scores = np.array([[row["greedy"]] for row in rows])
    summary: dict[str, Any] = {"solved": sum(row["solved"] for row in rows), "seeds": len(rows)}
    summary["greedy_iqm"] = round(float(iqm(scores)), 1)
    if len(rows) > 1:
        summary["ci95"] = [round(float(end), 1) for end in stratified_bootstrap_ci(scores, iqm)]
    print(json.dumps(summary))


def _row(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    with contextlib.redirect_stdout(sys.stderr):
        if options.as_printed:
            agent, scores = _as_printed(seed, options.episodes)
        else:
            agent, scores = train_dqn_robot_example(options.episodes, seed=seed)
        greedy = float(np.mean(evaluate_agent(agent, "CartPole-v1", 100, seed=10_000)))
    solved = len(scores) >= 100 and float(np.mean(scores[-100:])) >= 195.0
    row = {"seed": seed, "solved": solved, "episodes": len(scores), "steps": agent.step_count}
    row |= {"last_100": round(float(np.mean(scores[-100:])), 1), "greedy": round(greedy, 1)}
    print(json.dumps(row), flush=True)
    return row


def _as_printed(seed: int, episodes: int) -> tuple[RainbowDQN, list[float]]:
    env = gymnasium.make("CartPole-v1")
    agent, scores = RainbowDQN(4, 2, seed=seed), []
    for episode in range(episodes):
        state, _ = env.reset(seed=seed if episode == 0 else None)
        score = 0.0
        for _ in range(200):
            action = agent.act(state, training=True)
            next_state, reward, terminated, truncated, _ = env.step(action)
            agent.remember(state, action, float(reward), next_state, terminated or truncated)
            agent.replay()
            state, score = next_state, score + float(reward)
            if terminated or truncated:
                break
        scores.append(score)
        if episode % agent.target_update_freq == 0:
            agent.update_target_network()
        if episode % 100 == 0 and float(np.mean(scores[-100:])) >= 195.0:
            break
    return agent, scores


if __name__ == "__main__":
    main()
