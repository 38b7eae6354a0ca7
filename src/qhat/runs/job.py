"""What is fixed in a training run: its program, its compiled calls, and where it evaluates and saves."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from qhat.cluster.environment import ActorEnvironment
from qhat.cluster.loop import ActorLoop
from qhat.engine.feed import Feed
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.loop import Advance, Loop
from qhat.engine.state import TrainState
from qhat.environments.base import Environment, Spec
from qhat.environments.host import HostEnvironment
from qhat.environments.mirror import image_of
from qhat.evaluation.play import EvaluationProgress, Play, cut_of, play_of
from qhat.recipes.config import TrainConfig
from qhat.runs.checkpoints import require_space
from qhat.runs.fed import Fed
from qhat.runs.run import program_of
from qhat.runs.start import AnyLoop, horizon_of, kept
from qhat.runs.stop import Stop
from qhat.runs.worlds import Worlds, no_limit
from qhat.system.devices import on_cpu
from qhat.system.errors import setting, warn
from qhat.system.host_memory import REST, give_back, nbytes, require_memory, resident

LONGEST_CALL = 2_500
"""Most iterations in one compiled call. Progress is shown between calls; a slow one is cut every second."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is ready to train. Iterations are vectorised steps: `num_envs` environment steps each."""

    config: TrainConfig
    spec: Spec
    loop: AnyLoop
    advance: Advance
    play: Play
    """Plays the greedy episodes of every seed."""
    keys: Array
    """Of the seeds, `[S]`."""
    end: int
    """Iteration of the last step."""
    eval_every: int
    """Iterations between evaluations."""
    save_every: int
    """Iterations between checkpoints."""
    memory: int
    """Bytes that the process is expected to take."""
    feed: Feed | None = None
    """Exchanges the recorded steps in replay, where it has no room for all of them."""

    @property
    def num_envs(self) -> int:
        return self.config.recipe.num_envs

    @property
    def program(self) -> Program:
        return self.loop.program

    def evaluates(self, at: int) -> bool:
        """Whether an evaluation is due after iteration `at`."""
        return at % self.eval_every == 0 or at == self.end

    def saves(self, at: int) -> bool:
        """Whether a checkpoint is due after iteration `at`."""
        return at % self.save_every == 0 or at == self.end

    def next_call(self, at: int) -> int:
        """Return how many iterations to do from `at` on: a call ends where something is due."""
        ends = (every - at % every for every in (self.eval_every, self.save_every))
        return min(LONGEST_CALL, self.end - at, *ends)

    def next_turn(self, at: int, count: int) -> int:
        """Return how many of `count` iterations to do from `at` on: until replay gets other rows."""
        return count if self.feed is None else min(count, self.feed.until(at))


def prepare(
    config: TrainConfig,
    spec: Spec,
    worlds: Worlds,
    devices: int,
    stop: Stop,
    show_progress: EvaluationProgress,
    logged: int = 0,
    fed: Fed | None = None,
) -> Job:
    """Compile what training and evaluations run, and see that there is room for it.

    Args:
        spec: the result of `spec_of_run`.
        devices: over which the seeds are spread, or each batch of a learner with actors.
        stop: asked while an evaluation plays.
        show_progress: says how far a long evaluation is.
        logged: rows of demonstrations that have a share of every batch.
        fed: the data, where replay has no room for all of them.

    Warns:
        UserWarning: the environment has no time limit.

    Raises:
        UsageError: memory or disk have no room for the run.
    """
    longest = cut_of(worlds.limit, config.eval_every, config.steps)
    if not worlds.limit:
        warn(no_limit(worlds, longest), stacklevel=4)
    image = image_of(config.recipe.mirror, spec)
    program = program_of(config.recipe, spec, config.wrap, config.on_nan == "stop", logged)
    program = dataclasses.replace(program, learner=dataclasses.replace(program.learner, mirror=image))
    config = config.fitted(program.recipe, spec, horizon_of(config))
    loop = loop_of(program, worlds.environment, devices)
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seed, config.seed + config.seeds))
    shape = jax.eval_shape(loop.init, keys)
    _require_room(config, loop, shape, 0)
    end = math.ceil(config.steps / config.recipe.num_envs)
    eval_every, save_every = (
        max(1, every // config.recipe.num_envs) for every in (config.eval_every, config.save_every)
    )
    advance = loop.compile(min(LONGEST_CALL, eval_every, save_every, end), shape)
    ends = {"over": stop.cuts_evaluation, "longest": longest}
    play = _play(config, loop, worlds, shape, ends, show_progress)
    give_back()
    memory = resident() + REST + _require_room(config, loop, shape, advance.workspace)
    feed = None if fed is None else Feed(program, fed.pieces, fed.marks, config.seed)
    return Job(config, spec, loop, advance, play, keys, end, eval_every, save_every, memory, feed)


def loop_of(
    program: Program, environment: Environment | HostEnvironment | ActorEnvironment, devices: int
) -> AnyLoop:
    """Return the loop that runs a program in an environment.

    Args:
        devices: over which the seeds are spread, or each batch of a learner with actors.
    """
    if isinstance(environment, ActorEnvironment):
        return ActorLoop(program, environment, devices)
    if isinstance(environment, HostEnvironment):
        return HostLoop(program, environment)
    return Loop(program, environment, devices)


def _play(
    config: TrainConfig,
    loop: AnyLoop,
    worlds: Worlds,
    shape: TrainState,
    ends: dict[str, Any],
    show_progress: EvaluationProgress,
) -> Play:
    """Return what plays the evaluations: the actors where they step the environment, else this process.

    Args:
        ends: `over` and `longest`, as `play_of` takes them.
    """
    if isinstance(loop, ActorLoop) and isinstance(worlds.judge, ActorEnvironment):
        return loop.play(config.eval_episodes, **ends, show_progress=show_progress)
    assert not isinstance(worlds.judge, ActorEnvironment)
    ends |= {"ready": loop.zeros(shape.seeds.learner.online), "show_progress": show_progress}
    return play_of(loop.program.learner, worlds.judge, config.eval_episodes, **ends)


def _require_room(config: TrainConfig, loop: AnyLoop, shape: TrainState, workspace: int) -> int:
    """Return the bytes that training will take, or raise `UsageError` where they are not free."""
    # Each learner has the whole state, and those of a processor take it from the same memory.
    copies = loop.devices if isinstance(loop, ActorLoop) and on_cpu() else 1
    needed, recipe = copies * (nbytes(shape) + workspace), config.recipe
    replay, network = (nbytes(part) for part in (shape.seeds.ring, shape.seeds.learner))
    # What takes most is named: what an update computes with grows with its batch.
    if max(replay, workspace) >= network:
        name = "batch_size" if workspace > replay else "replay_capacity"
        what, fix = setting(name, getattr(recipe, name)), f"lower {setting(name)}"
    else:
        numbers = nbytes(shape.seeds.learner.online) // 4 // config.seeds
        what, fix = (
            f"a network of {numbers:,} weights",
            f"a smaller {setting('torso')}, {setting('hidden')}",
        )
    require_memory(
        needed,
        f"Training {config.seeds} seed(s) with {what}",
        f"expected less: {fix} or {setting('seeds')}",
    )
    # A new one is written before an old one goes; `best` is weights alone.
    copies = 1 if config.resume else config.keep + 1
    require_space(config.run_dir or Path("runs"), copies * nbytes(kept(loop, shape)))
    return needed
