"""Steps per second of Stable-Baselines3's DQN, or of sb3-contrib's QR-DQN. Prints one JSON object."""

import argparse
import json
import time

import ale_py
import gymnasium
import torch  # pyright: ignore[reportMissingImports]
from sb3_contrib import QRDQN  # pyright: ignore[reportMissingImports]
from stable_baselines3 import DQN  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.env_util import (  # pyright: ignore[reportMissingImports]
    make_atari_env,
    make_vec_env,
)
from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
    VecEnv,
    VecFrameStack,
)

CARTPOLE = {"batch_size": 32, "policy_kwargs": {"net_arch": [64, 64]}}
# One update per four steps: two after each step of eight environments.
LUNARLANDER = {"batch_size": 128, "gradient_steps": 2, "policy_kwargs": {"net_arch": [256, 256]}}
PONG = {"policy": "CnnPolicy", "batch_size": 32, "buffer_size": 20_000, "learning_rate": 1e-4}
ALGORITHMS = {"dqn": (DQN, {}), "qr_dqn": (QRDQN, {"n_quantiles": 51})}
TASKS = {
    "cartpole": ("CartPole-v1", 1, CARTPOLE),
    "lunarlander": ("LunarLander-v3", 8, LUNARLANDER),
    # The library's own pipeline of frames. One update per four steps in both.
    "pong": ("PongNoFrameskip-v4", 1, {**PONG, "train_freq": 4}),
    "pong-8": ("PongNoFrameskip-v4", 8, {**PONG, "gradient_steps": 2}),
}


def environments(env_id: str, copies: int) -> VecEnv:
    if "NoFrameskip" not in env_id:
        return make_vec_env(env_id, copies)
    gymnasium.register_envs(ale_py)
    return VecFrameStack(make_atari_env(env_id, copies), n_stack=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="cartpole")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="dqn")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    env_id, copies, settings = TASKS[options.task]
    algorithm, extra = ALGORITHMS[options.algorithm]
    settings = {**settings, "policy_kwargs": {**settings.get("policy_kwargs", {}), **extra}}
    model = algorithm(
        env=environments(env_id, copies),
        **{
            "policy": "MlpPolicy",
            "learning_rate": 1e-3,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "train_freq": 1,
            "gradient_steps": 1,
            "device": "cpu",
            **settings,
        },
    )
    model.learn(options.warmup, log_interval=None)
    steps, updates, start = model.num_timesteps, model._n_updates, time.perf_counter()
    model.learn(options.steps, log_interval=None, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "steps": model.num_timesteps - steps,
                "updates": model._n_updates - updates,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
