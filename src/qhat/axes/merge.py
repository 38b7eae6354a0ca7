"""The axis `merge`: how hidden features become one output per choice."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np

from qhat.axes.axis import AxisValue, missing
from qhat.system.lazy import Array, Float, jnp

Exists = tuple[tuple[bool, ...], ...] | None
"""Which choices each factor has, `[F, C]`; `None` is all."""


class Merge(AxisValue, abc.ABC):
    """Names the network's streams and merges their outputs, for any K."""

    axis: ClassVar[str] = "merge"

    @abc.abstractmethod
    def streams(self, choices: int) -> dict[str, int]:
        """Return the outputs (per factor) that each stream has, by the stream's name."""

    @abc.abstractmethod
    def merge(self, streams: dict[str, Float[Array, "F _ K"]], exists: Exists) -> Float[Array, "F C K"]:
        """Merge the streams' outputs."""

    @missing
    def export_rows(self, streams: dict[str, Any], exists: np.ndarray) -> Any:
        """Return the rows (weights, then the bias) of the one layer that the streams' last layers are.

        Args:
            streams: rows of each, `[F, width, K, I + 1]`.
            exists: which choices each factor has, `[F, C]`.

        Returns:
            rows of the merged outputs, `[F, C, K, I + 1]`, in NumPy and float64.
        """
        raise NotImplementedError(self.name)


@dataclasses.dataclass(frozen=True)
class Plain(Merge):
    """The outputs are Z(s, a) themselves."""

    name: ClassVar[str] = "plain"

    def streams(self, choices: int) -> dict[str, int]:
        return {"q": choices}

    def merge(self, streams: dict[str, Float[Array, "F _ K"]], exists: Exists) -> Float[Array, "F C K"]:
        return streams["q"]

    def export_rows(self, streams: dict[str, Any], exists: np.ndarray) -> Any:
        return streams["q"]


@dataclasses.dataclass(frozen=True)
class Dueling(Merge):
    """Z = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, arXiv:1511.06581, eq. 9).

    The last hidden layer belongs to the streams: value and advantage have one each.
    """

    name: ClassVar[str] = "dueling"

    def streams(self, choices: int) -> dict[str, int]:
        return {"value": 1, "advantage": choices}

    def merge(self, streams: dict[str, Float[Array, "F _ K"]], exists: Exists) -> Float[Array, "F C K"]:
        advantage = streams["advantage"]
        where = None if exists is None else jnp.asarray(exists)[..., None]
        return streams["value"] + advantage - jnp.mean(advantage, axis=1, keepdims=True, where=where)

    def export_rows(self, streams: dict[str, Any], exists: np.ndarray) -> Any:
        advantage, there = streams["advantage"], exists.astype(float)[:, :, None, None]
        mean = (advantage * there).sum(axis=1, keepdims=True) / there.sum(axis=1, keepdims=True)
        return streams["value"] + advantage - mean


MERGES: tuple[type[Merge], ...] = (Plain, Dueling)
