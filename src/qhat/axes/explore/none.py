"""No exploration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from qhat.axes.actions import Actions
from qhat.axes.explore.base import Explore
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Float, Int, jnp


@dataclasses.dataclass(frozen=True)
class NoExploration(Explore):
    """The greedy action, always: for noisy layers, which explore by themselves."""

    name: ClassVar[str] = "greedy"

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.dense.noise_size(1, 1) > 0,
            f"{setting('explore', 'greedy')} never tries another action with"
            f" {setting('dense', recipe.dense.name)}; expected {setting('dense', 'noisy')} beside it, or"
            f" {setting('explore', 'epsilon')}.",
        )

    def init(self, num_envs: int, actions: Actions) -> Any:
        return ()

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.float32(0.0)

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        return state, greedy

    def random_numbers(self, actions: Actions) -> int:
        return 0

    def decide(
        self, state: Any, greedy: Any, bits: Any, step: Any, actions: Actions, legal: Any, xp: Any
    ) -> tuple[Any, Any]:
        return state, greedy

    def decide_one(self, bits: Sequence[int], step: int, choices: int) -> int | None:
        return None
