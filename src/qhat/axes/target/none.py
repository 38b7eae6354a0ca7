"""Learning without a target network."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qhat.axes.target.network import Target
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Int


@dataclasses.dataclass(frozen=True)
class NoTarget(Target):
    """Targets are those of θ itself (PQN: Gallici et al. 2025, arXiv:2407.04811)."""

    name: ClassVar[str] = "none"

    def validate_within(self, recipe: Any) -> None:
        require(
            not recipe.policy.uses_online,
            f"{setting('policy', recipe.policy.name)} needs two networks, and {setting('target', 'none')}"
            f" leaves one; expected {setting('policy', 'greedy')}, which is the same with one.",
        )
        require(
            not recipe.joints.uses_target,
            f"{setting('joints', recipe.joints.name)} keeps values near those of the target network, and"
            f" {setting('target', 'none')} has none; expected a target, for example"
            f" {setting('target', 'soft')}.",
        )

    def first(self, online: Any) -> Any:
        return None

    def follow(self, target: Any, online: Any, updates: Int[Array, ""]) -> Any:
        return None
