"""The parts of an iteration that roofline_case.py measures, and their products."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from qhat.engine import looks
from qhat.engine.calibration import split_trainable
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.state import Clock

PRODUCTS = "products, forward and backward"


def gradient_of(program: Program, seed: Any, batch: Any, weights: Any) -> Any:
    """Return the gradient of the loss as one vector: the products forward and backward."""
    learner = program.learner
    trained, fixed = split_trainable(seed.learner.online)
    noise, fractions = looks.drawn(learner, seed.key, weights.shape[0])

    def objective(trained: Any) -> Any:
        regress = jax.vmap(learner._regress, in_axes=(None, None, 0, None, 0))
        online, target = {**trained, **fixed}, seed.learner.target
        losses, errors, *_ = regress(online, target, batch, noise, fractions)
        return jnp.mean(weights * losses), errors

    gradient, errors = jax.grad(objective, has_aux=True)(trained)
    return ravel_pytree(gradient)[0], errors


def example(program: Program, environment: Any, clock: Clock, seed: Any) -> dict[str, Any]:
    """Return what the parts take, of one seed: a batch, its gradient, a timestep."""
    recipe = program.recipe
    _, timestep = environment.step(seed.environment, seed.action, seed.key)
    batch, slots, weights = replay.sample(
        seed.ring, recipe.sampler, seed.sampler, seed.key, clock.iterations,
        batch=recipe.batch_size, n=recipe.n_step, gamma=recipe.gamma,
    )  # fmt: skip
    gradient, errors = gradient_of(program, seed, batch, weights)
    return {
        "timestep": timestep, "batch": batch, "slots": slots, "weights": weights,
        "gradient": gradient, "errors": errors,
    }  # fmt: skip


def parts_of(program: Program, environment: Any) -> dict[str, Callable[..., tuple[Any, Any]]]:
    """Return the parts: functions of clock, seed, example and key, to the seed and what they computed.

    Every part depends on the clock, so that XLA cannot move it out of the loop.
    """
    recipe, learner = program.recipe, program.learner

    def step(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        state, timestep = environment.step(seed.environment, seed.action, key)
        return dataclasses.replace(seed, environment=state), timestep

    def store(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        timestep = given["timestep"]
        moved = timestep.observation + 1e-6 * clock.iterations
        timestep = timestep._replace(observation=moved, successor=moved)
        seed, _, ended = program.observe(clock, seed, timestep)
        return seed, ended

    def sample(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        sizes = {"batch": recipe.batch_size, "n": recipe.n_step, "gamma": recipe.gamma}
        drawn = replay.sample(seed.ring, recipe.sampler, seed.sampler, key, clock.iterations, **sizes)
        return seed, drawn

    def products(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        shift, batch = 1e-6 * clock.iterations, given["batch"]
        observed, after = batch.observation + shift, batch.successor + shift
        batch = dataclasses.replace(batch, observation=observed, successor=after)
        return seed, gradient_of(program, seed, batch, given["weights"])

    def optimise(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        trained, fixed = split_trainable(seed.learner.online)
        flat, unravel = ravel_pytree(trained)
        moves = jnp.isfinite(given["gradient"][0])
        change, optimiser = learner._descend(
            given["gradient"], trained, seed.learner.optimiser, clock.iterations, moves
        )
        online = {**unravel(flat + change), **fixed}
        state = dataclasses.replace(seed.learner, online=online, optimiser=optimiser)
        return dataclasses.replace(seed, learner=state), ()

    def target(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        followed = recipe.target.follow(seed.learner.target, seed.learner.online, clock.updates)
        return dataclasses.replace(seed, learner=dataclasses.replace(seed.learner, target=followed)), ()

    def priorities(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        errors = given["errors"] + 1e-6 * clock.iterations
        sampler = recipe.sampler.update(seed.sampler, given["slots"], errors)
        return dataclasses.replace(seed, sampler=sampler), ()

    def act(clock: Clock, seed: Any, given: Any, key: Any) -> tuple[Any, Any]:
        observed = given["timestep"].observation + 1e-6 * clock.iterations
        return program.act(seed, observed, None, key, clock.iterations), ()

    parts = {
        "one key (part of the rows marked *)": lambda clock, seed, given, key: (seed, key),
        "choice of an action *": act, "environment step *": step, "store": store, "sample *": sample,
        PRODUCTS: products, "optimiser": optimise, "target": target,
        "priorities": priorities,
    }  # fmt: skip
    return (
        parts
        if jax.tree.leaves(recipe.sampler.init(1))
        else {k: v for k, v in parts.items() if k != "priorities"}
    )


@dataclasses.dataclass(frozen=True)
class Product:
    """One product of an iteration: the shapes of its operands, and JAX's numbers of their axes."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    axes: Any

    @property
    def flops(self) -> int:
        (inner, _), (several, _) = self.axes
        shared = math.prod(self.left[axis] for axis in (*inner, *several))
        rows, columns = math.prod(self.left) // shared, math.prod(self.right) // shared
        return 2 * shared * rows * columns

    def operands(self) -> tuple[Any, Any]:
        """Return operands that keep the result at 1."""
        (inner, _), _ = self.axes
        return jnp.ones(self.left), jnp.full(self.right, 1.0 / math.prod(self.left[axis] for axis in inner))

    def again(self, left: Any, right: Any) -> tuple[Any, Any]:
        """Do the product; a number of the left operand becomes one of the result, so it is not left out."""
        result = jax.lax.dot_general(left, right, self.axes)
        first = result.ravel()[:1].reshape((1,) * left.ndim)
        return jax.lax.dynamic_update_slice(left, first, (0,) * left.ndim), right


def products_of(jaxpr: Any) -> list[Product]:
    """Return every product of a traced function; those inside loops are left out."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            found.append(Product(left, right, equation.params["dimension_numbers"]))
        elif equation.primitive.name != "while":
            inside = [getattr(value, "jaxpr", value) for value in equation.params.values()]
            found += [product for each in inside if hasattr(each, "eqns") for product in products_of(each)]
    return found
