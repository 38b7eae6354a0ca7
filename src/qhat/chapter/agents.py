"""The chapter's four agents, each a `qhat.Agent` with the chapter's arguments, attributes and methods."""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from qhat import recipes
from qhat.agent.agent import Agent
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.optimiser import Adam
from qhat.axes.target import Hard
from qhat.chapter.networks import DQN, HIDDEN, DuelingDQN, QNetwork
from qhat.recipes.recipe import Recipe
from qhat.system import files
from qhat.system.errors import UsageError, require

SETTINGS = "chapter.json"
"""The file beside a saved agent that has its ε."""
MOST = 2**31 - 1


@dataclasses.dataclass(eq=False, repr=False)
class ChapterAgent(abc.ABC):
    """An agent with the chapter's arguments and methods."""

    state_dim: int | np.integer
    """Number of features of a state."""
    action_dim: int | np.integer
    """Number of actions."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    gamma: float = 0.99
    """γ, the discount per step."""
    epsilon: float = 1.0
    """ε, the share of random actions now. Each `replay` that learns multiplies it by `epsilon_decay`."""
    epsilon_decay: float = 0.995
    """The factor of ε at each gradient update."""
    epsilon_min: float = 0.01
    """ε falls no further."""
    target_update_freq: int = 1000
    """C, steps between two calls of `update_target_network`, which the caller's loop makes."""
    batch_size: int = 32
    """Transitions per gradient update."""
    _: dataclasses.KW_ONLY
    hidden_dims: tuple[int, ...] = HIDDEN
    """Widths of the hidden layers."""
    seed: int = 0
    """Of the weights and of all randomness."""

    clips: ClassVar[bool]
    """Whether gradients are scaled down to norm 1."""

    def __post_init__(self) -> None:
        self._check()
        self.agent = self._made()
        """The `qhat.Agent` that does the work."""
        self._random = np.random.default_rng((self.seed, 0))

    def __repr__(self) -> str:
        """Return the arguments that differ from their defaults, and ε."""
        changed = [f"epsilon={self.epsilon:.3g}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in ("state_dim", "action_dim", "epsilon"):
                changed.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({self.state_dim}, {self.action_dim}, {', '.join(changed)})"

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """Transitions that replay has room for."""

    @abc.abstractmethod
    def network(self) -> type[QNetwork]:
        """Return the class of the Q-network."""

    @abc.abstractmethod
    def algorithm(self) -> Recipe:
        """Return the recipe of the algorithm, without the settings that are arguments."""

    @property
    def q_network(self) -> QNetwork:
        """The network that learns: `agent.q_network(state)` returns its Q-values."""
        return self.network()(self.state_dim, self.action_dim, self.hidden_dims, agent=self.agent)

    @property
    def memory(self) -> Memory:
        """Replay, of which only the size can be read."""
        return Memory(min(self.agent.steps, self.capacity), self.capacity)

    @property
    def step_count(self) -> int:
        """Transitions remembered so far."""
        return self.agent.steps

    def remember(
        self, state: Any, action: int, reward: float, next_state: Any, done: bool, truncated: bool = False
    ) -> None:
        """Store a transition.

        Args:
            done: the task ended, so that the value of `next_state` is 0: Gymnasium's `terminated`.
            truncated: a time limit ended the episode, and `next_state` keeps its value. A loop that passes
                `done = terminated or truncated` teaches that the time limit is a failure; pass both:
                `agent.remember(state, action, reward, next_state, terminated, truncated)`.
        """
        self.agent.remember(state, action, reward, next_state, done, truncated)

    def act(self, state: Any, training: bool = True) -> int:
        """Return an action: with `training` a random one in a share `epsilon` of the calls."""
        explore = training and self._random.random() < self.epsilon
        return self.agent.act(state, explore=explore)

    def replay(self) -> Mapping[str, float] | None:
        """Do one gradient update, and decay ε.

        Returns:
            the loss and other measurements; None while replay has less than a batch.
        """
        if len(self.memory) < self.batch_size or (metrics := self.agent.replay()) is None:
            return None
        self.epsilon = min(self.epsilon, max(self.epsilon * self.epsilon_decay, self.epsilon_min))
        return metrics

    def update_target_network(self) -> None:
        """Copy the weights to the target network. Nothing else does; call it every `target_update_freq`."""
        self.agent.update_target_network()

    def save_model(self, filepath: str | Path) -> None:
        """Save the agent as a folder: weights, optimiser, replay and ε."""
        folder = Path(filepath).resolve()
        free = not folder.exists() or (folder / SETTINGS).is_file()
        require(free, f"'{filepath}' exists and is no saved agent; expected a new name.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.writing(folder), files.replacing_folder(folder) as new:
            self.agent.save(new / "agent")
            text = json.dumps({"epsilon": self.epsilon, **self._spaces()})
            files.write_text(new / SETTINGS, text + "\n")

    def load_model(self, filepath: str | Path) -> None:
        """Continue from what `save_model` of an agent with the same arguments wrote.

        Raises:
            UsageError: the folder is no saved agent, or one of other arguments. This agent did not change.
        """
        folder = files.current_folder(Path(filepath).resolve())
        try:
            settings = files.read_json(folder / SETTINGS)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"'{filepath}' is no agent that save_model wrote: no {SETTINGS}.") from None
        epsilon: Any = settings.get("epsilon") if isinstance(settings, dict) else None
        if not _share(epsilon):
            raise UsageError(f"'{folder / SETTINGS}' is damaged; expected an object with ε from 0 to 1.")
        loaded = Agent.load(folder / "agent")
        spaces = {name: settings.get(name) for name in self._spaces()}
        same = loaded.recipe == self.agent.recipe and spaces == self._spaces()
        require(same, f"'{filepath}' was saved by an agent with other arguments; expected those of {self}.")
        self.agent, self.epsilon = loaded, epsilon
        self._random = np.random.default_rng((self.seed, loaded.steps))

    def _spaces(self) -> dict[str, int]:
        return {"state_dim": int(self.state_dim), "action_dim": int(self.action_dim)}

    def _made(self) -> Agent:
        # The chapter's loss is TD², ours TD²/2: with half its norm and half its ε Adam takes the same step.
        recipe = dataclasses.replace(
            self.algorithm(),
            hidden=tuple(self.hidden_dims),
            gamma=self.gamma,
            learning_rate=self.learning_rate,
            learning_rate_end=None,
            optimiser=Adam(epsilon=0.5e-8),
            max_gradient_norm=0.5 if self.clips else None,
            batch_size=self.batch_size,
            replay_capacity=self.capacity,
            learning_starts=0,
            target=Hard(every=MOST),
            explore=EpsilonGreedy(start=1.0, end=1.0, steps=0),
        )
        return Agent(self.state_dim, self.action_dim, recipe, seed=self.seed)

    def _check(self) -> None:
        for name in ("state_dim", "action_dim", "target_update_freq", "batch_size"):
            value = getattr(self, name)
            require(_whole(value, 1), f"{name} is {value!r}; expected a whole number of 1 or more.")
        for name in ("epsilon", "epsilon_decay", "epsilon_min"):
            value = getattr(self, name)
            require(_share(value), f"{name} is {value!r}; expected a number from 0 to 1.")
        least = max(self.batch_size, 3)
        require(
            _whole(self.capacity, least),
            f"Replay has room for {self.capacity!r} transitions; expected {least} or more.",
        )


@dataclasses.dataclass(frozen=True)
class Memory:
    """The size of an agent's replay."""

    n_entries: int
    """Transitions in replay, at most. The last observation of each episode takes the place of one."""
    capacity: int
    """Transitions that fit."""

    def __len__(self) -> int:
        return self.n_entries

    @property
    def maxlen(self) -> int:
        """Transitions that fit, as a deque calls it."""
        return self.capacity

    @property
    def tree(self) -> Memory:
        """What the chapter's prioritised memory counts with: `agent.memory.tree.n_entries`."""
        return self


@final
@dataclasses.dataclass(eq=False, repr=False)
class DQNAgent(ChapterAgent):
    """DQN (Mnih et al. 2015)."""

    buffer_size: int = 100_000
    """Transitions that replay has room for."""

    clips: ClassVar[bool] = False

    @property
    def capacity(self) -> int:
        return self.buffer_size

    def network(self) -> type[QNetwork]:
        return DQN

    def algorithm(self) -> Recipe:
        return recipes.chapter_dqn


@final
@dataclasses.dataclass(eq=False, repr=False)
class DoubleDQN(ChapterAgent):
    """Double DQN (van Hasselt et al. 2016): the online network chooses the next action."""

    buffer_size: int = 100_000
    """Transitions that replay has room for."""

    clips: ClassVar[bool] = True

    @property
    def capacity(self) -> int:
        return self.buffer_size

    def network(self) -> type[QNetwork]:
        return DQN

    def algorithm(self) -> Recipe:
        return recipes.chapter_double


@final
@dataclasses.dataclass(eq=False, repr=False)
class RainbowDQN(ChapterAgent):
    """Double DQN with the dueling network: two of Rainbow's six parts, as in the chapter."""

    buffer_size: int = 100_000
    """Transitions that replay has room for."""
    use_dueling: bool = True
    """Whether the network has the streams V and A."""

    clips: ClassVar[bool] = True

    @property
    def capacity(self) -> int:
        return self.buffer_size

    def network(self) -> type[QNetwork]:
        return DuelingDQN if self.use_dueling else DQN

    def algorithm(self) -> Recipe:
        return recipes.chapter_rainbow if self.use_dueling else recipes.chapter_double


@final
@dataclasses.dataclass(eq=False, repr=False)
class PERDQNAgent(ChapterAgent):
    """Double DQN with prioritised replay (Schaul et al. 2016)."""

    per_capacity: int = 100_000
    """Transitions that replay has room for."""

    clips: ClassVar[bool] = True

    @property
    def capacity(self) -> int:
        return self.per_capacity

    def network(self) -> type[QNetwork]:
        return DQN

    def algorithm(self) -> Recipe:
        return recipes.chapter_per


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
