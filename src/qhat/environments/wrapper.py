"""What an entry of the list `wrap` is."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.lazy import Array, Bool, Float, jnp


class Wrapper(AxisValue, abc.ABC):
    """One entry of the list."""

    axis: ClassVar[str] = "wrap"


class RewardWrapper(Wrapper):
    """Changes the rewards that are learned from."""

    @abc.abstractmethod
    def learned(self, reward: Float[Array, " E"]) -> Float[Array, " E"]:
        """Return what replay stores for a reward of the task's."""


class EnvironmentWrapper(Wrapper):
    """Changes the task: as pure functions around an `Environment`, and around a Gymnasium environment.

    What the pure functions remember is part of the environment's state, so a resumed run continues with it.
    """

    def require_fit(self, inner: Any) -> None:
        """Raise `UsageError` when it has no meaning around the `Environment` `inner`."""

    def spec(self, spec: Any) -> Any:
        """Return the `Spec` of the wrapped environment."""
        return spec

    @abc.abstractmethod
    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        """Return the memory of fresh episodes and their observations, from the inner ones `[E, ...]`.

        Args:
            spec: of the inner environment.
        """

    @abc.abstractmethod
    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        """Step `inner`; return its state, the memory and the `Timestep`."""

    @abc.abstractmethod
    def around(self, env: Any) -> Any:
        """Return one Gymnasium environment wrapped."""


def choose(rows: Bool[Array, " E"], yes: Array, no: Array) -> Array:
    """Choose by row."""
    return jnp.where(rows.reshape(-1, *[1] * (no.ndim - 1)), yes, no)
