"""The axis `head`: how a return is represented by K numbers per choice."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

from qhat.axes.axis import AxisValue, missing
from qhat.axes.operations import Op
from qhat.axes.policy import Policy
from qhat.system.lazy import Array, Float, Int, jnp

MOST = 100_000
"""Numbers per choice beyond which nothing is represented better."""


class Head(AxisValue, abc.ABC):
    """Meaning of the network's output `z` of shape `[F, C, K]`, for one example.

    The learner maps these functions over a batch; importance weights and the mean are applied
    there, once. `basis` is what the K numbers stand for: atoms of a support, quantile fractions, or
    nothing. It belongs to the network that made `z`.
    """

    axis: ClassVar[str] = "head"

    samples: ClassVar[bool] = False
    """Whether the network takes fractions, drawn for each evaluation of it; K is their number."""
    embedding: int = 0
    """Cosines of the embedding that the network shows a fraction as."""
    calibrates: bool = False
    """Whether the support is set from the returns in replay."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """K, numbers per choice (for a head that samples: per fraction)."""

    def init_support(self) -> dict[str, Array]:
        """Return the part of the parameters that no gradient moves; most heads have none."""
        return {}

    def fractions(self, look: str) -> int:
        """Return how many fractions an update draws for a look; 0 is to use the fixed ones."""
        return 0

    def fixed_fractions(self) -> Float[Array, " K"] | None:
        """Return the fractions that every choice of an action averages over."""
        return None

    def basis(self, support: dict[str, Array], fractions: Float[Array, " K"] | None) -> Any:
        """Return what the K numbers stand for."""
        return ()

    @abc.abstractmethod
    def mean(self, z: Float[Array, "F C K"], basis: Any) -> Float[Array, "F C"]:
        """Return Q_f(s, a_f), the expected return of each choice."""

    @abc.abstractmethod
    def predict(self, z: Float[Array, "F C K"], action: Int[Array, " F"], basis: Any) -> Any:
        """Return the joint prediction for `action`: factors merged."""

    @abc.abstractmethod
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
        """Return the target G = r + d · Σ_a' π(a'|s')·[Z̄(s', a') + entropy(a')], for any distribution π.

        Args:
            pi: π(a'|s'), per factor.
            entropy: −τ·log π; zeros for a policy without an entropy term.
            policy: whose π it is. Its `is_deterministic` and `has_entropy` are known before compilation, so
                that a head can leave out what is 0. A head that ignores them is right too.
        """

    @abc.abstractmethod
    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the loss of one example and its error, from which replay makes a priority."""

    @missing
    def export_outputs(self, rows: Any, support: dict[str, Array]) -> ExportedOutputs:
        """Return the last layer and what makes Q of its outputs: `mean`, as rows and operations.

        Args:
            rows: weights, then the bias, of every output, `[F, C, K, I + 1]`, in NumPy and float64.
            support: the head's part of the parameters.
        """
        raise NotImplementedError(self.name)

    def overflow(self, target: Any, basis: Any) -> Float[Array, " 2"]:
        """Return the share of the target's mass below and above the support."""
        return jnp.zeros(2)


class ExportedOutputs(NamedTuple):
    """How a head is exported: operations before the last layer, its rows, operations after it."""

    rows: Any
    """`[F, C, k, I + 1]`; the k numbers of a choice are what `after` starts from, or Q where k is 1."""
    before: tuple[Op, ...] = ()
    after: tuple[Op, ...] = ()


def take(z: Float[Array, "F C K"], action: Int[Array, " F"]) -> Float[Array, "F K"]:
    """Return the outputs of the chosen actions, by a sum: a cheaper gradient than a scatter."""
    chosen = action[:, None] == jnp.arange(z.shape[1])
    return jnp.sum(jnp.where(chosen[..., None], z, 0.0), axis=1)
