"""The axis `behaviour`: what the actions of those who recorded the data say, beside their returns."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from qhat.axes.axis import AxisValue
from qhat.axes.greedy import CLOSED
from qhat.axes.merge import Exists, Merge
from qhat.axes.operations import Op
from qhat.system.errors import require, setting
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
class Constrained(Behaviour):
    """Discrete BCQ: only actions that the data would take are chosen and backed up (Fujimoto et al. 2019).

    arXiv:1910.01708. A stream G(a|s) of the network imitates the recorded actions. An action is
    chosen, and backed up, only if G(a|s) / max_a' G(a'|s) > τ. Factors have a G each, and the limit each.
    """

    name: ClassVar[str] = "bcq"
    acts: ClassVar[bool] = True

    tau: float = 0.3
    """τ: 0 is Q-learning, 1 behaviour cloning."""

    def validate(self) -> None:
        require(
            0.0 < self.tau < 1.0, f"bcq:tau is {self.tau}; expected a share within (0, 1), for example 0.3."
        )

    def validate_within(self, recipe: Any) -> None:
        _require_plain(self, recipe)

    @property
    def gap(self) -> float:
        """How far the logit of an action may be below the largest."""
        return -math.log(self.tau)

    def loss(self, case: Case) -> Float[Array, ""]:
        assert case.beside is not None
        return case.regression + surprise(case.beside[..., 0], case.action)

    def streams(self, choices: int) -> dict[str, int]:
        return {"imitation": choices}

    def beside(
        self, z: Float[Array, "F C K"], streams: dict[str, Float[Array, "F _ 1"]], exists: Exists
    ) -> Float[Array, "F C _"]:
        return jnp.concatenate([z, _existing(streams["imitation"], exists)], axis=-1)

    def preferences(self, q: Float[Array, "F C"], beside: Float[Array, "F C B"]) -> Float[Array, "F C"]:
        logits = beside[..., 0]
        likely = logits > jnp.max(logits, axis=1, keepdims=True) - self.gap
        # An action that is not legal keeps its −∞: any other is preferred to it.
        return jnp.where(likely, q, jnp.minimum(q, CLOSED))

    def export_streams(self, merged: tuple[str, ...]) -> tuple[str, ...]:
        return (*merged, "imitation")

    def export_rows(self, merge: Merge, streams: dict[str, Any], exists: np.ndarray) -> ExportedPreferences:
        rows, logits = merge.export_rows(streams, exists), streams["imitation"]
        xp = np if isinstance(logits, np.ndarray) else jnp
        never = xp.concatenate([xp.zeros(logits.shape[-1] - 1), xp.full(1, CLOSED)])
        logits = xp.where(xp.asarray(exists)[..., None, None], logits, never)
        support: Op = {"op": "support", "factors": rows.shape[0], "gap": self.gap, "closed": CLOSED}
        return ExportedPreferences(xp.concatenate([rows, logits], axis=2), (support,))


@dataclasses.dataclass(frozen=True)
class InSample(Behaviour):
    """IQL: no value of an action that was not recorded is ever asked for (Kostrikov et al. 2022).

    arXiv:2110.06169, eq. 5 to 7. A stream V(s) is fitted to the `expectile` of Q̄(s, a) over recorded
    actions by θ⁻, and Q(s, a) to r + γ·V(s'). A stream π(a|s) imitates the recorded actions, weighted by
    exp(β·(Q̄(s, a) − V(s))); it acts. In the paper these are three networks; here they share the layers
    before the streams. Of F factors, Q and V are means, and log π is the sum.
    """

    name: ClassVar[str] = "iql"
    acts: ClassVar[bool] = True
    uses_target: ClassVar[bool] = True
    judges: ClassVar[bool] = True

    expectile: float = 0.7
    """0.5 is the mean of what was recorded; towards 1 it is the best of it."""
    beta: float = 3.0
    """β, the inverse temperature: 0 imitates all recorded actions alike."""
    most: float = 100.0
    """The largest weight of an action."""

    def validate(self) -> None:
        require(
            0.5 <= self.expectile < 1.0,
            f"iql:expectile is {self.expectile}; expected a number within [0.5, 1), for example 0.7.",
        )
        require(self.beta >= 0, f"iql:beta is {self.beta}; expected a number of 0 or more, for example 3.")
        require(self.most > 0, f"iql:most is {self.most}; expected a number above 0, for example 100.")

    def validate_within(self, recipe: Any) -> None:
        _require_plain(self, recipe)
        require(
            not recipe.policy.has_entropy,
            f"iql backs up V(s'), which has no entropy, and the policy is {recipe.policy.name}; expected"
            f" {setting('policy', 'greedy')}.",
        )

    def loss(self, case: Case) -> Float[Array, ""]:
        assert case.beside is not None
        assert case.judged is not None
        taken = jnp.mean(jnp.take_along_axis(case.judged, case.action[:, None], axis=1))
        gain = jax.lax.stop_gradient(taken) - jnp.mean(case.beside[:, 0, 1])
        expected = jnp.where(gain > 0, self.expectile, 1.0 - self.expectile) * gain**2
        weight = jnp.minimum(jnp.exp(self.beta * jax.lax.stop_gradient(gain)), self.most)
        return case.regression + expected + weight * surprise(case.beside[..., 0], case.action)

    def streams(self, choices: int) -> dict[str, int]:
        return {"actor": choices, "expectile": 1}

    def beside(
        self, z: Float[Array, "F C K"], streams: dict[str, Float[Array, "F _ 1"]], exists: Exists
    ) -> Float[Array, "F C _"]:
        logits = _existing(streams["actor"], exists)
        return jnp.concatenate([z, logits, jnp.broadcast_to(streams["expectile"], logits.shape)], axis=-1)

    def preferences(self, q: Float[Array, "F C"], beside: Float[Array, "F C B"]) -> Float[Array, "F C"]:
        return jnp.where(q > -jnp.inf, beside[..., 0], q)

    def values(self, beside: Float[Array, "F C B"]) -> Float[Array, "F C 1"]:
        return beside[..., 1:]

    def export_streams(self, merged: tuple[str, ...]) -> tuple[str, ...]:
        return ("actor",)

    def export_rows(self, merge: Merge, streams: dict[str, Any], exists: np.ndarray) -> ExportedPreferences:
        return ExportedPreferences(streams["actor"])


def _require_plain(part: Behaviour, recipe: Any) -> None:
    """Raise `UsageError` for a recipe whose outputs are not one number for each choice."""
    require(
        recipe.head.name == "expected",
        f"{part.name} has one logit beside one value of each action; expected"
        f" {setting('head', 'expected')}, and it is {recipe.head.name}.",
    )
    for axis, good in (("joints", ("together", "each", "regularised")), ("resolution", ("full",))):
        name = getattr(recipe, axis).name
        require(
            name in good,
            f"{part.name} has a logit for each choice of a factor, and {setting(axis, name)} has values of"
            f" others; expected {setting(axis, good[0])}.",
        )
    require(
        recipe.training.replays and not recipe.memory.remembers,
        f"{part.name} learns from single recorded steps; expected {setting('training', 'logs')} or"
        f" {setting('training', 'replay')}, and {setting('memory', 'none')}.",
    )


def _existing(logits: Float[Array, "F C 1"], exists: Exists) -> Float[Array, "F C 1"]:
    return logits if exists is None else jnp.where(jnp.asarray(exists)[..., None], logits, CLOSED)


def surprise(logits: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
    """Return −log softmax(logits)_a of the action, the sum over factors."""
    chosen = jnp.take_along_axis(logits, action[:, None], axis=1)[:, 0]
    return jnp.sum(jax.nn.logsumexp(logits, axis=1) - chosen)
