"""The axis `head`: how a return is represented by K numbers per choice."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from qhat._lazy import Array, Float, Int
from qhat.axis import AxisValue


class Head(AxisValue, abc.ABC):
    """Meaning of the network's output `z` of shape `[F, C, K]`, for one example.

    The learner maps these functions over a batch; weights and the mean are applied there, once.
    """

    axis: ClassVar[str] = "head"

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """K, numbers per choice."""

    @abc.abstractmethod
    def mean(self, z: Float[Array, "F C K"]) -> Float[Array, "F C"]:
        """Return Q_f(s, a_f), the expected return of each choice."""

    @abc.abstractmethod
    def predict(self, z: Float[Array, "F C K"], action: Int[Array, " F"]) -> Any:
        """Return the joint prediction for `action`: factors merged."""

    @abc.abstractmethod
    def backup(
        self,
        reward: Float[Array, ""],
        discount: Float[Array, ""],
        z: Float[Array, "F C K"],
        policy: Float[Array, "F C"],
        shift: Float[Array, "F C"],
    ) -> Any:
        """Return the target G = r + d · Σ_a' π(a'|s')·[Z̄(s', a') + shift(a')]."""

    @abc.abstractmethod
    def loss(self, prediction: Any, target: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the loss of one example and its error, from which replay makes a priority."""
