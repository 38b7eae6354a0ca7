"""Evaluation: the greedy policy, no exploration and no noise, in fresh environments."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.devices import once
from qhat.environments.base import Environment
from qhat.environments.finite import sound
from qhat.environments.gymnasium_env import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment, HostStep
from qhat.environments.record import name_of
from qhat.environments.reference import make_reference
from qhat.environments.workers import vectorise
from qhat.learner import Learner
from qhat.outcomes import Played
from qhat.training.compiler import compiled
from qhat.training.pace import SECONDS, Pace
from qhat.training.state import settled

Playable = str | Callable[[], gymnasium.Env]
"""What Gymnasium plays: an id, or a function that makes an environment."""
Judge = Environment | HostEnvironment | Playable

LONGEST_EPISODE = 100_000
"""Steps after which an evaluation's episode is over, whatever the environment says: some have no limit."""


class Cut(Exception):  # noqa: N818 - it is no error
    """An evaluation was asked to stop."""


"""What can play a run's own evaluations."""


def play_compiled(
    learner: Learner,
    environment: Environment,
    over: Callable[[], bool] = lambda: False,
    ready: Any = None,
) -> Callable[[Any, Array], Played]:
    """Return a function from parameters `[S, ...]` and a key to what E episodes brought, `[S, E]`.

    Every one of the environment's E copies plays one whole episode, in compiled calls of a second at most.

    Args:
        over: asked between those calls; once it is true, the evaluation ends in `Cut`.
        ready: parameters that it is compiled for at once, where that costs the environment no episodes.
    """
    actions, E = environment.spec.actions, environment.num_envs

    def begin(state: Any, observation: Array) -> tuple:
        first = jnp.zeros((E, actions.factors), jnp.int32)
        nothing = Played.nothing((E,), actions.factors, jnp)
        legal = environment.legal(state)
        return settled((jnp.int32(0), state, observation, legal, jnp.ones(E, bool), first, nothing))

    def one_seed(parameters: Any, carry: tuple, run_key: Array, until: Array) -> tuple:
        def unfinished(carry: tuple) -> Array:
            return jnp.any(carry[4]) & (carry[0] < until)

        def step(carry: tuple) -> tuple:
            turn, state, observation, legal, playing, before, played = carry
            action = learner.greedy(parameters, observation, legal=legal)
            before = jnp.where(turn == 0, action, before)
            state, now = environment.step(state, action, jax.random.fold_in(run_key, turn))
            now = sound(now, jnp, learner.network.layout)
            played = played.add(now, playing, action, before, actions, jnp)
            playing &= ~now.closed
            return turn + 1, state, now.observation, now.legal, playing, action, played

        return jax.lax.while_loop(unfinished, step, carry)

    start = once(jax.vmap(begin))
    play = jax.vmap(one_seed, in_axes=(0, 0, None, None))
    whole_play, pace = compiled(play), Pace(learns_at=-1)

    def opening(parameters: Any, key: Array) -> tuple:
        # Every seed is judged by the same episodes, where the environment lets us choose them.
        seeds = jax.tree.leaves(parameters)[0].shape[0]
        return start(*environment.start(jnp.broadcast_to(key, seeds)))

    def player(parameters: Any, key: Array) -> Played:
        reset_key, run_key = jax.random.split(key)
        if not environment.snapshots:
            # One pool outside the program serves all seeds: they have to be in one place.
            parameters = jax.device_put(parameters, jax.local_devices()[0])
        carry, done, spent = opening(parameters, reset_key), 0, 0.0
        while done < LONGEST_EPISODE and np.asarray(carry[4]).any():
            if spent > SECONDS and over():
                raise Cut
            piece, began = pace.piece(done, LONGEST_EPISODE - done), time.perf_counter()
            carry = jax.block_until_ready(whole_play(parameters, carry, run_key, jnp.int32(done + piece)))
            seconds = time.perf_counter() - began
            pace.took(piece, seconds)
            done, spent = done + piece, spent + seconds
        return jax.tree.map(np.asarray, carry[-1])

    if ready is not None and environment.snapshots:
        key = jax.random.key(0)
        whole_play(ready, opening(ready, key), key, jnp.int32(0))
    return player


def player_of(
    learner: Learner,
    judge: Judge,
    episodes: int,
    seeds: int,
    over: Callable[[], bool],
    ready: Any = None,
) -> Callable[[Any, Array], Played]:
    """Return what plays a run's own evaluations: from parameters and a key to episodes `[S, E]`.

    Args:
        over: asked at every step of environments in Python, about every second where they are compiled;
            once it is true, the evaluation ends in `Cut`.
        ready: parameters that compiled play is compiled for at once.
    """

    def watch(_: HostStep | None) -> None:
        if over():
            raise Cut

    if isinstance(judge, Environment):
        return play_compiled(learner, judge, over, ready)

    def player(parameters: Any, key: Array) -> Played:
        if isinstance(judge, HostEnvironment):
            return play_hosted(learner, parameters, judge, watch)
        first = [int(jax.random.bits(key) >> 2)] * seeds
        return play_seeds(learner, parameters, judge, episodes, first, watch)

    return player


def play_hosted(
    learner: Learner,
    parameters: Any,
    environment: HostEnvironment,
    watch: Callable[[HostStep | None], None] = lambda _: None,
) -> Played:
    """Play one whole episode in every copy of an environment of the host loop's: `[S, E]`.

    Args:
        parameters: leaves `[S, ...]`.
        watch: called at the start, with `None`, and after every step.
    """
    actions = environment.spec.actions
    observation, legal = environment.start(), environment.legal()
    lead = observation.shape[:2]
    played, playing = Played.nothing(lead, actions.factors, np), np.ones(lead, bool)
    before, turn = None, 0
    watch(None)
    while playing.any() and turn < LONGEST_EPISODE:
        action = np.asarray(_greedy(learner, parameters, observation, legal))
        environment.send(action)
        step = sound(environment.receive(), np, learner.network.layout)
        played = played.add(step, playing, action, action if before is None else before, actions, np)
        playing &= ~step.closed
        observation, legal, before, turn = step.observation, step.legal, action, turn + 1
        watch(step)
    return played


def play_seeds(
    learner: Learner,
    parameters: Any,
    env: Playable,
    episodes: int,
    first: Sequence[int],
    watch: Callable[[HostStep | None], None] = lambda _: None,
) -> Played:
    """Play `play_reference` with every seed of parameters `[S, ...]`: `[S, episodes]`.

    Args:
        first: seed of each seed's first episode.
        watch: as `play_hosted`'s.
    """
    own = (jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), parameters) for at in range(len(first)))
    each = zip(own, first, strict=True)
    played = [play_reference(learner, one, env, episodes, seed, watch) for one, seed in each]
    return jax.tree.map(lambda *parts: np.stack(parts), *played)


def play_reference(
    learner: Learner,
    parameters: Any,
    env: Playable,
    episodes: int,
    seed: int,
    watch: Callable[[HostStep | None], None] = lambda _: None,
) -> Played:
    """Play `episodes` whole episodes of an environment in Gymnasium's own implementation.

    Args:
        parameters: of one seed.
        env: id, or a function that makes one.
        seed: the episodes are seeded with consecutive numbers from here.
        watch: as `play_hosted`'s.

    Returns:
        what every episode brought, `[episodes]`.
    """
    build = functools.partial(make_reference, env) if isinstance(env, str) else env
    envs = vectorise(build, episodes, "sync")
    bins, numbers = learner.actions.choices, range(seed, seed + episodes)
    environment = GymnasiumEnvironment(name_of(envs), envs, numbers, bins=bins)
    try:
        alone = jax.tree.map(lambda leaf: leaf[None], parameters)
        return jax.tree.map(lambda leaf: leaf[0], play_hosted(learner, alone, environment, watch))
    finally:
        environment.close()


@functools.partial(jax.jit, static_argnums=0)
def _greedy(learner: Learner, parameters: Any, observations: Array, legal: Array | None) -> Array:
    """Compiled once for all evaluations of a composition."""
    noiseless = functools.partial(learner.greedy, key=None)
    return jax.vmap(lambda own, seen, allowed: noiseless(own, seen, legal=allowed))(
        parameters, observations, legal
    )
