"""A head from outside the package: the one of docs/extending.md."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from qhat.axes.heads import Head
from qhat.axes.heads.base import ExportedOutputs, take
from qhat.axes.policy import Policy


@dataclasses.dataclass(frozen=True)
class LogCosh(Head):
    """One number per choice, by the loss s²·log cosh(TD/s)."""

    name: ClassVar[str] = "log_cosh"

    scale: float = 1.0

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
        return reward + discount * jnp.mean(jnp.sum(pi * (z[..., 0] + entropy), axis=1))

    def export_outputs(self, rows: np.ndarray, support: dict[str, Array]) -> ExportedOutputs:
        return ExportedOutputs(rows)

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        error = prediction - target
        return self.scale**2 * (
            jnp.logaddexp(error / self.scale, -error / self.scale) - jnp.log(2.0)
        ), error
