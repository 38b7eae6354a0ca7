"""One iteration of training: store → learn → act, a pure function of a state and a timestep."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from qhat.axes.actions import Actions
from qhat.engine import recurrent
from qhat.engine.compiler import after_token
from qhat.engine.growth import open_choices, with_growth
from qhat.engine.guard import Guard
from qhat.engine.learner import Learner, LearnerState, Metrics
from qhat.engine.newest import learn_newest
from qhat.engine.replay import ring as replay
from qhat.engine.replay import sequences, shares
from qhat.engine.replay.frames import require_frames
from qhat.engine.replay.goals import Goals
from qhat.engine.replay.hindsight import relabelled
from qhat.engine.resets import with_reset
from qhat.engine.shifts import require_pictures
from qhat.engine.state import Clock, Episodes, Log, SeedState, no_metrics, split, strongly_typed, tally
from qhat.environments.base import Timestep
from qhat.environments.observations import Observations
from qhat.environments.wrappers import RewardWrapper
from qhat.recipes.recipe import Recipe
from qhat.system.errors import require, setting

BeginStep = Callable[[SeedState], tuple[SeedState, Int[Array, ""]]]
"""Begins a step of the environment; returns the state, and a token: a 0 computed after the step began."""
Each = Callable[[Callable[..., Any], tuple[int | None, ...]], Callable[..., Any]]
"""Turns a function of one seed, with its `in_axes`, into a function of all seeds."""


@dataclasses.dataclass(frozen=True)
class Program:
    """The pure functions of one training run, for one seed. Holds no arrays; knows no algorithm."""

    recipe: Recipe
    learner: Learner
    shape: tuple[int, ...]
    dtype: str
    actions: Actions
    masked: bool = False
    """Whether every observation comes with a mask of legal actions."""
    stack: int = 1
    """Number of frames in an observation, along its first axis; replay stores each frame once."""
    rewards: tuple[RewardWrapper, ...] = ()
    """Reward transforms applied before storage; scores use raw rewards."""
    stops: bool = True
    """Whether a seed stops at the first number that is not finite, or skips such rows and continues."""
    layout: Observations | None = None
    """The parts of an observation; `None` is one array, which the network gets unchanged."""
    logged: int = 0
    """Rows of recorded steps that a fixed share of every batch is drawn from; 0: there are none."""

    @staticmethod
    def of(
        recipe: Recipe,
        shape: tuple[int, ...],
        dtype: str,
        actions: Actions,
        masked: bool = False,
        stack: int = 1,
        rewards: tuple[RewardWrapper, ...] = (),
        stops: bool = True,
        layout: Observations | None = None,
    ) -> "Program":
        """Compose the program of a recipe on given spaces. Raises `UsageError` if they do not fit."""
        pictures = dtype == "uint8" if layout is None else layout.is_picture
        require(
            not (recipe.normalise and pictures),
            f"{setting('normalise')} has no meaning for observations {shape} of {dtype}, a picture: the"
            " range of pixels is known, and replay's statistics of them would be large. Leave it out.",
        )
        require_pictures(recipe.random_shift, shape, dtype, layout)
        Goals.of(recipe.relabel, 1, layout)
        recipe = recipe.scheduled()
        recurrent.require_single(recipe.memory, stack)
        require_frames(shape, stack, recipe.training.rows(recipe, stack), recipe.longest)
        learner = Learner.of(recipe, shape, actions, layout)
        spaces = (shape, dtype, actions, masked, stack)
        return Program(learner.recipe, learner, *spaces, rewards, stops, layout)

    def init(
        self, key: Array, observation: Array, environment: object, legal: Array | None = None
    ) -> SeedState:
        """Return the state of a fresh seed that is about to act on `observation`."""
        recipe, E = self.recipe, self.recipe.num_envs
        rows = recipe.training.rows(recipe, self.stack)
        keys = split(key, "parameters", "run", "first_action")
        packed = self.layout if self.layout is not None and self.layout.is_packed else None
        ring = replay.Ring.empty(
            E, rows, self.shape, self.dtype, self.actions, stack=self.stack, masked=self.masked,
            watch=recipe.gamma if recipe.head.calibrates else None, normalise=bool(recipe.normalise),
            marks_greedy=recipe.n_step_cut is not None, scale=recipe.training.return_discount(recipe),
            layout=packed, goals=Goals.of(recipe.relabel, rows * E, self.layout, self.rewards),
            memory=recipe.memory.units, logged=self.logged,
        )  # fmt: skip
        action = jnp.zeros((E, self.actions.factors), jnp.int32)
        fresh = Guard.new(observation, action, packed)
        guard, observation = fresh.begin(observation, jnp.int32(-1), ring.cursor)
        seed = SeedState(
            key=keys["run"],
            learner=self.learner.init(keys["parameters"]),
            ring=ring,
            sampler=self.sampler.init(ring.size),
            exploration=recipe.explore.init(E, self.actions),
            observation=observation,
            action=action,
            environment=environment,
            episodes=Episodes(jnp.zeros(E), jnp.zeros(E, jnp.int32)),
            guard=guard,
            legal=legal,
            recall=recurrent.fresh(self.learner, E),
        )
        return strongly_typed(self.act(seed, observation, legal, keys["first_action"], jnp.int32(0)))

    def begin(
        self,
        seed: SeedState,
        observation: Array,
        environment: object,
        legal: Array | None,
        key: Array,
        steps: Int[Array, ""],
    ) -> SeedState:
        """Begin new episodes in the middle of training."""
        fresh = jax.tree.map(jnp.zeros_like, seed.episodes)
        ring = replay.cut(seed.ring)
        guard, observation = seed.guard.begin(observation, steps // self.recipe.num_envs - 1, ring.cursor)
        recall = recurrent.fresh(self.learner, self.recipe.num_envs)
        seed = dataclasses.replace(
            seed, ring=ring, environment=environment, episodes=fresh, guard=guard, recall=recall
        )
        return strongly_typed(self.act(seed, observation, legal, key, steps))

    def iterate(
        self,
        clock: Clock,
        seed: SeedState,
        timestep: Timestep,
        keys: dict[str, Array],
        begin_step: BeginStep | None = None,
        each: Each = lambda function, axes: function,
    ) -> tuple[SeedState, Log]:
        """Do one iteration: store what `seed.action` led to, learn if it is time, choose the next action.

        Args:
            keys: as `keys` returns them.
            begin_step: begins the next step of an environment that runs in parallel. If given, the action
                is chosen before the update, and the environment steps while the update runs.
            each: maps a function of one seed over all seeds, if `seed` and `timestep` hold several.
        """
        seed, timestep, ended = each(self.observe, (None, 0, 0))(clock, seed, timestep)
        choose, learn = each(self.choose, (None, 0, 0, 0)), each(self.learn, (None, 0, 0, None))
        if begin_step is None:
            seed, metrics = learn(clock, seed, keys["learn"], jnp.int32(0))
            seed = choose(clock, seed, timestep, keys["act"])
        else:
            seed = choose(clock, seed, timestep, keys["act"])
            seed, begun = begin_step(seed)
            seed, metrics = learn(clock, seed, keys["learn"], begun)
        log = each(lambda ended, metrics: Log(*ended, metrics=metrics), (0, 0))
        return seed, log(ended, metrics)

    def observe(
        self, clock: Clock, seed: SeedState, timestep: Timestep
    ) -> tuple[SeedState, Timestep, tuple[Array | None, ...]]:
        """Store what `seed.action` led to, if it is finite; also return the results of `tally`."""
        seed, timestep = self.screen(clock, seed, timestep)
        seed, ended = tally(self.store(seed, timestep), timestep)
        return seed, timestep, ended

    def choose(self, clock: Clock, seed: SeedState, timestep: Timestep, key: Array) -> SeedState:
        """Choose the next action, for the observation of the timestep."""
        steps = (clock.iterations + 1) * self.recipe.num_envs
        return self.act(seed, timestep.observation, timestep.legal, key, steps)

    def keys(self, clock: Clock, seed: SeedState) -> dict[str, Array]:
        """Return the keys of an iteration, each derived from the seed's key, the clock and a name."""
        return split(jax.random.fold_in(seed.key, clock.iterations), "environment", "learn", "act")

    def tick(self, clock: Clock) -> Clock:
        """Advance the clock by one iteration."""
        return Clock(clock.iterations + 1, clock.updates + self.updates_due(clock))

    def updates_due(self, clock: Clock) -> Int[Array, ""]:
        """Number of gradient updates in the iteration that begins at `clock`."""
        done = clock.iterations + 1
        due = done % self.recipe.iterations_per_update == 0
        ready = done * self.recipe.num_envs >= self.recipe.first_update
        return jnp.where(due & ready, self.recipe.updates_per_iteration, 0)

    def screen(self, clock: Clock, seed: SeedState, timestep: Timestep) -> tuple[SeedState, Timestep]:
        """Remove what is not finite, before anything else uses it."""
        learned = self.learned(timestep.reward)
        guard, timestep = seed.guard.screen(
            timestep, learned, seed.action, clock.iterations, seed.ring.cursor, self.stops
        )
        return dataclasses.replace(seed, guard=guard), timestep

    def store(self, seed: SeedState, timestep: Timestep) -> SeedState:
        """Append the transitions to replay."""
        step = replay.Step(
            observation=seed.observation,
            action=seed.action,
            reward=self.learned(timestep.reward),
            successor=timestep.successor,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            real=timestep.real,
            legal=seed.legal,
            legal_next=timestep.legal_successor,
            memory=seed.recall and seed.recall.before,
        )
        ring, slots, starts = replay.store(seed.ring, step)
        if timestep.broken is not None:
            ring = replay.cut(ring, timestep.broken)
        sampler = self.sampler.store(seed.sampler, slots, starts)
        recall = recurrent.over(self.learner, seed.recall, timestep)
        return dataclasses.replace(seed, ring=ring, sampler=sampler, recall=recall)

    @property
    def sampler(self) -> Any:
        """What draws batches: the recipe's sampler, or two of it where some steps were recorded before."""
        return shares.sampler_of(self.recipe, self.stack, self.logged)

    def learned(self, reward: Array) -> Array:
        """Return the reward that is stored: changed by the recipe's reward wrappers."""
        for part in self.rewards:
            reward = part.learned(reward)
        return reward

    def learn(
        self, clock: Clock, seed: SeedState, key: Array, begun: Int[Array, ""]
    ) -> tuple[SeedState, Metrics]:
        """Do the gradient updates that are due, none or more, each on a new batch.

        Args:
            begun: a 0 computed after the environment's next step began: the updates wait for it.
        """
        steps = clock.iterations * self.recipe.num_envs
        key = after_token(key, begun)
        if not self.recipe.training.replays:
            return learn_newest(self, clock, seed, key)

        def body(index: Array, carry: tuple) -> tuple:
            learner, sampler, greedy, failed, _ = carry
            number = clock.updates + 1 + index
            turn_key = jax.random.fold_in(key, index)
            applies = ~halted & ~(self.stops & (failed > 0))
            ring = dataclasses.replace(seed.ring, greedy=greedy)
            learner, sampler, greedy, metrics = self.update(
                learner, ring, sampler, turn_key, steps, number, applies
            )
            return learner, sampler, greedy, failed + (applies & ~metrics.finite), metrics

        halted = seed.guard.halted(self.stops)

        # A loop of 0 or more turns, not a `cond`: XLA updates its carry in place, where a
        # conditional copies a million priorities.
        carry = (seed.learner, seed.sampler, seed.ring.greedy, jnp.int32(0), no_metrics())
        carry = jax.lax.fori_loop(0, self.updates_due(clock), body, carry)
        learner, sampler, greedy, failed, metrics = carry
        guard = seed.guard.failed(failed, clock.iterations, seed.ring.cursor)
        ring = dataclasses.replace(seed.ring, greedy=greedy)
        return dataclasses.replace(seed, learner=learner, sampler=sampler, ring=ring, guard=guard), metrics

    def update(
        self,
        learner: LearnerState,
        ring: replay.Ring,
        sampler: Any,
        key: Array,
        steps: Int[Array, ""],
        number: Int[Array, ""],
        applies: Array | bool = True,
    ) -> tuple[LearnerState, Any, Bool[Array, " N"] | None, Metrics]:
        """Sample a batch, do gradient update `number` (from 1), return errors to the sampler.

        Args:
            applies: whether the weights may change.

        Returns:
            the learner, the sampler's state, the ring's `greedy` if it keeps one, and metrics.
        """
        recipe, keys = self.recipe, split(key, "sample", "noise", "goals")
        n, gamma = recipe.horizon.at(recipe.reset.since(number - 1), recipe.n_step, recipe.gamma)
        sample = sequences.sampling(recipe.memory, self.sampler)
        batch, slots, weights = sample(
            ring, self.sampler, sampler, keys["sample"], steps,
            batch=recipe.batch_size, n=recipe.longest, gamma=gamma, limit=n,
        )  # fmt: skip
        slots = self.learner.parallel.agreed(slots)
        batch = relabelled(ring, batch, slots, keys["goals"], recipe.longest, gamma, n)
        if recipe.n_step_cut is not None:
            good = self.learner.nearly_greedy(learner.online, batch, recipe.n_step_cut)
            ring = replay.mark(ring, slots, good)
        learner, update = self.learner.fit(
            learner, batch, weights, keys["noise"], number, ring.outlook, steps, ring.moments, applies
        )
        learner = with_reset(self.learner, learner, keys["noise"], number, applies)
        learner = with_growth(self.learner, learner, number, applies)
        errors = sequences.errors_of(update.errors, weights, slots.shape[0])
        return learner, self.sampler.update(sampler, slots, errors), ring.greedy, update.metrics

    def act(
        self, seed: SeedState, observation: Array, legal: Array | None, key: Array, steps: Int[Array, ""]
    ) -> SeedState:
        """Choose the next action for `observation` from the legal ones, with exploration."""
        keys = split(key, "explore", "noise")
        greedy, recall = self.learner.greedy(
            seed.learner.online, observation, keys["noise"], legal, seed.recall
        )
        in_use = open_choices(seed.learner.online, legal, self.recipe.num_envs)
        exploration, action = self.recipe.explore.choose(
            seed.exploration, greedy, keys["explore"], steps, self.actions, in_use
        )
        return dataclasses.replace(
            seed, observation=observation, legal=legal, action=action, exploration=exploration,
            recall=recall,
        )  # fmt: skip
