"""The wrapper `flicker`: a sensor that drops out now and then."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from qhat.environments.wrapper import EnvironmentWrapper, choose
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, jax, jnp


@dataclasses.dataclass(frozen=True)
class Flicker(EnvironmentWrapper):
    """Loses observations, or a part of each, at random (flickering: Hausknecht & Stone 2015).

    What is lost is shown as one value. The first observation of an episode is whole.
    """

    name: ClassVar[str] = "flicker"

    probability: float = 0.5
    """How often an observation is lost, whatever happened to the one before."""
    start: int = 0
    """The first of its numbers that is lost, counted from 0."""
    count: int = 0
    """Numbers that are lost from there on; 0 is all."""
    value: float = 0.0
    """What is shown in their place."""

    def validate(self) -> None:
        require(
            0.0 <= self.probability < 1.0,
            f"flicker:probability is {self.probability}; expected within [0, 1).",
        )
        for field in ("start", "count"):
            number = getattr(self, field)
            require(0 <= number < 2**31, f"flicker:{field} is {number}; expected 0 or more numbers.")
        require(bool(np.isfinite(self.value)), f"flicker:value is {self.value}; expected a finite number.")

    def require_fit(self, inner: Any) -> None:
        self.require_single(inner.spec.stack > 1)
        self.lost(inner.spec.shape, inner.spec.dtype)

    def require_single(self, stacked: bool) -> None:
        """Raise `UsageError` around stacks of frames, of which replay stores each one time."""
        around, stack = setting("wrap", "flicker"), setting("wrap", "flicker frame_stack")
        require(not stacked, f"{around} around stacks of frames loses whole stacks; expected {stack}.")

    def lost(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return which numbers of an observation are lost. Raises `UsageError` for some that it lacks."""
        size, stop = int(np.prod(shape)), self.start + self.count
        good = self.start < size and stop <= size
        require(
            good,
            f"flicker:start is {self.start} and flicker:count {self.count}, and an observation has {size}"
            f" numbers; expected a start below {size}, and a sum of {size} at most.",
        )
        if np.dtype(dtype).kind != "f":
            fits = (
                np.can_cast(np.min_scalar_type(int(self.value)), dtype) and float(self.value).is_integer()
            )
            require(fits, f"flicker:value is {self.value}; expected a value of {np.dtype(dtype).name}.")
        index = np.arange(size).reshape(shape)
        return (index >= self.start) & (index < (stop if self.count else size))

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        return (), observation

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        draw, key = jax.random.split(key)
        state, now = inner.step(state, action, key)
        without = jnp.where(self.lost(inner.spec.shape, inner.spec.dtype), self.value, now.successor)
        drops = jax.random.uniform(draw, now.reward.shape) < self.probability
        successor = choose(drops, without.astype(now.successor.dtype), now.successor)
        fresh = now.terminated | now.truncated | ~now.real
        observation = choose(fresh, now.observation, successor)
        return state, (), now._replace(observation=observation, successor=successor)

    def around(self, env: Any) -> Any:
        from qhat.environments.gymnasium.flickering import Flickering

        return Flickering(env, self)
