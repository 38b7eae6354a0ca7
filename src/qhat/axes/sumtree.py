"""A sum-tree with wide nodes: draw i with probability p_i / Σp, in a few array operations.

Schaul et al. 2016 (arXiv:1511.05952, appendix B.2.1) use a binary tree, walked item by item. Here a
node has `FAN_OUT` children, a whole batch descends together, and a node is always *recomputed* as
the sum of its children, so the root cannot drift however often priorities change.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FAN_OUT = 16


class SumTree(eqx.Module):
    """Priorities of `capacity` slots with their partial sums. A value: `set` returns a new tree."""

    levels: tuple[Float[Array, " _"], ...]
    """Leaves first, root's children last; every level is padded to whole nodes with zeros."""
    capacity: int = eqx.field(static=True)

    def __init__(self, capacity: int):
        self.capacity = capacity
        sizes = [_padded(capacity)]
        while sizes[-1] > FAN_OUT:
            sizes.append(_padded(sizes[-1] // FAN_OUT))
        self.levels = tuple(jnp.zeros(size, jnp.float32) for size in sizes)

    @property
    def leaves(self) -> Float[Array, " N"]:
        """The priority of every slot."""
        return self.levels[0][: self.capacity]

    def total(self) -> Float[Array, ""]:
        """Sum of all priorities."""
        return jnp.sum(self.levels[-1])

    def set(self, slots: Int[Array, " M"], priorities: Float[Array, " M"]) -> "SumTree":
        """Set priorities (≥ 0). Slots outside [0, capacity) are dropped.

        Where a slot is named twice, one of its priorities is kept.
        """
        slots = jnp.where(slots < 0, self.capacity, slots)
        outside = slots >= self.capacity
        levels = []
        for depth, level in enumerate(self.levels):
            if depth:
                slots = slots // FAN_OUT
                children = slots[:, None] * FAN_OUT + jnp.arange(FAN_OUT)
                priorities = jnp.sum(levels[-1].at[children].get(mode="clip"), axis=1)
            index = jnp.where(outside, level.size, slots)
            levels.append(level.at[index].set(priorities, mode="drop"))
        return eqx.tree_at(lambda tree: tree.levels, self, tuple(levels))

    def draw(
        self, fractions: Float[Array, " B"]
    ) -> tuple[Int[Array, " B"], Float[Array, " B"], Float[Array, ""]]:
        """Find the slot under each point of the cumulative priority.

        Args:
            fractions: points in [0, 1), as shares of the total.

        Returns:
            slots, their priorities, and the total. A slot of priority zero is never returned while
            the total is positive.
        """
        total = self.total()
        point = fractions * total
        slot = jnp.zeros(fractions.shape, jnp.int32)
        priority = jnp.broadcast_to(total, fractions.shape)
        for level in reversed(self.levels):
            nodes = level.reshape(-1, FAN_OUT)[slot]
            child, below, priority = _descend(nodes, point)
            slot, point = slot * FAN_OUT + child, point - below
        return slot, priority, total


def _descend(
    children: Float[Array, "B W"], point: Float[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Return the child that holds each point, the sum to its left, and its priority.

    Rounding may leave a point at or beyond the node's sum; it then belongs to the last child that
    has any priority.
    """
    width = children.shape[1]
    # A product with a triangle of ones: XLA's cumsum along a short axis is slow on CPU.
    upto = jnp.dot(children, jnp.triu(jnp.ones((width, width))), precision=jax.lax.Precision.HIGHEST)
    order = jnp.arange(width)
    rank = jnp.where(upto > point[:, None], 2 * width - order, order + 1)
    # The largest rank names its child; XLA's argmax is slow on CPU.
    best = jnp.max(jnp.where(children > 0, rank, 0), axis=1)
    child = jnp.clip(jnp.where(best > width, 2 * width - best, best - 1), 0).astype(jnp.int32)
    chosen = order == child[:, None]
    priority = jnp.sum(jnp.where(chosen, children, 0.0), axis=1)
    return child, jnp.sum(jnp.where(chosen, upto, 0.0), axis=1) - priority, priority


def _padded(size: int) -> int:
    return -(-size // FAN_OUT) * FAN_OUT
