"""The torso that an observation's shape asks for."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes.operations import Op
from qhat.axes.torso.base import Torso
from qhat.axes.torso.frames import MinAtar, Nature
from qhat.axes.torso.mlp import MLP
from qhat.axes.torso.pictures import read_picture
from qhat.system.lazy import Array, Float

LARGE = 36
"""Pixels of the shorter side from which on a picture gets `nature`."""


@dataclasses.dataclass(frozen=True)
class Auto(Torso):
    """The torso that the observation's shape asks for: `fitted` says which.

    A vector gets `mlp`; a picture with sides of 36 pixels or more `nature`; a smaller one, with
    its channels last, `minatar`.
    """

    name: ClassVar[str] = "auto"

    layer_norm: bool = False
    """Whether a `minatar` that it selects is normalised."""

    def fitted(self, shape: tuple[int, ...]) -> Torso:
        image = read_picture(shape)
        if image is not None and min(image[:2]) >= LARGE:
            return Nature()
        if len(shape) == 3 and shape[2] <= min(shape[:2]) and 3 <= min(shape[:2]) < LARGE:
            return MinAtar(layer_norm=self.layer_norm)
        return MLP()

    def of_image(self, shape: tuple[int, int, int]) -> Torso:
        least = min(shape[:2])
        return Nature() if least >= LARGE else MinAtar(layer_norm=self.layer_norm) if least >= 3 else MLP()

    def gains_from_cores(self, pictures: bool) -> bool:
        return pictures

    def features(self, shape: tuple[int, ...]) -> int:
        return self.fitted(shape).features(shape)

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return self.fitted(shape).init(key, shape)

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return self.fitted(observation.shape).apply(parameters, observation)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        return self.fitted(shape).export_ops(parameters, shape, dtype)
