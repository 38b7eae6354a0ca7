"""`Agent`: act, remember and replay, for programs with their own loop (a robot, a ROS callback).

An agent has the same state and the same compiled functions as the training loop. First come the methods
that users call; below `load`, the state behind them.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
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
)
from qhat.agent.notices import Notices
from qhat.agent.saved import about, read_open_streams, read_saved, read_seed, rest
from qhat.agent.streams import Stream, Streams, read_names, read_stream
from qhat.agent.waiting_rows import LARGE, SMALL, Block, Taken
from qhat.engine.iteration import Program
from qhat.engine.replay import linked
from qhat.engine.replay.links import Rows
from qhat.engine.state import SeedState, split
from qhat.environments.observations import read_one
from qhat.recipes.recipe import HORIZON, Recipe
from qhat.recipes.settings import RecipeSettings
from qhat.runs import checkpoint
from qhat.system import compilation_cache
from qhat.system.errors import blaming, require
from qhat.system.host_memory import nbytes, require_memory


class Agent:
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
        self._set_program(Program.of(recipe, layout.shape, layout.dtype, actions, masked, layout=layout))
        self._set_state(jax.jit(self._fresh_state)(jax.random.key(seed)))

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
        batch, streams, observations, legal = self._actor.read(observation, mask, stream, self._checked)
        if explore:
            choices = self._actor.choose(self._acting, streams, observations, legal, self._steps)
        else:
            choices = self._actor.greedy(self._acting, observations, legal)
        actions = [self.program.actions.to_env(choice) for choice in choices]
        return np.stack(actions) if batch else actions[0]

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·): `[actions]`, or `[factors, choices]` with several factors or joints."""
        q = self._actor.values(self._acting, self._checked(observation, "observation"))
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
        stream = read_stream(stream)
        before = self._checked(observation, "observation")
        after = self._checked(next_observation, "next_observation")
        choice = read_action(action, self.program.actions)
        reward, terminated, truncated = read_outcome(reward, terminated, truncated)
        masks = (mask, next_mask, terminated)
        legal, legal_next = read_masks(self.program.actions, self.program.masked, choice, *masks)
        before = self._actor.before(stream, (observation, next_observation), before, after)
        step = (before, choice, reward, after, terminated, truncated, legal, legal_next)
        with self._queue_lock:
            self._queue.add(stream, *step)
            self._steps += 1

    def cut(self, stream: Stream = 0) -> None:
        """End the episode of a stream as truncated: its next step starts a new one.

        Call it when a robot stops without a last `remember`: a person carried it, a connection was lost.
        """
        stream = read_stream(stream)
        self._actor.forget(stream)
        with self._queue_lock:
            self._queue.cut(stream)

    def replay(self) -> dict[str, float] | None:
        """Do one gradient update on a batch from replay.

        Returns:
            loss, mean Q, gradient norm and clipped mass; None while replay has less than a batch, or the
            agent has done fewer than `learning_starts` steps.

        Raises:
            QhatError: the loss or gradient is not finite; the weights did not change.
        """
        with self._learning_lock:
            self._drain()
            if not self._is_ready():
                return None
            seed, counts = self._seed, (jnp.int32(self._steps), jnp.int32(self._updates))
            state = (seed.sampler, seed.learner, seed.ring, seed.key)
            learner, sampler, greedy, metrics = self._learn(*state, *counts)
            ring = dataclasses.replace(seed.ring, greedy=greedy)
            self._seed = dataclasses.replace(seed, learner=learner, sampler=sampler, ring=ring)
            self._updates += 1
            self._acting = self._seed.learner.online
            require_applied(self._updates, metrics)
            return self._notices.look(self._updates, metrics, self._seed.ring)

    def update_target_network(self) -> None:
        """Copy θ to θ⁻ now, besides the updates that the recipe's `target` makes in `replay`."""
        with self._learning_lock:
            target = jax.tree.map(jnp.copy, self._seed.learner.online)
            learner = dataclasses.replace(self._seed.learner, target=target)
            self._seed = dataclasses.replace(self._seed, learner=learner)

    def warmup(self, batch: int = 1) -> None:
        """Compile everything before the robot moves. The agent does not change.

        Args:
            batch: number of robots, so of observations in one call of `act`.
        """
        self._actor.warmup(self._acting, batch)
        with self._learning_lock:
            # Only padding is stored, and `_learn` works on a copy.
            for size in (SMALL, LARGE):
                self._write(self._queue.padding(size))
            seed, zero = self._seed, jnp.int32(0)
            sampler = jax.tree.map(jnp.copy, seed.sampler)
            jax.block_until_ready(self._learn(sampler, seed.learner, seed.ring, seed.key, zero, zero))

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
            # `act` and `remember` wait for these short steps only, not for replay or the disk.
            with self._actor.lock, self._queue_lock:
                self._take()
                exploring, states = self._actor.stacked()
                streams, steps = self._queue.open_steps() if replay else ([], {})
                names = {"replay": replay, "streams": streams, "exploring": exploring}
                manifest = {**about(self.program, self._steps, self._updates, self._actor.acts), **names}
            self._write_taken()
            seed = dataclasses.replace(self._seed, exploration=states)
            trees: dict[str, Any] = {"learner": seed.learner, "rest": rest(seed)}
            if replay:
                trees["replay"] = (seed.ring, seed.sampler)
            if streams:
                trees["streams"] = steps
            checkpoint.write(Path(path), trees, manifest)

    @staticmethod
    def load(path: str | Path, parts: tuple[type, ...] = ()) -> Agent:
        """Load what `save` wrote; training continues as if it had not stopped.

        Args:
            parts: classes of the recipe's parts from outside the package.

        Raises:
            UsageError: there is no checkpoint, or it is damaged or of something else.
        """
        folder = Path(path)
        manifest = checkpoint.read_manifest(folder)
        with blaming(f"'{folder}' is not a saved agent"):
            recipe, spaces, layout, counts = read_saved(manifest, parts)
            for field in ("streams", "exploring"):
                read_names(manifest, field)
            agent = object.__new__(Agent)
            like = agent._set_program(Program.of(recipe, *spaces, layout=layout))
        fresh = jax.jit(agent._fresh_state)(jax.random.key(0))
        seed, exploring = read_seed(folder, manifest, agent.program, like, fresh)
        agent._set_state(seed, counts, exploring)
        read_open_streams(folder, manifest, agent._queue, seed)
        return agent

    def _set_program(self, program: Program) -> SeedState:
        """Set the program, and return the shapes of its state, after a check that it fits in memory."""
        compilation_cache.enable()
        self.program, self.recipe = program, program.recipe
        shape = jax.eval_shape(self._fresh_state, jax.random.key(0))
        what = f"An agent with replay_capacity {self.recipe.replay_capacity}"
        require_memory(nbytes(shape), what, "expected less: lower replay_capacity")
        return shape

    def _fresh_state(self, key: jax.Array) -> SeedState:
        observation = jnp.zeros((1, *self.program.shape), self.program.dtype)
        seed = self.program.init(key, observation, None)
        return dataclasses.replace(seed, ring=linked.linked(seed.ring))

    def _set_state(
        self, seed: SeedState, counts: tuple[int, ...] = (0, 0, 0), exploring: Any = None
    ) -> None:
        """Set the state, and make the compiled functions."""
        self._seed, (self._steps, self._updates, acts) = seed, counts
        self._ready, self._acting, self._notices = False, seed.learner.online, Notices(self.recipe)
        self._actor = Actor(self.program, seed.key, exploring or {}, acts)
        program, ring = self.program, seed.ring
        layout = (ring.rows, program.shape, program.dtype, program.actions, program.masked)
        filled, cursor = int(ring.filled[0]), int(ring.cursor[0])
        at = filled if filled < ring.rows else ring.rows + cursor % ring.rows
        moments = ring.moments is not None
        self._queue = Streams(*layout, self.recipe.gamma, moments, max(at, 0), ring.layout)
        self._taken: deque[Taken] = deque()
        self._learning_lock = threading.RLock()
        self._queue_lock = threading.Lock()
        # Replay is donated, so updated in place. The weights are not: `act` reads them meanwhile.
        self._learn = jax.jit(self._pure_learn, donate_argnums=0)
        self._store = jax.jit(self._pure_store, donate_argnums=(0, 1))

    def _is_ready(self) -> bool:
        """Whether replay has a batch (a loaded agent's may be empty), after `learning_starts` steps."""
        if not self._ready and self._steps >= (self.recipe.learning_starts or 0):
            self._ready = int(self._seed.ring.filled.sum()) >= self.recipe.batch_size
        return self._ready

    def _pure_learn(
        self, sampler: Any, learner: Any, ring: Any, key: Any, steps: Any, updates: Any
    ) -> tuple[Any, Any, Any, Any]:
        keys = split(jax.random.fold_in(key, updates), "explore", "noise", "learn")
        return self.program.update(learner, ring, sampler, keys["learn"], steps, updates + 1)

    def _pure_store(self, ring: Any, sampler: Any, block: Any) -> tuple[Any, Any]:
        ring, slots, starts = linked.write(ring, Rows(*block))
        return ring, self.recipe.sampler.store(sampler, slots, starts)

    def _write(self, block: Block) -> None:
        ring, sampler = self._store(self._seed.ring, self._seed.sampler, block)
        self._seed = dataclasses.replace(self._seed, ring=ring, sampler=sampler)

    def _take(self) -> None:
        """Take the rows that wait, to write them next. The caller has the queue's lock."""
        if (taken := self._queue.take()) is not None:
            self._taken.append(taken)

    def _drain(self) -> None:
        """Move the rows that wait to replay; meanwhile a control loop may call `remember`."""
        with self._queue_lock:
            self._take()
        self._write_taken()

    def _write_taken(self) -> None:
        while self._taken:
            taken = self._taken[0]
            if taken.lost is not None and taken.lost.count:
                lost, taken.lost = taken.lost, None
                ring = linked.merged(self._seed.ring, lost.count, lost.mean, lost.m2)
                self._seed = dataclasses.replace(self._seed, ring=ring)
            while size := taken.block_size():
                self._write(taken.block(size))
                taken.advance(size)
            self._taken.popleft()

    def _checked(self, observation: Any, name: str) -> np.ndarray:
        program = self.program
        return read_one(observation, name, program.shape, program.dtype, program.layout)
