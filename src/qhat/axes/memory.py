"""The axis `memory`: what a network keeps of the observations before this one."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, missing, spell
from qhat.axes.dense import Dense
from qhat.axes.operations import Op
from qhat.system.devices import dividing
from qhat.system.errors import fitting, require, setting
from qhat.system.lazy import Array, Bool, Float, jax, jnp

WIDEST = 65_536
"""Units of a memory, beyond which numbers are no network's."""


class Memory(AxisValue, abc.ABC):
    """A state of `units` numbers, between the shared hidden layers and the last ones, which see only it."""

    axis: ClassVar[str] = "memory"
    remembers: ClassVar[bool] = True

    units: int
    """Numbers of the state."""
    length: int
    """Steps of a sequence that an update learns from."""
    burn_in: int
    """Steps before these, from which an update only gets the state."""

    @abc.abstractmethod
    def init(self, key: Array, inputs: int) -> dict[str, Array]:
        """Draw the parameters."""

    def prepared(self, parameters: dict[str, Any], x: Float[Array, " I"]) -> Any:
        """Return what a step makes of the features `x` of its observation alone: any tree of arrays."""
        return x

    @abc.abstractmethod
    def advance(
        self, parameters: dict[str, Any], state: Float[Array, " M"], row: Any
    ) -> Float[Array, " M"]:
        """Return the state after one observation, of which `row` is what `prepared` returns."""

    @missing
    def export_ops(self, parameters: dict[str, Any]) -> list[Op]:
        """Describe `advance`: the operation of docs/export-format.md from features to the state."""
        raise NotImplementedError

    def step(
        self, parameters: dict[str, Any], state: Float[Array, " M"], x: Float[Array, " I"]
    ) -> Float[Array, " M"]:
        """Return the state after one observation, of which `x` are the features."""
        return self.advance(parameters, state, self.prepared(parameters, x))

    def sequence(
        self,
        parameters: dict[str, Any],
        states: Float[Array, "T M"],
        first: Bool[Array, " T"],
        x: Float[Array, "T I"],
    ) -> Float[Array, "T M"]:
        """Return the states after each of T observations.

        Args:
            first: where a sequence begins anew; at row 0 it does.
            states: before each observation; only those of `first` count.
        """
        # What needs no state waits for nothing: its products are one matrix product for all rows.
        rows = jax.vmap(self.prepared, (None, 0))(parameters, x)

        def one(state: Array, now: tuple[Array, Array, Any]) -> tuple[Array, Array]:
            begins, stored, row = now
            after = self.advance(parameters, jnp.where(begins, stored, state), row)
            return after, after

        return jax.lax.scan(one, states[0], (first, states, rows))[1]

    def forget(self, state: Float[Array, "E M"], over: Bool[Array, " E"]) -> Float[Array, "E M"]:
        """Return the states, those of a fresh episode where one is `over`."""
        return jnp.where(over[:, None], 0.0, state)


@dataclasses.dataclass(frozen=True)
class NoMemory(Memory):
    """Q depends on the observation alone."""

    name: ClassVar[str] = "none"
    remembers: ClassVar[bool] = False
    units: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride]
    length: ClassVar[int] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    burn_in: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride]

    def init(self, key: Array, inputs: int) -> dict[str, Array]:
        return {}

    def export_ops(self, parameters: dict[str, Any]) -> list[Op]:
        return []

    def advance(
        self, parameters: dict[str, Any], state: Float[Array, " M"], row: Any
    ) -> Float[Array, " M"]:
        return state


@dataclasses.dataclass(frozen=True)
class Recurrent(Memory):
    """A memory that is learned from stored sequences, as R2D2's (Kapturowski et al. 2019).

    Each row of replay has the state that its observation met. An update draws starts of sequences, computes
    the states of the `burn_in` steps before each from the stored state at their front, without a gradient,
    and learns from the `length` steps that follow.
    """

    units: int = 64
    """Numbers of the state."""
    length: int = 32
    """Steps of a sequence that an update learns from."""
    burn_in: int = 8
    """Steps before these, from which an update only gets the state."""

    def validate(self) -> None:
        good = 1 <= self.units <= WIDEST
        require(good, f"{self.name}:units is {self.units}; expected 1 to {WIDEST:,} numbers.")
        for field, least in (("length", 1), ("burn_in", 0)):
            value = getattr(self, field)
            good = least <= value <= 1_000_000
            require(good, f"{self.name}:{field} is {value}; expected {least} to 1,000,000 steps.")

    def rows(self, longest: int) -> int:
        """Return the rows of one sequence, whose n-step returns sum at most `longest` rewards."""
        return self.burn_in + self.length + longest

    def validate_within(self, recipe: Any) -> None:
        name = setting("memory", spell(self))
        wrong = {
            "training": (not recipe.training.replays, "learns from sequences in replay", "replay"),
            "relabel": (recipe.relabel.happens, "stores states that met the old goal", "none"),
            "n_step_cut": (recipe.n_step_cut is not None, "cannot say which actions were greedy", None),
            "mirror": (recipe.mirror, "would see single steps of a sequence mirrored", False),
            "random_shift": (recipe.random_shift > 0, "would see pictures move within a sequence", 0),
        }
        for field, (is_wrong, why, good) in wrong.items():
            value = getattr(recipe, field)
            value = spell(value) if isinstance(value, AxisValue) else value
            require(
                not is_wrong,
                f"{name} {why}; expected {fitting(field, good)}, and it is {value}. The recipe drqn has all"
                " that fits.",
            )
        fits = dividing(recipe.batch_size, min(self.length, recipe.batch_size))
        require(
            recipe.batch_size % self.length == 0,
            f"{name} learns from sequences of {self.length} steps, and {setting('batch_size')} is"
            f" {recipe.batch_size}; expected a multiple, such as"
            f" {setting('batch_size', max(1, recipe.batch_size // self.length) * self.length)}, or"
            f" {setting('memory', spell(dataclasses.replace(self, length=fits)))}.",
        )
        rows, least = recipe.training.rows(recipe, 1), self.rows(recipe.longest) + 2
        require(
            rows >= least,
            f"{setting('replay_capacity', recipe.replay_capacity)} leaves {rows} rows for each of"
            f" {recipe.num_envs} environments, and {name} needs sequences of {least - 2}; expected"
            f" {setting('replay_capacity', least * recipe.num_envs)} or more.",
        )


@dataclasses.dataclass(frozen=True)
class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), a step at a time.

    z = σ(W_z x + U_z h + b_z), r = σ(W_r x + U_r h + b_r), h̃ = tanh(W x + b + r ⊙ (U h + c)),
    h ← z ⊙ h + (1 − z) ⊙ h̃. The b_z begin at log(k), k spread over the sequence's length, so that some
    units remember for that long (chrono initialisation: Tallec & Ollivier 2018, arXiv:1804.11188).
    """

    name: ClassVar[str] = "gru"

    def init(self, key: Array, inputs: int) -> dict[str, Array]:
        keys = jax.random.split(key)
        from_x = Dense().init(keys[0], inputs, 3 * self.units)
        fed = Dense().init(keys[1], self.units, 3 * self.units)
        bias = from_x["bias"].at[: self.units].set(chrono(self.units, self.length))
        return {
            "weight": from_x["weight"],
            "bias": bias,
            "recurrent": fed["weight"],
            "recurrent_bias": jnp.zeros(self.units),
        }

    def prepared(self, parameters: dict[str, Any], x: Float[Array, " I"]) -> Float[Array, " G"]:
        return parameters["weight"] @ x + parameters["bias"]

    def advance(
        self, parameters: dict[str, Any], state: Float[Array, " M"], row: Any
    ) -> Float[Array, " M"]:
        z, r, n = jnp.split(row, 3)
        z_h, r_h, n_h = jnp.split(parameters["recurrent"] @ state, 3)
        stays = jax.nn.sigmoid(z + z_h)
        new = jnp.tanh(n + jax.nn.sigmoid(r + r_h) * (n_h + parameters["recurrent_bias"]))
        return stays * state + (1.0 - stays) * new

    def export_ops(self, parameters: dict[str, Any]) -> list[Op]:
        return [{"op": "gru", "name": self.axis, "units": self.units, **parameters}]


@dataclasses.dataclass(frozen=True)
class MinGRU(Recurrent):
    """Minimal GRU, whose gates see no state (Feng et al. 2024, arXiv:2410.01201).

    z = σ(W_z x + b_z), h ← z ⊙ h + (1 − z) ⊙ (W x + b). The b_z begin as the GRU's. All products are
    those of one matrix for all steps; what is left is a line per unit, composed by an associative scan on a
    GPU, and step by step on a CPU, where that takes less time.
    """

    name: ClassVar[str] = "min_gru"

    def init(self, key: Array, inputs: int) -> dict[str, Array]:
        from_x = Dense().init(key, inputs, 2 * self.units)
        bias = from_x["bias"].at[: self.units].set(chrono(self.units, self.length))
        return {"weight": from_x["weight"], "bias": bias}

    def prepared(self, parameters: dict[str, Any], x: Float[Array, " I"]) -> tuple[Array, Array]:
        """Return a and b of h ← a ⊙ h + b."""
        z, new = jnp.split(parameters["weight"] @ x + parameters["bias"], 2)
        stays = jax.nn.sigmoid(z)
        return stays, (1.0 - stays) * new

    def advance(
        self, parameters: dict[str, Any], state: Float[Array, " M"], row: Any
    ) -> Float[Array, " M"]:
        stays, added = row
        return stays * state + added

    def export_ops(self, parameters: dict[str, Any]) -> list[Op]:
        return [{"op": "min_gru", "name": self.axis, "units": self.units, **parameters}]

    def sequence(
        self,
        parameters: dict[str, Any],
        states: Float[Array, "T M"],
        first: Bool[Array, " T"],
        x: Float[Array, "T I"],
    ) -> Float[Array, "T M"]:
        stays, added = jax.vmap(self.prepared, (None, 0))(parameters, x)
        begins = first[:, None]
        lines = (jnp.where(begins, 0.0, stays), added + jnp.where(begins, stays * states, 0.0))
        return jax.lax.platform_dependent(*lines, cpu=in_steps, default=at_the_same_time)


def in_steps(stays: Float[Array, "T M"], added: Float[Array, "T M"]) -> Float[Array, "T M"]:
    """Return every h_t = a_t ⊙ h_{t−1} + b_t, from h = 0, one after the other."""

    def one(state: Array, line: tuple[Array, Array]) -> tuple[Array, Array]:
        after = line[0] * state + line[1]
        return after, after

    return jax.lax.scan(one, jnp.zeros_like(added[0]), (stays, added))[1]


def at_the_same_time(stays: Float[Array, "T M"], added: Float[Array, "T M"]) -> Float[Array, "T M"]:
    """Return the same by an associative scan (Blelloch 1990): the number of rounds grows with log T."""

    def joined(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        return early[0] * late[0], late[0] * early[1] + late[1]

    return jax.lax.associative_scan(joined, (stays, added))[1]


def chrono(units: int, length: int) -> Float[Array, " M"]:
    """Return the logits of gates that let units remember for 1 to `length` steps, evenly spread."""
    return jnp.log(jnp.linspace(1.0, float(max(length, 2)) - 1.0, units))


MEMORIES: tuple[type[Memory], ...] = (NoMemory, GRU, MinGRU)
