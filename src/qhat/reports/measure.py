"""Measures a run for a report: score, diagnosis, replay, film. Missing parts have a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from qhat.axes.axis import AxisValue
from qhat.axes.sampler import Prioritised
from qhat.environments.base import Environment
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.reference import judge_name
from qhat.environments.wrappers import of_rewards
from qhat.evaluation import diagnosis, plasticity
from qhat.evaluation.diagnosis import Diagnosis
from qhat.evaluation.statistics import Score
from qhat.reports.video import limit_of, play
from qhat.runs import checkpoint
from qhat.runs.run import Run
from qhat.system.errors import QhatError, UsageError, in_shell, require
from qhat.system.files import open_plain, size_of

COPIES, STARTS = 16, 1_000
"""Copies that each seed plays for its diagnosis, and the maximum steps of each whose returns are used."""
FARTHEST = 10_000
"""Longest horizon of a return, in steps: reached when γ is 0.9995 or more."""
SECONDS = 30.0
"""Time limit of a diagnosis, after compilation."""
SEED = 2_000_000
"""First seed of the diagnosis's episodes: distinct from those of training and score."""
LARGEST_FILM = 24 * 2**20
"""Largest film that a page embeds, in bytes."""
LIMITS = ("max_episode_steps", "max_steps_in_episode")
"""Option names for an environment's time limit."""


@dataclasses.dataclass(frozen=True)
class Film:
    """An .mp4 of the policy."""

    name: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measurements. `why` has, by field name, the reason for each field that is `None` or empty."""

    score: Score | None = None
    judge: str = ""
    """Environment in which the score was measured."""
    diagnosis: Diagnosis | None = None
    compared: str = ""
    """Why Q is not compared with returns; empty if it is."""
    effective: tuple[float, ...] = ()
    """Effective share of each seed's prioritised replay; empty without prioritised replay."""
    summary: dict[str, Any] | None = None
    film: Film | None = None
    why: dict[str, str] = dataclasses.field(default_factory=dict)


def measure(
    path: Path,
    episodes: int = 100,
    films: bool = True,
    say: Callable[[str], None] = lambda _: None,
    parts: Sequence[type[AxisValue]] = (),
) -> Measured:
    """Play episodes of a run and read its last checkpoint.

    Args:
        episodes: fresh episodes per seed for the score.
        films: whether to film the policy if the run has no film yet.
        say: called with the current activity.
        parts: classes of the recipe's parts from outside the package.
    """
    why: dict[str, str] = {}

    def tried(name: str, words: str, part: Callable[[], Any]) -> Any:
        say(words)
        try:
            return part()
        except QhatError as error:
            why[name] = in_shell(error)
            return None

    run = tried("score", "opening", lambda: Run.open(path, tuple(parts)))
    if run is None:
        reason = dict.fromkeys(("score", "diagnosis", "film"), why["score"])
        return Measured(film=tried("film", "opening", lambda: newest_film(path)), why={**reason, **why})
    judge = judge_name(run.spec.reference, run.spec.backend, run.spec.id)
    score = tried("score", f"playing {episodes} episodes per seed", lambda: run.evaluate(episodes))
    return Measured(
        score=score,
        judge=judge,
        diagnosis=tried("diagnosis", "comparing Q with returns", lambda: _diagnosed(run)),
        compared=_incomparable(run),
        effective=tried("effective", "reading replay", lambda: _effective(run)) or (),
        summary=tried("summary", "reading the last checkpoint", run.summary),
        film=tried("film", "filming", lambda: _film(run, films, say)),
        why=why,
    )


def newest_film(path: Path) -> Film | None:
    """Return the newest film of a run folder, if it has one."""
    found = [file for file in (path / "videos").glob("*.mp4") if not file.name.startswith(".")]
    if not found:
        return None
    newest = max(found, key=lambda file: file.stat().st_mtime)
    with open_plain(newest) as file:
        size = size_of(file)
        require(
            size <= LARGEST_FILM,
            f"'{newest}' has {size / 2**20:.0f} MB, and a page embeds at most {LARGEST_FILM // 2**20}; open"
            " it separately.",
        )
        return Film(newest.name, file.read(LARGEST_FILM + 1))


def _film(run: Run, films: bool, say: Callable[[str], None]) -> Film | None:
    there = newest_film(run.folder.path)
    if there is not None:
        return there
    require(films, f"The run has no film, and --no-video was given. Make one: qhat play {run.folder.path}")
    play(run, progress=lambda count: say(f"filming: {count:,} frames"))
    return newest_film(run.folder.path)


def _incomparable(run: Run) -> str:
    recipe = run.program.recipe
    if reason := diagnosis.comparable(run.program.learner):
        return reason
    if (reach := diagnosis.horizon(recipe.gamma)) > FARTHEST:
        return f"at γ = {recipe.gamma:g} a return needs {reach:,} steps"
    return ""


def _diagnosed(run: Run) -> Diagnosis:
    run.require_made_by_id("a score in Python, by qhat.evaluate(run, env=...)")
    weights = run.weights("best")
    recipe, limit = run.program.recipe, limit_of(run)
    reach = 0 if _incomparable(run) else diagnosis.horizon(recipe.gamma)
    steps = reach + min(limit or STARTS, STARTS)
    environment = _unlimited(run, jax.tree.leaves(weights)[0].shape[0], steps + 1)
    try:
        environment.spec.require_fits(run.spec)
        record = diagnosis.record(
            run.program.learner, weights, environment, steps, of_rewards(run.wrap), SEED, SECONDS
        )
    finally:
        environment.close()
    found = diagnosis.diagnose(record, recipe.gamma if reach else 1.0, limit)
    if record.sample is None:
        return found
    able = plasticity.measure(run.program.learner, run.weights("last"), record.sample)
    return dataclasses.replace(found, plasticity=able)


def _unlimited(run: Run, seeds: int, steps: int) -> Environment | HostEnvironment:
    """Make copies whose episodes may last `steps`, if the environment has an option for that.

    A time limit is not part of the task that Q is learned for, and would hide the returns.
    """
    numbers, bins = range(SEED, SEED + seeds), run.spec.actions.choices
    for name in LIMITS:
        try:
            options = {**run.env_kwargs, name: steps}
            return make_any(run.spec.id, COPIES, numbers, options=options, wrap=run.wrap, bins=bins)
        except UsageError:
            continue
    return make_any(run.spec.id, COPIES, numbers, options=run.env_kwargs, wrap=run.wrap, bins=bins)


def _effective(run: Run) -> tuple[float, ...]:
    recipe = run.program.recipe
    if not isinstance(recipe.sampler, Prioritised):
        return ()
    size = recipe.replay_capacity // recipe.num_envs * recipe.num_envs
    tree = jax.eval_shape(lambda: recipe.sampler.init(size))[0]
    seeds = len(run.summary()["best_score"])
    like = jax.ShapeDtypeStruct((seeds, *tree.levels[0].shape), tree.levels[0].dtype)
    place = "seeds/sampler/0/0" if recipe.demo_share else "seeds/sampler/0"
    leaves = checkpoint.read_leaf(run.folder.last(), "state", f"{place}/levels/0", like)
    return tuple(diagnosis.effective_share(leaf[:size]) for leaf in leaves)
