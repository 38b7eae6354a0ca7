"""Films the episodes of a policy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from qhat.environments.catalogue import find, is_from_python, marked
from qhat.environments.info import require_names
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.scene import Scene, gymnasium_scene, jax_scene, scene_of
from qhat.environments.user_envs import source_of
from qhat.evaluation.play import play_of
from qhat.reports.encoder import require_encoder
from qhat.runs.run import Run, opened
from qhat.system.errors import UsageError, require

LONG = 500
"""Longest episode, in steps, of which every step is drawn; of longer ones every second step is."""


@dataclasses.dataclass(frozen=True)
class Video:
    """A video file, and the episodes in it."""

    path: Path
    returns: list[float]
    """Undiscounted return of every episode."""
    lengths: list[int]
    """Number of steps of every episode."""
    seed_index: int
    """Index of the seed that played."""
    logged: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    """Mean of every logged value of `info` over the steps of each episode that have it; none: no step."""


def play(
    run: Run | Path | str,
    video: Path | str | None = None,
    *,
    episodes: int = 1,
    checkpoint: str = "best",
    seed_index: int | None = None,
    seed: int = 1_000_000,
    env: Callable[[], gymnasium.Env] | JaxEnvironment | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    every: int | None = None,
    fps: float | None = None,
    log: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Video:
    """Play a run's greedy policy and film it.

    Args:
        run: a run, or its folder.
        video: file to write, `.mp4`; default: `videos/<checkpoint>.mp4` in the run folder.
        checkpoint: weights: `best`, `last`, or a checkpoint's step.
        seed_index: index of the seed that plays; default: the best seed.
        seed: random seed of the first episode.
        env: makes an environment with `render_mode="rgb_array"`, or a `JaxEnvironment` that has `draw`, in
            place of the run's.
        env_kwargs: options of the environment's constructor. Default: the run's.
        every: steps per picture; default: 1, or 2 if an episode may have more than 500 steps.
        fps: pictures per second; default: the environment's speed.
        log: names of values of the environment's `info`, such as `info.distance`, whose means are returned;
            default: those that the training logged.
        progress: called with the number of pictures drawn.

    Raises:
        UsageError: there is no such seed, the file is no .mp4, or the environment draws no pictures.
    """
    run = opened(run)
    require(episodes >= 1, f"episodes is {episodes}; expected 1 or more.")
    require(every is None or every >= 1, f"every is {every}; expected 1 or more steps.")
    require(fps is None or fps > 0, f"fps is {fps}; expected more than 0.")
    path = run.folder.path / "videos" / f"{checkpoint}.mp4" if video is None else Path(video)
    require(path.suffix == ".mp4", f"The video is '{path}'; expected a file that ends in .mp4.")
    av, at = require_encoder(), run.seed_index(seed_index)
    weights = jax.tree.map(lambda leaf: leaf[at : at + 1], run.weights(checkpoint))
    names = tuple(run.folder.read_config().get("log", ()) if log is None else log)
    require_names(names)
    scene = _scene(run, env, run.env_kwargs if env_kwargs is None else env_kwargs, seed, names)
    every = every or (1 if limit_of(run) <= LONG else 2)
    try:
        film = _Film(av, path, scene, every, fps or scene.fps, len(names), progress)
        try:
            played = [film.episode(run, weights) for _ in range(episodes)]
            film.publish()
        except BaseException:
            film.discard()
            raise
    finally:
        scene.environment.close()
    returns, lengths, means = zip(*played, strict=True)
    logged = {name: [_number(mean[i]) for mean in means] for i, name in enumerate(names)}
    return Video(path, list(returns), list(lengths), at, logged)


class _Film:
    """Writes pictures to a file, which gets its name when it is complete."""

    def __init__(
        self,
        av: Any,
        path: Path,
        scene: Scene,
        every: int,
        fps: float,
        logged: int,
        progress: Callable[[int], None],
    ):
        self._sums, self._counts = np.zeros(logged), np.zeros(logged)
        self._av, self._scene, self._every, self._progress = av, scene, every, progress
        self._path, self._new = path, path.with_name(f".{path.stem}.new.mp4")
        self._rate, self._stream = Fraction(fps).limit_denominator(1000), None
        self._steps = self._pictures = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: Any = av.open(str(self._new), "w")
        except OSError as error:
            raise UsageError(f"Video '{path}' cannot be written: {error.strerror}.") from None

    def episode(self, run: Run, weights: Any) -> tuple[float, int, np.ndarray]:
        """Play and film an episode; return its return, its length and the means of what is logged."""
        self._steps = 0
        self._sums[:], self._counts[:] = 0, 0
        play = play_of(run.program.learner, self._scene.environment, watch=self._watch)
        played = play(weights, jax.random.key(0))
        means = np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.nan)
        return float(played.returns[0, 0]), int(played.lengths[0, 0]), means

    def _watch(self, step: Any) -> None:
        if step is not None and step.info is not None:
            values = np.asarray(step.info, float)[0, 0]
            self._sums += np.where(np.isfinite(values), values, 0.0)
            self._counts += np.isfinite(values)
        # After an episode's end, the environment already shows the start of the next one.
        if step is not None and step.closed.all():
            return
        if self._steps % self._every == 0:
            self._add(self._scene.picture())
        self._steps += 1

    def _add(self, picture: np.ndarray) -> None:
        if self._stream is None:
            self._stream = self._file.add_stream("libx264", rate=self._rate)
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._file.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(picture, format="rgb24")))
        self._pictures += 1
        self._progress(self._pictures)

    def publish(self) -> None:
        """Finish the file and give it its name."""
        assert self._stream is not None
        self._file.mux(self._stream.encode(None))
        self._file.close()
        os.replace(self._new, self._path)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self._new.unlink(missing_ok=True)


def _scene(
    run: Run,
    env: Callable[[], gymnasium.Env] | JaxEnvironment | None,
    options: Mapping[str, Any],
    seed: int,
    log: Sequence[str],
) -> Scene:
    bins = run.spec.actions.choices
    if isinstance(env, JaxEnvironment):
        batch = JaxBatch(env, 1, id=marked(type(env).__name__), bins=bins, log=log)
        scene = jax_scene(batch, run.wrap, seed)
    elif env is not None:
        scene = gymnasium_scene(env, source_of(env).name, bins, seed, log)
    else:
        run.require_made_by_id(
            "it again, as qhat.play(run, env=make), with a function that makes a Gymnasium environment of"
            " render_mode='rgb_array'"
        )
        scene = scene_of(run.spec, options, run.wrap, bins, seed, log)
    spec = scene.environment.spec
    try:
        spec.require_fits(run.spec)
    except UsageError:
        scene.environment.close()
        raise
    return scene


def _number(mean: float) -> float | None:
    return None if np.isnan(mean) else float(mean)


def limit_of(run: Run) -> int:
    """Return the steps after which an episode is truncated; 0 if unknown."""
    if run.spec.limit or is_from_python(run.spec.id):
        return run.spec.limit
    limit = run.env_kwargs.get("max_episode_steps", run.env_kwargs.get("max_steps_in_episode"))
    if isinstance(limit, int):
        return limit
    known = gymnasium.registry.get(run.spec.reference) if run.spec.reference else None
    return (known.max_episode_steps if known else None) or find(run.spec.id, run.env_kwargs).limit
