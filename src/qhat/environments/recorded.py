"""Stands where an environment would be, in a run that learns from logs alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from qhat.environments.base import Environment, Spec, Timestep
from qhat.system.lazy import Array, Bool, Int, jnp


@dataclasses.dataclass(frozen=True)
class Recorded(Environment):
    """An environment that is never stepped; it has one observation, which is zero, and all is legal."""

    spec: Spec  # pyright: ignore[reportIncompatibleVariableOverride]
    num_envs: int = 1  # pyright: ignore[reportIncompatibleVariableOverride]

    def reset(self, key: Array) -> tuple[Any, Array]:
        return (), jnp.zeros((self.num_envs, *self.spec.shape), self.spec.dtype)

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        raise NotImplementedError(f"'{self.spec.id}' is recorded, and cannot be stepped.")

    def legal(self, state: Any) -> Bool[Array, "E F C"] | None:
        if not self.spec.masked:
            return None
        actions = self.spec.actions
        return jnp.broadcast_to(
            jnp.asarray(actions.all_legal), (self.num_envs, actions.factors, actions.width)
        )
