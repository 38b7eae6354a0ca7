"""The axis `sampler`: which stored steps a batch begins at, and the weight of each."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, Schedule
from qhat.system.errors import require
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp


class Sampler(AxisValue, abc.ABC):
    """Draws slots of the ring. State is a pytree; the functions are pure."""

    axis: ClassVar[str] = "sampler"

    @abc.abstractmethod
    def init(self, capacity: int) -> Any:
        """Return the sampler's state for a ring of `capacity` slots."""

    @abc.abstractmethod
    def store(self, state: Any, slots: Int[Array, " M"], starts: Bool[Array, " M"]) -> Any:
        """Note that `slots` were written. Those that are no start may not be drawn again."""

    @abc.abstractmethod
    def draw(
        self, state: Any, key: Array, batch: int, filled: Int[Array, " E"], rows: int
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        """Draw `batch` slots with replacement.

        Args:
            filled: rows in use of each environment's ring, out of `rows`.

        Returns:
            slots, and N·P(i), the probability of each relative to a uniform draw.
        """

    @abc.abstractmethod
    def weights(self, relative: Float[Array, " B"], step: Int[Array, ""]) -> Float[Array, " B"]:
        """Return importance weights, at most 1, for `relative` probabilities at env step `step`."""

    @abc.abstractmethod
    def update(self, state: Any, slots: Int[Array, " B"], error: Float[Array, " B"]) -> Any:
        """Take in the TD errors of a batch. Slots out of range are dropped."""


@dataclasses.dataclass(frozen=True)
class Uniform(Sampler):
    """Every stored transition is equally likely (Lin 1992; Mnih et al. 2015)."""

    name: ClassVar[str] = "uniform"

    def init(self, capacity: int) -> Any:
        return ()

    def store(self, state: Any, slots: Int[Array, " M"], starts: Bool[Array, " M"]) -> Any:
        return state

    def draw(
        self, state: Any, key: Array, batch: int, filled: Int[Array, " E"], rows: int
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        # The remainder of 32 random bits favours low slots by less than rows / 2³².
        ends = jnp.cumsum(filled)
        place = (jax.random.bits(key, (batch,)) % jnp.maximum(ends[-1], 1).astype(jnp.uint32)).astype(
            jnp.int32
        )
        if filled.shape[0] == 1:
            return place, jnp.ones(batch)
        env = jnp.sum(place[:, None] >= ends, axis=1)
        return env * rows + place - (ends - filled)[env], jnp.ones(batch)

    def weights(self, relative: Float[Array, " B"], step: Int[Array, ""]) -> Float[Array, " B"]:
        return jnp.ones_like(relative)

    def update(self, state: Any, slots: Int[Array, " B"], error: Float[Array, " B"]) -> Any:
        return state


@dataclasses.dataclass(frozen=True)
class Prioritised(Sampler):
    """Proportional prioritised replay (Schaul et al. 2016, arXiv:1511.05952, eq. 1 and §3.4).

    P(i) = p_i^α / Σ_k p_k^α with p_i = |TD_i| + ε; w_i = (N·P(i))^−β / max_j w_j over the batch,
    β from `beta` to 1 over `steps` environment steps. A new transition gets the largest priority
    seen so far, so that it is replayed at least once soon.
    """

    name: ClassVar[str] = "prioritised"

    alpha: float = 0.6
    """α, how much priorities count: 0 is uniform, 1 proportional."""
    beta: float = 0.4
    """β at step 0, how much of the bias is corrected."""
    steps: int = 50_000
    """Environment steps until β is 1."""
    epsilon: float = 1e-6
    """ε, keeps every priority above zero."""

    def validate(self) -> None:
        for word, value in (("alpha", self.alpha), ("beta", self.beta)):
            require(
                0.0 <= value <= 1.0,
                f"prioritised:{word} is {value}; expected a number within [0, 1].",
            )
        require(self.steps >= 0, f"prioritised:steps is {self.steps}; expected 0 or more steps.")
        require(self.epsilon > 0, f"prioritised:epsilon is {self.epsilon}; expected more than 0.")

    def schedules(self, steps: int) -> list[Schedule]:
        return [Schedule("replay's β", self.beta, 1.0, self.steps)]

    def init(self, capacity: int) -> Any:
        from qhat.axes.sumtree import SumTree

        return SumTree(capacity), jnp.float32(1.0)

    def store(self, state: Any, slots: Int[Array, " M"], starts: Bool[Array, " M"]) -> Any:
        tree, largest = state
        return tree.set(slots, jnp.where(starts, largest, 0.0)), largest

    def draw(
        self, state: Any, key: Array, batch: int, filled: Int[Array, " E"], rows: int
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        tree, _ = state
        # Stratified: one draw from each of `batch` equal shares of the total (appendix B.2.1).
        strata = jnp.arange(batch) + jax.random.uniform(key, (batch,))
        slots, priority, total = tree.draw(strata / batch)
        return slots, jnp.sum(filled) * priority / total

    def weights(self, relative: Float[Array, " B"], step: Int[Array, ""]) -> Float[Array, " B"]:
        fraction = jnp.clip(step / self.steps, 0.0, 1.0) if self.steps else 1.0
        beta = self.beta + fraction * (1.0 - self.beta)
        # Divide before raising: the largest weight belongs to the least likely draw.
        return (jnp.min(relative) / relative) ** beta

    def update(self, state: Any, slots: Int[Array, " B"], error: Float[Array, " B"]) -> Any:
        tree, largest = state
        priority = (jnp.abs(error) + self.epsilon) ** self.alpha
        used = jnp.where(slots < tree.capacity, priority, 0.0)
        return tree.set(slots, priority), jnp.maximum(largest, jnp.max(used))


SAMPLERS: tuple[type[Sampler], ...] = (Uniform, Prioritised)
