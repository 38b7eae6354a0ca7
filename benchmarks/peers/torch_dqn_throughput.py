"""Steps per second of a DQN of one file in PyTorch on Pong, as CleanRL's are. Prints one JSON object.

Gymnasium's frames, a ring of stacks in NumPy, Adam and a target network: for people who read every line.
The work is that of the other peers: the Nature network, batch 32, an update per four steps.
"""

import argparse
import json
import time
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AtariPreprocessing, ClipReward, FrameStackObservation
from torch_update import nature  # pyright: ignore[reportMissingImports]

COPIES = {"pong": 1, "pong-8": 8}
ACTIONS, BATCH, CAPACITY, STARTS, GAMMA, TARGET = 6, 32, 20_000, 1_000, 0.99, 1_000


def environment() -> gymnasium.Env:
    frames = AtariPreprocessing(gymnasium.make("PongNoFrameskip-v4"), terminal_on_life_loss=True)
    return ClipReward(FrameStackObservation(frames, 4), -1.0, 1.0)


class Ring:
    """The last transitions, as arrays; a stack is stored whole, with its successor."""

    def __init__(self) -> None:
        self.stacks = np.zeros((2, CAPACITY, 4, 84, 84), np.uint8)
        self.actions = np.zeros(CAPACITY, np.int64)
        self.rewards, self.continues = np.zeros((2, CAPACITY), np.float32)
        self.stored = 0

    def add(self, before: np.ndarray, after: np.ndarray, action: int, reward: float, ended: bool) -> None:
        at = self.stored % CAPACITY
        self.stacks[0, at], self.stacks[1, at], self.actions[at] = before, after, action
        self.rewards[at], self.continues[at] = reward, not ended
        self.stored += 1

    def sample(self, draws: np.random.Generator) -> list[torch.Tensor]:
        at = draws.integers(min(self.stored, CAPACITY), size=BATCH)
        parts = (self.stacks[0, at], self.stacks[1, at], self.actions[at])
        return [torch.from_numpy(part) for part in (*parts, self.rewards[at], self.continues[at])]


class DQN:
    """A network, its target, and the steps that train it."""

    def __init__(self, copies: int) -> None:
        self.envs = SyncVectorEnv([environment] * copies, autoreset_mode=AutoresetMode.SAME_STEP)
        self.online, self.target = nature(), nature()
        self.target.load_state_dict(self.online.state_dict())
        self.adam = torch.optim.Adam(self.online.parameters(), lr=1e-4)
        self.ring, self.draws = Ring(), np.random.default_rng(0)
        self.observation, _ = self.envs.reset(seed=0)
        self.steps = self.updates = 0

    def act(self) -> np.ndarray:
        copies = self.envs.num_envs
        with torch.no_grad():
            greedy = self.online(torch.from_numpy(self.observation).float() / 255).argmax(1).numpy()
        explores = self.draws.random(copies) < max(0.05, 1 - self.steps / 5_000)
        return np.where(explores, self.draws.integers(ACTIONS, size=copies), greedy)

    def step(self) -> None:
        action = self.act()
        observation, rewards, terminated, truncated, info = self.envs.step(action)
        final: Any = info.get("final_obs", {})
        for copy, over in enumerate(terminated | truncated):
            after = final[copy] if over else observation[copy]
            given = (action[copy], rewards[copy], terminated[copy])
            self.ring.add(self.observation[copy], after, *given)
        self.observation = observation
        before, self.steps = self.steps, self.steps + len(action)
        if self.steps >= STARTS:
            for _ in range(self.steps // 4 - before // 4):
                self.update()

    def update(self) -> None:
        before, after, action, reward, continues = self.ring.sample(self.draws)
        with torch.no_grad():
            best = self.target(after.float() / 255).max(1).values
        predicted = self.online(before.float() / 255).gather(1, action[:, None])[:, 0]
        loss = torch.nn.functional.smooth_l1_loss(predicted, reward + GAMMA * continues * best)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.updates += 1
        if self.updates % TARGET == 0:
            self.target.load_state_dict(self.online.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=COPIES, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gymnasium.register_envs(ale_py)
    agent = DQN(COPIES[options.task])
    while agent.steps < options.warmup:
        agent.step()
    steps, updates, start = agent.steps, agent.updates, time.perf_counter()
    while agent.steps - steps < options.steps:
        agent.step()
    seconds = time.perf_counter() - start
    done = {"steps": agent.steps - steps, "updates": agent.updates - updates, "seconds": seconds}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
