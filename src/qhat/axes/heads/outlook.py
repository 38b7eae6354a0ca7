"""Ranges of the rewards and returns in replay, from which a support is placed."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Outlook(eqx.Module):
    """Ranges of the rewards and returns in replay."""

    trace: Float[Array, " E"]
    """Σ_j γʲ r_{t−j} over the running episode: a return that looks back instead of ahead."""
    returns: Float[Array, " 2"]
    """Smallest and largest trace, and 0."""
    rewards: Float[Array, " 2"]
    """Smallest and largest reward, and 0."""
    gamma: float = eqx.field(static=True)

    @staticmethod
    def empty(num_envs: int, gamma: float) -> Outlook:
        """Return what is known before the first step."""
        return Outlook(jnp.zeros(num_envs), jnp.zeros(2), jnp.zeros(2), gamma)

    def see(self, reward: Float[Array, " E"], ended: Bool[Array, " E"], real: Bool[Array, " E"]) -> Outlook:
        """Take in one step of every environment."""
        reward = jnp.where(real, reward, 0.0)
        trace = jnp.where(real, reward + self.gamma * self.trace, self.trace)
        return Outlook(
            jnp.where(ended & real, 0.0, trace),
            _widen(self.returns, trace),
            _widen(self.rewards, reward),
            self.gamma,
        )

    def widened(self, returns: Float[Array, " R"], rewards: Float[Array, " K"]) -> Outlook:
        """Take in ranges of steps that were followed elsewhere."""
        return Outlook(self.trace, _widen(self.returns, returns), _widen(self.rewards, rewards), self.gamma)

    def cut(self, where: Bool[Array, " E"] | bool = True) -> Outlook:
        """End running episodes."""
        trace = jnp.where(where, jnp.zeros_like(self.trace), self.trace)
        return Outlook(trace, self.returns, self.rewards, self.gamma)


def _widen(range_: Float[Array, " 2"], values: Float[Array, " E"]) -> Float[Array, " 2"]:
    return jnp.stack([jnp.minimum(range_[0], values.min()), jnp.maximum(range_[1], values.max())])
