"""The classic head: one number per choice, the expected return."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes.heads.base import ExportedOutputs, Head, take
from qhat.axes.policy import Policy
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jnp, optax


@dataclasses.dataclass(frozen=True)
class Expected(Head):
    """Q(s, a) itself, by the Huber loss (Mnih et al. 2015) or the squared error."""

    name: ClassVar[str] = "expected"

    delta: float | None = 1.0
    """|TD error| beyond which the loss is linear; `none` is the squared error ½·TD²."""

    def validate(self) -> None:
        require(
            self.delta is None or self.delta > 0,
            f"expected:delta is {self.delta}; expected more than 0, or none for the squared error.",
        )

    @property
    def outputs(self) -> int:
        return 1

    def mean(self, z: Float[Array, "F C K"], basis: Any) -> Float[Array, "F C"]:
        return z[..., 0]

    def predict(self, z: Float[Array, "F C K"], action: Int[Array, " F"], basis: Any) -> Any:
        return jnp.mean(take(z, action))

    def backup(
        self,
        reward: Float[Array, ""],
        discount: Float[Array, ""],
        z: Float[Array, "F C K"],
        pi: Float[Array, "F C"],
        entropy: Float[Array, "F C"],
        basis: Any,
        policy: Policy,
    ) -> Any:
        value = z[..., 0] + entropy if policy.has_entropy else z[..., 0]
        return reward + discount * jnp.mean(jnp.sum(pi * value, axis=1))

    def export_outputs(self, rows: Any, support: dict[str, Array]) -> ExportedOutputs:
        return ExportedOutputs(rows)

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        error = prediction - target
        if self.delta is None:
            return 0.5 * error**2, error
        return optax.losses.huber_loss(error, delta=self.delta), error
