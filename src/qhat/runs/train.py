"""A training run: a loop of compiled calls, and the parts that evaluate, save, log and show progress."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

import jax
import numpy as np

from qhat.axes.axis import spell
from qhat.demonstrations.reading import Demonstrations
from qhat.engine.bridge import FailedError
from qhat.engine.state import TrainState
from qhat.environments.user_envs import EnvLike, source_of
from qhat.evaluation.play import EvaluationProgress, Judge
from qhat.recipes.checks import require_recorded
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import RunSettings
from qhat.runs.callback import Callback, Evaluation, answer, require_callback
from qhat.runs.card import card
from qhat.runs.checkpoints import Checkpoints
from qhat.runs.curves import has_reached
from qhat.runs.evaluations import Evaluations
from qhat.runs.faults import Faults, look_at_rewards
from qhat.runs.fed import fed_by, windowed
from qhat.runs.floor import floored, warn_of_bold_steps
from qhat.runs.goal_rewards import require_rule
from qhat.runs.job import Job, prepare
from qhat.runs.notebook import notebook_progress
from qhat.runs.progress import Progress, Reporter
from qhat.runs.run import Run
from qhat.runs.spread.groups import leave_groups
from qhat.runs.start import (
    begin,
    horizon_of,
    kept,
    logged_rows_of,
    recorded,
    require_whole,
    sized,
    spec_of_run,
    step_reached,
    with_log,
)  # fmt: skip
from qhat.runs.stop import Stop
from qhat.runs.tables import Call, Tables, epsilon_at, has_row
from qhat.runs.threads import threads_for
from qhat.runs.tracking import Tracker, Tracking, trackers_of
from qhat.runs.worlds import configured, open_worlds
from qhat.system import devices
from qhat.system.errors import QhatError, UsageError, warn
from qhat.system.files import write_text
from qhat.system.host_memory import give_back

PATIENCE = 1.0
"""Seconds of a call after which it is interrupted to show progress."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, and stopped after writing a checkpoint."""

    def __init__(self, run: Run):
        super().__init__(f"stopped; '{run.folder.path}' can be resumed")
        self.run = run


def train(
    env: str | EnvLike,
    recipe: str | Recipe | TrainConfig | None = None,
    *,
    config: TrainConfig | None = None,
    judge: Judge | None = None,
    progress: Callable[[Progress], None] | None = None,
    callback: Callback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    trackers: Sequence[Tracker] = (),
    **settings: Unpack[RunSettings],
) -> Run:
    """Train, and write a run folder: `qhat.train("CartPole-v1", "rainbow", gamma=0.98, seeds=8)`.

    Args:
        env: an id; a Gymnasium environment, or a function that makes one; a vector environment; or an
            `Environment` that you wrote, which also plays the run's evaluations, one episode per copy.
        recipe: algorithm: a name (`qhat.recipes`), a `Recipe`, or a whole `TrainConfig`. Default: the
            environment's preset, or `qhat`.
        config: settings to start from. Default: `TrainConfig.of(env, recipe)`.
        judge: plays the run's evaluations of a Gymnasium environment; default: more copies of `env`.
        progress: called at most a few times a second. Default: a bar in a notebook, nothing elsewhere.
        callback: called with a `qhat.Evaluation` after each of the run's evaluations; when it returns True,
            the run saves and ends, and `train` returns it. If it raises an exception, the run is saved
            first.
        should_stop: called many times a second, as for a signal; when it returns true, the run saves and
            `Interrupted` is raised.
        trackers: get the numbers of metrics.csv and eval.csv, like those that the settings name.
        settings: fields of `TrainConfig` or of its `Recipe`, for example `seeds=8`, `gamma=0.98` or
            `policy="double"`.

    Raises:
        UsageError: a value has no meaning; nothing was written.
        StoppedError: the environment failed; the run was saved.
        Interrupted: `should_stop` returned true.
        Exception: the callback's own, with a note that says how to resume.
    """
    require_callback(callback, progress, should_stop)
    stop = Stop(should_stop)
    known = source_of(env)
    config = configured(env, known.name, recipe, config, settings)
    paths = {name: Path(given) for name in ("run_dir", "init_from") if (given := getattr(config, name))}
    config = dataclasses.replace(config, **paths).validate()
    require_recorded(config)
    tracking = Tracking([*trackers_of(config), *trackers])
    source = source_of(env, config.env_kwargs) if known.by_id else known
    show = progress or notebook_progress() or (lambda _: None)
    if config.cluster is not None and config.actors is None:
        from qhat.runs.spread.driver import spread

        return spread(env, source, config, judge, show, callback, stop, tracking)
    if config.resume and config.run_dir is not None:
        leave_groups(Path(config.run_dir))
    devices.require_threads(config.threads)
    count = devices.devices_for(config.learners or config.seeds, config.threads)
    threads = config.threads or threads_for(config.recipe, source.has_pictures())
    devices.prepare(count, source.in_python(), threads, config.device)
    shards = devices.dividing(config.seeds, len(jax.local_devices()))
    if config.actors:
        shards = devices.learners_for(config.recipe.batch_size, config.learners)
    since = step_reached(config) if config.resume else 0
    config = with_log(config) if config.resume else config
    config = dataclasses.replace(config, recipe=config.recipe.scheduled(horizon_of(config)))
    stop.max_seconds = config.max_seconds
    reporter = Reporter(show, _nothing_yet(config))
    with open_worlds(source, config, judge, shards, since) as worlds, contextlib.ExitStack() as closing:
        show_progress = EvaluationProgress(reporter.playing)
        spec = spec_of_run(config, worlds.spec)
        config = windowed(config, spec)
        fed, demonstrations = fed_by(config, spec, reporter.reading)
        if fed is None and not config.resume:
            demonstrations = recorded(config, spec)
            config = sized(config, demonstrations, spec.stack)
        require_whole(config, demonstrations)
        config = floored(config, demonstrations)
        warn_of_bold_steps(config)
        logged = logged_rows_of(config, demonstrations, spec.stack)
        job = prepare(config, spec, worlds, shards, stop, show_progress, logged, fed)
        return _train(job, demonstrations, tracking, stop, callback, show_progress, reporter, closing)


def _train(
    job: Job,
    demonstrations: list[Demonstrations],
    tracking: Tracking,
    stop: Stop,
    callback: Callback | None,
    show_progress: EvaluationProgress,
    reporter: Reporter,
    closing: contextlib.ExitStack,
) -> Run:
    """Train in compiled calls that end where an evaluation or a checkpoint is due."""
    config, E = job.config, job.num_envs
    folder, state, best = begin(config, job.loop, job.spec, job.keys, closing, demonstrations, job.feed)
    give_back()
    checkpoints = Checkpoints(
        folder, state, {"env": config.env, "recipe": config.recipe.to_json()}, config.keep
    )
    if config.resume:
        checkpoints.resumed(state)
    faults = Faults(folder.path, config, state.seeds)
    faults.require_any()
    closing.callback(tracking.finish)
    at = int(state.clock.iterations)
    tracking.start(config.to_json(), folder.path, at * E)
    tables = Tables(folder, tracking, config.recipe, job.loop.environment.logs)
    # Differs from every training key: seeds are numbered from 0, so no seed has this number.
    key = jax.random.key(2**31 + config.seed)
    commanded = job.spec.actions.commands is not None
    evaluations = Evaluations(folder, job.play, key, best, tracking, stop, commanded)
    run = Run(folder, job.program, job.spec, config.env_kwargs, config.wrap)
    floor = None if config.stop_below is None else float(config.stop_below)
    epsilon = epsilon_at(config.recipe, 0)
    reporter.update(torso=spell(config.recipe.torso), epsilon=epsilon)

    def save() -> None:
        halted, rest = faults.halted, kept(job.loop, state)
        checkpoints.save(at * E, state, rest, evaluations.best, halted, stop.by)

    def evaluate() -> None:
        reporter.update(**evaluations.play(at, at * E, state))
        if evaluations.latest is not None:
            fresh = Evaluation(at * E, evaluations.latest, run, save)
            answer(fresh, stop, config.stop_at, callback, floor)
        stop.is_set |= stop.is_over()

    if at and at % job.eval_every == 0:
        # A signal cut the evaluation that was due here, or its score ended the run.
        if not has_row(folder.evaluations, at * E):
            evaluate()
            if stop.is_set:
                save()
        else:
            stop.is_set = has_reached(folder.path, run.summary(), config.stop_at, floor)
    # The time of the first call includes compilation.
    began = stop.started
    while at < job.end and not stop.is_set and stop.failure is None:
        state, call = _advance(job, state, at, began, stop, faults, reporter)
        at = call.last
        written = tables.write(call, state, job.loop.environment.records(at * E))
        reporter.update(**written, faults=tuple(faults.sentences), seconds=stop.elapsed)
        look_at_rewards(config.recipe, state, call.count)
        stop.is_set = stop.is_over() or bool(faults.halted.all())
        show_progress.begin()
        if job.evaluates(at):
            evaluate()
            for note in job.loop.environment.log_notes():
                warn(note, stacklevel=3)
        if job.saves(at) or stop.is_set:
            # The first checkpoint follows an evaluation, so that `best` never has untrained weights.
            if not job.evaluates(at) and not evaluations.every_seed_has_one:
                evaluate()
            save()
        reporter.show()
        began = time.perf_counter()
    return _finished(job, run, at, stop, faults)


def _advance(
    job: Job, state: TrainState, first: int, began: float, stop: Stop, faults: Faults, reporter: Reporter
) -> tuple[TrainState, Call]:
    """Do the iterations until something is due, fewer if the run is over; show slow progress."""
    count, done, shown, logs = job.next_call(first), 0, 0, []
    since = time.perf_counter()
    while True:
        due = since + PATIENCE
        try:
            turn = job.next_turn(first + done, count - done)
            state, log = job.advance(
                state, turn, lambda due=due: stop.is_over() or time.perf_counter() > due
            )
        except FailedError as failed:
            (state, log), stop.failure = failed.reached, failed.cause
        turns = int(state.clock.iterations) - first - done
        # The log has rows for the longest call; those beyond the iterations done are empty.
        logs.append(jax.tree.map(lambda leaf, turns=turns: np.asarray(leaf)[:, :turns], log))
        done += turns
        if job.feed is not None and turns and stop.failure is None:
            try:
                state = job.feed.feed(state, first + done)
            except UsageError as error:
                # The data changed, or are gone: what was learned is saved.
                stop.failure = error
        faults.look(state.seeds)
        require_rule(job.config, state.seeds.ring)
        now = time.perf_counter()
        if done >= count or stop.is_over() or faults.halted.all():
            log = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *logs)
            return state, Call(first, done, log, now - began)
        if now < due:
            continue  # Replay has other rows.
        reporter.show(
            step=(first + done) * job.num_envs,
            seconds=stop.elapsed,
            loss=math.nan,
            steps_per_second=(done - shown) * job.num_envs * job.config.seeds / (now - since),
            faults=tuple(faults.sentences),
        )
        since, shown = now, done


def _finished(job: Job, run: Run, at: int, stop: Stop, faults: Faults) -> Run:
    """Write the run's card; return the run, or raise the error that stopped it."""
    folder, snapshots = run.folder, job.loop.environment.snapshots
    write_text(folder.path / "README.md", card(folder.path, run.summary(), job.config, snapshots))
    stop.raise_failure(folder, job.config.env, at * job.num_envs)
    if stop.is_set and stop.should_stop():
        raise Interrupted(run)
    if faults.halted.all():
        raise QhatError(" ".join(faults.sentences))
    return run


def _nothing_yet(config: TrainConfig) -> Progress:
    return Progress(
        step=0,
        steps=config.steps,
        seconds=0.0,
        score=math.nan,
        evaluation=math.nan,
        epsilon=math.nan,
        loss=math.nan,
        clipped=0.0,
        broken=0,
        faults=(),
        steps_per_second=math.nan,
        torso="",
    )
