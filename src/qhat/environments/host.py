"""What an environment is to the host loop: a batch of S·E copies, stepped in Python."""

from __future__ import annotations

import abc
from typing import NamedTuple, NoReturn

import numpy as np

from qhat.environments.base import Spec
from qhat.system.errors import QhatError


class HostStep(NamedTuple):
    """What one step brought, `[S, E, ...]` each: a `Timestep` of NumPy arrays."""

    observation: np.ndarray
    """What to act on next."""
    successor: np.ndarray
    """The true successor of what was acted on."""
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    real: np.ndarray
    """False where the row is a reset and no transition."""
    legal: np.ndarray | None = None
    """Actions that `observation` allows, `[S, E, F, C]`, in an environment that masks."""
    legal_successor: np.ndarray | None = None
    score: np.ndarray | None = None
    """As in `Timestep`."""
    over: np.ndarray | None = None
    broken: np.ndarray | None = None
    success: np.ndarray | None = None

    @property
    def scored(self) -> np.ndarray:
        """What the step adds to a score."""
        return self.reward if self.score is None else self.score

    @property
    def finished(self) -> np.ndarray:
        """Whether a score is complete."""
        return self.terminated | self.truncated if self.over is None else self.over

    @property
    def closed(self) -> np.ndarray:
        """Whether nothing more counts for this score: it is complete, or its episode broke off."""
        closed = self.finished & self.real
        return closed if self.broken is None else closed | self.broken


class HostEnvironment(abc.ABC):
    """E copies for each of S seeds."""

    spec: Spec
    num_envs: int
    seeds: int
    snapshots: bool = False
    """Its state lives in Python objects, and is not saved."""
    is_async: bool = False
    """Whether it steps between `send` and `receive`, while the program continues."""
    seconds: float | None = None
    """How long a step may take; `None` where the environment enforces its limit itself."""

    @abc.abstractmethod
    def start(self) -> np.ndarray:
        """Begin new episodes everywhere; return the observations `[S, E, ...]`."""

    def legal(self) -> np.ndarray | None:
        """Return the actions `[S, E, F, C]` that the observations of `start` allow; `None` is all."""
        return None

    @abc.abstractmethod
    def send(self, action: np.ndarray) -> None:
        """Begin a step with the actions `[S, E, F]`; `receive` has to follow."""

    @abc.abstractmethod
    def receive(self) -> HostStep:
        """Return what the step brought."""

    def give_up(self, error: Exception) -> NoReturn:
        """Raise the error for a step that hangs."""
        raise QhatError(f"Environment '{self.spec.id}' did not come back from a step.") from error

    @abc.abstractmethod
    def close(self) -> None:
        """End the environments' processes and windows."""
