"""Values of the axis `behaviour` with streams of the network beside the values', which say what is done."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from qhat.axes.behaviour.base import Behaviour, Case, ExportedPreferences, surprise
from qhat.axes.greedy import CLOSED
from qhat.axes.merge import Exists, Merge
from qhat.axes.operations import Op
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Float, jax, jnp


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
