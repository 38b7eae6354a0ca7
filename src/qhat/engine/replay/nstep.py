"""The n-step transition: a view over stored single steps, built when a batch is drawn."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

# What a row of the ring holds.
NOTHING, CONTINUES, TERMINATED, TRUNCATED = 0, 1, 2, 3


class Window(eqx.Module):
    """An n-step view from one start."""

    reward: Float[Array, ""]
    """R⁽ⁿ⁾ = Σ_{j<k} γʲ r_j, over the k ≤ n steps before the episode's end."""
    discount: Float[Array, ""]
    """γᵏ, or 0 where the episode *terminated*; a time limit does not make it 0."""
    length: Int[Array, ""]
    """k, the number of rewards summed: the successor is the observation k rows later."""
    complete: Bool[Array, ""]
    """Whether all k steps are stored already; a start that is not complete cannot be drawn."""
    after: Int[Array, ""] | None = None
    """Slot of the successor, in a ring with links."""


def n_step(
    kinds: UInt8[Array, " n"],
    rewards: Float[Array, " n"],
    gamma: float | Float[Array, ""],
    greedy: Bool[Array, " n"] | None = None,
    limit: Int[Array, ""] | None = None,
) -> Window:
    """Sum the rewards of up to n steps from one start, stopping at the episode's end.

    Sutton & Barto 2018, eq. 7.1; Hessel et al. 2018 (arXiv:1710.02298), §"Multi-step learning".

    Args:
        greedy: whether the action of each step is as good as the greedy one. The sum then stops before
            the first later step whose action is not (Watkins 1989, "Learning from Delayed Rewards", ch. 7;
            the traces of Munos et al. 2016, arXiv:1606.02647, for a greedy policy). `None` sums all.
        limit: most rewards to sum, 1 to n; `None` is n.
    """
    inside = jnp.bool_(True)
    reward, discount = jnp.float32(0.0), jnp.float32(1.0)
    length, complete = jnp.int32(0), jnp.bool_(True)
    for j in range(kinds.shape[0]):
        complete &= ~inside | (kinds[j] != NOTHING)
        reward += jnp.where(inside, gamma**j * rewards[j], 0.0)
        discount *= jnp.where(inside, jnp.where(kinds[j] == TERMINATED, 0.0, gamma), 1.0)
        length += inside
        inside &= kinds[j] == CONTINUES
        if greedy is not None and j + 1 < kinds.shape[0]:
            inside &= greedy[j + 1]
        if limit is not None:
            inside &= j + 1 < limit
    return Window(reward, discount, length, complete)
