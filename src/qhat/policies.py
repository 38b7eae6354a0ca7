"""The axis `policy`: how a' is chosen in the backup."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from qhat._lazy import Array, Float, jax, jnp
from qhat.axis import AxisValue


class Policy(AxisValue, abc.ABC):
    """The distribution over a' at the successor, for one example."""

    axis: ClassVar[str] = "policy"
    uses_online: ClassVar[bool]
    """Whether the online network looks at the successor too."""

    @abc.abstractmethod
    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        """Return π(a'|s') per factor, and −τ·log π (0 for a hard policy).

        Args:
            target: Q(s', ·) by the target network.
            online: Q(s', ·) by the online network; `target` again unless `uses_online`.
        """


@dataclasses.dataclass(frozen=True)
class Greedy(Policy):
    """a' = argmax Q̄(s', ·): the target network chooses and judges (Mnih et al. 2015)."""

    name: ClassVar[str] = "greedy"
    uses_online: ClassVar[bool] = False

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        return _one_hot_argmax(target), jnp.zeros_like(target)


@dataclasses.dataclass(frozen=True)
class Double(Policy):
    """a' = argmax Q(s', ·): online chooses, target judges (van Hasselt et al. 2016, eq. 4).

    https://arxiv.org/abs/1509.06461
    """

    name: ClassVar[str] = "double"
    uses_online: ClassVar[bool] = True

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        return _one_hot_argmax(online), jnp.zeros_like(online)


def _one_hot_argmax(q: Float[Array, "F C"]) -> Float[Array, "F C"]:
    return jax.nn.one_hot(jnp.argmax(q, axis=1), q.shape[1], dtype=q.dtype)


POLICIES: tuple[type[Policy], ...] = (Greedy, Double)
