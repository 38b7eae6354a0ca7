"""Heads that represent a return by probabilities of evenly spaced atoms."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qhat.axes.heads.base import MOST, ExportedOutputs, Head, take
from qhat.axes.operations import Op
from qhat.axes.policy import Policy
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, Int, jax, jnp

NOWHERE = -1e9
"""Logarithm of the mass of an atom that is not in use."""

if TYPE_CHECKING:
    from qhat.axes.heads.support import Atoms


@dataclasses.dataclass(frozen=True)
class _Histogram(Head):
    """What both heads share: K logits, a support, a mixture over factors, the cross-entropy."""

    atoms: int = 51
    """K, atoms of the support; a support that calibrates itself keeps some of them in reserve."""
    v_min: float | None = None
    """Return of the lowest atom; none lets the support calibrate itself."""
    v_max: float | None = None
    """Return of the highest atom; none lets the support calibrate itself."""

    def validate(self) -> None:
        require(
            2 <= self.atoms <= MOST,
            f"{self.name}:atoms is {self.atoms}; expected 2 or more, up to {MOST:,}.",
        )
        if self.v_min is None or self.v_max is None:
            given = "v_min" if self.v_max is None else "v_max"
            other = "v_max" if self.v_max is None else "v_min"
            require(
                self.v_min is None and self.v_max is None,
                f"{self.name} has {given} but no {other}; expected both, or neither to have the"
                " support calibrate itself.",
            )
            return
        require(
            self.v_min < self.v_max,
            f"{self.name}:v_min is {self.v_min} and v_max is {self.v_max}; expected v_min < v_max.",
        )
        # Neighbours have to differ as float32 numbers, which have 24 bits.
        spacing, largest = (self.v_max - self.v_min) / (self.atoms - 1), max(-self.v_min, self.v_max)
        require(
            spacing > largest * 2.0**-20,
            f"{self.name}:v_min is {self.v_min} and v_max is {self.v_max} with {self.atoms} atoms;"
            " expected a wider range: float32 cannot tell such atoms apart.",
        )

    @property
    def calibrates(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.v_min is None

    @property
    def outputs(self) -> int:
        return self.atoms

    def init_support(self) -> dict[str, Array]:
        from qhat.axes.heads.support import fixed

        if self.v_min is None or self.v_max is None:
            return fixed(-1.0, 1.0, self.atoms, placed=False)
        return fixed(self.v_min, self.v_max, self.atoms)

    def basis(self, support: dict[str, Array], fractions: Float[Array, " K"] | None) -> Any:
        from qhat.axes.heads.support import atoms_of

        return atoms_of(support, self.atoms)

    def mean(self, z: Float[Array, "F C K"], basis: Any) -> Float[Array, "F C"]:
        mass, total = _softmax(z, basis)
        return mass @ basis.values / total

    def export_outputs(self, rows: Any, support: dict[str, Array]) -> ExportedOutputs:
        """Return the atoms in use, without the others; while JAX traces, these have no mass instead."""
        basis = self.basis(support, None)
        if not isinstance(rows, np.ndarray):
            nowhere = jnp.zeros(rows.shape[-1]).at[-1].set(NOWHERE)
            rows = jnp.where(basis.active[:, None], rows, nowhere)
            return ExportedOutputs(rows, after=({"op": "atoms", "name": "atoms", "values": basis.values},))
        active = np.asarray(basis.active)
        atoms: Op = {"op": "atoms", "name": "atoms", "values": np.asarray(basis.values)[active]}
        return ExportedOutputs(rows[:, :, active], after=(atoms,))

    def predict(self, z: Float[Array, "F C K"], action: Int[Array, " F"], basis: Any) -> Any:
        """Return the logarithm of the mixture of the factors' probabilities, `[K]`."""
        log_p = _log_softmax(take(z, action), basis)
        if z.shape[0] == 1:
            return log_p[0]
        return jax.nn.logsumexp(log_p, axis=0) - jnp.log(z.shape[0])


@dataclasses.dataclass(frozen=True)
class Categorical(_Histogram):
    """C51: probabilities of K atoms (Bellemare et al. 2017, arXiv:1707.06887, algorithm 1).

    The error is KL(target ‖ prediction), as Rainbow's priorities are (arXiv:1710.02298, §"The
    integrated agent").
    """

    name: ClassVar[str] = "categorical"

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
        """Return the values of the mixture over a' and factors, and their probabilities."""
        if policy.is_deterministic and not policy.has_entropy:
            # One choice per factor: no need of the others' probabilities.
            mass, total = _softmax(take(z, jnp.argmax(pi, axis=1)), basis)
            return reward + discount * basis.values, jnp.mean(mass / total[:, None], axis=0)
        mass, total = _softmax(z, basis)
        p = mass * (pi / total / z.shape[0])[..., None]
        if not policy.has_entropy:
            # All choices have the same atoms: mix the probabilities, and project once.
            return reward + discount * basis.values, jnp.sum(p, axis=(0, 1))
        values = reward + discount * (basis.values + entropy[..., None])
        return values.reshape(-1), p.reshape(-1)

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        values, weights = target
        goal = project(values, weights, basis)
        loss = -jnp.sum(goal * prediction)
        entropy = -jnp.sum(jax.scipy.special.xlogy(goal, goal))
        return loss, loss - entropy

    def overflow(self, target: Any, basis: Any) -> Float[Array, " 2"]:
        values, weights = target
        slack = 1e-3 * basis.spacing
        below = jnp.sum(jnp.where(values < basis.low - slack, weights, 0.0))
        return jnp.stack([below, jnp.sum(jnp.where(values > basis.high + slack, weights, 0.0))])


@dataclasses.dataclass(frozen=True)
class HLGauss(_Histogram):
    """Q(s, a) as a histogram that is fitted to a Gaussian about the target (arXiv:2403.03950, §3.1).

    The target of several choices or factors is a mixture of such Gaussians.
    """

    name: ClassVar[str] = "hl_gauss"

    sigma: float = 0.75
    """σ of the Gaussian, in atoms: the paper's best spreads a target over about six of them."""

    def validate(self) -> None:
        super().validate()
        require(self.sigma > 0, f"hl_gauss:sigma is {self.sigma}; expected more than 0.")

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
        """Return the expected returns of the mixture over a' and factors, and their weights."""
        value = self.mean(z, basis)
        weights = pi / z.shape[0]
        if policy.is_deterministic and not policy.has_entropy:
            # One choice per factor: no need to spread a Gaussian about the others.
            return reward + discount * jnp.sum(pi * value, axis=1), jnp.sum(weights, axis=1)
        return (reward + discount * (value + entropy)).reshape(-1), weights.reshape(-1)

    def loss(self, prediction: Any, target: Any, basis: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
        values, weights = target
        loss = -jnp.sum(gaussian(values, weights, basis, self.sigma) * prediction)
        q = jnp.sum(jnp.exp(prediction) * basis.values)
        return loss, q - jnp.sum(weights * values)

    def overflow(self, target: Any, basis: Any) -> Float[Array, " 2"]:
        """Return what the Gaussians have beyond the cells of the active atoms."""
        values, weights = target
        reach = jnp.stack([values - basis.low, basis.high - values]) / basis.spacing + 0.5
        return 0.5 * jax.scipy.special.erfc(reach / (self.sigma * 2.0**0.5)) @ weights


def project(values: Float[Array, " M"], weights: Float[Array, " M"], atoms: Atoms) -> Float[Array, " K"]:
    """Share the mass at each value between its two neighbours of the active atoms.

    Φ of arXiv:1707.06887, eq. 7. Values beyond the active atoms count as the outermost ones.
    """
    values = jnp.clip(values, atoms.low, atoms.high)
    distance = jnp.abs(values[:, None] - atoms.values) / atoms.spacing
    return jnp.sum(weights[:, None] * jnp.clip(1.0 - distance, 0.0, 1.0), axis=0)


def gaussian(
    values: Float[Array, " M"], weights: Float[Array, " M"], atoms: Atoms, sigma: float
) -> Float[Array, " K"]:
    """Return the mixture of Gaussians about `values`, integrated over each active atom's cell.

    Every Gaussian is cut off at the ends of the active cells and has mass 1 within them (eq. 7 of
    arXiv:2403.03950, §3.1).
    """
    values = jnp.clip(values, atoms.low, atoms.high)
    edges = jnp.concatenate([atoms.values, atoms.values[-1:] + atoms.spacing]) - 0.5 * atoms.spacing
    scale = sigma * atoms.spacing * 2.0**0.5
    upto = jax.scipy.special.erf((edges - values[:, None]) / scale)
    mass = jnp.where(atoms.active, jnp.diff(upto, axis=1), 0.0)
    return weights @ (mass / jnp.sum(mass, axis=1, keepdims=True))


def _softmax(z: Float[Array, "*A K"], atoms: Atoms) -> tuple[Float[Array, "*A K"], Float[Array, "*A"]]:
    """Return probabilities before they are divided by their sum, and the sum."""
    z = jnp.where(atoms.active, z, -1e9)
    mass = jnp.exp(z - jnp.max(z, axis=-1, keepdims=True))
    # A product: XLA adds up a short axis of a batch slowly.
    return mass, mass @ jnp.ones(z.shape[-1])


def _log_softmax(z: Float[Array, "... K"], atoms: Atoms) -> Float[Array, "... K"]:
    """Return log-probabilities; an atom that is not in use has probability exp(−1e9) = 0."""
    return jax.nn.log_softmax(jnp.where(atoms.active, z, -1e9), axis=-1)
