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

from qhat.environments import atari
from qhat.environments.base import Environment
from qhat.environments.host import HostEnvironment
from qhat.environments.spaces import ActionCoding, Observations
from qhat.learner import Learner


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

    compiled = jax.jit(jax.vmap(one_seed, in_axes=(0, 0, 0, None)))

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


def played_returns(learner: Learner, parameters: Any, environment: HostEnvironment) -> np.ndarray:
    """Play one whole episode in every copy of an environment of the host loop's: `[S, E]`."""
    observation = environment.start()
    returns = np.zeros(observation.shape[:2])
    finished = np.zeros(observation.shape[:2], bool)
    while not finished.all():
        environment.send(np.asarray(_greedy_each(learner, parameters, observation)))
        step = environment.receive()
        returns += np.where(finished | ~step.real, 0.0, step.scored)
        finished |= step.real & step.finished
        observation = step.observation
    return returns


def hosted_returns(
    learner: Learner, parameters: Any, env_id: str, episodes: int, first: Sequence[int]
) -> np.ndarray:
    """Play `reference_returns` with every seed of parameters `[S, ...]`: `[S, episodes]`.

    Args:
        first: seed of each seed's first episode.
    """
    own = (jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), parameters) for at in range(len(first)))
    each = zip(own, first, strict=True)
    return np.stack([reference_returns(learner, one, env_id, episodes, seed) for one, seed in each])


def reference_returns(
    learner: Learner, parameters: Any, env_id: str, episodes: int, seed: int
) -> np.ndarray:
    """Play `episodes` whole episodes in Gymnasium's own implementation of `env_id`.

    Args:
        parameters: of one seed.
        seed: the episodes are seeded with consecutive numbers from here.

    Returns:
        the undiscounted return of every episode, `[episodes]`.
    """
    build = functools.partial(atari.make, env_id)
    environments = gymnasium.vector.SyncVectorEnv([build] * episodes)
    seeds = list(range(seed, seed + episodes))
    try:
        space, actions = environments.single_observation_space, environments.single_action_space
        observations = Observations.of(space, env_id)
        coding = ActionCoding.of(actions, env_id)
        observation, _ = environments.reset(seed=[*seeds])
        returns, finished = np.zeros(episodes), np.zeros(episodes, bool)
        while not finished.all():
            action = np.asarray(_greedy(learner, parameters, observations.read(observation)))
            observation, reward, terminated, truncated, _ = environments.step(coding.write(action))
            returns += np.where(finished, 0.0, reward)
            finished |= np.asarray(terminated) | np.asarray(truncated)
        return returns
    finally:
        environments.close()


@functools.partial(jax.jit, static_argnums=0)
def _greedy_each(learner: Learner, parameters: Any, observations: Array) -> Array:
    """As `_greedy`, for all seeds at once."""
    return jax.vmap(learner.greedy)(parameters, observations)


@functools.partial(jax.jit, static_argnums=0)
def _greedy(learner: Learner, parameters: Any, observations: Array) -> Array:
    """Compiled once for all seeds and evaluations of a composition."""
    return learner.greedy(parameters, observations)
