"""What an environment is to the host loop: a batch of S·E copies, stepped in Python."""

from __future__ import annotations

import abc
from typing import NoReturn

import numpy as np

from qhat.environments.base import AnyEnvironment, Timestep
from qhat.system.errors import QhatError, UnfitActionError


class HostEnvironment(AnyEnvironment):
    """E copies for each of S seeds."""

    seeds: int
    snapshots: bool = False
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

    def send_env_action(self, action: np.ndarray) -> None:
        """Begin a step with actions as the environment itself takes them, `[S·E, *shape]`.

        Raises:
            UnfitActionError: it does not have one of them.
        """
        actions = self.spec.actions
        flat = actions.flat(action, (len(action),))
        if flat is None or not actions.holds(flat).all():
            raise UnfitActionError(actions.expected)
        choice = actions.nearest(flat).astype(np.int32)
        self.send(choice.reshape(self.seeds, self.num_envs, -1))

    @abc.abstractmethod
    def receive(self) -> Timestep:
        """Return what the step brought."""

    def give_up(self, error: Exception) -> NoReturn:
        """Raise the error for a step that hangs."""
        raise QhatError(f"Environment '{self.spec.id}' did not come back from a step.") from error
