"""The running spread of returns, by which a learner of single steps scales rewards."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.engine.replay.nstep import CONTINUES, NOTHING

EPSILON = 1e-8
"""Added to the variance, against division by 0."""


class RewardScale(eqx.Module):
    """Variance of Σ_j γʲ r_{t−j}, a return that looks back, over all steps (Engstrom et al. 2020)."""

    count: Int[Array, ""]
    """Steps stored so far."""
    trace: Float[Array, ""]
    """The sum over the running episode."""
    mean: Float[Array, ""]
    variance: Float[Array, ""]
    """With count − 1 in its denominator (Welford 1962); 1 before there are two steps."""
    refused: Int[Array, ""]
    """Steps that it could not include: a square of theirs is no finite number."""
    gamma: float = eqx.field(static=True)

    @staticmethod
    def empty(gamma: float) -> RewardScale:
        """Return what is known before the first step."""
        return RewardScale(jnp.int32(0), jnp.zeros(()), jnp.zeros(()), jnp.ones(()), jnp.int32(0), gamma)

    def see(
        self,
        reward: Float[Array, ""],
        ended: Bool[Array, ""],
        real: Bool[Array, ""],
        fits: Bool[Array, ""] | bool = True,
    ) -> RewardScale:
        """Include one step, if it is `real`. One that leaves a number not finite ends the sum, and no more.

        Args:
            fits: whether the other statistics of the step are finite.
        """
        count = self.count + 1
        trace = self.gamma * self.trace + reward
        away = trace - self.mean
        mean = self.mean + away / count
        square = away * (trace - mean)
        variance = self.variance + (square - self.variance) / jnp.maximum(count - 1, 1)
        after = RewardScale(
            count,
            jnp.where(ended, 0.0, trace),
            mean,
            jnp.where(count > 1, variance, 1.0),
            self.refused,
            self.gamma,
        )
        # No later step would make an infinite variance finite.
        fits &= jnp.isfinite(trace) & jnp.isfinite(mean) & jnp.isfinite(square) & jnp.isfinite(variance)
        left_out = RewardScale(
            self.count, jnp.zeros_like(trace), self.mean, self.variance, self.refused + 1, self.gamma
        )
        after = jax.tree.map(lambda new, old: jnp.where(fits, new, old), after, left_out)
        return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, self)

    def see_all(
        self,
        reward: Float[Array, " M"],
        kind: Int[Array, " M"],
        stored: Bool[Array, " M"],
        fits: Bool[Array, ""] | bool = True,
    ) -> RewardScale:
        """Include the steps of one stream that are in the rows of a block."""

        def one(scale: RewardScale, row: tuple[Array, Array, Array]) -> tuple[RewardScale, None]:
            reward, kind, stored = row
            return scale.see(reward, kind != CONTINUES, stored & (kind != NOTHING), fits), None

        return jax.lax.scan(one, self, (reward, kind, stored))[0]

    def cut(self, where: Bool[Array, ""]) -> RewardScale:
        """End the running episode."""
        return eqx.tree_at(lambda each: each.trace, self, jnp.where(where, 0.0, self.trace))

    def scaled(self, reward: Float[Array, ""]) -> Float[Array, ""]:
        """Return a reward in standard deviations of the returns."""
        return reward / jnp.sqrt(self.variance + EPSILON)
