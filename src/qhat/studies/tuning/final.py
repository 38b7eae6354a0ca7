"""What a study found, against the defaults, on seeds that no trial had."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import Preset, PresetFile
from qhat.recipes.recipe import Recipe
from qhat.runs.folder import write_text
from qhat.runs.progress import Progress
from qhat.studies.benchmark import running
from qhat.studies.benchmark.results import Summary, ranges, summary
from qhat.studies.benchmark.suites import Task
from qhat.studies.tuning.space import Dimension, applied
from qhat.studies.tuning.study import Study, Trial

DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings that are trained again."""

    name: str
    recipe: Recipe
    params: dict[str, Any]
    """Of its trial; the defaults have none."""
    value: float | None
    """Of its trial."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """A candidate and its score on fresh seeds."""

    candidate: Candidate
    score: Summary


def candidates(
    trials: Sequence[Trial], every: Sequence[Trial], space: Sequence[Dimension], base: TrainConfig
) -> list[Candidate]:
    """Return the defaults and the best trials, numbered as they are in the study from 1."""
    found = [Candidate(DEFAULT, base.recipe, {}, None)]
    for trial in trials:
        recipe = applied(space, base.recipe, trial.params, base.steps)
        found.append(Candidate(f"trial-{every.index(trial) + 1}", recipe, trial.params, trial.value))
    return found


def judge(
    study: Study,
    base: TrainConfig,
    own: Candidate,
    seeds: range,
    episodes: int,
    command: str,
    progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Judged:
    """Train a candidate on fresh seeds, or take the run that is there, and play fresh episodes.

    Raises:
        Interrupted: `should_stop` was true; the run can be gone on with.
    """
    names = ("steps", "eval_every", "eval_episodes", "env_kwargs", "wrap")
    settings = {name: getattr(base, name) for name in names}
    task = Task(base.env, len(seeds), {**settings, "recipe": own.recipe}, first=seeds[0])
    folder = study.path / "final" / own.name
    path = running.run_folder(folder, task, seeds[0], len(seeds))
    running.trained(task.config(len(seeds), seeds[0], path), command, progress, should_stop)
    rows = running.gathered(folder, task, seeds, episodes)
    score = summary(rows)
    assert score is not None
    return Judged(own, score)


def best(judged: Sequence[Judged]) -> Judged:
    """Return the one with the highest IQM; of equals the first, which is the defaults."""
    return max(judged, key=lambda one: one.score.iqm)


def verdict(judged: Sequence[Judged]) -> str:
    """Say in a sentence what was shown."""
    chosen, default = best(judged), judged[0]
    if chosen.candidate.name == DEFAULT:
        return "Nothing that was found is better than the defaults; the preset is the defaults."
    if chosen.score.interval is None or default.score.interval is None:
        return f"{chosen.candidate.name} scored highest, of one seed: that shows nothing about another."
    if chosen.score.interval[0] > default.score.interval[1]:
        return f"{chosen.candidate.name} is better than the defaults: its interval lies above theirs."
    return f"{chosen.candidate.name} scored highest, but its interval and that of the defaults overlap."


def write(
    study: Study, base: TrainConfig, trials: Sequence[Trial], judged: Sequence[Judged], told: dict[str, Any]
) -> PresetFile:
    """Write preset.json and the study's page; return the preset.

    Args:
        told: the command, and seeds of the trials and of the comparison.
    """
    chosen = best(judged)
    found = {
        **told,
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
    write_text(study.page, page(base, trials, judged, told))
    return file


def page(base: TrainConfig, trials: Sequence[Trial], judged: Sequence[Judged], told: dict[str, Any]) -> str:
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
            f"    {told['command']}",
            "",
            f"{len(trials)} trials ({counts}) of {base.steps:,} steps, on seeds"
            f" {ranges(told['tuning_seeds'])}. Below, the best ones and the defaults ({base.recipe_name}),"
            f" trained again on seeds {ranges(told['final_seeds'])}, which no trial had, and judged by"
            " fresh episodes: IQM and 95% interval over the seeds. The preset is the highest of them; being"
            " chosen among these, its own figure is a little optimistic.",
            "",
            "| settings | its trial's value | fresh seeds: IQM [95% interval] | what was changed |",
            "|---|---:|---:|---|",
            *lines,
            "",
            verdict(judged),
            "",
        ]
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower()
