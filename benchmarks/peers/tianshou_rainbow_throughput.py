"""Steps per second of tianshou's Rainbow on CartPole-v1. Prints one JSON object."""

import argparse
import json
import time

import gymnasium as gym
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.modelfree.c51 import C51Policy  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.modelfree.rainbow import RainbowDQN  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.optim import AdamOptimizerFactory  # pyright: ignore[reportMissingImports]
from tianshou.data import (  # pyright: ignore[reportMissingImports]
    Batch,
    PrioritizedVectorReplayBuffer,
)
from tianshou.utils.net.common import Net  # pyright: ignore[reportMissingImports]
from tianshou.utils.net.discrete import NoisyLinear  # pyright: ignore[reportMissingImports]
from tianshou.utils.torch_utils import policy_within_training_step  # pyright: ignore[reportMissingImports]

ATOMS = 51


def noisy(inputs: int, outputs: int) -> NoisyLinear:
    return NoisyLinear(inputs, outputs, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=3_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    environment = gym.make("CartPole-v1")
    stream = {"hidden_sizes": [64], "linear_layer": noisy}
    net = Net(
        state_shape=(4,),
        action_shape=2,
        hidden_sizes=[64],
        softmax=True,
        num_atoms=ATOMS,
        dueling_param=(stream, stream),
    )
    policy = C51Policy(
        model=net,
        action_space=environment.action_space,
        observation_space=environment.observation_space,
        num_atoms=ATOMS,
        v_min=0.0,
        v_max=100.0,
    )
    algorithm = RainbowDQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        n_step_return_horizon=3,
        target_update_freq=250,
    )
    buffer = PrioritizedVectorReplayBuffer(100_000, buffer_num=1, alpha=0.5, beta=0.4, weight_norm=True)
    observation, _ = environment.reset(seed=0)
    steps, updates, start, measured = 0, 0, 0.0, 0
    with policy_within_training_step(policy):
        while measured < options.steps:
            with torch.no_grad():
                action = int(policy(Batch(obs=observation[None], info=[{}])).act[0])
            after, reward, terminated, truncated, _ = environment.step(action)
            row = Batch(
                obs=observation[None], act=np.array([action]), rew=np.array([reward]),
                terminated=np.array([terminated]), truncated=np.array([truncated]),
                obs_next=after[None], info=[{}],
            )  # fmt: skip
            buffer.add(row, buffer_ids=[0])
            observation = environment.reset()[0] if terminated or truncated else after
            steps += 1
            if steps > 1_000:
                policy.train()
                algorithm.update(buffer=buffer, sample_size=32)
                updates += 1
            if steps == options.warmup:
                start, updates = time.perf_counter(), 0
            measured = max(steps - options.warmup, 0)
    seconds = time.perf_counter() - start
    print(json.dumps({"steps": measured, "updates": updates, "seconds": seconds}))


if __name__ == "__main__":
    main()
