"""Steps per second of the chapter's training loop on CartPole-v1. Prints one JSON object."""

import argparse
import json
import time
import warnings
from collections.abc import Iterator

import gymnasium as gym
import torch  # pyright: ignore[reportMissingImports]
from chapter import AGENTS, TARGET_UPDATE_EPISODES, PrioritisedAgent, RainbowAgent

MAX_EPISODE_STEPS = 200


def train(agent: RainbowAgent | PrioritisedAgent, env: gym.Env) -> Iterator[None]:
    """Train for ever, pausing after every environment step."""
    episode = 0
    while True:
        state, _ = env.reset()
        for _ in range(MAX_EPISODE_STEPS):
            action = agent.act(state)
            successor, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            agent.remember((state, action, float(reward), successor, done))
            agent.replay()
            state = successor
            yield
            if done:
                break
        if episode % TARGET_UPDATE_EPISODES == 0:
            agent.update_target()
        episode += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", choices=sorted(AGENTS), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    # PyTorch warns that tensors from lists of arrays are slow, which is what is measured here.
    warnings.filterwarnings("ignore", message="Creating a tensor from a list")
    torch.set_num_threads(options.threads)
    agent = AGENTS[options.agent](4, 2)
    steps = train(agent, gym.make("CartPole-v1"))
    for _ in range(options.warmup):
        next(steps)
    updates, start = agent.updates, time.perf_counter()
    for _ in range(options.steps):
        next(steps)
    seconds = time.perf_counter() - start
    print(json.dumps({"steps": options.steps, "updates": agent.updates - updates, "seconds": seconds}))


if __name__ == "__main__":
    main()
