"""Heads that represent a return by quantiles: at fixed fractions, or at any fraction."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

from qhat.axes.heads.base import MOST, ExportedOutputs, Head, take
from qhat.axes.policy import Policy
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jax, jnp, optax


@dataclasses.dataclass(frozen=True)
class _Quantiles(Head):
    """What both heads share. `z[f, a, k]` is the value at fraction `basis[k]`.

    Over factors, quantile functions are averaged. Over the choices of a factor the return is a mixture: a
    target is K values of equal weight, or values and their weights. Under a policy with an entropy term,
    quantile functions are averaged over a' too, as M-IQN does (Vieillard et al. 2020, arXiv:2007.14430,
    appendix B.1).
    """

    kappa: float = 1.0
    """κ, |error| beyond which the quantile Huber loss is linear; 0 is the plain quantile loss."""

    def validate(self) -> None:
        require(self.kappa >= 0, f"{self.name}:kappa is {self.kappa}; expected 0 or more.")

    def mean(self, z: Float[Array, "F C K"], basis: Any) -> Float[Array, "F C"]:
        return jnp.mean(z, axis=-1)

    def predict(self, z: Float[Array, "F C K"], action: Int[Array, " F"], basis: Any) -> Any:
        return jnp.mean(take(z, action), axis=0)

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
        """Return the values of G, and their weights; `None` for equal weights."""
        if policy.is_deterministic or policy.has_entropy:
            value = z + entropy[..., None] if policy.has_entropy else z
            averaged = jnp.mean(jnp.sum(pi[..., None] * value, axis=1), axis=0)
            return reward + discount * averaged, None
        weights = jnp.broadcast_to(pi[..., None] / z.shape[-1], z.shape)
        if z.shape[0] == 1:
            return reward + discount * z.reshape(-1), weights.reshape(-1)
        count = z.shape[-1]
        mixed = jax.vmap(functools.partial(quantiles_of, count=count))(
            z.reshape(z.shape[0], -1), weights.reshape(z.shape[0], -1)
        )
        return reward + discount * jnp.mean(mixed, axis=0), None

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        values, weights = target
        loss = quantile_huber(prediction, basis, values, self.kappa, weights)
        return loss, loss


@dataclasses.dataclass(frozen=True)
class Quantile(_Quantiles):
    """QR-DQN: values at K fixed fractions (Dabney et al. 2018, arXiv:1710.10044, eq. 9–10)."""

    name: ClassVar[str] = "quantile"

    quantiles: int = 51
    """K. The paper's Atari agent has 200."""

    def validate(self) -> None:
        super().validate()
        require(
            1 <= self.quantiles <= MOST,
            f"quantile:quantiles is {self.quantiles}; expected a whole number ≥ 1, up to {MOST:,}.",
        )

    @property
    def outputs(self) -> int:
        return self.quantiles

    def basis(self, support: dict[str, Array], fractions: Float[Array, " K"] | None) -> Any:
        return midpoints(self.quantiles)

    def export_outputs(self, rows: Any, support: dict[str, Array]) -> ExportedOutputs:
        # The mean of linear outputs is an output of the mean rows.
        return ExportedOutputs(rows.mean(axis=2, keepdims=True))


@dataclasses.dataclass(frozen=True)
class Implicit(_Quantiles):
    """IQN: values at any fraction, which is an input of the network (arXiv:1806.06923, eq. 2–4).

    Fractions are drawn for an update's prediction and target, with keys of their own. Every choice of
    an action (in the backup, acting, evaluation, export) averages over fixed midpoints in place of the
    paper's K̃ draws, so a policy is deterministic.
    """

    name: ClassVar[str] = "implicit"
    samples: ClassVar[bool] = True

    online: int = 8
    """N, fractions drawn for the prediction. The paper's agent draws 64 and gains little over 8."""
    target: int = 8
    """N′, fractions drawn for the target."""
    policy: int = 32
    """K̃, midpoints that a choice of action averages over."""
    embedding: int = 64
    """Cosines cos(π·i·τ), i < embedding, that a fraction is shown to the network as."""

    def validate(self) -> None:
        super().validate()
        for name in ("online", "target", "policy", "embedding"):
            value = getattr(self, name)
            require(
                1 <= value <= MOST,
                f"implicit:{name} is {value}; expected a whole number ≥ 1, up to {MOST:,}.",
            )

    @property
    def outputs(self) -> int:
        return 1

    def fractions(self, look: str) -> int:
        return {"online": self.online, "target": self.target}.get(look, 0)

    def fixed_fractions(self) -> Float[Array, " K"] | None:
        return midpoints(self.policy)

    def basis(self, support: dict[str, Array], fractions: Float[Array, " K"] | None) -> Any:
        return fractions

    def export_outputs(self, rows: Any, support: dict[str, Array]) -> ExportedOutputs:
        # The last layer is linear: the mean over fractions may as well be of what enters it.
        return ExportedOutputs(rows, before=({"op": "mean_fractions"},))


def quantile_huber(
    prediction: Float[Array, " K"],
    fractions: Float[Array, " K"],
    target: Float[Array, " M"],
    kappa: float,
    weights: Float[Array, " M"] | None = None,
) -> Float[Array, ""]:
    """Return Σ_k mean_m ρ^κ_τk(target_m − prediction_k) (arXiv:1710.10044, eq. 10).

    Args:
        weights: of the targets, whose sum is 1; `None` for equal ones.
    """
    error = target[None, :] - prediction[:, None]
    weight = jnp.abs(fractions[:, None] - jax.lax.stop_gradient(error < 0))
    size = optax.losses.huber_loss(error, delta=kappa) / kappa if kappa else jnp.abs(error)
    if weights is None:
        return jnp.sum(jnp.mean(weight * size, axis=1))
    return jnp.sum((weight * size) @ weights)


def quantiles_of(values: Float[Array, " M"], weights: Float[Array, " M"], count: int) -> Float[Array, " N"]:
    """Return the quantile function of weighted values, averaged over each of `count` equal shares.

    The mean stays what it is.
    """
    order = jnp.argsort(values)
    values, weights = values[order], weights[order]
    upper = jnp.cumsum(weights) / jnp.sum(weights)
    lower = jnp.concatenate([jnp.zeros(1), upper[:-1]])
    ends = jnp.arange(count + 1) / count
    overlap = jnp.minimum(upper, ends[1:, None]) - jnp.maximum(lower, ends[:-1, None])
    return count * (jnp.maximum(overlap, 0.0) @ values)


def midpoints(count: int) -> Float[Array, " K"]:
    """Return τ̂_k = (2k + 1) / 2K, the middles of K equal shares of the probability."""
    return (jnp.arange(count) + 0.5) / count
