"""The torso of observations that are a list of numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from qhat.axes.operations import Op
from qhat.axes.torso.base import Torso
from qhat.system.lazy import Array, Float, jnp


@dataclasses.dataclass(frozen=True)
class MLP(Torso):
    """Flatten the observation; the hidden layers do the rest."""

    name: ClassVar[str] = "mlp"

    def gains_from_cores(self, pictures: bool) -> bool:
        return pictures

    def features(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return {}

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return observation.astype(jnp.float32).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        return []
