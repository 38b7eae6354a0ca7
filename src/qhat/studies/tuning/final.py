"""Compares the best settings of a study with the defaults, on seeds that no trial used."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import Preset, PresetFile
from qhat.recipes.recipe import Recipe
from qhat.runs.progress import Progress
from qhat.studies.benchmark import running
from qhat.studies.benchmark.results import Summary, ranges, summary
from qhat.studies.benchmark.suites import Task
from qhat.studies.tuning.space import Dimension, applied
from qhat.studies.tuning.study import Study, Trial
from qhat.system.files import write_text

DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings to train again."""

    name: str
    recipe: Recipe
    params: dict[str, Any]
    """Settings of its trial; empty for the defaults."""
    value: float | None
    """Value of its trial; None for the defaults."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """A candidate and its score on fresh seeds."""

    candidate: Candidate
    score: Summary


def candidates(
    trials: Sequence[Trial], every: Sequence[Trial], space: Sequence[Dimension], base: TrainConfig
) -> list[Candidate]:
    """Return the defaults and the best trials, numbered from 1 as in the study."""
    found = [Candidate(DEFAULT, base.recipe, {}, None)]
    for trial in trials:
        recipe = applied(space, base.recipe, trial.params, base.steps)
        found.append(Candidate(f"trial-{every.index(trial) + 1}", recipe, trial.params, trial.value))
    return found


def judge(
    study: Study,
    base: TrainConfig,
    candidate: Candidate,
    seeds: range,
    episodes: int,
    command: str,
    progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Judged:
    """Train a candidate on fresh seeds, or reuse its run, and score it in fresh episodes.

    Raises:
        Interrupted: `should_stop` was true; the run can be resumed.
    """
    names = ("steps", "eval_every", "eval_episodes", "env_kwargs", "wrap")
    settings = {name: getattr(base, name) for name in names}
    task = Task(base.env, len(seeds), {**settings, "recipe": candidate.recipe}, first=seeds[0])
    folder = study.path / "final" / candidate.name
    path = running.run_folder(folder, task, seeds[0], len(seeds))
    config = dataclasses.replace(task.config(len(seeds), seeds[0], path), cluster=base.cluster)
    running.trained(config, command, progress, should_stop)
    rows = running.gathered(folder, task, seeds, episodes)
    score = summary(rows)
    assert score is not None
    return Judged(candidate, score)


def best(judged: Sequence[Judged]) -> Judged:
    """Return the candidate with the highest IQM; of equals the first, which is the defaults."""
    return max(judged, key=lambda one: one.score.iqm)


def verdict(judged: Sequence[Judged]) -> str:
    """Return the conclusion as a sentence."""
    chosen, default = best(judged), judged[0]
    if chosen.candidate.name == DEFAULT:
        return "No trial is better than the defaults; the preset contains the defaults."
    if chosen.score.interval is None or default.score.interval is None:
        return f"{chosen.candidate.name} scored highest, but with only one seed that proves nothing."
    if chosen.score.interval[0] > default.score.interval[1]:
        return f"{chosen.candidate.name} is better than the defaults: its interval lies above theirs."
    return f"{chosen.candidate.name} scored highest, but its interval and that of the defaults overlap."


def write(
    study: Study,
    base: TrainConfig,
    trials: Sequence[Trial],
    judged: Sequence[Judged],
    about: dict[str, Any],
) -> PresetFile:
    """Write preset.json and the study's page; return the preset.

    Args:
        about: the command, and the seeds of the trials and of the comparison.
    """
    chosen = best(judged)
    found = {
        **about,
        "date": datetime.date.today().isoformat(),
        "trials": len(trials),
        "chosen": chosen.candidate.name,
        "params": chosen.candidate.params,
        "verdict": verdict(judged),
        "scores": {one.candidate.name: one.score.to_json() for one in judged},
    }
    preset = Preset(chosen.candidate.recipe, base.steps, base.eval_every, base.eval_episodes)
    file = PresetFile(base.env, preset, base.env_kwargs, base.wrap, found)
    write_text(study.preset, file.text())
    write_text(study.page, page(base, trials, judged, about))
    return file


def page(
    base: TrainConfig, trials: Sequence[Trial], judged: Sequence[Judged], about: dict[str, Any]
) -> str:
    """Return the study's page."""
    lines = []
    for one in judged:
        low, high = one.score.interval or (float("nan"), float("nan"))
        interval = f" [{low:.1f}, {high:.1f}]" if one.score.interval else " (one seed: no interval)"
        value = "" if one.candidate.value is None else f"{one.candidate.value:.1f}"
        params = ", ".join(f"{name} {_short(value)}" for name, value in one.candidate.params.items())
        lines.append(f"| {one.candidate.name} | {value} | {one.score.iqm:.1f}{interval} | {params} |")
    states = [trial.state for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return "\n".join(
        [
            f"# {base.env}: a search for settings",
            "",
            f"    {about['command']}",
            "",
            f"{len(trials)} trials ({counts}) of {base.steps:,} steps, on seeds"
            f" {ranges(about['tuning_seeds'])}. Below, the best trials and the defaults"
            f" ({base.recipe_name}), trained again on seeds {ranges(about['final_seeds'])}, which no trial"
            " used, and scored in fresh episodes: IQM and 95% interval over seeds. The preset is the"
            " highest of them; because it was selected here, its score is slightly optimistic.",
            "",
            "| settings | value of the trial | fresh seeds: IQM [95% interval] | changed settings |",
            "|---|---:|---:|---|",
            *lines,
            "",
            verdict(judged),
            "",
        ]
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower()
