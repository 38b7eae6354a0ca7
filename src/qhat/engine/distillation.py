"""A student learns a teacher's values from observations of its own: what both see is one wide observation.

The student acts, mixed with the teacher, and the teacher says what it would value where the student goes
(Ross, Gordon & Bagnell 2011, arXiv:1011.0686). The loss is that of policy distillation, a divergence of
softmaxes of values (Rusu et al. 2015, arXiv:1511.06295, equation 3), and the squared error of the largest
value, so that the student's are values too.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.greedy import best
from qhat.engine import recurrent
from qhat.engine.calibration import split_trainable
from qhat.engine.learner import Learner

SHARPNESS = 4.0
"""Of the softmaxes: by how many temperatures a teacher's best choice is above the mean, on average."""
NORM = 10.0
"""At which gradients are clipped."""


class Window(NamedTuple):
    """T steps of E copies."""

    observation: Float[Array, "T E D"]
    """The student's."""
    target: Float[Array, "T E F C"]
    """The teacher's values."""
    first: Bool[Array, "T E"]
    """Whether an observation is the first of its episode."""
    states: Float[Array, "E M"]
    """Of the student's memory before the first observation; M is 0 without one."""


class Pupil(eqx.Module):
    """The student's parameters and its optimiser's state. A value."""

    parameters: Any
    optimiser: Any


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The pure functions of a teacher and a student. Holds no arrays."""

    teacher: Learner
    student: Learner
    teacher_sees: tuple[int, ...]
    """Places of the teacher's numbers in the wide observation."""
    student_sees: tuple[int, ...]
    rate: float = 1e-3
    updates: int = 1_000
    """Until the learning rate has fallen to a tenth."""

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Adam, with a rate that falls as a cosine does."""
        schedule = optax.cosine_decay_schedule(self.rate, self.updates, alpha=0.1)
        return optax.chain(optax.clip_by_global_norm(NORM), optax.adam(schedule))

    def init(self, key: Array) -> Pupil:
        """Draw the student's parameters."""
        parameters = self.student.init_parameters(key)
        return Pupil(parameters, self.optimiser.init(split_trainable(parameters)[0]))

    @functools.partial(jax.jit, static_argnums=0)
    def act(
        self,
        teacher: Any,
        student: Any,
        wide: Float[Array, "E W"],
        recalls: tuple,
        leads: Bool[Array, " E"],
    ) -> tuple[Int[Array, "E F"], Bool[Array, " E"], Array, tuple]:
        """Return the actions, whether both would act alike, the teacher's values, the memories' states.

        Args:
            teacher, student: parameters.
            recalls: of both, `None` without a memory.
            leads: in which copies the teacher acts.
        """
        values, followed = recurrent.look(
            self.teacher, self.teacher.preferences, teacher, self.shown(wide, self.teacher_sees), None,
            recalls[0],
        )  # fmt: skip
        wanted = best(values, None, self.teacher.network.joint, jnp).astype(jnp.int32)
        choice, recall = self.student.greedy(
            student, self.shown(wide, self.student_sees), recall=recalls[1]
        )
        action = jnp.where(leads[:, None], wanted, choice)
        return action, jnp.all(wanted == choice, axis=-1), values, (followed, recall)

    def shown(self, wide: Any, places: tuple[int, ...]) -> Any:
        """Return what one of the two sees of wide observations `[..., W]`."""
        return wide[..., np.array(places)]

    @functools.partial(jax.jit, static_argnums=0)
    def learn(self, pupil: Pupil, window: Window) -> tuple[Pupil, Array]:
        """Take a gradient step on a window; return the loss too."""
        trained, fixed = split_trainable(pupil.parameters)

        def objective(trained: Any) -> Array:
            return self.distance(self.values({**trained, **fixed}, window), window.target)

        loss, gradient = jax.value_and_grad(objective)(trained)
        change, optimiser = self.optimiser.update(gradient, pupil.optimiser, trained)
        moved: Any = optax.apply_updates(trained, change)
        return Pupil({**moved, **fixed}, optimiser), loss

    def values(self, parameters: Any, window: Window) -> Float[Array, "T E F C"]:
        """Return the student's values of all observations of a window."""
        memory = self.student.recipe.memory
        look = functools.partial(recurrent.look, self.student, self.student.q_values, parameters)
        if not memory.remembers:
            return jax.vmap(lambda observation: look(observation, None, None)[0])(window.observation)

        def one(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
            observation, first = row
            before = memory.forget(after, first)
            q, recall = look(observation, None, recurrent.Recall.of(before, before))
            assert recall is not None
            return recall.after, q

        return jax.lax.scan(one, window.states, (window.observation, window.first))[1]

    def distance(self, q: Float[Array, "T E F C"], target: Float[Array, "T E F C"]) -> Float[Array, ""]:
        """Return the divergence of the choices, and the squared error of the largest values."""
        exists = self._exists(target.shape[-1])
        largest = jnp.max(jnp.where(exists, target, -jnp.inf), axis=-1)
        mean = jnp.sum(jnp.where(exists, target, 0.0), axis=-1) / jnp.sum(exists, axis=-1)
        temperature = jnp.mean(largest - mean) / SHARPNESS + 1e-8
        wanted, found = (
            jax.nn.log_softmax(jnp.where(exists, each / temperature, -1e9), axis=-1) for each in (target, q)
        )
        divergence = jnp.sum(jnp.where(exists, jnp.exp(wanted) * (wanted - found), 0.0), axis=-1)
        off = jnp.max(jnp.where(exists, q, -jnp.inf), axis=-1) - largest
        return jnp.mean(divergence) + jnp.mean(jnp.square(off)) / (jnp.var(largest) + 1e-8)

    def _exists(self, width: int) -> Bool[np.ndarray, "F C"]:
        """Whether a factor has a choice; a joint action always is one."""
        if self.teacher.network.joint is not None:
            return np.ones((1, width), bool)
        return np.arange(width) < np.array(self.teacher.actions.choices)[:, None]
