"""The chapter's networks, `DQN` and `DuelingDQN`: an agent's Q-values, from NumPy to NumPy."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from qhat.agent.agent import Agent
from qhat.axes.merge import Dueling, Merge, Plain
from qhat.system.errors import require

HIDDEN = (64, 64)
"""The chapter's `hidden_dims`."""


class QNetwork(abc.ABC):
    """Q(s, ·) of one network.

    Args:
        state_dim: number of features of a state.
        action_dim: number of actions.
        hidden_dims: widths of the hidden layers.
        seed: of the weights.
        agent: the agent that trains the network; default: a new one, which nobody trains.
    """

    merge: ClassVar[Merge]
    """How hidden features become Q-values."""

    def __init__(
        self,
        state_dim: int | np.integer,
        action_dim: int | np.integer,
        hidden_dims: Sequence[int] = HIDDEN,
        *,
        seed: int = 0,
        agent: Agent | None = None,
    ):
        small = {"hidden": tuple(hidden_dims), "merge": self.merge, "replay_capacity": 64}
        self._agent = agent or Agent(state_dim, action_dim, "chapter_dqn", seed=seed, **small)
        self.state_dim, self.action_dim, self.hidden_dims = state_dim, action_dim, tuple(hidden_dims)

    @abc.abstractmethod
    def forward(self, x: Any) -> np.ndarray:
        """Return Q-values `[actions]` of one state, or `[B, actions]` of a batch of states."""

    def __call__(self, x: Any) -> np.ndarray:
        """Return what `forward` returns."""
        return self.forward(x)

    def _values(self, x: Any) -> np.ndarray:
        states = np.asarray(x)
        require(
            states.ndim in (1, 2) and states.shape[-1] == self.state_dim,
            f"A state has the shape {states.shape}; expected ({self.state_dim},), or a batch of them.",
        )
        if states.ndim == 1:
            return self._agent.q_values(states)
        rows = [self._agent.q_values(state) for state in states]
        return np.stack(rows) if rows else np.zeros((0, self.action_dim), np.float32)


@final
class DQN(QNetwork):
    """Hidden layers and one output per action."""

    merge: ClassVar[Merge] = Plain()

    def forward(self, x: Any) -> np.ndarray:
        return self._values(x)


@final
class DuelingDQN(QNetwork):
    """Separate streams for V(s) and A(s, a); Q = V + A − mean A (Wang et al. 2016, eq. 9)."""

    merge: ClassVar[Merge] = Dueling()

    def forward(self, x: Any) -> np.ndarray:
        return self._values(x)
