"""What a gradient update reports."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Metrics(eqx.Module):
    """The numbers of one update, averaged over the batch."""

    loss: Float[Array, ""]
    q: Float[Array, ""]
    """Mean of Q(s, a) over the actions of the batch."""
    gradient_norm: Float[Array, ""]
    clipped: Float[Array, ""]
    """Share of the targets' mass beyond the support; 0 for a head that has none."""

    @property
    def finite(self) -> Bool[Array, ""]:
        """Whether the update could be applied."""
        return jnp.isfinite(self.loss) & jnp.isfinite(self.gradient_norm)


class Update(eqx.Module):
    """The results of one update, besides the new state."""

    errors: Float[Array, " B"]
    """Error of every transition, for its priority; 0 where it is not finite."""
    metrics: Metrics
    overflow: Float[Array, " 2"]
    """Share of the targets' mass below and above the support."""
    moves: Bool[Array, ""]
    """Whether the weights moved."""
