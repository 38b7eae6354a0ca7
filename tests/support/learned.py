"""What a program has learned: the middle of several seeds, at one moment.

Adam takes a large step now and then, once its second moments have become small: of 24 seeds that have
learned the probes, two are off by more than 0.1 at a given moment. Which ones they are changes with the
order of a sum, so with the processor. One seed at one moment says little; the middle of five is off when
learning is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.environments.base import Environment

SEEDS = 5


def learned_q(
    program: Program, environment: Environment, steps: int, observations: Float[Array, "N D"]
) -> Float[Array, "N A"]:
    """Return the action values of a single factor, each the median over the seeds."""
    loop = Loop(program, environment)
    state, _ = loop.compile(steps)(loop.init(jax.random.split(jax.random.key(0), SEEDS)), steps)

    def of_one(online: object) -> Float[Array, "N A"]:
        return jax.vmap(program.learner.q_values, in_axes=(None, 0))(online, observations)[:, 0]

    return jnp.median(jax.jit(jax.vmap(of_one))(state.seeds.learner.online), axis=0)
