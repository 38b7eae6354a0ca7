"""CartPole-v1 by Stable-Baselines3 with rl-zoo's settings: cold wall-clock and final score.

Prints one JSON object. The clock starts before the libraries are imported and stops when training
ends; the evaluation is not timed.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402

import torch  # noqa: E402 # pyright: ignore[reportMissingImports]
from stable_baselines3 import DQN  # noqa: E402 # pyright: ignore[reportMissingImports]
from stable_baselines3.common.evaluation import (  # noqa: E402 # pyright: ignore[reportMissingImports]
    evaluate_policy,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2.3e-3,
        buffer_size=100_000,
        learning_starts=1_000,
        batch_size=64,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=options.seed,
        device="cpu",
    )
    model.learn(options.steps, log_interval=None)
    seconds = time.perf_counter() - START
    env = model.get_env()
    score, _ = evaluate_policy(model, env, n_eval_episodes=options.episodes)
    print(json.dumps({"seconds": seconds, "mean_return": float(score)}))


if __name__ == "__main__":
    main()
