"""Evaluation: the greedy policy, no exploration and no noise, in fresh environments."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.base import Environment
from qhat.environments.reference import register
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
            returns += jnp.where(finished | ~now.real, 0.0, now.reward)
            finished |= now.real & (now.terminated | now.truncated)
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


def hosted_returns(
    learner: Learner, parameters: Any, env_id: str, episodes: int, first: Sequence[int], limit: int = 0
) -> np.ndarray:
    """Play `reference_returns` with every seed of parameters `[S, ...]`: `[S, episodes]`.

    Args:
        first: seed of each seed's first episode.
        limit: steps after which an episode is cut; 0 leaves that to the environment.
    """
    own = (jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), parameters) for at in range(len(first)))
    each = zip(own, first, strict=True)
    return np.stack([reference_returns(learner, one, env_id, episodes, seed, limit) for one, seed in each])


def reference_returns(
    learner: Learner, parameters: Any, env_id: str, episodes: int, seed: int, limit: int = 0
) -> np.ndarray:
    """Play `episodes` whole episodes in Gymnasium's own implementation of `env_id`.

    Args:
        parameters: of one seed.
        seed: the episodes are seeded with consecutive numbers from here.
        limit: steps after which an episode is cut; 0 leaves that to the environment.

    Returns:
        the undiscounted return of every episode, `[episodes]`.
    """
    register(env_id)
    with warnings.catch_warnings():
        # MinAtar's v0 is no older than its v1: it has all 6 actions.
        warnings.filterwarnings("ignore", message=".*MinAtar/.* is out of date")
        environments = gymnasium.make_vec(env_id, num_envs=episodes, vectorization_mode="sync")
    seeds = list(range(seed, seed + episodes))
    try:
        space, actions = environments.single_observation_space, environments.single_action_space
        observations = Observations.of(space, env_id)
        coding = ActionCoding.of(actions, env_id)
        observation, _ = environments.reset(seed=seeds)  # pyright: ignore[reportArgumentType]
        returns, finished = np.zeros(episodes), np.zeros(episodes, bool)
        turn = 0
        while not finished.all() and (turn < limit or not limit):
            turn += 1
            action = np.asarray(_greedy(learner, parameters, observations.read(observation)))
            observation, reward, terminated, truncated, _ = environments.step(coding.write(action))
            returns += np.where(finished, 0.0, reward)
            finished |= np.asarray(terminated) | np.asarray(truncated)
        return returns
    finally:
        environments.close()


@functools.partial(jax.jit, static_argnums=0)
def _greedy(learner: Learner, parameters: Any, observations: Array) -> Array:
    """Compiled once for all seeds and evaluations of a composition."""
    return learner.greedy(parameters, observations)
