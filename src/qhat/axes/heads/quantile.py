"""Heads that represent a return by quantiles: at fixed fractions, or at any fraction."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes.heads.base import MOST, Head, take
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jax, jnp, optax


@dataclasses.dataclass(frozen=True)
class _Quantiles(Head):
    """What both heads share. `z[f, a, k]` is the value at fraction `basis[k]`.

    Quantile functions are averaged over factors, and over a' by π where the backup is soft
    (Vieillard et al. 2020, arXiv:2007.14430, appendix B.1: M-IQN).
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
        policy: Float[Array, "F C"],
        shift: Float[Array, "F C"] | None,
        basis: Any,
    ) -> Any:
        value = z if shift is None else z + shift[..., None]
        return reward + discount * jnp.mean(jnp.sum(policy[..., None] * value, axis=1), axis=0)

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        loss = quantile_huber(prediction, basis, target, self.kappa)
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


def quantile_huber(
    prediction: Float[Array, " K"],
    fractions: Float[Array, " K"],
    target: Float[Array, " M"],
    kappa: float,
) -> Float[Array, ""]:
    """Return Σ_k mean_m ρ^κ_τk(target_m − prediction_k) (arXiv:1710.10044, eq. 10)."""
    error = target[None, :] - prediction[:, None]
    weight = jnp.abs(fractions[:, None] - jax.lax.stop_gradient(error < 0))
    size = optax.losses.huber_loss(error, delta=kappa) / kappa if kappa else jnp.abs(error)
    return jnp.sum(jnp.mean(weight * size, axis=1))


def midpoints(count: int) -> Float[Array, " K"]:
    """Return τ̂_k = (2k + 1) / 2K, the middles of K equal shares of the probability."""
    return (jnp.arange(count) + 0.5) / count
