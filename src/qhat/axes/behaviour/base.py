"""What the actions of those who recorded the data say, beside their returns: the base of its values."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np

from qhat.axes.axis import AxisValue
from qhat.axes.merge import Exists, Merge
from qhat.axes.operations import Op
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp


@dataclasses.dataclass
class ExportedPreferences:
    """The last layer of an exported network whose results are preferences, and what comes after it."""

    rows: Any
    """`[F, C, _, I + 1]`: weights, then the bias."""
    after: tuple[Op, ...] = ()


class Case(NamedTuple):
    """A recorded step in an update: what its loss is made of."""

    regression: Float[Array, ""]
    """The loss of fitting Q(s, a) to its target."""
    q: Float[Array, "F C"]
    """Q(s, ·; θ), −∞ for what is illegal."""
    action: Int[Array, " F"]
    """The recorded one."""
    beside: Float[Array, "F C B"] | None = None
    """What `Behaviour.beside` returned for s, without the values; only if it `acts`."""
    judged: Float[Array, "F C"] | None = None
    """Q(s, ·; θ⁻), only if it `uses_target`."""
    logged: Bool[Array, ""] | None = None
    """Whether it was recorded before the run; `None` where all were, or where nobody knows."""


class Behaviour(AxisValue, abc.ABC):
    """Changes the loss of a recorded step, for one example; some also what is done, and backed up."""

    axis: ClassVar[str] = "behaviour"
    counts: ClassVar[bool] = True
    """Whether `loss` returns something else than what it is given."""
    acts: ClassVar[bool] = False
    """Whether the network has streams beside the values', which say what is done."""
    uses_target: ClassVar[bool] = False
    """Whether `loss` asks for the target network's values of the acted-on observation."""
    judges: ClassVar[bool] = False
    """Whether a successor's value is that of its streams, in place of Z(s', a')."""
    rewarded: ClassVar[bool] = True
    """Whether rewards count: without, data need none."""
    needs_logged: ClassVar[bool] = False
    """Whether it counts for steps that were recorded before the run alone."""

    @abc.abstractmethod
    def loss(self, case: Case) -> Float[Array, ""]:
        """Return the loss of a recorded step."""

    def streams(self, choices: int) -> dict[str, int]:
        """Return the outputs (per factor) of each stream beside the values', by the stream's name."""
        return {}

    def beside(
        self, z: Float[Array, "F C K"], streams: dict[str, Float[Array, "F _ 1"]], exists: Exists
    ) -> Float[Array, "F C _"]:
        """Return the values, with B numbers of these streams behind those of each choice."""
        return z

    def preferences(self, q: Float[Array, "F C"], beside: Float[Array, "F C B"]) -> Float[Array, "F C"]:
        """Return what a greedy choice is the largest of."""
        return q

    def values(self, beside: Float[Array, "F C B"]) -> Float[Array, "F C 1"]:
        """Return the value of a successor, the same for each choice; only if it `judges`."""
        raise NotImplementedError(self.name)

    def export_streams(self, merged: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the streams that `preferences` need, of those of the merge and its own."""
        return merged

    def export_rows(self, merge: Merge, streams: dict[str, Any], exists: np.ndarray) -> ExportedPreferences:
        """Return the last layer and the operations after it whose results are `preferences`; see `Merge`.

        Args:
            merge: makes the rows of Z, `[F, C, 1, I + 1]`.
            streams: rows of each of the `export_streams`, `[F, width, 1, I + 1]`.
        """
        raise NotImplementedError(self.name)


def surprise(logits: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
    """Return −log softmax(logits)_a of the action, the sum over factors."""
    chosen = jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0]
    return jnp.sum(jax.nn.logsumexp(logits, axis=1) - chosen)
