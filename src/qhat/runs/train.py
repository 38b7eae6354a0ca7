"""A training run from its configuration to its folder: train, evaluate itself, save."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes.axis import spell
from qhat.engine.host import HostLoop
from qhat.engine.learner import Metrics
from qhat.engine.loop import Loop
from qhat.engine.state import Log, TrainState
from qhat.environments.host import HostEnvironment
from qhat.environments.user_envs import EnvLike, name_of
from qhat.evaluation.play import Cut, Judge, Telling, cut_of, player_of
from qhat.evaluation.statistics import mean_of_finite
from qhat.recipes.config import TrainConfig
from qhat.runs.card import card
from qhat.runs.failure import attempt, stop
from qhat.runs.faults import Faults, require_finite
from qhat.runs.folder import write_text
from qhat.runs.pieces import Pieces
from qhat.runs.progress import Progress
from qhat.runs.run import Run, program_of
from qhat.runs.saving import require_space, save
from qhat.runs.scale import look_at_rewards
from qhat.runs.start import begin, horizon_of, kept, spec_of_run, step_reached
from qhat.runs.tables import episode_rows, evaluation_rows, has_row, progress_rows, speed
from qhat.runs.tracking import Tracker, Tracking, trackers_of
from qhat.runs.worlds import Worlds, configured, is_python, no_limit, open_worlds
from qhat.system import devices
from qhat.system.errors import QhatError
from qhat.system.host_memory import REST, give_back, nbytes, require_memory, resident

LEARNER_METRICS = tuple(field.name for field in dataclasses.fields(Metrics))
PATIENCE = 1.0
"""Seconds of a call after which slow environments are looked in on."""
LONGEST_CALL = 2_500
"""Iterations in one call: progress is told, and a signal heard, this often; sooner where they are slow."""
GRACE = 4.0
"""Seconds that an evaluation may still take after a signal."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, and stopped after writing a checkpoint."""

    def __init__(self, run: Run):
        super().__init__(f"stopped; '{run.folder.path}' can be resumed")
        self.run = run


def train(
    env: str | EnvLike,
    config: TrainConfig | None = None,
    *,
    judge: Judge | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    trackers: Sequence[Tracker] = (),
    **settings: Any,
) -> Run:
    """Train, and leave a run folder.

    Args:
        env: an id; a Gymnasium environment, or a function that makes one; a vector environment; or an
            `Environment` of one's own, which plays the run's own evaluations too, one episode per copy.
        config: `TrainConfig.of(env, **settings)` unless given.
        judge: what plays the run's own evaluations of a Gymnasium environment, if not more of `env`.
        progress: called a few times a second at most.
        should_stop: asked between compiled calls; when true the run saves and stops.
        trackers: told of the numbers of metrics.csv and eval.csv, beside those that the settings name.
        settings: fields of `TrainConfig` to change, for example `seeds=8` or `recipe="rainbow"`.

    Raises:
        UsageError: a value without meaning; nothing was written.
        StoppedError: the environment failed; the run was saved.
        Interrupted: `should_stop` was true.
    """
    name = env if isinstance(env, str) else name_of(env)
    config = configured(env, name, config, settings)
    paths = {key: Path(told) for key in ("run_dir", "init_from") if (told := getattr(config, key))}
    config = dataclasses.replace(config, **paths).validate()
    tracking = Tracking([*trackers_of(config), *trackers])
    devices.prepare(devices.devices_for(config.seeds), spare=is_python(env, config))
    shards = devices.dividing(config.seeds, len(jax.local_devices()))
    since = step_reached(config) if config.resume else 0
    config = dataclasses.replace(config, recipe=config.recipe.scheduled(horizon_of(config)))
    with (
        open_worlds(env, config, judge, shards, since) as worlds,
        contextlib.ExitStack() as held,
    ):
        session = _Session(config, worlds, shards, held, tracking)
        return session.run(progress, should_stop)


class _Session:
    """One call of `train`: what is fixed, and the run as it goes."""

    def __init__(
        self,
        config: TrainConfig,
        worlds: Worlds,
        devices: int,
        held: contextlib.ExitStack,
        tracking: Tracking,
    ):
        self.started = time.perf_counter()
        self.tracking = tracking
        self.judge, environment = worlds.judge, worlds.environment
        self.spec = spec_of_run(config, worlds.spec)
        self.longest = cut_of(worlds.limit, config.eval_every, config.steps)
        if not worlds.limit:
            warnings.warn(no_limit(worlds, self.longest), stacklevel=3)
        self.program = program_of(config.recipe, self.spec, config.wrap, config.on_nan == "stop")
        self.config = config = config.fitted(self.program.recipe, self.spec, horizon_of(config))
        if isinstance(environment, HostEnvironment):
            self.loop = HostLoop(self.program, environment)
        else:
            self.loop = Loop(self.program, environment, devices)
        keys = jax.vmap(jax.random.key)(jnp.arange(config.seed, config.seed + config.seeds))
        self.should_stop: Callable[[], bool] = lambda: False
        self.tell = Telling(lambda _: None)
        self._prepare(jax.eval_shape(self.loop.init, keys))
        self.folder, self.state, self.best = begin(config, self.loop, self.spec, keys, held)
        give_back()
        self.pieces = Pieces(self.state)
        if config.resume:
            self.pieces.saved(self.folder.last(), self.state)
        self.faults = Faults(self.folder.path, config, self.state.seeds)
        self.faults.require_any()
        held.callback(tracking.finish)
        at = int(self.state.clock.iterations) * config.recipe.num_envs
        tracking.start(config.to_json(), self.folder.path, at)
        self.evaluating = time.perf_counter()
        self.score = self.evaluation = math.nan
        self.broken, self.cut, self.clipped, self.stopped = 0, 0, 0.0, False
        self.failure: Exception | None = None
        self.epsilon = float(config.recipe.explore.epsilon(jnp.int32(0)))

    def _prepare(self, shape: TrainState) -> None:
        """Compile what training and evaluations run, for a state of that shape; see that there is room."""
        config, E = self.config, self.config.recipe.num_envs
        self._require_room(shape, 0)
        self.end = math.ceil(config.steps / E)
        self.marks = [max(1, every // E) for every in (config.eval_every, config.save_every)]
        self.advance = self.loop.compile(min(LONGEST_CALL, *self.marks, self.end), shape)
        weights = self.loop.zeros(shape.seeds.learner.online)
        told = (self.program.learner, self.judge, config.eval_episodes, config.seeds)
        self.play = player_of(
            *told, self._cuts_evaluation, weights, self.longest, lambda *where: self.tell(*where)
        )
        give_back()
        self.memory = resident() + REST + self._require_room(shape, self.advance.workspace)

    def _require_room(self, shape: TrainState, workspace: int) -> int:
        """Return the bytes that training will take, or raise `UsageError` where they are not free."""
        needed = nbytes(shape) + workspace
        require_memory(
            needed,
            f"Training {self.config.seeds} seed(s) with --replay-capacity"
            f" {self.config.recipe.replay_capacity}",
            "expected less: lower --replay-capacity or --seeds",
        )
        state = nbytes(kept(self.loop, shape))
        # A new one is written before an old one goes; `best` is weights alone.
        copies = 1 if self.config.resume else self.config.keep + 1
        require_space(self.config.run_dir or Path("runs"), copies * state)
        return needed

    def run(self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> Run:
        """Train in compiled calls that end at evaluations and checkpoints."""
        config, E, end, marks = self.config, self.config.recipe.num_envs, self.end, self.marks
        self.should_stop, timed = should_stop, False
        at = int(self.state.clock.iterations)
        if at and at % marks[0] == 0 and not has_row(self.folder.evaluations, at * E):
            # A signal cut the evaluation that was due here.
            self._evaluate(at)
        while at < end and not self.stopped and self.failure is None:
            count = min(LONGEST_CALL, end - at, *(mark - at % mark for mark in marks))
            # The first call's time has the compiler's in it.
            began = time.perf_counter() if timed else self.started
            timed = True
            log = self._advance(count, progress)
            count = log.ended.shape[1]
            at += count
            rate = count * E * config.seeds / (time.perf_counter() - began)
            loss = self._write(at, count, log, rate)
            look_at_rewards(config.recipe, self.state, count)
            elapsed = time.perf_counter() - self.started
            self.stopped = self._is_over() or self.faults.halted.all()
            due = at % marks[0] == 0 or at == end
            done = (at * E, time.perf_counter() - self.started, loss, rate)
            self.tell = Telling(lambda words, done=done: progress(self._progress(*done, words)))
            if due:
                self._evaluate(at)
                self.stopped |= self._is_over()
            saves = at % marks[1] == 0 or at == end or self.stopped
            # A first checkpoint comes after a first evaluation: `best` is never the untrained weights.
            if saves and not due and not np.isfinite(self.best["score"]).all():
                self._evaluate(at)
            if saves:
                self._save(at * E)
            progress(self._progress(at * E, elapsed, loss, rate))
        run = Run(self.folder, self.program, self.spec, config.env_kwargs, config.wrap)
        snapshots = self.loop.environment.snapshots
        write_text(self.folder.path / "README.md", card(self.folder.path, run.summary(), config, snapshots))
        if self.failure is not None:
            stop(self.failure, self.folder, config.env, at * E)
        if self.stopped and should_stop():
            raise Interrupted(run)
        if self.faults.halted.all():
            raise QhatError(" ".join(self.faults.sentences))
        return run

    def _is_over(self) -> bool:
        limit = self.config.max_seconds
        if self.failure is not None:
            return True
        return self.should_stop() or (limit is not None and time.perf_counter() - self.started >= limit)

    def _cuts_evaluation(self) -> bool:
        """What begins after the run was to end is its last evaluation: only a signal cuts it short."""
        late = time.perf_counter() > self.evaluating + GRACE
        return self.should_stop() and late if self.stopped else self._is_over()

    def _advance(self, count: int, progress: Callable[[Progress], None]) -> Log:
        """Do `count` iterations, fewer when it is `over`; tell of slow ones in between."""
        logs, done, E = [], 0, self.config.recipe.num_envs
        while True:
            before, began = int(self.state.clock.iterations), time.perf_counter()
            due = began + PATIENCE
            self.state, log, self.failure = attempt(
                self.advance,
                self.state,
                count - done,
                lambda due=due: self._is_over() or time.perf_counter() > due,
            )
            after = int(self.state.clock.iterations)
            logs.append(_done(log, after - before))
            done += after - before
            self.faults.look(self.state.seeds)
            if done >= count or self._is_over() or self.faults.halted.all():
                return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *logs)
            now = time.perf_counter()
            rate = (after - before) * E * self.config.seeds / (now - began)
            progress(self._progress(after * E, now - self.started, math.nan, rate))

    def _write(self, at: int, count: int, log: Log, rate: float) -> float:
        """Add a call's episodes and metrics to metrics.csv; return the mean loss."""
        E = self.config.recipe.num_envs
        self.epsilon = float(self.config.recipe.explore.epsilon(jnp.int32(at * E)))
        rows = episode_rows(log, at - count, E)
        scores = [row["score"] for row in rows]
        means = {name: mean_of_finite(np.asarray(getattr(log.metrics, name))) for name in LEARNER_METRICS}
        self.clipped = float(np.nanmax(means["clipped"], initial=0.0))
        now = {"epsilon": f"{self.epsilon:.4g}", "steps_per_second": speed(rate)}
        rows += progress_rows(
            at * E, means, np.asarray(log.broken), np.asarray(self.state.seeds.guard.skipped), now
        )
        self.folder.append(self.folder.metrics, rows)
        self.tracking.rows(rows)
        self.broken += int(log.broken.sum())
        if scores:
            self.score = float(np.mean(scores[-100:]))
        return float(np.mean(means["loss"]))

    def _evaluate(self, at: int) -> None:
        """Play fresh greedy episodes; keep each seed's best weights."""
        online = self.state.seeds.learner.online
        # Not the training's keys: seeds are numbered from 0, so no seed has this one.
        key = jax.random.fold_in(jax.random.key(2**31 + self.config.seed), at)
        step = at * self.config.recipe.num_envs
        self.evaluating = time.perf_counter()
        try:
            if self.failure is not None:
                raise Cut
            played = self.play(online, key)
        except (Cut, QhatError) as error:
            # An environment that fails here fails the run, which is saved first.
            self.failure = error if isinstance(error, QhatError) else self.failure
            self._choose(~np.isfinite(self.best["score"]), np.full(self.config.seeds, -np.inf), step)
            return
        give_back()
        returns = played.returns
        self.evaluation, self.cut = float(returns.mean()), int(played.cut.sum())
        rows = evaluation_rows(step, played, self.spec.actions.commands is not None)
        self.folder.append(self.folder.evaluations, rows)
        self.tracking.rows(rows, "evaluation")
        # Of equals the latest: it has seen most.
        self._choose(returns.mean(axis=1) >= self.best["score"], returns.mean(axis=1), step)

    def _choose(self, better: np.ndarray, scores: np.ndarray, step: int) -> None:
        """Make the weights of now the best ones of those seeds where they are `better`."""
        self.best["score"] = np.where(better, scores, self.best["score"])
        self.best["step"] = np.where(better, step, self.best["step"])
        self.best["weights"] = jax.tree.map(
            lambda old, new: np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            self.best["weights"],
            jax.tree.map(np.asarray, self.state.seeds.learner.online),
        )

    def _save(self, step: int) -> None:
        """Write the checkpoint of `step`, the best weights, and move `last`."""
        about = {
            "step": step,
            "env": self.config.env,
            "recipe": self.config.recipe.to_json(),
            "best_score": [float(score) if np.isfinite(score) else None for score in self.best["score"]],
            "best_step": [int(at) for at in self.best["step"]],
            "halted": [bool(halted) for halted in self.faults.halted],
        }
        weights = self.state.seeds.learner.online
        require_finite(jax.tree.leaves(self.state.seeds.learner))
        rest, pieces, same = self.pieces.split(kept(self.loop, self.state))
        trees = {"state": rest, "best": self.best, "weights": weights, **pieces}
        save(self.folder, step, trees, self.best["weights"], about, self.config.keep, same)
        self.pieces.saved(self.folder.checkpoints / str(step), self.state)

    def _progress(self, step: int, elapsed: float, loss: float, rate: float, playing: str = "") -> Progress:
        return Progress(
            step=step,
            steps=self.config.steps,
            seconds=elapsed,
            score=self.score,
            evaluation=self.evaluation,
            epsilon=self.epsilon,
            loss=loss,
            clipped=self.clipped,
            broken=self.broken,
            faults=tuple(self.faults.sentences),
            steps_per_second=rate,
            torso=spell(self.config.recipe.torso),
            playing=playing,
            cut=self.cut,
        )


def _done(log: Log, count: int) -> Log:
    """The rows of a call's log that its `count` iterations wrote."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:, :count], log)
