"""The player: a policy acts in E copies of an environment for each of S seeds, and its steps are gathered.

What acts and what is kept is a `Gathering`, the same for an environment that compiles and for one that
Python steps. Evaluation, diagnosis and films play through it.
"""

from __future__ import annotations

import abc
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.engine import recurrent
from qhat.engine.compiler import compiled
from qhat.engine.learner import Learner
from qhat.engine.pace import SECONDS, Pace
from qhat.engine.state import strongly_typed
from qhat.environments.base import Environment, Timestep
from qhat.environments.finite import sound
from qhat.environments.host import HostEnvironment
from qhat.system.devices import jit_fast_compile


class Turn(NamedTuple):
    """One step of every copy, `[..., E]`: of one seed in a compiled program, of all seeds in Python."""

    index: Any
    """Of the step, from 0."""
    action: Any
    """`[..., E, F]`"""
    before: Any
    """`[..., E, F]`, the actions of the step before; of the first step its own."""
    details: Any
    """What `Gathering.act` returned beside the actions."""
    now: Timestep
    playing: Any
    """`[..., E]`, which copies counted before this step."""


class Gathering(abc.ABC):
    """What acts, and what is kept of its steps; a hashable value, because programs are compiled for it."""

    whole_episode: bool = True
    """Whether a copy's first episode counts alone; else it plays one after the other."""

    @abc.abstractmethod
    def act(
        self,
        learner: Learner,
        parameters: Any,
        observation: Array,
        legal: Array | None,
        recall: recurrent.Recall | None,
    ) -> tuple:
        """Return one seed's actions `[E, F]`, what else `add` needs, and the memories' new states.

        Args:
            recall: states of the network's memory, `None` without one.
        """

    @abc.abstractmethod
    def begin(self, shape: tuple[int, ...], details: Any, xp: Any) -> Any:
        """Return what is kept before the first step of `shape` copies, `[..., E]`.

        Args:
            details: as `act` returns them; only their shapes and types count.
            xp: `numpy`, or `jax.numpy` in a compiled program.
        """

    @abc.abstractmethod
    def add(self, kept: Any, turn: Turn, xp: Any) -> Any:
        """Add a step."""


class Rollout(NamedTuple):
    """How a rollout ended."""

    kept: Any
    """What its gathering kept, `[S, ...]` of NumPy."""
    playing: np.ndarray
    """`[S, E]`, which copies' episodes were not over."""
    steps: int
    stopped: bool
    """Whether `over` ended it."""


Player = Callable[[Any, Array], Rollout]
"""From parameters, leaves `[S, ...]`, and a key to what was played."""
Watch = Callable[[Timestep | None], None]
"""Called at the start, with `None`, and after every step in Python."""
ShowProgress = Callable[[int, int, Any], None]
"""Called with the steps so far, the most there can be, and which episodes are not over."""


def player(
    learner: Learner,
    environment: Environment | HostEnvironment,
    gathering: Gathering,
    longest: int,
    over: Callable[[], bool] = lambda: False,
    ready: Any = None,
    watch: Watch = lambda _: None,
    show_progress: ShowProgress = lambda *_: None,
) -> Player:
    """Return what plays from the start until every copy's episode is over, or for `longest` steps.

    Args:
        over: asked at every step of environments in Python, about every second where they are compiled;
            once it is true, the rollout ends.
        ready: parameters that a compiled rollout is compiled for now, where that costs the environment no
            episodes.
    """
    if isinstance(environment, Environment):
        return _compiled(learner, environment, gathering, longest, over, ready, show_progress)
    return functools.partial(_hosted, learner, environment, gathering, longest, over, watch, show_progress)


class _Carry(NamedTuple):
    """A seed's rollout between two steps."""

    turn: Any
    state: Any
    observation: Any
    legal: Any
    playing: Any
    action: Any
    kept: Any
    recall: recurrent.Recall | None


def _compiled(
    learner: Learner,
    environment: Environment,
    gathering: Gathering,
    longest: int,
    over: Callable[[], bool],
    ready: Any,
    show_progress: ShowProgress,
) -> Player:
    """Play in compiled calls of about a second."""
    E, F = environment.num_envs, environment.spec.actions.factors
    details = _details(learner, environment, gathering)

    def begin(state: Any, observation: Array) -> _Carry:
        first, kept = jnp.zeros((E, F), jnp.int32), gathering.begin((E,), details, jnp)
        legal = environment.legal(state)
        return strongly_typed(
            _Carry(
                jnp.int32(0), state, observation, legal, jnp.ones(E, bool), first, kept,
                recurrent.fresh(learner, E),
            )
        )  # fmt: skip

    def one_seed(parameters: Any, carry: _Carry, run_key: Array, until: Array) -> _Carry:
        def unfinished(carry: _Carry) -> Array:
            return jnp.any(carry.playing) & (carry.turn < until)

        def step(carry: _Carry) -> _Carry:
            turn, playing = carry.turn, carry.playing
            given = (carry.observation, carry.legal, carry.recall)
            action, details, recall = gathering.act(learner, parameters, *given)
            before = jnp.where(turn == 0, action, carry.action)
            state, now = environment.step(carry.state, action, jax.random.fold_in(run_key, turn))
            now = sound(now, jnp, learner.network.layout)
            kept = gathering.add(carry.kept, Turn(turn, action, before, details, now, playing), jnp)
            playing = _still(gathering, playing, now)
            recall = recurrent.over(learner, recall, now)
            return _Carry(turn + 1, state, now.observation, now.legal, playing, action, kept, recall)

        return jax.lax.while_loop(unfinished, step, carry)

    start = jit_fast_compile(jax.vmap(begin))
    play = compiled(jax.vmap(one_seed, in_axes=(0, 0, None, None)))
    pace = Pace(learns_at=-1)

    def opening(parameters: Any, key: Array) -> _Carry:
        # Every seed is judged by the same episodes, where the environment lets us choose them.
        seeds = jax.tree.leaves(parameters)[0].shape[0]
        return start(*environment.start(jnp.broadcast_to(key, seeds)))

    def rollout(parameters: Any, key: Array) -> Rollout:
        reset_key, run_key = jax.random.split(key)
        if not environment.snapshots:
            # One pool outside the program serves all seeds: they have to be in one place.
            parameters = jax.device_put(parameters, jax.local_devices()[0])
        carry, done, spent, stopped = opening(parameters, reset_key), 0, 0.0, False
        while done < longest and np.asarray(carry.playing).any():
            show_progress(done, longest, carry.playing)
            stopped = spent > SECONDS and over()
            if stopped:
                break
            piece, began = pace.piece(done, longest - done), time.perf_counter()
            carry = jax.block_until_ready(play(parameters, carry, run_key, jnp.int32(done + piece)))
            seconds = time.perf_counter() - began
            pace.took(piece, seconds)
            done, spent = done + piece, spent + seconds
        return Rollout(jax.tree.map(np.asarray, carry.kept), np.asarray(carry.playing), done, stopped)

    if ready is not None and environment.snapshots:
        key = jax.random.key(0)
        play(ready, opening(ready, key), key, jnp.int32(0))
    return rollout


def _hosted(
    learner: Learner,
    environment: HostEnvironment,
    gathering: Gathering,
    longest: int,
    over: Callable[[], bool],
    watch: Watch,
    show_progress: ShowProgress,
    parameters: Any,
    _: Array,
) -> Rollout:
    """Play an environment that Python steps, and that was seeded when it was made."""
    observation, legal = environment.start(), environment.legal()
    playing = np.ones(observation.shape[:2], bool)
    kept, before, turn, stopped = None, None, 0, False
    recall = _fresh_recall(learner, playing.shape)
    watch(None)
    while playing.any() and turn < longest:
        stopped = over()
        if stopped and kept is not None:
            break
        *chosen, recall = _act(gathering, learner, parameters, observation, legal, recall)
        action, details = jax.tree.map(np.asarray, chosen)
        kept = gathering.begin(playing.shape, details, np) if kept is None else kept
        environment.send(action)
        now = sound(environment.receive(), np, learner.network.layout)
        before = action if before is None else before
        kept = gathering.add(kept, Turn(turn, action, before, details, now, playing), np)
        playing = _still(gathering, playing, now)
        recall = _over(learner, recall, now)
        observation, legal, before, turn = now.observation, now.legal, action, turn + 1
        watch(now)
        show_progress(turn, longest, playing)
    return Rollout(kept, playing, turn, stopped)


def _still(gathering: Gathering, playing: Any, now: Timestep) -> Any:
    return playing & ~now.closed if gathering.whole_episode else playing


def _details(learner: Learner, environment: Environment, gathering: Gathering) -> Any:
    """Return shapes and types of what `act` returns beside the actions, of one seed."""
    spec, E = environment.spec, environment.num_envs
    parameters = jax.eval_shape(learner.init_parameters, jax.random.key(0))
    observation = jax.ShapeDtypeStruct((E, *spec.shape), jnp.dtype(spec.dtype))
    mask = jax.ShapeDtypeStruct((E, spec.actions.factors, spec.actions.width), jnp.dtype(bool))
    act = functools.partial(gathering.act, learner)
    recall = recurrent.fresh(learner, E)
    return jax.eval_shape(act, parameters, observation, mask if spec.masked else None, recall)[1]


def _fresh_recall(learner: Learner, shape: tuple[int, ...]) -> Any:
    """Return the memories' states of `shape` copies, `[S, E]`, before the first observations."""
    one = recurrent.fresh(learner, shape[1])
    return jax.tree.map(lambda leaf: np.zeros((shape[0], *leaf.shape), leaf.dtype), one)


def _over(learner: Learner, recall: Any, now: Timestep) -> Any:
    """Return the memories' states of every seed before the observations of a step."""
    if recall is None:
        return None
    ended = jnp.asarray(recurrent.ended(now)).reshape(-1)
    flat = recall.states.reshape(-1, *recall.states.shape[-2:])
    after = learner.recipe.memory.forget(flat[:, 1], ended)
    return recurrent.Recall(recurrent.Recall.of(flat[:, 0], after).states.reshape(recall.states.shape))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _act(
    gathering: Gathering,
    learner: Learner,
    parameters: Any,
    observations: Array,
    legal: Array | None,
    recall: Any,
) -> tuple:
    """Compiled once for all rollouts of a gathering and a network."""
    one_seed = functools.partial(gathering.act, learner)
    return jax.vmap(one_seed)(parameters, observations, legal, recall)
