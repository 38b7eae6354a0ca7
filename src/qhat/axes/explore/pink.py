"""Exploration by noise that is correlated in time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.explore.base import Falling, uniform
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Float, Int, jax, jnp

OCTAVES = 8
"""Processes that are added up: white noise, and those with time constants of 1, 2, 4, … 64 steps."""
KEPT = np.array([0.0, *(math.exp(-(2.0**-octave)) for octave in range(OCTAVES - 1))], np.float32)
"""Share of each that stays from one step to the next."""


@dataclasses.dataclass(frozen=True)
class Pink(Falling):
    """Moves every joint's command by pink noise: deviations last for a step, or for a hundred.

    The noise of a joint is the sum of white noise and first-order processes whose time constants double,
    each of the same variance, so that its power falls as 1/f (Eberhard et al. 2023, "Pink noise is all you
    need", ICLR, have it for continuous actions). σ is in units of half a joint's range; the command that is
    executed is the nearest one to the greedy one plus the noise, within the range. Every process starts at
    0, so the first steps of a run deviate less.
    """

    name: ClassVar[str] = "pink"
    symbol: ClassVar[str] = "σ"

    start: float = 1.0
    """σ at step 0."""
    end: float = 0.3
    """σ from step `steps` on."""
    steps: int | None = None
    """Environment steps over which σ falls from `start` to `end`; none: `fraction` of the run."""
    fraction: float = 0.1
    """Share of the run over which σ falls, where `steps` is none."""

    def validate(self) -> None:
        for word, value in (("start", self.start), ("end", self.end)):
            require(0.0 <= value <= 100.0, f"pink:{word} is {value}; expected a σ within [0, 100].")
        require(self.start + self.end > 0, "pink:start and end are both 0, which never explores.")
        super().validate()

    def init(self, num_envs: int, actions: Actions) -> Any:
        require(
            actions.commands is not None,
            f"{setting('explore', 'pink')} moves a joint's command to a near one, and has no meaning for"
            f" {'×'.join(map(str, actions.choices))} choices without an order. Expected"
            f" {setting('explore', 'epsilon')}.",
        )
        return jnp.zeros((num_envs, actions.factors, OCTAVES), jnp.float32)

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return σ, at most 1: which share of the steps departs depends on the number of commands."""
        return jnp.minimum(self.size(step, jnp), 1.0)

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        bits = jax.random.bits(key, (greedy.shape[0], self.random_numbers(actions)))
        return self.decide(state, greedy, bits, step, actions, legal, jnp)

    def random_numbers(self, actions: Actions) -> int:
        return actions.factors * OCTAVES

    def decide(
        self, state: Any, greedy: Any, bits: Any, step: Any, actions: Actions, legal: Any, xp: Any
    ) -> tuple[Any, Any]:
        rho = xp.asarray(KEPT)
        fresh = _normal(bits, xp).reshape(state.shape)
        state = rho * state + xp.sqrt(1.0 - rho**2) * fresh
        noise = self.size(step, xp) * xp.sum(state, axis=-1) / math.sqrt(OCTAVES)
        last = xp.asarray(actions.choices, xp.int32) - 1
        moved = greedy + xp.rint(noise * last / 2.0).astype(xp.int32)
        action = xp.clip(moved, 0, last).astype(xp.int32)
        if legal is None:
            return state, action
        # A command that is not legal is replaced by the greedy one.
        allowed = xp.take_along_axis(legal, action[..., None], axis=2)[..., 0]
        return state, xp.where(allowed, action, greedy)


def _normal(bits: Any, xp: Any) -> Any:
    """Return draws from N(0, 1), one for each of the random numbers `[E, 2n]` (Box & Muller 1958)."""
    half = bits.shape[1] // 2
    # Of (0, 1]: the logarithm of 0 is not finite.
    radius = xp.sqrt(-2.0 * xp.log(uniform(bits[:, :half], xp) + np.float32(2.0**-24)))
    angle = np.float32(2.0 * math.pi) * uniform(bits[:, half:], xp)
    return xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)
