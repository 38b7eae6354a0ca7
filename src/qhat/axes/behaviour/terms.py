"""Values of the axis `behaviour` that add a term to the loss, or take its place."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes.behaviour.base import Behaviour, Case, surprise
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Float, jnp


@dataclasses.dataclass(frozen=True)
class NoBehaviour(Behaviour):
    """The returns say everything: Q-learning."""

    name: ClassVar[str] = "none"
    counts: ClassVar[bool] = False

    def loss(self, case: Case) -> Float[Array, ""]:
        return case.regression


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

    def loss(self, case: Case) -> Float[Array, ""]:
        return case.regression + self.alpha * surprise(case.q / case.q.shape[0], case.action)


@dataclasses.dataclass(frozen=True)
class Clone(Behaviour):
    """Behaviour cloning (Pomerleau 1991): the outputs are logits of the recorded actions.

    The loss is −log softmax(Q(s, ·))_a, the sum over factors, and no return counts.
    """

    name: ClassVar[str] = "clone"
    rewarded: ClassVar[bool] = False

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.head.name == "expected",
            f"clone has one logit of each action; expected head expected, and it is {recipe.head.name}.",
        )

    def loss(self, case: Case) -> Float[Array, ""]:
        return surprise(case.q, case.action)


@dataclasses.dataclass(frozen=True)
class Margin(Behaviour):
    """DQfD's large margin: a recorded action is worth more than any other (Hester et al. 2018).

    arXiv:1704.03732. To the loss of a recorded step it adds

        weight·(max_a [Q(s, a) + l(a_recorded, a)] − Q(s, a_recorded)),

    where l is `size` for any other action and 0 for the recorded one. Steps of the run have the loss of
    the regression alone. Of F factors, Q is the mean of Q_f, and l is `size` times the share of factors
    that differ: the maximum over joint actions is then the mean of those over each factor, exactly.
    """

    name: ClassVar[str] = "margin"
    needs_logged: ClassVar[bool] = True

    size: float = 0.8
    """By how much a recorded action is to be better, in units of Q."""
    weight: float = 1.0
    """How much this counts beside the regression."""

    def validate(self) -> None:
        for word, value in (("size", self.size), ("weight", self.weight)):
            require(value > 0, f"margin:{word} is {value}; expected a number above 0.")

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.demo_share > 0 or not recipe.training.acts,
            "margin counts for recorded steps, and batches of this recipe do not say which these are;"
            f" expected {setting('demo_share', 0.5)} with {setting('demos')}, or"
            f" {setting('training', 'logs')}.",
        )

    def loss(self, case: Case) -> Float[Array, ""]:
        chosen = jnp.take_along_axis(case.q, case.action[:, None], axis=1)
        others = jnp.arange(case.q.shape[1]) != case.action[:, None]
        gap = jnp.mean(jnp.max(case.q + self.size * others, axis=1) - chosen[:, 0])
        gap = gap if case.logged is None else jnp.where(case.logged, gap, 0.0)
        return case.regression + self.weight * gap
