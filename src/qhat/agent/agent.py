"""`Agent`: act, remember, replay, for people who own their loop (a robot, a ROS callback).

A thin holder of the same state and the same compiled functions as the training loop.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from pathlib import Path
from typing import Any

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
    read_saved,
    read_spaces,
    require_applied,
)
from qhat.agent.notices import Notices
from qhat.agent.saved import read_open, read_seed, rest
from qhat.agent.streams import Stream, Streams, read_names, read_stream
from qhat.agent.waiting_rows import LARGE, SMALL, Block, Taken
from qhat.engine.iteration import Program, split
from qhat.engine.replay import linked
from qhat.engine.replay.links import Rows
from qhat.engine.state import SeedState
from qhat.recipes.recipe import HORIZON, Recipe
from qhat.runs import checkpoint
from qhat.system.errors import blaming, require
from qhat.system.host_memory import nbytes, require_memory


class Agent:
    """A Q-learning agent for environments that the caller steps: one robot, or several as `stream`s.

    `act` and `remember` never wait for `replay` or `save`: these (and the other learning verbs) may run in
    a thread of their own while a control loop calls the first two.

    Args:
        observation: number of features, a shape, or a Gymnasium space.
        actions: number of actions, or any action space of Gymnasium that `train` takes.
        recipe: name of a recipe, or a `Recipe`.
        seed: of the weights and of all randomness.
        horizon: transitions that those schedules are made for which follow the run; more may follow.
        masked: whether `act` and `remember` are told which actions are legal.
        settings: fields of `Recipe` to change, for example `gamma=0.98`.
    """

    def __init__(
        self,
        observation: Any,
        actions: Any,
        recipe: str | Recipe = recipes.DEFAULT,
        *,
        seed: int = 0,
        horizon: int = HORIZON,
        masked: bool = False,
        **settings: Any,
    ):
        composed = read_recipe(recipe, settings, horizon)
        good = isinstance(seed, int | np.integer) and 0 <= seed < 2**31
        require(good, f"seed is {seed!r}; expected a whole number from 0 to 2147483647.")
        layout, chosen = read_spaces(observation, actions, composed)
        self._compose(Program.of(composed, layout.shape, layout.dtype, chosen, masked, layout=layout))
        self._begin(jax.jit(self._fresh)(jax.random.key(seed)))

    def _compose(self, program: Program) -> SeedState:
        """Take `program` as what is computed, and return the shape of its state, which fits in memory."""
        self.program, self.recipe = program, program.recipe
        shape = jax.eval_shape(self._fresh, jax.random.key(0))
        what = f"An agent with replay_capacity {self.recipe.replay_capacity}"
        require_memory(nbytes(shape), what, "expected less: lower replay_capacity")
        return shape

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

    def warmup(self, batch: int = 1) -> None:
        """Compile everything before the robot moves; changes nothing.

        Args:
            batch: observations that one call of `act` gets, of several robots at a time.
        """
        self._actor.warmup(self._acting, batch)
        with self._learning_lock:
            # Nothing but padding is stored, and `learn` works on copies.
            for size in (SMALL, LARGE):
                self._write(self._queue.padding(size))
            seed, zero = self._seed, jnp.int32(0)
            sampler = jax.tree.map(jnp.copy, seed.sampler)
            jax.block_until_ready(self._learn(sampler, seed.learner, seed.ring, seed.key, zero, zero))

    def act(self, observation: Any, explore: bool = True, mask: Any = None, stream: Any = None) -> Any:
        """Return the action for `observation`; the greedy one unless `explore`.

        Of several robots, `[B, ...]` observations give B actions; masks are `[B, ...]` then. Each number B
        is compiled when it first comes.

        Args:
            mask: the legal actions, as Gymnasium's `info["action_mask"]`; entry i is action `start + i`.
            stream: which robot observes, as in `remember`: each explores by itself. 0 unless given; of
                several a list of B, 0 to B − 1 unless given.

        Returns:
            the environment's own action: an `int`, or an array of the space's type and shape.
        """
        batch, streams, observations, legal = self._actor.read(observation, mask, stream, self._checked)
        if explore:
            choices = self._actor.choose(self._acting, streams, observations, legal, self._steps)
        else:
            choices = self._actor.greedy(self._acting, observations, legal)
        actions = [self.program.actions.to_env(choice) for choice in choices]
        return np.stack(actions) if batch else actions[0]

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[actions]`, or `[factors, choices]` of several factors or of joints."""
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
        """Store one transition. It follows the last one of its stream, unless that ended.

        `next_observation` and the next call's `observation` may differ, as when a sensor is read twice.

        Args:
            action: as `act` returns it; anyone's commands of joints are stored as the nearest there are.
            terminated: the task ended: `next_observation` has no value.
            truncated: a time limit or the operator ended the episode: it still has.
            mask: actions that were legal at `observation`, for an agent that is `masked`.
            next_mask: actions that are legal at `next_observation`; the backup is among these.
            stream: which robot it is, a number or a text; as many as there are may take turns.

        Raises:
            UsageError: a NaN, a wrong shape, an action that is not there or not legal; nothing is stored.
        """
        stream = read_stream(stream)
        before = self._checked(observation, "observation")
        after = self._checked(next_observation, "next_observation")
        choice = read_action(action, self.program.actions)
        paid, terminated, truncated = read_outcome(reward, terminated, truncated)
        masks = (mask, next_mask, terminated)
        legal, legal_next = read_masks(self.program.actions, self.program.masked, choice, *masks)
        before = self._actor.before(stream, (observation, next_observation), before, after)
        step = (before, choice, paid, after, terminated, truncated, legal, legal_next)
        with self._queue_lock:
            self._queue.add(stream, *step)
            self._steps += 1

    def cut(self, stream: Stream = 0) -> None:
        """End the episode of a stream as truncated: its next step does not follow the last one.

        For whoever stops a robot without a last `remember`: a person carried it, a connection was lost.
        """
        stream = read_stream(stream)
        self._actor.forget(stream)
        with self._queue_lock:
            self._queue.cut(stream)

    def replay(self) -> dict[str, float] | None:
        """Do one gradient update on a batch from replay.

        Returns:
            loss, mean Q, gradient norm and clipped mass; None while replay holds less than a batch,
            or less than `learning_starts` steps.

        Raises:
            QhatError: loss or gradient is not finite; the weights are as they were.
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

    def _is_ready(self) -> bool:
        """Whether replay holds a batch (a loaded agent's may be empty) and enough was seen."""
        if not self._ready and self._steps >= (self.recipe.learning_starts or 0):
            self._ready = int(self._seed.ring.filled.sum()) >= self.recipe.batch_size
        return self._ready

    def update_target_network(self) -> None:
        """Copy θ to θ⁻ now; the recipe's `target` does it in `replay` by itself as well."""
        with self._learning_lock:
            target = jax.tree.map(jnp.copy, self._seed.learner.online)
            learner = dataclasses.replace(self._seed.learner, target=target)
            self._seed = dataclasses.replace(self._seed, learner=learner)

    def save(self, path: str | Path, *, replay: bool = True) -> None:
        """Save everything that learning goes on from; without replay when it is too large."""
        with self._learning_lock:
            # `act` and `remember` wait for what is taken here, and neither for replay nor for the disk.
            with self._actor.lock, self._queue_lock:
                self._take()
                exploring, states = self._actor.stacked()
                streams, ends = self._queue.ends() if replay else ([], {})
                about = {**self._about(), "replay": replay, "streams": streams, "exploring": exploring}
            self._write_taken()
            seed = dataclasses.replace(self._seed, exploration=states)
            trees: dict[str, Any] = {"learner": seed.learner, "rest": rest(seed)}
            if replay:
                trees["replay"] = (seed.ring, seed.sampler)
            if streams:
                trees["streams"] = ends
            checkpoint.write(Path(path), trees, about)

    def _about(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "observation": self.program.about_observation(),
            "actions": self.program.actions.to_json(),
            "masked": self.program.masked,
            "steps": self._steps,
            "updates": self._updates,
            "acts": self._actor.acts,
        }

    @staticmethod
    def load(path: str | Path, parts: tuple[type, ...] = ()) -> Agent:
        """Load what `save` wrote: training goes on as if it had not stopped.

        Args:
            parts: classes of the recipe's parts from outside the package.

        Raises:
            UsageError: no checkpoint, a damaged or a foreign one.
        """
        folder = Path(path)
        about = checkpoint.read_manifest(folder)
        with blaming(f"'{folder}' is not a saved agent"):
            recipe, spaces, layout, counts = read_saved(about, parts)
            for field in ("streams", "exploring"):
                read_names(about, field)
            agent = object.__new__(Agent)
            like = agent._compose(Program.of(recipe, *spaces, layout=layout))
        agent._restore(folder, about, counts, like)
        return agent

    def _restore(
        self, folder: Path, about: dict[str, Any], counts: tuple[int, ...], like: SeedState
    ) -> None:
        fresh = jax.jit(self._fresh)(jax.random.key(0))
        seed, exploring = read_seed(folder, about, self.program, like, fresh)
        self._begin(seed, counts, exploring)
        read_open(folder, about, self._queue, seed)

    def _begin(self, seed: SeedState, counts: tuple[int, ...] = (0, 0, 0), exploring: Any = None) -> None:
        """Take `seed` as the state, and make the compiled functions."""
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
        # Replay is updated in place (donated); the learner's weights are not: `act` reads them.
        self._learn = jax.jit(self._pure_learn, donate_argnums=0)
        self._store = jax.jit(self._pure_store, donate_argnums=(0, 1))

    def _fresh(self, key: jax.Array) -> SeedState:
        observation = jnp.zeros((1, *self.program.shape), self.program.dtype)
        seed = self.program.init(key, observation, None)
        return dataclasses.replace(seed, ring=linked.linked(seed.ring))

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
        """Take what waits now, to be written next; under the queue's lock."""
        if (taken := self._queue.take()) is not None:
            self._taken.append(taken)

    def _drain(self) -> None:
        """Move what waits to replay, beside the control loop, which may go on remembering."""
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
                taken.wrote(size)
            self._taken.popleft()

    def _checked(self, observation: Any, name: str) -> np.ndarray:
        return self.program.read(observation, name)
