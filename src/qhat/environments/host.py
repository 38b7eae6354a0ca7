"""What an environment is to the host loop: a batch of S·E copies, stepped in Python."""

from __future__ import annotations

import abc
from typing import NoReturn

import numpy as np

from qhat.environments.base import Spec, Timestep
from qhat.system.errors import QhatError


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
    def receive(self) -> Timestep:
        """Return what the step brought."""

    def give_up(self, error: Exception) -> NoReturn:
        """Raise the error for a step that hangs."""
        raise QhatError(f"Environment '{self.spec.id}' did not come back from a step.") from error

    @abc.abstractmethod
    def close(self) -> None:
        """End the environments' processes and windows."""
