"""Steps per second of sbx's DQN (SB3's loop, its update in JAX). Prints one JSON object."""

import argparse
import json
import time

from sbx import DQN  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    model = DQN(
        "MlpPolicy",
        make_vec_env("CartPole-v1", 1),
        learning_rate=1e-3,
        buffer_size=100_000,
        learning_starts=1_000,
        batch_size=32,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [64, 64]},
    )
    model.learn(options.warmup, log_interval=None)
    steps, updates, start = model.num_timesteps, model._n_updates, time.perf_counter()
    model.learn(options.steps, log_interval=None, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    done = {"steps": model.num_timesteps - steps, "updates": model._n_updates - updates}
    print(json.dumps({**done, "seconds": seconds}))


if __name__ == "__main__":
    main()
