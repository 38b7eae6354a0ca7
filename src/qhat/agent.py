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
from qhat.arguments import (
    is_number,
    read_action,
    read_actions,
    read_masks,
    read_observation,
    read_recipe,
    read_saved,
    read_value,
    require_applied,
    stack,
)
from qhat.errors import blaming, require
from qhat.masks import read_mask
from qhat.memory import nbytes, require_memory
from qhat.notices import Notices
from qhat.recipe import Recipe
from qhat.replay import ring as replay
from qhat.training import checkpoint
from qhat.training.iteration import Program, split
from qhat.training.state import SeedState

BLOCK = 32
"""Transitions that go from the queue to replay in one compiled call."""


class Agent:
    """A Q-learning agent for one environment that the caller steps.

    `act` and `remember` never wait for `replay`: `replay` (and the other learning verbs) may run in
    a thread of their own while a control loop calls the first two.

    Args:
        observation: number of features, a shape, or a Gymnasium `Box`.
        actions: number of actions, or a Gymnasium `Discrete`, `MultiDiscrete` or `Box` (joints).
        recipe: name of a recipe, or a `Recipe`.
        seed: of the weights and of all randomness.
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
        masked: bool = False,
        **settings: Any,
    ):
        shape, dtype = read_observation(observation)
        composed = read_recipe(recipe, settings)
        good = isinstance(seed, int | np.integer) and 0 <= seed < 2**31
        require(good, f"seed is {seed!r}; expected a whole number from 0 to 2147483647.")
        self._compose(Program.of(composed, shape, dtype, read_actions(actions, composed.bins), masked))
        self._adopt(jax.jit(self._fresh)(jax.random.key(seed)), steps=0, updates=0)

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

    def warmup(self) -> None:
        """Compile everything before the robot moves; changes nothing."""
        observation = np.zeros(self.program.shape, self.program.dtype)
        jax.block_until_ready(self._act(*self._act_arguments(observation)))
        jax.block_until_ready(self._q(self._acting, observation))
        with self._learning_lock:
            # Nothing but padding is stored, and `cut` and `learn` work on copies.
            self._store_block([], observation)
            seed, zero = jax.tree.map(jnp.copy, self._seed), jnp.int32(0)
            jax.block_until_ready(self._cut(seed.ring))
            copied = (seed.sampler, self._seed.learner, self._seed.ring, self._seed.key)
            jax.block_until_ready(self._learn(*copied, zero, zero))

    def act(self, observation: Any, explore: bool = True, mask: Any = None) -> Any:
        """Return the action for `observation`; the greedy one unless `explore`.

        Args:
            mask: the legal actions, as Gymnasium's `info["action_mask"]`.

        Returns:
            an int, an array with one choice per factor, or one with the command of every joint.
        """
        observation = self._checked(observation, "observation")
        legal = read_mask(mask, self.program.actions, "mask")
        if not explore:
            q = np.asarray(self._q(self._acting, observation))
            action = np.argmax(q if legal is None else np.where(legal, q, -np.inf), axis=1)
        else:
            with self._acting_lock:
                arguments = self._act_arguments(observation, legal)
                self._acts += 1
                self._exploration, action = self._act(*arguments)
        return self.program.actions.spoken(np.asarray(action))

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[actions]`, or `[factors, choices]` of several factors or of joints."""
        q = np.asarray(self._q(self._acting, self._checked(observation, "observation")))
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
    ) -> None:
        """Store one transition.

        Args:
            action: as `act` returns it; anyone's commands of joints are stored as the nearest there are.
            terminated: the task ended: `next_observation` has no value.
            truncated: a time limit or the operator ended the episode: it still has.
            mask: actions that were legal at `observation`, for an agent that is `masked`.
            next_mask: actions that are legal at `next_observation`; the backup is among these.

        Raises:
            UsageError: a NaN, a wrong shape, an action that is not there or not legal; nothing is stored.
        """
        before = self._checked(observation, "observation")
        after = self._checked(next_observation, "next_observation")
        choice = read_action(action, self.program.actions)
        masks = (mask, next_mask, bool(terminated))
        legal, legal_next = read_masks(self.program.actions, self.program.masked, choice, *masks)
        require(is_number(reward), f"reward is {reward!r}; expected a finite number.")
        with self._queue_lock:
            follows = self._open is not None and np.array_equal(self._open, before)
            ends = (bool(terminated), bool(truncated))
            entry = (before, choice, float(reward), after, *ends, legal, legal_next)
            self._queue.append((entry, not follows and self._open is not None))
            self._open = None if terminated or truncated else after
            self._steps += 1

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
            learner, sampler, metrics = self._learn(
                seed.sampler, seed.learner, seed.ring, seed.key, *counts
            )
            self._seed = dataclasses.replace(seed, learner=learner, sampler=sampler)
            self._updates += 1
            self._acting = self._seed.learner.online
            require_applied(self._updates, metrics)
            return self._notices.look(self._updates, metrics, self._seed.ring)

    def _is_ready(self) -> bool:
        """Whether replay holds a batch (a loaded agent's may be empty) and enough was seen."""
        if not self._ready and self._steps >= self.recipe.learning_starts:
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
            # `act` and `remember` wait for what is taken here, and not for the disk.
            with self._acting_lock, self._queue_lock:
                self._drain()
                seed = dataclasses.replace(self._seed, exploration=self._exploration)
                about = {**self._about(), "replay": replay}
                opened = self._open
            trees: dict[str, Any] = {"learner": seed.learner, "rest": _rest(seed)}
            if replay:
                trees["replay"] = (seed.ring, seed.sampler)
            if opened is not None:
                trees["open"] = {"observation": opened}
            checkpoint.write(Path(path), trees, about)

    def _about(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "observation": {"shape": list(self.program.shape), "dtype": self.program.dtype},
            "actions": self.program.actions.to_json(),
            "masked": self.program.masked,
            "steps": self._steps,
            "updates": self._updates,
            "acts": self._acts,
            "open": self._open is not None,
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
            recipe, spaces, counts = read_saved(about, parts)
            agent = object.__new__(Agent)
            like = agent._compose(Program.of(recipe, *spaces))
        agent._restore(folder, about, counts, like)
        return agent

    def _restore(
        self, folder: Path, about: dict[str, Any], counts: tuple[int, ...], like: SeedState
    ) -> None:
        learner = checkpoint.read_tree(folder, "learner", like.learner, finite=("online", "target"))
        rest = checkpoint.read_tree(folder, "rest", _rest(like))
        held = {}
        if about.get("replay"):
            pair = checkpoint.read_tree(folder, "replay", (like.ring, like.sampler))
            held = {"ring": pair[0], "sampler": pair[1]}
        opened = None
        if about.get("open"):
            one = {"observation": jax.ShapeDtypeStruct(self.program.shape, self.program.dtype)}
            opened = checkpoint.read_tree(folder, "open", one)["observation"]
        seed = jax.jit(self._fresh)(jax.random.key(0))
        seed = self.program.primed(dataclasses.replace(seed, learner=learner, **rest))
        seed = dataclasses.replace(seed, **held)
        self._adopt(jax.tree.map(jnp.asarray, seed), counts[0], counts[1])
        self._acts, self._open = counts[2], opened

    def _adopt(self, seed: SeedState, steps: int, updates: int) -> None:
        """Take `seed` as the state, and make the compiled functions."""
        self._seed, self._steps, self._updates, self._acts = seed, steps, updates, 0
        self._ready, self._acting, self._notices = False, seed.learner.online, Notices(self.recipe)
        self._exploration = seed.exploration
        self._queue: deque = deque()
        self._open: np.ndarray | None = None
        self._learning_lock = threading.RLock()
        self._acting_lock = threading.Lock()
        self._queue_lock = threading.RLock()
        self._act = jax.jit(self._pure_act)
        self._q = jax.jit(self.program.learner.q_values)
        # Replay is updated in place (donated); the learner's weights are not: `act` reads them.
        self._learn = jax.jit(self._pure_learn, donate_argnums=0)
        self._store = jax.jit(self._pure_store, donate_argnums=(0, 1))
        self._cut = jax.jit(replay.cut, donate_argnums=0)

    def _fresh(self, key: jax.Array) -> SeedState:
        observation = jnp.zeros((1, *self.program.shape), self.program.dtype)
        return self.program.init(key, observation, None)

    def _act_arguments(self, observation: np.ndarray, legal: np.ndarray | None = None) -> tuple:
        if self.program.masked and legal is None:
            legal = np.asarray(self.program.actions.all_legal)
        counts = (jnp.int32(self._acts), jnp.int32(self._steps))
        masks = None if legal is None else legal[None]
        return self._acting, self._exploration, self._seed.key, observation[None], masks, *counts

    def _pure_act(
        self, online: Any, exploration: Any, key: Any, observation: Any, legal: Any, acts: Any, steps: Any
    ) -> tuple[Any, Any]:
        keys = split(jax.random.fold_in(key, acts), "explore", "noise", "learn")
        greedy = self.program.learner.greedy(online, observation, keys["noise"], legal)
        exploration, action = self.recipe.explore.choose(
            exploration, greedy, keys["explore"], steps, self.program.actions, legal
        )
        return exploration, action[0]

    def _pure_learn(
        self, sampler: Any, learner: Any, ring: Any, key: Any, steps: Any, updates: Any
    ) -> tuple[Any, Any, Any]:
        keys = split(jax.random.fold_in(key, updates), "explore", "noise", "learn")
        return self.program.update(learner, ring, sampler, keys["learn"], steps, updates + 1)

    def _pure_store(self, ring: Any, sampler: Any, fields: tuple) -> tuple[Any, Any]:
        """Store a block of steps, given by their fields `[BLOCK, 1, ...]`; padding is not real."""
        return self.program.append(ring, sampler, fields)

    def _store_block(self, block: list[tuple], filler: np.ndarray) -> None:
        fields = stack(block, BLOCK, filler, self.program.actions, self.program.masked)
        ring, sampler = self._store(self._seed.ring, self._seed.sampler, fields)
        self._seed = dataclasses.replace(self._seed, ring=ring, sampler=sampler)

    def _drain(self) -> None:
        """Move the queue to replay, in blocks that begin where an episode was cut."""
        with self._queue_lock:
            waiting, self._queue = self._queue, deque()
        while waiting:
            if waiting[0][1]:
                self._seed = dataclasses.replace(self._seed, ring=self._cut(self._seed.ring))
            block = [waiting.popleft()[0]]
            while waiting and len(block) < BLOCK and not waiting[0][1]:
                block.append(waiting.popleft()[0])
            self._store_block(block, block[0][0])

    def _checked(self, observation: Any, name: str) -> np.ndarray:
        return read_value(observation, name, self.program.shape, self.program.dtype)


def _rest(seed: SeedState) -> dict[str, Any]:
    return {"key": seed.key, "exploration": seed.exploration}
