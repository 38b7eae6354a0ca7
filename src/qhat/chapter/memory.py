"""The chapter's `SumTree` and `PERMemory`, on those of `qhat.axes`: from NumPy to NumPy."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes import sumtree
from qhat.axes.sampler import Prioritised
from qhat.system.errors import require


@final
class SumTree:
    """Priorities of `capacity` slots, with an object in each; the oldest object is replaced first.

    An index is a slot, from 0 to `capacity` − 1.
    """

    def __init__(self, capacity: int):
        require(
            isinstance(capacity, int | np.integer) and capacity >= 1,
            f"capacity is {capacity!r}; expected a whole number of 1 or more.",
        )
        self.capacity = int(capacity)
        self.data: list[Any] = [None] * self.capacity
        self.write = 0
        """The slot that the next `add` fills."""
        self.n_entries = 0
        """Slots that are filled."""
        self.nodes = sumtree.SumTree(self.capacity)
        """The priorities, as `qhat.axes` has them."""

    def __len__(self) -> int:
        return self.n_entries

    def add(self, p: float, data: Any) -> int:
        """Put `data` with priority `p` into the next slot, and return that slot."""
        priority = _priorities(p, 1)
        slot = self._place(data)
        self.nodes = _set(self.nodes, np.array([slot], np.int32), priority)
        return slot

    def update(self, idx: Any, p: Any) -> None:
        """Set the priority of a slot; both may be arrays."""
        slots = self.slots(idx)
        self.nodes = _set(self.nodes, slots, _priorities(p, slots.size))

    def total(self) -> float:
        """Return the sum of all priorities."""
        return float(_total(self.nodes))

    def get_leaf(self, s: float) -> tuple[int, float, Any]:
        """Return the slot under the point `s` of the cumulative priority, its priority and its object.

        `s` is from 0 to `total()`. A slot of priority 0 is never returned.
        """
        total = self.total()
        require(total > 0, "No slot has a priority above 0; add something before drawing.")
        # A sum of shares may pass the total by a rounding.
        good = isinstance(s, int | float | np.number) and 0 <= float(s) <= total * (1 + 1e-6)
        require(good, f"s is {s!r}; expected a number from 0 to the total, {total:g}.")
        slots, priorities, _ = _draw(self.nodes, np.array([min(float(s) / total, 1.0)], np.float32))
        slot = int(slots[0])
        return slot, float(priorities[0]), self.data[slot]

    def slots(self, idx: Any) -> np.ndarray:
        """Return slots `[M]` of one index or of several, or raise `UsageError` if one has no object."""
        slots = np.atleast_1d(np.asarray(idx))
        good = slots.ndim == 1 and np.issubdtype(slots.dtype, np.integer)
        require(
            good and bool(((slots >= 0) & (slots < self.n_entries)).all()),
            f"idx is {idx!r}; expected a slot that add or sample returned, of {self.n_entries}.",
        )
        return slots.astype(np.int32)

    def _place(self, data: Any) -> int:
        slot = self.write
        self.data[slot] = data
        self.write = (slot + 1) % self.capacity
        self.n_entries = min(self.n_entries + 1, self.capacity)
        return slot


@final
class PERMemory:
    """Prioritised replay of any objects (Schaul et al. 2016, arXiv:1511.05952).

    It is given TD errors and applies α itself: P(i) = p_i^α / Σ_k p_k^α with p_i = |TD_i| + 10⁻⁶.

    Args:
        capacity: objects that fit; the oldest is replaced first.
        alpha: α, how much priorities count.
        beta_start: β of the first objects; it is 1 after `beta_steps`.
        beta_steps: calls of `add` over which β rises.
        seed: of the draws.
    """

    def __init__(
        self,
        capacity: int,
        alpha: float = 0.6,
        beta_start: float = 0.4,
        beta_steps: int = 50_000,
        *,
        seed: int = 0,
    ):
        self.sampler = Prioritised(alpha=alpha, beta=beta_start, steps=beta_steps)
        self.sampler.validate()
        self.tree, self.capacity, self.alpha = SumTree(capacity), capacity, alpha
        self._key, self._largest = jax.random.key(seed), np.float32(1.0)
        self._added = self._drawn = 0

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def beta(self) -> float:
        """β, how much of the bias the weights correct now."""
        share = min(self._added / self.sampler.steps, 1.0) if self.sampler.steps else 1.0
        return self.sampler.beta + share * (1.0 - self.sampler.beta)

    def add(self, experience: Any, error: float | None = None) -> int:
        """Store an object and return its slot.

        Args:
            error: its TD error. Default: the object gets the largest priority so far.
        """
        one = None if error is None else _errors(error, 1)
        slot = self.tree.add(float(self._largest), experience)
        self._added += 1
        if one is not None:
            self.update(slot, one)
        return slot

    def sample(self, batch_size: int) -> tuple[list[Any], np.ndarray, np.ndarray]:
        """Draw one object from each of `batch_size` equal shares of the sum of priorities.

        Returns:
            the objects, their slots for `update`, and their importance weights, which are at most 1.
        """
        require(
            isinstance(batch_size, int | np.integer) and batch_size >= 1,
            f"batch_size is {batch_size!r}; expected a whole number of 1 or more.",
        )
        require(len(self) > 0, "The memory is empty; add something before sampling.")
        counts = (np.int32(self._drawn), np.int32(len(self)), np.int32(self._added))
        drawn = _sample(self.sampler, int(batch_size), self.tree.nodes, self._key, *counts)
        slots, weights = (np.asarray(each) for each in drawn)
        self._drawn += 1
        return [self.tree.data[slot] for slot in slots], slots, weights

    def update(self, idx: Any, error: Any) -> None:
        """Set the priority of a slot from its new TD error; both may be arrays, one of each for a draw."""
        slots = self.tree.slots(idx)
        state = (self.tree.nodes, self._largest)
        self.tree.nodes, self._largest = _update(self.sampler, state, slots, _errors(error, slots.size))


def _priorities(p: Any, size: int) -> np.ndarray:
    priorities = _numbers(p, size)
    good = priorities is not None and bool((priorities >= 0).all())
    require(good, f"The priority is {p!r}; expected a finite number of 0 or more for each index.")
    return np.asarray(priorities)


def _errors(error: Any, size: int) -> np.ndarray:
    errors = _numbers(error, size)
    require(errors is not None, f"The TD error is {error!r}; expected a finite number for each index.")
    return np.asarray(errors)


def _numbers(value: Any, size: int) -> np.ndarray | None:
    """Return finite numbers `[size]`, or None if `value` is something else."""
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (size,) and np.isfinite(numbers).all() else None


@jax.jit
def _set(nodes: sumtree.SumTree, slots: Any, priorities: Any) -> sumtree.SumTree:
    return nodes.set(slots, priorities)


@jax.jit
def _total(nodes: sumtree.SumTree) -> Any:
    return nodes.total()


@jax.jit
def _draw(nodes: sumtree.SumTree, fractions: Any) -> Any:
    return nodes.draw(fractions)


@partial(jax.jit, static_argnums=(0, 1))
def _sample(
    sampler: Prioritised, batch: int, nodes: sumtree.SumTree, key: Any, drawn: Any, entries: Any, added: Any
) -> tuple[Any, Any]:
    key = jax.random.fold_in(key, drawn)
    state = (nodes, jnp.float32(1.0))
    slots, relative = sampler.draw(state, key, batch, entries[None], nodes.capacity)
    return slots, sampler.weights(relative, added)


@partial(jax.jit, static_argnums=0)
def _update(sampler: Prioritised, state: Any, slots: Any, errors: Any) -> Any:
    return sampler.update(state, slots, errors)
