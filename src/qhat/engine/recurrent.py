"""A network with a memory: it acts from the state that it kept, and learns from sequences of steps.

What the last layers see of an observation is the memory's state after it. For an update the states of all
rows of its sequences are computed at the same time, of θ and of θ⁻; the rest of the update is every
recipe's: an observation is then the number of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qhat.axes.axis import spell
from qhat.axes.memory import Memory
from qhat.engine.calibration import REMEMBERED, split_trainable
from qhat.engine.replay.transitions import Sequences, Transition
from qhat.system.errors import require, setting, spelled

if TYPE_CHECKING:
    from qhat.engine.learner import Learner


class Recall(eqx.Module):
    """States of E memories around the observation that was acted on last."""

    # One array: of two that move on in a loop, XLA writes the second over the first before that is read,
    # where fusions are off on a CPU (jaxlib 0.10).
    states: Float[Array, "*S E 2 M"]

    @staticmethod
    def of(before: Float[Array, "E M"], after: Float[Array, "E M"]) -> Recall:
        """Return the states that observations met, and those after them."""
        return Recall(jnp.stack([before, after], axis=1))

    @property
    def before(self) -> Float[Array, "*S E M"]:
        """That the observation met; it is stored with it."""
        return self.states[..., 0, :]

    @property
    def after(self) -> Float[Array, "*S E M"]:
        """That the next observation meets: 0 where it is the first of an episode."""
        return self.states[..., 1, :]


def require_single(memory: Memory, stack: int) -> None:
    """Raise `UsageError` for a memory of observations that are stacks of frames."""
    name = setting("memory", spell(memory))
    stacks = spelled("env_kwargs={'stack_num': 1}", "--env-kwargs stack_num=1")
    require(
        stack == 1 or not memory.remembers,
        f"{name} and stacks of {stack} frames, each of which replay stores one time, have no meaning"
        " together: a memory keeps what a stack shows. Expected observations of one frame: without"
        f" {setting('wrap', f'frame_stack:count={stack}')}, or where the environment stacks, {stacks}.",
    )


def fresh(learner: Learner, count: int) -> Recall | None:
    """Return the states of `count` episodes before their first observations; `None` without a memory."""
    memory = learner.recipe.memory
    if not memory.remembers:
        return None
    return Recall(jnp.zeros((count, 2, memory.units)))


def over(learner: Learner, recall: Recall | None, timestep: Any) -> Recall | None:
    """Return the states before the observation of a timestep: fresh ones where it is an episode's first."""
    if recall is None:
        return None
    after = learner.recipe.memory.forget(recall.after, ended(timestep))
    return Recall.of(recall.before, after)


def ended(timestep: Any) -> Any:
    """Whether the observation of a timestep is the first of an episode, or none; NumPy's or JAX's."""
    found = timestep.terminated | timestep.truncated | ~timestep.real
    return found if timestep.broken is None else found | timestep.broken


def look(
    learner: Learner,
    values: Callable[[Any, Array, Array | None], Float[Array, "F C"]],
    parameters: Any,
    observations: Array,
    key: Array | None,
    recall: Recall | None,
) -> tuple[Float[Array, "E F C"], Recall | None]:
    """Return values of each of a batch of observations, and the memories' states around them.

    Args:
        values: the learner's `q_values` or `preferences`.
    """
    if recall is None:
        return jax.vmap(values, in_axes=(None, 0, None))(parameters, observations, key), None

    noise = None if key is None else learner.network.noise(key)

    def one(observation: Array, before: Array) -> tuple[Array, Array]:
        weights, shown, _ = learner.shown(parameters, observation)
        x = learner.network.encoded(weights, shown, None if noise is None else noise[0])
        after = learner.recipe.memory.step(weights["memory"], before, x)
        return values({**parameters, REMEMBERED: after[None]}, jnp.int32(0), key), after

    q, after = jax.vmap(one)(observations, recall.after)
    return q, Recall.of(recall.after, after)


def remembered(learner: Learner, parameters: Any, batch: Transition, noise: Array | None) -> Any:
    """Return parameters with the states of their memory at each row of the batch, if they have one."""
    if batch.sequences is None:
        return parameters
    return {**parameters, REMEMBERED: states_of(learner, parameters, batch.sequences, noise)}


def states_of(
    learner: Learner, parameters: Any, sequences: Sequences, noise: Array | None
) -> Float[Array, "R M"]:
    """Return the states after each learned row of all sequences, one sequence after the other."""
    memory, burn = learner.recipe.memory, learner.recipe.memory.burn_in
    weights = split_trainable(parameters)[0]

    def features(parameters: Any, observations: Array) -> Float[Array, "S T I"]:
        def one(observation: Array) -> Float[Array, " I"]:
            weights, shown, _ = learner.shown(parameters, observation)
            return learner.network.encoded(weights, shown, noise)

        return jax.vmap(jax.vmap(one))(observations)

    sequence = jax.vmap(memory.sequence, (None, 0, 0, 0))
    states, first = sequences.states, sequences.first
    if burn:
        still, early = jax.lax.stop_gradient(weights), sequences.observation[:, :burn]
        x = features(jax.lax.stop_gradient(parameters), early)
        reached = sequence(still["memory"], states[:, :burn], first[:, :burn], x)[:, -1]
        begin = jnp.where(first[:, burn, None], states[:, burn], jax.lax.stop_gradient(reached))
        states = states[:, burn:].at[:, 0].set(begin)
        first = first[:, burn:].at[:, 0].set(True)
    x = features(parameters, sequences.observation[:, burn:])
    after = sequence(weights["memory"], states, first, x)
    return after.reshape(-1, after.shape[-1])
