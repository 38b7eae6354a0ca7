"""What goes into replay, and what comes out of it."""

import dataclasses

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int


class Step(eqx.Module):
    """One environment step of E environments."""

    observation: Array
    """`[E, ...]`, what was acted on."""
    action: Int[Array, "E F"]
    reward: Float[Array, " E"]
    successor: Array
    """`[E, ...]`, the true next observation, also at an episode's end."""
    terminated: Bool[Array, " E"]
    truncated: Bool[Array, " E"]
    real: Bool[Array, " E"]
    """False for a row that is no transition (an autoreset); it is not stored."""
    legal: Bool[Array, "E F C"] | None = None
    """Legal actions at `observation`, in an environment with masks."""
    legal_next: Bool[Array, "E F C"] | None = None
    """Legal actions at `successor`."""
    memory: Float[Array, "E M"] | None = None
    """State of the memory that `observation` met, of a network with one."""


class Sequences(eqx.Module):
    """S sequences of T rows of replay, for a network with a memory."""

    observation: Array
    """`[S, T, ...]`"""
    states: Float[Array, "S T M"]
    """State of the memory that each observation met when it was acted on."""
    first: Bool[Array, "S T"]
    """Whether a row does not follow the row before it: an episode's first, or the sequence's."""


class Transition(eqx.Module):
    """A batch of n-step transitions, the only data that the learner gets."""

    observation: Array
    """`[B, ...]`"""
    action: Int[Array, "B F"]
    reward: Float[Array, " B"]
    """R⁽ⁿ⁾, in the environment's units."""
    discount: Float[Array, " B"]
    """d = γᵏ·(1 − terminated)."""
    successor: Array | None
    """`[B, ...]`, the observation k steps later; `None` where every reward is the whole return."""
    legal: Bool[Array, "B F C"] | None = None
    """Legal actions at `observation`; `None` is all."""
    legal_next: Bool[Array, "B F C"] | None = None
    logged: Bool[Array, " B"] | None = None
    """Whether a step was recorded before the run, in batches that have a fixed share of such steps."""
    sequences: Sequences | None = None
    """For a network with a memory: `observation` and `successor` are then numbers of their rows."""

    def alone(self) -> "Transition":
        """Return the transitions without their sequences."""
        return dataclasses.replace(self, sequences=None)
