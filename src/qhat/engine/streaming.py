"""Learning from every step when it happens, along eligibility traces.

Reads like the algorithm box of stream Q(λ) (Elsayed, Vasan & Mahmood 2024, arXiv:2410.14606): error, trace,
bounded step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.greedy import nearly_greedy
from qhat.axes.joint_actions import of_joint_actions
from qhat.axes.optimiser import rate_at
from qhat.axes.policy import mask_illegal
from qhat.engine.calibration import RETURNS, split_trainable
from qhat.engine.learner import Learner, LearnerState, Metrics
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED
from qhat.engine.replay.returns import latest
from qhat.engine.rollout import steps_of
from qhat.engine.state import Clock, SeedState, no_metrics

if TYPE_CHECKING:
    from qhat.engine.iteration import Program


def learn_step(program: Program, clock: Clock, seed: SeedState, key: Array) -> tuple[SeedState, Metrics]:
    """Learn from the newest step, if it is a new one; a reset is none."""
    steps = clock.iterations * program.recipe.num_envs
    applies = (program.updates_due(clock) > 0) & ~seed.guard.halted(program.stops)
    learner, metrics, learned = streamed(program.learner, seed.learner, seed.ring, steps, applies)
    failed = ((learned & ~metrics.finite) | _left_out(seed.learner, seed.ring)).astype(jnp.int32)
    guard = seed.guard.failed(failed, clock.iterations, seed.ring.cursor)
    return dataclasses.replace(seed, learner=learner, guard=guard), metrics


def streamed(
    learner: Learner,
    state: LearnerState,
    ring: replay.Ring,
    steps: Int[Array, ""],
    applies: Array | bool = True,
) -> tuple[LearnerState, Metrics, Bool[Array, ""]]:
    """Learn from the newest step of a ring, unless that was done before or `applies` is false.

    The trace continues if the step follows the one that was learned from last. It ends at a step that the
    statistics left out.

    Args:
        steps: environment steps so far, for the learning rate.

    Returns:
        the learner, the numbers of the update (NaN where none was made), and whether one was due.
    """
    recipe, scale = learner.recipe, ring.scale
    assert scale is not None, "a ring of single steps scales rewards"
    training: Any = recipe.training
    online = learner.ready(state.online, ring.outlook, ring.moments)
    online = {**online, RETURNS: scale}
    slots, kinds = latest(ring, 2)
    known = state.optimiser["steps"]
    due = applies & (scale.count != known) & (kinds[0, 0] != NOTHING)
    follows = (scale.count == known + 1) & (kinds[1, 0] == CONTINUES)
    step = of_joint_actions(steps_of(ring, slots[0]), learner.network.joint)

    # δ = r/σ + γ·V(s') − Q(s, a)
    trained, fixed = split_trainable(online)

    def chosen(trained: Any) -> tuple[Float[Array, ""], Float[Array, "F C"]]:
        q = learner.q_values({**trained, **fixed}, step.observation[0])
        return jnp.mean(jnp.take_along_axis(q, step.action[0][:, None], axis=1)), q

    (q, values), gradient = jax.value_and_grad(chosen, has_aux=True)(trained)
    reward = scale.scaled(step.reward[0]) if training.scale_rewards else step.reward[0]
    discount = jnp.where(kinds[0, 0] == TERMINATED, 0.0, recipe.gamma)
    error = reward + discount * next_value(learner, online, step) - q

    # z ← γλ·z + ∇Q(s, a)
    gradient, decay = without_norms(gradient), recipe.gamma * training.trace_decay
    z = jax.tree.map(
        lambda z, g: decay * jnp.where(follows, z, 0.0) + g, state.optimiser["trace"], gradient
    )

    # θ ← θ + α·δ·z
    size = recipe.optimiser.step_size(rate_at(recipe, steps), error, _total(jnp.abs, z))
    loss, norm = 0.5 * jnp.square(error), jnp.sqrt(_total(jnp.square, gradient))
    metrics = Metrics(*(jnp.float32(number) for number in (loss, q, norm, 0.0)))
    moves = due & metrics.finite
    moved = jax.tree.map(lambda w, z: w + jnp.where(moves, size * error * z, 0.0), trained, z)
    moved = learner.network.projected(moved, moves)

    good, gap = True, _left_out(state, ring)
    if recipe.n_step_cut is not None:
        legal = None if step.legal is None else step.legal
        good = nearly_greedy(mask_illegal(values[None], legal), step.action, recipe.n_step_cut)[0]
    trace = jax.tree.map(
        lambda z, old: jnp.where(moves, jnp.where(good, z, 0.0), jnp.where(gap, 0.0, old)),
        z,
        state.optimiser["trace"],
    )
    optimiser = {"steps": jnp.where(due, scale.count, known), "trace": trace}
    metrics = jax.tree.map(functools.partial(jnp.where, due), metrics, no_metrics())
    return LearnerState({**moved, **fixed}, None, optimiser), metrics, due


def _left_out(state: LearnerState, ring: replay.Ring) -> Bool[Array, ""]:
    """Whether a step came that the statistics could not include."""
    assert ring.scale is not None
    return ring.scale.refused != state.online[RETURNS].refused


def next_value(learner: Learner, parameters: Any, step: replay.Transition) -> Float[Array, ""]:
    """Return V of what a single step led to."""
    assert step.successor is not None
    policy = learner.recipe.policy
    legal = None if step.legal_next is None else step.legal_next[0]
    q = mask_illegal(learner.q_values(parameters, step.successor[0]), legal)
    pi, entropy = policy.probabilities(q, q)
    value = q + entropy if policy.has_entropy else q
    return jnp.mean(jnp.sum(jnp.where(pi > 0, pi * value, 0.0), axis=-1))


def _total(function: Callable[[Array], Array], tree: Any) -> Float[Array, ""]:
    """Return the sum of a function of all numbers of a tree."""
    return functools.reduce(jnp.add, (jnp.sum(function(leaf)) for leaf in jax.tree.leaves(tree)))


def without_norms(gradient: Any) -> Any:
    """Return a gradient in which scales and offsets of layer norms do not move."""

    def one(path: tuple, leaf: Array) -> Array:
        return jnp.zeros_like(leaf) if any("norm" in str(part) for part in path) else leaf

    return jax.tree_util.tree_map_with_path(one, gradient)
