"""Evaluation: the greedy policy, no exploration and no noise, in fresh environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.base import Environment
from qhat.learner import Learner


def compiled_returns(learner: Learner, environment: Environment) -> Callable[[Any, Array], np.ndarray]:
    """Return a function from parameters `[S, ...]` and a key to episode returns `[S, E]`.

    Every one of the environment's E copies plays one whole episode, in one compiled call.
    """

    def one_seed(parameters: Any, key: Array) -> Array:
        reset_key, run_key = jax.random.split(key)
        state, observation = environment.reset(reset_key)

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

    compiled = jax.jit(jax.vmap(one_seed, in_axes=(0, None)))
    return lambda parameters, key: np.asarray(compiled(parameters, key))


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
    greedy = jax.jit(learner.greedy)
    environments = gymnasium.make_vec(env_id, num_envs=episodes, vectorization_mode="sync")
    seeds = list(range(seed, seed + episodes))
    try:
        observation, _ = environments.reset(seed=seeds)  # pyright: ignore[reportArgumentType]
        returns, finished = np.zeros(episodes), np.zeros(episodes, bool)
        while not finished.all():
            action = np.asarray(greedy(parameters, observation))[:, 0]
            observation, reward, terminated, truncated, _ = environments.step(action)
            returns += np.where(finished, 0.0, reward)
            finished |= np.asarray(terminated) | np.asarray(truncated)
        return returns
    finally:
        environments.close()
