"""`Agent`: act, remember and replay, for programs with their own loop (a robot, a ROS callback)."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from qhat import recipes
from qhat.agent.acting import Actor
from qhat.agent.arguments import (
    read_action,
    read_masks,
    read_outcome,
    read_recipe,
    read_spaces,
    require_applied,
    require_updates,
)
from qhat.agent.evaluated import Evaluated
from qhat.agent.from_run import loaded_from
from qhat.agent.learning import Learning
from qhat.agent.made import fresh_state, is_behind, prepared, queue_of, shown
from qhat.agent.notices import Notices
from qhat.agent.saved import Loaded, about, rest, write_agent
from qhat.agent.stream_names import Stream, read_stream
from qhat.agent.to_run import Situation
from qhat.agent.waiting_rows import MANY, TINY
from qhat.agent.writing import Writer
from qhat.engine.host_network import HostNetwork
from qhat.engine.iteration import Program
from qhat.engine.state import SeedState
from qhat.environments.observations import read_one
from qhat.recipes.recipe import HORIZON, Recipe
from qhat.recipes.settings import RecipeSettings
from qhat.system.errors import require


class Agent(Evaluated):
    """A Q-learning agent for environments that the caller steps: one robot, or several as `stream`s.

    `act` and `remember` never wait for `replay` or `save`: a control loop may call the first two while
    another thread learns and saves.

    Args:
        observation: number of features, a shape, or a Gymnasium space.
        actions: number of actions, or any action space of Gymnasium that `train` takes.
        recipe: name of a recipe, or a `Recipe`.
        seed: of the weights and of all randomness.
        steps: expected number of transitions; schedules that follow the run are made for it.
        masked: whether `act` and `remember` get masks of legal actions.
        settings: fields of `Recipe` to change, for example `gamma=0.98` or `policy="double"`.
    """

    def __init__(
        self,
        observation: Any,
        actions: Any,
        recipe: str | Recipe = recipes.DEFAULT,
        *,
        seed: int = 0,
        steps: int = HORIZON,
        masked: bool = False,
        **settings: Unpack[RecipeSettings],
    ):
        recipe = read_recipe(recipe, settings, steps)
        good = isinstance(seed, int | np.integer) and 0 <= seed < 2**31
        require(good, f"seed is {seed!r}; expected a whole number from 0 to 2147483647.")
        layout, actions = read_spaces(observation, actions, recipe)
        program = Program.of(recipe, layout.shape, layout.dtype, actions, masked, layout=layout)
        prepared(program)
        state = jax.jit(functools.partial(fresh_state, program))(jax.random.key(seed))
        self._start(Loaded(program, state, (0, 0, 0, 0), {}, int(seed)))

    def __repr__(self) -> str:
        """Return what it sees and does, its recipe, and how far it is."""
        return shown(self.program, self._steps, self._updates)

    def act(self, observation: Any, explore: bool = True, mask: Any = None, stream: Any = None) -> Any:
        """Return the action for `observation`; the greedy one unless `explore`.

        `[B, ...]` observations of B robots give B actions; the masks are `[B, ...]` too. The first call
        with a new B compiles.

        Args:
            mask: the legal actions, as Gymnasium's `info["action_mask"]`; entry i is action `start + i`.
            stream: the robot that observes, as in `remember`: each robot explores independently.
                Default: 0; for a batch, a list of B names, by default 0 to B − 1.

        Returns:
            an action of the environment's space: an `int`, or an array of its type and shape.
        """
        acting = self._exploring if explore else self._learning.acting
        plain = self._actor.is_plain and mask is None and isinstance(stream, int | str | None)
        if plain and getattr(observation, "shape", None) == self.program.shape:
            name = read_stream(0 if stream is None else stream)
            row = self._checked(observation, "observation")
            choice = self._actor.one(acting, observation, row, name, self._steps, explore)
            return self.program.actions.to_env(np.array([choice]))
        batch, streams, observations, legal = self._actor.read(observation, mask, stream, self._checked)
        if explore:
            choices = self._actor.choose(acting, streams, observations, legal, self._steps)
        else:
            choices = self._actor.greedy(acting, streams, observations, legal)
        actions = [self.program.actions.to_env(choice) for choice in choices]
        return np.stack(actions) if batch else actions[0]

    def q_values(self, observation: Any, *, stream: Stream = 0) -> np.ndarray:
        """Return Q(s, ·): `[actions]`, or `[factors, choices]` with several factors or joints.

        With `joints="pairs"`: `[1, joint actions]`; of these, the last joint's choice changes first. With a
        memory it is of the next observation of `stream`."""
        row = self._checked(observation, "observation")
        q = self._actor.values(self._learning.acting, row, read_stream(stream))
        return q if self.program.actions.vector else q[0]

    def remember(
        self,
        observation: Any,
        action: Any,
        reward: float,
        next_observation: Any,
        terminated: bool,
        truncated: bool = False,
        mask: Any = None,
        next_mask: Any = None,
        *,
        stream: Stream = 0,
    ) -> None:
        """Store one transition. It continues the episode of its stream, if one is open.

        `next_observation` and the next call's `observation` may differ, as when a sensor is read twice.

        Args:
            action: as `act` returns it; joint commands from elsewhere are stored as the nearest bins.
            terminated: the task ended, so the value of `next_observation` is 0.
            truncated: a time limit or the operator ended the episode; `next_observation` keeps its value.
            mask: actions that were legal at `observation`, for an agent that is `masked`.
            next_mask: actions that are legal at `next_observation`; the backup uses only these.
            stream: the robot, by a number or a text; any number of robots may take turns.

        Raises:
            UsageError: a NaN, a wrong shape, an unknown or illegal action. Nothing is stored.
        """
        stream = read_stream(stream, self.recipe.training.streams)
        before = self._checked(observation, "observation")
        after = self._checked(next_observation, "next_observation")
        choice = read_action(action, self.program.actions)
        reward, terminated, truncated = read_outcome(reward, terminated, truncated)
        space = (self.program.actions, self.program.masked)
        legal, legal_next = read_masks(*space, choice, mask, next_mask, terminated)
        before = self._actor.before(stream, (observation, next_observation), before, after)
        self._actor.require_one(self._exploring, stream, before)
        step = (before, choice, reward, after, terminated, truncated, legal, legal_next)
        with self._queue_lock:
            ended = self._queue.add(stream, *step, self._actor.recalls.before(stream))
            self._actor.recalls.remembered(stream, terminated or truncated)
            self._steps += 1
            if ended is not None:
                self._count(ended)

    def cut(self, stream: Stream = 0) -> None:
        """End the episode of a stream as truncated: its next step starts a new one.

        Call it when a robot stops without a last `remember`: a person carried it, a connection was lost.
        """
        stream = read_stream(stream)
        self._actor.forget(stream)
        with self._queue_lock:
            self._count(self._queue.cut(stream))

    def replay(self, updates: int = 1) -> Mapping[str, float] | None:
        """Do gradient updates, each on a new batch from replay; a stream learns from its last step.

        It does not wait for them: `act` explores with the weights before, so that the next step of the
        environment happens at the same time. `act(..., explore=False)`, `q_values` and `save` wait.

        Args:
            updates: their number; a call with several takes less time than several calls.

        Returns:
            loss, mean Q, gradient norm and clipped mass of the last one: reading a value waits for it. None
            before `learning_starts` steps and a batch, and where a stream has no new step.

        Raises:
            QhatError: the loss or gradient of the call before was not finite; the weights did not change.
        """
        require_updates(updates, self.recipe)
        with self._learning_lock:
            self._finish()
            if not self._is_ready():
                if len(self._queue) > MANY:
                    self._writer.drain()
                return None
            block = self._writer.drain(keep=True) or self._queue.padding(TINY)
            self._exploring, self._learned = self._learning.acting, self._queue.taken_steps
            numbers = self._learning.learn(block.count(self._steps, self._updates, int(updates)))
            self._updates += int(updates)
            return numbers

    def update_target_network(self) -> None:
        """Copy θ to θ⁻ now, besides what the recipe's `target` does. Raises `UsageError` without a θ⁻."""
        with self._learning_lock:
            self._finish()
            learner = self._learning.learner
            require(learner.target is not None, "target='none' has no target network; leave this call out.")
            self._learning.set_learner(dataclasses.replace(learner, target=learner.online))

    def warmup(self, batch: int = 1) -> None:
        """Compile everything before the robot moves. The agent does not change.

        Args:
            batch: number of robots, so of observations in one call of `act`.
        """
        self._actor.warmup(self._learning.acting, batch)
        with self._learning_lock:
            self._finish()
            self._learning.warmup(self._queue.padding)

    @property
    def steps(self) -> int:
        """Transitions remembered so far; ε and β follow it."""
        return self._steps

    @property
    def updates(self) -> int:
        """Gradient updates done so far."""
        return self._updates

    @property
    def epsilon(self) -> float:
        """ε, the share of actions that explore now."""
        return float(self.recipe.explore.epsilon(jnp.int32(self._steps)))

    def save(self, path: str | Path, *, replay: bool = True) -> None:
        """Save the state of learning; `replay=False` leaves out replay, which may be large."""
        with self._learning_lock:
            self._finish()
            # `act` and `remember` wait for these short steps only, not for replay or the disk.
            with self._actor.lock, self._queue_lock:
                self._writer.take()
                recalling, recalls = self._actor.recalls.saved()
                exploring, states = self._actor.stacked()
                streams, steps = self._queue.open_steps() if replay else ([], {})
                names = {"streams": streams, "exploring": exploring, "recalling": recalling}
                counts = (self._steps, self._updates, self._actor.acts, self._actor.drawn)
                manifest = about(self.program, *counts) | names
                manifest |= {"replay": replay, "seed": self.seed, "since": self._since}
            self._writer.write()
            seed = dataclasses.replace(self._seed(), exploration=states)
            trees: dict[str, Any] = {"learner": seed.learner, "rest": rest(seed)}
            trees |= {"recalls": recalls} if recalling else {}
            if self._exploring is not self._learning.acting:
                trees["acting"] = self._learning.learner_of(self._exploring).online
                manifest["acting"] = True
            if replay:
                trees["replay"] = (seed.ring, seed.sampler)
            if streams:
                trees["streams"] = steps
            write_agent(Path(path), trees, manifest)

    @staticmethod
    def load(
        path: str | Path,
        parts: tuple[type, ...] = (),
        *,
        checkpoint: str | int = "best",
        seed_index: int | None = None,
        **settings: Unpack[RecipeSettings],
    ) -> Agent:
        """Load what `save` wrote, and go on as if it had not stopped; or go on from a run's weights.

        Args:
            path: what `save` wrote, with its replay; or a run folder: its weights, with an empty replay.
            parts: classes of the recipe's parts from outside the package.
            checkpoint: weights of a run: `best`, `last`, or a checkpoint's step.
            seed_index: seed of a run, from 0. Default: the best.
            settings: fields of its recipe to change, for example `explore="epsilon:start=0.1"`.

        Raises:
            UsageError: no checkpoint, a damaged one, one of something else; or a setting does not fit.
        """
        loaded = loaded_from(path, parts, checkpoint, seed_index, settings)
        agent = object.__new__(Agent)
        agent._start(loaded)
        return agent

    def _start(self, loaded: Loaded) -> None:
        """Set the state, and make the compiled functions."""
        self.program, self.recipe = loaded.program, loaded.program.recipe
        self.seed, self._made, seed = loaded.number, loaded.seed, loaded.seed
        self._steps, self._updates, acts, drawn = loaded.counts
        self._since, self._notices = loaded.since, Notices(self.recipe)
        self._episodes: list[tuple[int, float, int]] = []
        program = self.program
        self._queue, self._learned = queue_of(program, seed.ring), -is_behind(seed)
        host = HostNetwork.of(program.learner, program.dtype)
        states = (seed.key, (seed.ring, seed.sampler), seed.learner)
        self._learning = Learning(program, host, self._queue.blocks, *states)
        learner_of = self._learning.learner_of
        self._actor = Actor(program, host, learner_of, seed.key, loaded.exploring, acts, drawn)
        self._exploring = self._learning.acting
        if loaded.acting is not None:
            self._exploring = self._learning.acting_of(loaded.acting)
        loaded.streams(self._queue)
        loaded.recalls(self._actor.recalls)
        self._learning_lock = threading.RLock()
        self._queue_lock = threading.Lock()
        self._writer = Writer(self._queue, self._learning, self._queue_lock)

    def _count(self, ended: tuple[float, int] | None) -> None:
        """Note the score of an episode, if one ended of which every step is known."""
        if ended is not None and math.isfinite(ended[0]):
            self._episodes.append((self._steps, *ended))

    def _situation(self) -> Situation:
        with self._learning_lock:
            online = jax.tree.map(lambda leaf: leaf[None], self._learning.learner.online)
        return Situation(self.program, online, self.seed, self._steps, tuple(self._episodes))

    def _seed(self) -> SeedState:
        """Return the state of learning. The caller has the lock of learning."""
        (ring, sampler), learner = self._learning.replay, self._learning.learner
        return dataclasses.replace(self._made, ring=ring, sampler=sampler, learner=learner)

    def _is_ready(self) -> bool:
        """Whether replay has a batch (a loaded one may be empty), after `learning_starts` steps."""
        if self.recipe.training.streams and self._learned == self._queue.added:
            return False
        rows, starts = min(self._queue.at, self._queue.rows), self.recipe.learning_starts or 0
        return self._steps - self._since >= starts and rows >= self.recipe.batch_size

    def _finish(self) -> None:
        """Wait for the last call's updates, and look at their metrics."""
        numbers = self._learning.finish()
        if numbers is not None:
            require_applied(self._updates, numbers)
            self._notices.look(self._updates, numbers, lambda: self._learning.replay[0])

    def _checked(self, observation: Any, name: str) -> np.ndarray:
        program = self.program
        return read_one(observation, name, program.shape, program.dtype, program.layout)
