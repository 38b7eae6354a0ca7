"""Steps per second of a DQN of one file in PyTorch, as CleanRL's are. Prints one JSON object.

Gymnasium's frames, a ring of stacks in NumPy, Adam and a target network: for people who read every line.
The work is that of the other peers. Pong: the Nature network, batch 32, an update per four steps, replay of
20,000. Breakout-MinAtar, which steps the package `minatar`: 16 filters, 128 units, replay of 100,000.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import (
    AtariPreprocessing,
    ClipReward,
    FrameStackObservation,
    TransformObservation,
)
from minatar.gym import register_envs  # pyright: ignore[reportMissingImports]
from torch_update import minatar, nature  # pyright: ignore[reportMissingImports]

BATCH, STARTS, GAMMA = 32, 1_000, 0.99


@dataclass(frozen=True)
class Task:
    """An environment, and what a DQN needs to know for it."""

    environment: Callable[[], gymnasium.Env]
    copies: int
    network: Callable[[int], torch.nn.Module]
    scale: float
    capacity: int
    learning_rate: float
    target_every: int
    """Updates between copies to the target network."""


def pong() -> gymnasium.Env:
    """Return Pong in stacks of four frames, with clipped rewards."""
    frames = AtariPreprocessing(gymnasium.make("PongNoFrameskip-v4"), terminal_on_life_loss=True)
    return ClipReward(FrameStackObservation(frames, 4), -1.0, 1.0)


def breakout() -> gymnasium.Env:
    """Return Breakout-MinAtar with its three actions, channels first and in bytes."""
    register_envs()
    space = gymnasium.spaces.Box(0, 1, (4, 10, 10), np.uint8)
    game = gymnasium.make("MinAtar/Breakout-v1")
    return TransformObservation(game, lambda image: image.transpose(2, 0, 1).astype(np.uint8), space)


TASKS = {
    "pong": Task(pong, 1, nature, 255.0, 20_000, 1e-4, 2_500),
    "pong-8": Task(pong, 8, nature, 255.0, 20_000, 1e-4, 2_500),
    "minatar": Task(breakout, 1, minatar, 1.0, 100_000, 1e-3, 1_000),
}


class Ring:
    """The last transitions, as arrays; a stack is stored whole, with its successor."""

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        """Make room for `capacity` transitions with observations of `shape`."""
        self.stacks = np.zeros((2, capacity, *shape), np.uint8)
        self.actions = np.zeros(capacity, np.int64)
        self.rewards, self.continues = np.zeros((2, capacity), np.float32)
        self.capacity, self.stored = capacity, 0

    def add(self, before: np.ndarray, after: np.ndarray, action: int, reward: float, ended: bool) -> None:
        """Store one transition, in place of the oldest where the ring is full."""
        at = self.stored % self.capacity
        self.stacks[0, at], self.stacks[1, at], self.actions[at] = before, after, action
        self.rewards[at], self.continues[at] = reward, not ended
        self.stored += 1

    def sample(self, draws: np.random.Generator) -> list[torch.Tensor]:
        """Return observations, successors, actions, rewards, and whether each episode continues."""
        at = draws.integers(min(self.stored, self.capacity), size=BATCH)
        parts = (self.stacks[0, at], self.stacks[1, at], self.actions[at])
        return [torch.from_numpy(part) for part in (*parts, self.rewards[at], self.continues[at])]


class DQN:
    """A network, its target, and the steps that train it."""

    def __init__(self, task: Task) -> None:
        """Make everything, and start the first episodes."""
        self.task, makers = task, [task.environment] * task.copies
        self.envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        space: Any = self.envs.single_action_space
        self.actions = int(space.n)
        self.online, self.target = task.network(self.actions), task.network(self.actions)
        self.target.load_state_dict(self.online.state_dict())
        self.adam = torch.optim.Adam(self.online.parameters(), lr=task.learning_rate)
        self.observation, _ = self.envs.reset(seed=0)
        self.ring = Ring(task.capacity, self.observation.shape[1:])
        self.draws = np.random.default_rng(0)
        self.steps = self.updates = 0

    def scaled(self, stacks: torch.Tensor) -> torch.Tensor:
        """Return bytes as the network takes them."""
        return stacks.float() / self.task.scale

    def act(self) -> np.ndarray:
        """Choose an action for every copy, ε-greedily."""
        with torch.no_grad():
            greedy = self.online(self.scaled(torch.from_numpy(self.observation))).argmax(1).numpy()
        explores = self.draws.random(self.task.copies) < max(0.05, 1 - self.steps / 5_000)
        return np.where(explores, self.draws.integers(self.actions, size=self.task.copies), greedy)

    def step(self) -> None:
        """Step every copy, and do the updates that are due."""
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
        """Do one gradient step, and refresh the target network where it is time."""
        before, after, action, reward, continues = self.ring.sample(self.draws)
        with torch.no_grad():
            best = self.target(self.scaled(after)).max(1).values
        predicted = self.online(self.scaled(before)).gather(1, action[:, None])[:, 0]
        loss = torch.nn.functional.smooth_l1_loss(predicted, reward + GAMMA * continues * best)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.updates += 1
        if self.updates % self.task.target_every == 0:
            self.target.load_state_dict(self.online.state_dict())


def main() -> None:
    """Train for the warm-up, then time the steps after it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gymnasium.register_envs(ale_py)
    agent = DQN(TASKS[options.task])
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
