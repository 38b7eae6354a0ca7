"""The runs of a suite: trains or resumes them, scores each once, and reads them from their folders."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.recipes.parts import kinds_of
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.manifest import read_about
from qhat.runs.progress import Progress
from qhat.runs.run import Run, program_of
from qhat.runs.spread.groups import read_division
from qhat.runs.train import Interrupted, train
from qhat.studies.benchmark.results import WHICH, Row
from qhat.studies.benchmark.tasks import Task
from qhat.system.errors import require, setting
from qhat.system.files import read_json, write_text
from qhat.system.machine import machine
from qhat.system.machine import versions as versions_of

NOTES = "benchmark.json"
"""File in a run folder: the training time and the scores."""
FOLDER = re.compile(r"seeds-(\d{1,10})-(\d{1,10})")
"""Folder name of a task's run: the first and the last seed."""
SAME = ("env", "env_kwargs", "wrap", "steps", "seeds", "seed", "eval_every", "eval_episodes")
"""Settings, besides the recipe, in which two equal runs agree."""


def run_folder(base: Path, task: Task, seed: int, seeds: int) -> Path:
    """Return the folder of a task's run with these seeds."""
    return base / task.env.replace(":", "-").replace("/", "-") / f"seeds-{seed}-{seed + seeds - 1}"


def is_same(config: TrainConfig, folder: RunFolder) -> str | None:
    """Return the name of a setting in which the run differs, or `None`. Raises what `Run.open` raises."""
    written, wanted = folder.read_config(), config.to_json()
    for name in SAME:
        if written.get(name) != wanted[name]:
            return name
    run = Run.open(folder.path, kinds_of(config.recipe))
    # The written recipe is fitted to the environment: torso, bins.
    recipe = config.recipe.scheduled(config.steps)
    fitted = program_of(recipe, run.spec, config.wrap).recipe.to_json()
    return next((key for key in fitted if written["recipe"].get(key) != fitted[key]), None)


def is_finished(folder: RunFolder, steps: int) -> bool:
    """Whether a run has a checkpoint at its last step."""
    return (folder.path / "last").exists() and read_about(folder.last())["step"] >= steps


def trained(
    config: TrainConfig,
    command: str,
    progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Return a finished run in `config.run_dir`; an existing run is reused or resumed.

    Raises:
        UsageError: the folder holds a run with other settings.
        Interrupted: `should_stop` was true; the run can be resumed.
    """
    path = config.run_dir
    assert path is not None
    resume = False
    if (path / "config.json").exists():
        folder = RunFolder.open(path)
        other = is_same(config, folder)
        require(
            other is None,
            f"'{path}' holds a run with another {other}; expected the task's own settings. Remove the"
            f" folder, or name another {setting('run_dir')}.",
        )
        if is_finished(folder, config.steps):
            return Run.open(path, kinds_of(config.recipe))
        resume = (path / "last").exists() or (config.cluster is not None and bool(read_division(path)))
        if not resume:
            # Killed before its first checkpoint, so it cannot be resumed.
            with sole(path):
                pass
            shutil.rmtree(path)
    notes = read_notes(path)
    # A killed session records no time, so the total is then unknown.
    known = notes.get("seconds", None if resume else 0.0)
    if resume:
        write_notes(path, {**notes, "seconds": None})
    began = time.perf_counter()

    def close() -> None:
        spent = None if known is None else known + time.perf_counter() - began
        write_notes(path, {**notes, "seconds": spent, "command": command})

    config = dataclasses.replace(config, resume=resume)
    try:
        run = train(config.env, config, progress=progress, should_stop=should_stop)
    except Interrupted:
        close()
        raise
    close()
    return run


def judged(
    run: Run, task: Task, episodes: int, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Score every seed's best and last weights in fresh episodes, unless already done; return the notes."""
    notes, summary = read_notes(run.folder.path), run.summary()
    step = summary["step"]
    if is_judged(notes, step, episodes):
        return notes
    scores = {"step": step, "episodes": episodes, "date": datetime.date.today().isoformat()}
    for which in WHICH:
        if which == "last" and all(best == step for best in summary["best_step"]):
            # The same weights, and the same episodes.
            scores[which] = scores["best"]
            continue
        tell(f"{task.env}: {which} plays {episodes} fresh episodes per seed")
        score = run.evaluate(episodes, which)
        scores[which] = {"per_seed": score.per_seed, "success_per_seed": score.success_per_seed}
    notes = {**notes, "scores": scores, "machine": machine(), **versions()}
    write_notes(run.folder.path, notes)
    return notes


def is_judged(notes: Mapping[str, Any], step: int, episodes: int) -> bool:
    """Whether the notes have the scores of the weights at that step."""
    scores = notes.get("scores", {})
    return scores.get("step") == step and scores.get("episodes") == episodes


def gathered(
    base: Path,
    task: Task,
    seeds: range,
    episodes: int,
    tell: Callable[[str], None] = lambda _: None,
    judging: bool = True,
) -> list[Row]:
    """Return the rows of a task's finished runs whose seeds are in `seeds`.

    Args:
        judging: whether to score runs that have no scores yet; otherwise they are left out.
    """
    rows: dict[int, list[Row]] = {}
    for path in sorted(run_folder(base, task, 0, 1).parent.glob("seeds-*")):
        named = FOLDER.fullmatch(path.name)
        if named is None or not (path / "config.json").exists():
            continue
        first, last = int(named[1]), int(named[2])
        if first not in seeds or last not in seeds or last < first:
            continue
        folder = RunFolder.open(path)
        config = task.config(last - first + 1, first)
        if (other := is_same(config, folder)) is not None:
            tell(f"left out: '{path}', a run with another {other}")
            continue
        if not is_finished(folder, config.steps):
            tell(f"left out: '{path}', which is not finished")
            continue
        run = Run.open(path, kinds_of(config.recipe))
        if not judging and not is_judged(read_notes(path), run.summary()["step"], episodes):
            tell(f"left out: '{path}', which has no scores yet")
            continue
        for row in _rows(task, config, judged(run, task, episodes, tell)):
            # The same seed in two runs has the same result: the seed determines all randomness.
            rows.setdefault(row.seed, []).append(row)
    return [row for seed in sorted(rows) for row in rows[seed][: len(WHICH)]]


def _rows(task: Task, config: TrainConfig, notes: Mapping[str, Any]) -> list[Row]:
    rows, scores = [], notes["scores"]
    require(
        all(len(scores[which]["per_seed"]) == config.seeds for which in WHICH),
        f"'{NOTES}' of {task.env}, seeds from {config.seed} on, does not have a score for each seed; remove"
        " it.",
    )
    for at in range(config.seeds):
        for which in WHICH:
            success = scores[which]["success_per_seed"]
            rows.append(
                Row(
                    task=task.env,
                    seed=config.seed + at,
                    which=which,
                    mean_return=round(scores[which]["per_seed"][at], 4),
                    success_rate=None if success is None else round(success[at], 4),
                    episodes=scores["episodes"],
                    steps=scores["step"],
                    seconds=None if notes.get("seconds") is None else round(notes["seconds"], 1),
                    run_seeds=config.seeds,
                    date=scores["date"],
                    command=notes.get("command", ""),
                    **{name: notes[name] for name in ("qhat", "jax", "python", "machine")},
                )
            )
    return rows


def read_notes(folder: Path) -> dict[str, Any]:
    """Return a run's notes; empty if there are none. Raises `UsageError` if they are damaged."""
    path = folder / NOTES
    try:
        notes = read_json(path)
    except FileNotFoundError:
        return {}
    require(_sound(notes), f"'{path}' is damaged; remove it, and the run is scored again.")
    return notes


def _sound(notes: Any) -> bool:
    """Whether notes have the fields that are read, with their types."""
    if not isinstance(notes, dict) or not isinstance(notes.get("command", ""), str):
        return False
    if not (notes.get("seconds") is None or _is_number(notes["seconds"])):
        return False
    scores = notes.get("scores")
    if scores is None:
        return True
    return (
        isinstance(scores, dict)
        and all(_are_scores(scores.get(which)) for which in WHICH)
        and all(type(scores.get(name)) is int for name in ("step", "episodes"))
        and isinstance(scores.get("date"), str)
        and all(isinstance(notes.get(name), str) for name in ("qhat", "jax", "python", "machine"))
    )


def _are_scores(scores: Any) -> bool:
    if not isinstance(scores, dict) or not isinstance(scores.get("per_seed"), list):
        return False
    success = scores.get("success_per_seed")
    lists = [scores["per_seed"]] + ([] if success is None else [success])
    same = isinstance(lists[-1], list) and len(lists[-1]) == len(lists[0]) > 0
    return same and all(_is_number(value) for numbers in lists for value in numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_notes(folder: Path, notes: Mapping[str, Any]) -> None:
    """Write a run's notes."""
    write_text(folder / NOTES, json.dumps(notes, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Return the versions that matter most for a result."""
    return {**versions_of(("qhat", "jax")), "python": platform.python_version()}
