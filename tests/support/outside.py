"""One value of every axis, and an export target, from outside the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from log_cosh import LogCosh
from qhat.axes import (
    Actions,
    Behaviour,
    Bonus,
    Case,
    Explore,
    Head,
    Horizon,
    Joints,
    Layer,
    Merge,
    Op,
    Optimiser,
    Policy,
    Recurrent,
    Relabel,
    Replay,
    Reset,
    Resolution,
    Sampler,
    Target,
    Torso,
)  # fmt: skip
from qhat.deploy.target import ExportTarget
from qhat.system.errors import UsageError
from qhat.system.files import read_json


@dataclasses.dataclass(frozen=True)
class Uninformed(Policy):
    """The uniform policy."""

    name: ClassVar[str] = "uninformed"
    uses_online: ClassVar[bool] = False
    has_entropy: ClassVar[bool] = False

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        allowed = jnp.where(target > -jnp.inf, 1.0, 0.0)
        return allowed / jnp.sum(allowed, axis=1, keepdims=True), jnp.zeros_like(target)


@dataclasses.dataclass(frozen=True)
class Doubtful(Behaviour):
    """Recorded actions have a value near 0."""

    name: ClassVar[str] = "doubtful"

    def loss(self, case: Case) -> Float[Array, ""]:
        chosen = jnp.take_along_axis(case.q, case.action[:, None], axis=1)
        return case.regression + 1e-3 * jnp.sum(chosen**2)


@dataclasses.dataclass(frozen=True)
class Halfway(Reset):
    """Every few updates, half the way to fresh weights."""

    name: ClassVar[str] = "halfway"
    every: int = 7

    def due(self, updates: Int[Array, ""]) -> Bool[Array, ""]:
        return updates % self.every == 0

    def since(self, updates: Int[Array, ""]) -> Int[Array, ""]:
        return updates % self.every

    def mixed(self, parameters: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda old, new: 0.5 * (old + new), parameters, fresh)


@dataclasses.dataclass(frozen=True)
class Alternating(Horizon):
    """One reward and two, in turns."""

    name: ClassVar[str] = "alternating"

    def longest(self, n_step: int) -> int:
        return 2

    def at(self, updates: Int[Array, ""], n_step: int, gamma: float) -> Any:
        return 1 + updates % 2, gamma


@dataclasses.dataclass(frozen=True)
class Twice(Replay):
    """Two updates wherever the recipe has one."""

    name: ClassVar[str] = "twice"

    def updates(self, recipe: Any) -> int:
        return 2 * super().updates(recipe)


@dataclasses.dataclass(frozen=True)
class Fading(Recurrent):
    """A running mean of the features of past observations."""

    name: ClassVar[str] = "fading"
    units: int = 8
    length: int = 4
    burn_in: int = 2

    def init(self, key: Array, inputs: int) -> dict[str, Array]:
        return {"weight": jax.random.normal(key, (self.units, inputs))}

    def advance(
        self, parameters: dict[str, Any], state: Float[Array, " M"], row: Any
    ) -> Float[Array, " M"]:
        return 0.5 * state + 0.5 * jnp.tanh(parameters["weight"] @ row)


@dataclasses.dataclass(frozen=True)
class Late(Resolution):
    """The last choice comes into use after ten updates, beside the first and the one before it."""

    name: ClassVar[str] = "late"

    def require_fit(self, actions: Actions) -> None:
        return

    def opened(self, choices: tuple[int, ...]) -> np.ndarray:
        whole = np.arange(max(choices)) < np.asarray(choices)[:, None]
        return np.stack([whole & (np.arange(max(choices)) != 1), whole])

    def level(self, updates: Int[Array, ""], levels: int) -> Int[Array, ""]:
        return jnp.int32(updates >= 10)


@dataclasses.dataclass(frozen=True)
class Final(Relabel):
    """Every step gets the goal that its episode ended with, in another norm."""

    name: ClassVar[str] = "final"

    def choose(self, key: Array, left: Int[Array, " B"]) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
        return jnp.ones(left.shape, bool), left

    def reward(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Float[Array, "*B"]:
        return jnp.where(self.reached(achieved, desired), 0.0, -1.0)

    def reached(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Bool[Array, "*B"]:
        return jnp.max(jnp.abs(achieved - desired), axis=-1) < 0.5


@dataclasses.dataclass(frozen=True)
class Alive(Bonus):
    """A constant for every step."""

    name: ClassVar[str] = "alive"
    uses_target: ClassVar[bool] = False
    size: float = 0.1

    def value(self, q: Float[Array, "F C"], action: Int[Array, " F"]) -> Float[Array, ""]:
        return jnp.float32(self.size)


@dataclasses.dataclass(frozen=True)
class Halves(Joints):
    """Half of the loss of the mean over the joints."""

    name: ClassVar[str] = "halves"

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        loss, error = head.loss(head.predict(z, action, basis), target, basis)
        return 0.5 * loss, error


@dataclasses.dataclass(frozen=True)
class Added(Merge):
    """A value, plus an advantage for every choice, not centred."""

    name: ClassVar[str] = "added"

    def streams(self, choices: int) -> dict[str, int]:
        return {"value": 1, "more": choices}

    def merge(self, streams: dict[str, Float[Array, "F _ K"]], exists: Any) -> Float[Array, "F C K"]:
        return streams["value"] + streams["more"]

    def export_rows(self, streams: dict[str, np.ndarray], exists: np.ndarray) -> np.ndarray:
        return streams["value"] + streams["more"]


@dataclasses.dataclass(frozen=True)
class NoBias(Layer):
    """y = W x."""

    name: ClassVar[str] = "no_bias"

    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        return {"weight": jax.random.normal(key, (outputs, inputs)) * inputs**-0.5}

    def apply(
        self, parameters: dict[str, Any], x: Float[Array, " I"], noise: Float[Array, " N"] | None
    ) -> Float[Array, " O"]:
        return parameters["weight"] @ x

    def export_affine(self, parameters: dict[str, Array]) -> dict[str, Array]:
        return {"weight": parameters["weight"], "bias": jnp.zeros(len(parameters["weight"]))}


@dataclasses.dataclass(frozen=True)
class Doubled(Torso):
    """The numbers of an observation, times two."""

    name: ClassVar[str] = "doubled"

    def features(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def init(self, key: Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return {}

    def apply(self, parameters: dict[str, Any], observation: Array) -> Float[Array, " I"]:
        return 2.0 * observation.astype(jnp.float32).reshape(-1)

    def export_ops(self, parameters: dict[str, Any], shape: tuple[int, ...], dtype: str) -> list[Op]:
        twice = 2.0 * np.eye(math.prod(shape), dtype=np.float32)
        bias = np.zeros(len(twice), np.float32)
        return [{"op": "flatten"}, {"op": "dense", "name": "twice", "weight": twice, "bias": bias}]


@dataclasses.dataclass(frozen=True)
class FirstEnvironment(Sampler):
    """Uniform over the steps of the first environment."""

    name: ClassVar[str] = "first_environment"

    def init(self, capacity: int) -> Any:
        return ()

    def store(self, state: Any, slots: Int[Array, " M"], starts: Bool[Array, " M"]) -> Any:
        return state

    def draw(
        self, state: Any, key: Array, batch: int, filled: Int[Array, " E"], rows: int
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        return jax.random.randint(key, (batch,), 0, jnp.maximum(filled[0], 1)), jnp.ones(batch)

    def weights(self, relative: Float[Array, " B"], step: Int[Array, ""]) -> Float[Array, " B"]:
        return jnp.ones_like(relative)

    def update(self, state: Any, slots: Int[Array, " B"], error: Float[Array, " B"]) -> Any:
        return state


@dataclasses.dataclass(frozen=True)
class Lowest(Explore):
    """The first choice that is legal, always."""

    name: ClassVar[str] = "lowest"

    def init(self, num_envs: int, actions: Actions) -> Any:
        return ()

    def epsilon(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.float32(1.0)

    def choose(
        self,
        state: Any,
        greedy: Int[Array, "E F"],
        key: Array,
        step: Int[Array, ""],
        actions: Actions,
        legal: Bool[Array, "E F C"] | None = None,
    ) -> tuple[Any, Int[Array, "E F"]]:
        if legal is None:
            return state, jnp.zeros_like(greedy)
        return state, jnp.argmax(legal, axis=2).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Same(Target):
    """No target network: the online one."""

    name: ClassVar[str] = "same"

    def follow(self, target: Any, online: Any, updates: Int[Array, ""]) -> Any:
        return online


@dataclasses.dataclass(frozen=True)
class Signs(Optimiser):
    """The sign of the gradient."""

    name: ClassVar[str] = "signs"

    def scaling(self) -> Any:
        return optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates))


@dataclasses.dataclass(frozen=True)
class Summary(ExportTarget):
    """A text file that names the actions; for CartPole only."""

    name: ClassVar[str] = "summary"

    def require(self, config: Mapping[str, Any]) -> None:
        if config["env"] != "CartPole-v1":
            raise UsageError(f"A summary is of CartPole-v1, not of {config['env']}.")

    def write(self, folder: Path) -> Path:
        path = folder / "summary.txt"
        path.write_text(f"{read_json(folder / 'policy.json')['actions']['choices']}")
        return path


OUTSIDE: dict[str, Any] = {
    value.axis: value
    for value in (
        LogCosh(), Uninformed(), Doubtful(), Alive(), Halves(), Added(), NoBias(), Doubled(),
        FirstEnvironment(), Lowest(), Same(), Signs(), Halfway(), Final(),
        Alternating(), Late(), Twice(), Fading(),
    )
}  # fmt: skip
"""By axis."""
