"""The axis `behaviour`: what the actions of those who recorded the data say, beside their returns."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jax, jnp


class Behaviour(AxisValue, abc.ABC):
    """Changes the loss of a recorded step, for one example."""

    axis: ClassVar[str] = "behaviour"
    counts: ClassVar[bool] = True
    """Whether `loss` returns something else than what it is given."""

    @abc.abstractmethod
    def loss(
        self, regression: Float[Array, ""], q: Float[Array, "F C"], action: Int[Array, " F"]
    ) -> Float[Array, ""]:
        """Return the loss.

        Args:
            regression: the loss of fitting Q(s, a) to its target.
            q: Q(s, ·; θ), −∞ for what is illegal.
            action: the recorded one.
        """


@dataclasses.dataclass(frozen=True)
class NoBehaviour(Behaviour):
    """The returns say everything: Q-learning."""

    name: ClassVar[str] = "none"
    counts: ClassVar[bool] = False

    def loss(
        self, regression: Float[Array, ""], q: Float[Array, "F C"], action: Int[Array, " F"]
    ) -> Float[Array, ""]:
        return regression


@dataclasses.dataclass(frozen=True)
class Conservative(Behaviour):
    """CQL(H): values of actions that were not recorded are pressed down (Kumar et al. 2020, eq. 4).

    arXiv:2006.04779. To the loss of the regression it adds

        α·[log Σ_a exp Q(s, a) − Q(s, a_recorded)].

    Of F factors, Q is the mean of Q_f, and the sum over all joint actions is one over each factor:
    log Σ_a exp Q(s, a) = Σ_f log Σ_c exp(Q_f(s, c)/F), exactly.
    """

    name: ClassVar[str] = "cql"

    alpha: float = 1.0
    """α: 0 is Q-learning; the larger it is, the nearer the policy stays to the recorded actions."""

    def validate(self) -> None:
        require(self.alpha > 0, f"cql:alpha is {self.alpha}; expected a number above 0, for example 1.")

    def loss(
        self, regression: Float[Array, ""], q: Float[Array, "F C"], action: Int[Array, " F"]
    ) -> Float[Array, ""]:
        return regression + self.alpha * surprise(q / q.shape[0], action)


@dataclasses.dataclass(frozen=True)
class Clone(Behaviour):
    """Behaviour cloning (Pomerleau 1991): the outputs are logits of the recorded actions.

    The loss is −log softmax(Q(s, ·))_a, the sum over factors, and no return counts.
    """

    name: ClassVar[str] = "clone"

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.head.name == "expected",
            f"clone has one logit of each action; expected head expected, and it is {recipe.head.name}.",
        )

    def loss(
        self, regression: Float[Array, ""], q: Float[Array, "F C"], action: Int[Array, " F"]
    ) -> Float[Array, ""]:
        return surprise(q, action)


def surprise(logits: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
    """Return −log softmax(logits)_a of the action, the sum over factors."""
    chosen = jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0]
    return jnp.sum(jax.nn.logsumexp(logits, axis=1) - chosen)


BEHAVIOURS: tuple[type[Behaviour], ...] = (NoBehaviour, Conservative, Clone)
