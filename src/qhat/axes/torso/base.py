"""The base of every torso."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, missing
from qhat.axes.operations import Op
from qhat.system.lazy import Array, Float


class Torso(AxisValue, abc.ABC):
    """Turns one observation into features; parameters are a (nested) dictionary of arrays."""

    axis: ClassVar[str] = "torso"
    projects: ClassVar[bool] = False
    """Whether an update is followed by `projected`."""

    def fitted(self, shape: tuple[int, ...]) -> Torso:
        """Return the torso that this one is for observations of `shape`."""
        return self

    def of_image(self, shape: tuple[int, int, int]) -> Torso:
        """Return the torso that this one is for images (height, width, channels)."""
        return self

    def form(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape in which it takes an image without mistaking its axes."""
        return shape

    def gains_from_cores(self, pictures: bool) -> bool:
        """Whether an update has products so large that a second core computes part of them sooner.

        Args:
            pictures: whether observations have pictures of 36 pixels or more a side.
        """
        return True

    @property
    def largest_layer(self) -> int:
        """Weights of its largest fully connected layer between layers; 0 where it has none."""
        return 0

    @abc.abstractmethod
    def features(self, shape: tuple[int, ...]) -> int:
        """Return the number of features for observations of `shape`. Raises `UsageError`."""

    @abc.abstractmethod
    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the parameters."""

    @abc.abstractmethod
    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        """Return the features of one observation of any dtype."""

    def projected(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters after an update within their limits, if it `projects`."""
        return parameters

    @missing
    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        """Return `apply` as operations; what they give is flattened.

        Args:
            shape: of one observation.
            dtype: of observations; empty for an image in the torso's own order, already scaled.
        """
        raise NotImplementedError(self.name)
