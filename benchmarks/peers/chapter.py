"""The algorithms of a textbook's DQN chapter, transcribed to measure what they cost.

Every environment step does what the chapter's code does, in the same way: transitions are tuples in
a list, a batch becomes tensors element by element, the sum-tree is a NumPy array that is walked
recursively one item at a time, the target network follows by episodes. Only the speed is of
interest here; the mistakes of the original are kept.
"""

import random
from collections import deque
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

HIDDEN = 64
GAMMA = 0.99
BATCH = 32
CAPACITY = 100_000
EPSILON_DECAY, EPSILON_MIN = 0.995, 0.01
TARGET_UPDATE_EPISODES = 1_000

Transition = tuple[np.ndarray, int, float, np.ndarray, bool]


class PlainNetwork(nn.Module):
    """An MLP with two hidden layers."""

    def __init__(self, inputs: int, actions: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(inputs, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, actions),
        )

    def forward(self, x: Any) -> Any:
        return self.network(x)


class DuelingNetwork(nn.Module):
    """One shared hidden layer, then one of value and one of advantages."""

    def __init__(self, inputs: int, actions: int):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU())
        self.value = _stream(1)
        self.advantage = _stream(actions)

    def forward(self, x: Any) -> Any:
        features = functional.relu(self.shared(x))
        value, advantage = self.value(features), self.advantage(features)
        return value + (advantage - advantage.mean(dim=1, keepdim=True))


def _stream(outputs: int) -> Any:
    return nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


class SumTree:
    """A binary tree of partial sums, walked recursively."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.tree = np.zeros(2 * capacity - 1)
        self.data = np.zeros(capacity, dtype=object)
        self.write = 0
        self.n_entries = 0

    def _propagate(self, index: int, change: float) -> None:
        parent = (index - 1) // 2
        self.tree[parent] += change
        if parent != 0:
            self._propagate(parent, change)

    def _retrieve(self, index: int, point: float) -> int:
        left = 2 * index + 1
        right = left + 1
        if left >= len(self.tree):
            return index
        if point <= self.tree[left]:
            return self._retrieve(left, point)
        return self._retrieve(right, point - self.tree[left])

    def total(self) -> float:
        return self.tree[0]

    def add(self, priority: float, data: object) -> None:
        index = self.write + self.capacity - 1
        self.data[self.write] = data
        self.update(index, priority)
        self.write += 1
        if self.write >= self.capacity:
            self.write = 0
        if self.n_entries < self.capacity:
            self.n_entries += 1

    def update(self, index: int, priority: float) -> None:
        change = priority - self.tree[index]
        self.tree[index] = priority
        self._propagate(index, change)

    def leaf(self, point: float) -> tuple[int, float, Any]:
        index = self._retrieve(0, point)
        return index, self.tree[index], self.data[index - self.capacity + 1]


class PrioritisedMemory:
    """Proportional prioritised replay over `SumTree`."""

    alpha = 0.6
    beta_increment = 0.001
    largest = 1.0

    def __init__(self, capacity: int):
        self.beta: Any = 0.4
        self.tree = SumTree(capacity)

    def sample(self, size: int) -> tuple[list[Transition], list[int], np.ndarray]:
        batch, indices, priorities = [], [], []
        segment = self.tree.total() / size
        for i in range(size):
            index, priority, data = self.tree.leaf(random.uniform(segment * i, segment * (i + 1)))
            priorities.append(priority)
            batch.append(data)
            indices.append(index)
        probabilities = np.asarray(priorities) / self.tree.total()
        weights = np.power(self.tree.n_entries * probabilities, -self.beta)
        self.beta = np.min([1.0, self.beta + self.beta_increment])
        weights /= weights.max()
        return batch, indices, weights

    def update(self, index: int, priority: float) -> None:
        self.tree.update(index, min(priority, self.largest))


class Agent:
    """What the chapter's agents share: ε-greedy actions, Double targets, clipping, Adam."""

    def __init__(self, network: type, inputs: int, actions: int):
        self.actions = actions
        self.epsilon = 1.0
        self.updates = 0
        self.online = network(inputs, actions)
        self.target = network(inputs, actions)
        self.update_target()
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=1e-3)

    def act(self, state: np.ndarray) -> int:
        if np.random.random() <= self.epsilon:
            return random.randrange(self.actions)
        values = self.online(torch.FloatTensor(state).unsqueeze(0))
        return int(np.argmax(values.cpu().data.numpy()))

    def update_target(self) -> None:
        self.target.load_state_dict(self.online.state_dict())

    def _predict_and_aim(self, batch: list[Transition]) -> tuple[Any, Any]:
        states = torch.FloatTensor([e[0] for e in batch])
        actions = torch.LongTensor([e[1] for e in batch])
        rewards = torch.FloatTensor([e[2] for e in batch])
        successors = torch.FloatTensor([e[3] for e in batch])
        dones = torch.BoolTensor([e[4] for e in batch])
        predicted = self.online(states).gather(1, actions.unsqueeze(1))
        chosen = self.online(successors).max(1)[1]
        following = self.target(successors).gather(1, chosen.unsqueeze(1)).squeeze(1)
        return predicted.squeeze(), rewards + (GAMMA * following * ~dones)

    def _descend(self, loss: Any) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.online.parameters(), 1.0)
        self.optimiser.step()
        self.updates += 1

    def _explore_less(self) -> None:
        if self.epsilon > EPSILON_MIN:
            self.epsilon *= EPSILON_DECAY


class RainbowAgent(Agent):
    """The chapter's "RainbowDQN": Double and dueling, uniform replay."""

    def __init__(self, inputs: int, actions: int):
        super().__init__(DuelingNetwork, inputs, actions)
        self.memory: deque[Transition] = deque(maxlen=CAPACITY)

    def remember(self, transition: Transition) -> None:
        self.memory.append(transition)

    def replay(self) -> None:
        if len(self.memory) < BATCH:
            return
        predicted, aim = self._predict_and_aim(random.sample(self.memory, BATCH))
        self._descend(functional.mse_loss(predicted, aim))
        self._explore_less()


class PrioritisedAgent(Agent):
    """The chapter's "PERDQNAgent": Double with prioritised replay."""

    def __init__(self, inputs: int, actions: int):
        super().__init__(PlainNetwork, inputs, actions)
        self.memory = PrioritisedMemory(CAPACITY)

    def remember(self, transition: Transition) -> None:
        self.memory.tree.add(1.0, transition)

    def replay(self) -> None:
        if self.memory.tree.n_entries < BATCH:
            return
        batch, indices, weights = self.memory.sample(BATCH)
        predicted, aim = self._predict_and_aim(batch)
        errors = torch.abs(predicted - aim).cpu().data.numpy()
        each = functional.mse_loss(predicted, aim, reduction="none")
        self._descend(torch.mean(torch.FloatTensor(weights).to(predicted.device) * each))
        priorities = (errors + 1e-6) ** self.memory.alpha
        for index, priority in zip(indices, priorities, strict=True):
            self.memory.update(index, priority)
        self._explore_less()


AGENTS: dict[str, type[RainbowAgent] | type[PrioritisedAgent]] = {
    "rainbow": RainbowAgent,
    "per": PrioritisedAgent,
}
