"""Evaluation: the greedy policy, no exploration and no noise, in fresh environments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.base import Environment
from qhat.environments.gymnasium_env import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment
from qhat.environments.record import name_of
from qhat.environments.reference import make_reference
from qhat.environments.workers import vectorise
from qhat.learner import Learner
from qhat.training.compiler import COMPILER_OPTIONS

Playable = str | Callable[[], gymnasium.Env]
"""What Gymnasium plays: an id, or a function that makes an environment."""
Judge = Environment | HostEnvironment | Playable
"""What can play a run's own evaluations."""


def compiled_returns(learner: Learner, environment: Environment) -> Callable[[Any, Array], np.ndarray]:
    """Return a function from parameters `[S, ...]` and a key to episode returns `[S, E]`.

    Every one of the environment's E copies plays one whole episode, in one compiled call.
    """

    def one_seed(parameters: Any, state: Any, observation: Array, run_key: Array) -> Array:
        def unfinished(carry: tuple) -> Array:
            return ~jnp.all(carry[4])

        def step(carry: tuple) -> tuple:
            turn, state, observation, legal, finished, returns = carry
            action = learner.greedy(parameters, observation, legal=legal)
            state, now = environment.step(state, action, jax.random.fold_in(run_key, turn))
            returns += jnp.where(finished | ~now.real, 0.0, now.scored)
            finished |= now.real & now.finished
            return turn + 1, state, now.observation, now.legal, finished, returns

        E = environment.num_envs
        start = (0, state, observation, environment.legal(state), jnp.zeros(E, bool), jnp.zeros(E))
        return jax.lax.while_loop(unfinished, step, start)[-1]

    play = jax.vmap(one_seed, in_axes=(0, 0, 0, None))
    compiled = jax.jit(play, compiler_options=COMPILER_OPTIONS)

    def returns(parameters: Any, key: Array) -> np.ndarray:
        reset_key, run_key = jax.random.split(key)
        if not environment.snapshots:
            # One pool outside the program serves all seeds: they have to be in one place.
            parameters = jax.device_put(parameters, jax.local_devices()[0])
        # Every seed is judged by the same episodes, where the environment lets us choose them.
        seeds = jax.tree.leaves(parameters)[0].shape[0]
        state, observation = environment.start(jnp.broadcast_to(reset_key, seeds))
        return np.asarray(compiled(parameters, state, observation, run_key))

    return returns


def judged_returns(
    learner: Learner, judge: Judge, episodes: int, seeds: int
) -> Callable[[Any, Array], np.ndarray]:
    """Return what plays a run's own evaluations: parameters and a key to episode returns `[S, E]`."""
    if isinstance(judge, Environment):
        return compiled_returns(learner, judge)

    def returns(parameters: Any, key: Array) -> np.ndarray:
        if isinstance(judge, HostEnvironment):
            return played_returns(learner, parameters, judge)
        first = [int(jax.random.bits(key) >> 2)] * seeds
        return hosted_returns(learner, parameters, judge, episodes, first)

    return returns


def played_returns(learner: Learner, parameters: Any, environment: HostEnvironment) -> np.ndarray:
    """Play one whole episode in every copy of an environment of the host loop's: `[S, E]`.

    Args:
        parameters: leaves `[S, ...]`.
    """
    observation, legal = environment.start(), environment.legal()
    returns = np.zeros(observation.shape[:2])
    finished = np.zeros(observation.shape[:2], bool)
    while not finished.all():
        environment.send(np.asarray(_greedy(learner, parameters, observation, legal)))
        step = environment.receive()
        returns += np.where(finished | ~step.real, 0.0, step.scored)
        finished |= step.real & step.finished
        observation, legal = step.observation, step.legal
    return returns


def hosted_returns(
    learner: Learner, parameters: Any, env: Playable, episodes: int, first: Sequence[int]
) -> np.ndarray:
    """Play `reference_returns` with every seed of parameters `[S, ...]`: `[S, episodes]`.

    Args:
        first: seed of each seed's first episode.
    """
    own = (jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), parameters) for at in range(len(first)))
    each = zip(own, first, strict=True)
    return np.stack([reference_returns(learner, one, env, episodes, seed) for one, seed in each])


def reference_returns(
    learner: Learner, parameters: Any, env: Playable, episodes: int, seed: int
) -> np.ndarray:
    """Play `episodes` whole episodes of an environment in Gymnasium's own implementation.

    Args:
        parameters: of one seed.
        env: id, or a function that makes one.
        seed: the episodes are seeded with consecutive numbers from here.

    Returns:
        the undiscounted return of every episode, `[episodes]`.
    """
    build = functools.partial(make_reference, env) if isinstance(env, str) else env
    envs = vectorise(build, episodes, "sync")
    bins, numbers = learner.actions.choices, range(seed, seed + episodes)
    environment = GymnasiumEnvironment(name_of(envs), envs, numbers, bins=bins)
    try:
        alone = jax.tree.map(lambda leaf: leaf[None], parameters)
        return played_returns(learner, alone, environment)[0]
    finally:
        environment.close()


@functools.partial(jax.jit, static_argnums=0)
def _greedy(learner: Learner, parameters: Any, observations: Array, legal: Array | None) -> Array:
    """Compiled once for all evaluations of a composition."""
    noiseless = functools.partial(learner.greedy, key=None)
    return jax.vmap(lambda own, seen, allowed: noiseless(own, seen, legal=allowed))(
        parameters, observations, legal
    )
