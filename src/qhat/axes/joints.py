"""The axis `joints`: how actions of several factors share one target."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.axes.heads.base import Head
from qhat.system.lazy import Array, Float, Int, jax, jnp


class Joints(AxisValue, abc.ABC):
    """Regresses the outputs of the chosen actions onto the target, for one example."""

    axis: ClassVar[str] = "joints"

    @abc.abstractmethod
    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the loss and the error, as `Head.loss` does."""


@dataclasses.dataclass(frozen=True)
class Together(Joints):
    """The mean over the joints is fitted (Seyde et al. 2022, arXiv:2210.12566, eq. 3–4).

    A joint learns what it adds to the others, so their sum can be right where each alone is not.
    """

    name: ClassVar[str] = "together"

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return head.loss(head.predict(z, action, basis), target, basis)


@dataclasses.dataclass(frozen=True)
class Each(Joints):
    """Every joint is fitted separately (branching: Tavakoli et al. 2018, arXiv:1711.08946, eq. 6).

    The target is the same for all, made from the mean over the joints.
    """

    name: ClassVar[str] = "each"

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def alone(outputs: Float[Array, "C K"], choice: Int[Array, ""]) -> tuple[Array, Array]:
            return head.loss(head.predict(outputs[None], choice[None], basis), target, basis)

        losses, errors = jax.vmap(alone)(z, action)
        return jnp.mean(losses), jnp.mean(jnp.abs(errors))


JOINTS: tuple[type[Joints], ...] = (Together, Each)
