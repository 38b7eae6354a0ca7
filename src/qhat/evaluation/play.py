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

from qhat.engine.compiler import compiled
from qhat.engine.learner import Learner
from qhat.engine.pace import SECONDS, Pace
from qhat.engine.state import strongly_typed
from qhat.environments.base import Environment, Timestep
from qhat.environments.finite import sound
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.record import name_of
from qhat.environments.gymnasium.workers import vectorise
from qhat.environments.host import HostEnvironment
from qhat.environments.reference import make_reference
from qhat.evaluation.outcomes import Played
from qhat.system.devices import jit_fast_compile

Playable = str | Callable[[], gymnasium.Env]
"""What Gymnasium plays: an id, or a function that makes an environment."""
Judge = Environment | HostEnvironment | Playable

LONGEST_EPISODE = 100_000
"""Steps after which an evaluation's episode is over, whatever the environment says: some have no limit."""
SHORTEST_CUT = 1_000
"""Steps that a run's own evaluations let an episode have at least."""
SILENCE, EVERY = 2.0, 1.0
"""Seconds of an evaluation after which progress is shown, and between two such sentences."""


class Cut(Exception):  # noqa: N818 - it is no error
    """An evaluation was asked to stop."""


"""What can play a run's own evaluations."""


def cut_of(limit: int, eval_every: int, steps: int) -> int:
    """Return the steps after which a run's own evaluations cut an episode.

    Where the environment has no time limit, a stuck policy would play for ever. Such an episode gets no
    more steps than the training between two evaluations, or `SHORTEST_CUT`.

    Args:
        limit: the environment's own time limit; 0 where it declares none.
        steps: of the training.
    """
    if limit:
        return LONGEST_EPISODE
    return min(LONGEST_EPISODE, max(SHORTEST_CUT, min(eval_every, steps)))


class Telling:
    """Says how far an evaluation is, where it takes long."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.begin()

    def begin(self) -> None:
        """An evaluation begins now."""
        self._due = time.perf_counter() + SILENCE

    def __call__(self, turn: int, longest: int, playing: Any) -> None:
        """Take in where it is.

        Args:
            playing: which episodes are not over.
        """
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + EVERY
            over = np.asarray(~playing)
            self._say(
                f"{over.sum():,} of {over.size:,} episodes over, step {turn:,} of at most {longest:,}"
            )


Tell = Callable[[int, int, Any], None]


def play_compiled(
    learner: Learner,
    environment: Environment,
    over: Callable[[], bool] = lambda: False,
    ready: Any = None,
    longest: int | None = None,
    tell: Tell = lambda *_: None,
) -> Callable[[Any, Array], Played]:
    """Return a function from parameters `[S, ...]` and a key to what E episodes brought, `[S, E]`.

    Every one of the environment's E copies plays one whole episode, in compiled calls of a second at most.

    Args:
        over: asked between those calls; once it is true, the evaluation ends in `Cut`.
        ready: parameters that it is compiled for at once, where that costs the environment no episodes.
        longest: steps after which an episode is cut; `LONGEST_EPISODE` unless given.
        tell: called between those calls, with the steps so far, `longest`, and which episodes are not over.
    """
    actions, E = environment.spec.actions, environment.num_envs
    most = LONGEST_EPISODE if longest is None else longest

    def begin(state: Any, observation: Array) -> tuple:
        first = jnp.zeros((E, actions.factors), jnp.int32)
        nothing = Played.nothing((E,), actions.factors, jnp)
        legal = environment.legal(state)
        return strongly_typed((jnp.int32(0), state, observation, legal, jnp.ones(E, bool), first, nothing))

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

    start = jit_fast_compile(jax.vmap(begin))
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
        while done < most and np.asarray(carry[4]).any():
            tell(done, most, carry[4])
            if spent > SECONDS and over():
                raise Cut
            piece, began = pace.piece(done, most - done), time.perf_counter()
            carry = jax.block_until_ready(whole_play(parameters, carry, run_key, jnp.int32(done + piece)))
            seconds = time.perf_counter() - began
            pace.took(piece, seconds)
            done, spent = done + piece, spent + seconds
        return jax.tree.map(np.asarray, carry[-1]).ended(carry[4])

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
    longest: int | None = None,
    tell: Tell = lambda *_: None,
) -> Callable[[Any, Array], Played]:
    """Return what plays a run's own evaluations: from parameters and a key to episodes `[S, E]`.

    Args:
        over: asked at every step of environments in Python, about every second where they are compiled;
            once it is true, the evaluation ends in `Cut`.
        ready: parameters that compiled play is compiled for at once.
        longest: as `play_compiled`'s, and `tell` too.
    """
    limits: dict[str, Any] = {"longest": longest, "tell": tell}

    def watch(_: Timestep | None) -> None:
        if over():
            raise Cut

    if isinstance(judge, Environment):
        return play_compiled(learner, judge, over, ready, **limits)

    def player(parameters: Any, key: Array) -> Played:
        if isinstance(judge, HostEnvironment):
            return play_hosted(learner, parameters, judge, watch, **limits)
        first = [int(jax.random.bits(key) >> 2)] * seeds
        return play_seeds(learner, parameters, judge, episodes, first, watch, **limits)

    return player


def play_hosted(
    learner: Learner,
    parameters: Any,
    environment: HostEnvironment,
    watch: Callable[[Timestep | None], None] = lambda _: None,
    longest: int | None = None,
    tell: Tell = lambda *_: None,
) -> Played:
    """Play one whole episode in every copy of an environment of the host loop's: `[S, E]`.

    Args:
        parameters: leaves `[S, ...]`.
        watch: called at the start, with `None`, and after every step.
        longest: as `play_compiled`'s; `tell` too, at every step.
    """
    most = LONGEST_EPISODE if longest is None else longest
    actions = environment.spec.actions
    observation, legal = environment.start(), environment.legal()
    lead = observation.shape[:2]
    played, playing = Played.nothing(lead, actions.factors, np), np.ones(lead, bool)
    before, turn = None, 0
    watch(None)
    while playing.any() and turn < most:
        action = np.asarray(_greedy(learner, parameters, observation, legal))
        environment.send(action)
        step = sound(environment.receive(), np, learner.network.layout)
        played = played.add(step, playing, action, action if before is None else before, actions, np)
        playing &= ~step.closed
        observation, legal, before, turn = step.observation, step.legal, action, turn + 1
        watch(step)
        tell(turn, most, playing)
    return played.ended(playing)


def play_seeds(
    learner: Learner,
    parameters: Any,
    env: Playable,
    episodes: int,
    first: Sequence[int],
    watch: Callable[[Timestep | None], None] = lambda _: None,
    longest: int | None = None,
    tell: Tell = lambda *_: None,
) -> Played:
    """Play `play_reference` with every seed of parameters `[S, ...]`: `[S, episodes]`.

    Args:
        first: seed of each seed's first episode.
        watch: as `play_hosted`'s, and what follows too.
    """
    own = (jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), parameters) for at in range(len(first)))
    each = zip(own, first, strict=True)
    played = [play_reference(learner, one, env, episodes, seed, watch, longest, tell) for one, seed in each]
    return jax.tree.map(lambda *parts: np.stack(parts), *played)


def play_reference(
    learner: Learner,
    parameters: Any,
    env: Playable,
    episodes: int,
    seed: int,
    watch: Callable[[Timestep | None], None] = lambda _: None,
    longest: int | None = None,
    tell: Tell = lambda *_: None,
) -> Played:
    """Play `episodes` whole episodes of an environment in Gymnasium's own implementation.

    Args:
        parameters: of one seed.
        env: id, or a function that makes one.
        seed: the episodes are seeded with consecutive numbers from here.
        watch: as `play_hosted`'s, and what follows too.

    Returns:
        what every episode brought, `[episodes]`.
    """
    build = functools.partial(make_reference, env) if isinstance(env, str) else env
    envs = vectorise(build, episodes, "sync")
    bins, numbers = learner.actions.choices, range(seed, seed + episodes)
    environment = GymnasiumEnvironment(name_of(envs), envs, numbers, bins=bins)
    try:
        alone = jax.tree.map(lambda leaf: leaf[None], parameters)
        return jax.tree.map(
            lambda leaf: leaf[0], play_hosted(learner, alone, environment, watch, longest, tell)
        )
    finally:
        environment.close()


@functools.partial(jax.jit, static_argnums=0)
def _greedy(learner: Learner, parameters: Any, observations: Array, legal: Array | None) -> Array:
    """Compiled once for all evaluations of a composition."""
    noiseless = functools.partial(learner.greedy, key=None)
    return jax.vmap(lambda own, seen, allowed: noiseless(own, seen, legal=allowed))(
        parameters, observations, legal
    )
