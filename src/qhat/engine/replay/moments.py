"""Running statistics of the stored observations: mean and variance of every element."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qhat.environments.observations import Observations

EPSILON = 1e-8
"""Added to a variance: an element that never changes stays finite."""
LIMIT = 10.0
"""Standard deviations from the mean at which an observation is clipped."""


class Moments(eqx.Module):
    """Running count, mean and sum of squared deviations; the last two in an observation's shape."""

    count: Float[Array, ""]
    mean: Array
    m2: Array
    """Σ (x − mean)²"""

    @staticmethod
    def empty(shape: tuple[int, ...]) -> Moments:
        """Return the statistics before the first observation."""
        return Moments(jnp.float32(0), jnp.zeros(shape), jnp.zeros(shape))

    @staticmethod
    def of(shape: tuple[int, ...], layout: Observations | None) -> Moments:
        """Return empty statistics for the numbers in observations of `shape`."""
        return Moments.empty(shape if layout is None else layout.numbers_shape or ())

    def see(self, rows: Array, counted: Bool[Array, " N"]) -> Moments:
        """Include the `rows` `[N, ...]` that are counted (Chan, Golub & LeVeque 1979, pairwise)."""
        weight = counted.astype(jnp.float32)
        count = jnp.sum(weight)
        weight = weight.reshape(-1, *[1] * (rows.ndim - 1))
        # About the mean so far: sums of the values themselves would lose a small spread far from 0.
        away = rows.astype(jnp.float32) - self.mean
        delta = jnp.sum(weight * away, axis=0) / jnp.maximum(count, 1.0)
        within = jnp.sum(weight * jnp.square(away - delta), axis=0)
        return self.merged(count, delta, within)

    def merged(self, count: Array, delta: Array, within: Array) -> Moments:
        """Include `count` observations: `delta` is their mean minus `mean`, `within` their `m2`."""
        total = self.count + count
        share = count / jnp.maximum(total, 1.0)
        return Moments(
            total,
            self.mean + share * delta,
            self.m2 + within + share * self.count * jnp.square(delta),
        )

    @property
    def finite(self) -> Bool[Array, ""]:
        """Whether all numbers are finite."""
        return jnp.all(jnp.isfinite(self.mean)) & jnp.all(jnp.isfinite(self.m2))

    def standardise(self, observation: Array) -> Array:
        """Return one observation in standard deviations from the mean, within ±10."""
        variance = jnp.where(self.count > 0, self.m2 / jnp.maximum(self.count, 1.0), 1.0)
        away = observation.astype(jnp.float32) - self.mean
        return jnp.clip(away / jnp.sqrt(variance + EPSILON), -LIMIT, LIMIT)
