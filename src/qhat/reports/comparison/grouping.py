"""Groups runs by environment, recipe and settings, and finds the steps at which they can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from qhat.environments.scales import SCALES
from qhat.recipes.labels import base_of
from qhat.recipes.presets import TUNING_SEEDS, chosen_on
from qhat.reports.comparison.reading import Entrant
from qhat.system.errors import ranges, require


@dataclasses.dataclass(frozen=True)
class Task:
    """One environment and the runs in it."""

    env: str
    groups: Mapping[str, tuple[Entrant, ...]]
    """Runs with one recipe and the same settings, by label."""
    steps: int
    """Environment steps per seed up to which every run was evaluated: the common part."""

    @property
    def entrants(self) -> list[Entrant]:
        return [entrant for group in self.groups.values() for entrant in group]

    @property
    def reach(self) -> int:
        """Last step of the common part. A run ends with the iteration that reaches its last step, so up to
        `num_envs - 1` steps later."""
        return self.steps + max(entrant.num_envs for entrant in self.entrants) - 1

    @property
    def scale(self) -> tuple[float, float] | None:
        """Scores of a random policy and of a solved task, if known."""
        return SCALES.get(self.entrants[0].reference)


def group(entrants: Sequence[Entrant]) -> tuple[list[Task], list[str]]:
    """Return the environments with their groups, in the order of the runs, and notes."""
    tasks, notes = [], []
    for env in dict.fromkeys(entrant.env for entrant in entrants):
        same_env = [entrant for entrant in entrants if entrant.env == env]
        groups = {}
        for label, runs in _labelled(same_env).items():
            groups[label], doubles = _distinct(runs)
            notes += doubles
        ends = {run.path: run.end for runs in groups.values() for run in runs}
        task = Task(env, groups, min(ends.values()))
        _require_common(task)
        longer = [str(path) for path, end in ends.items() if end > task.reach]
        if longer:
            notes.append(
                f"{env}: the runs end at different steps, {task.steps:,} to {max(ends.values()):,}; they"
                f" are compared up to step {task.steps:,}, and later evaluations of {_listed(longer)} are"
                " ignored."
            )
        tasks.append(task)
    if len(tasks) > 1:
        notes.insert(0, f"The runs are of {len(tasks)} environments; each is compared separately.")
    return tasks, notes


def _require_common(task: Task) -> None:
    """Raise `UsageError` if one run ends before another's first evaluation."""
    shortest = min(task.entrants, key=lambda run: run.end)
    for run in task.entrants:
        first = int(run.evaluations.step[0])
        require(
            first <= task.reach,
            f"{task.env}: '{shortest.path}' ends at step {shortest.end:,} and '{run.path}' was first"
            f" evaluated at step {first:,}; expected runs with a common part. Leave one of them out.",
        )


def _labelled(runs: Sequence[Entrant]) -> dict[str, list[Entrant]]:
    """Return the runs by label; groups with the same recipe have their folders in the label."""
    by_settings: dict[tuple[str, str], list[Entrant]] = {}
    for run in runs:
        by_settings.setdefault((run.recipe, run.settings), []).append(run)
    names = [recipe for recipe, _ in by_settings]
    labels: list[str] = []
    # Add parent folders until the labels differ.
    for depth in range(1, 100):
        labels = [
            recipe
            if names.count(recipe) == 1
            else f"{recipe} ({'/'.join(group[0].path.resolve().parts[-depth:])})"
            for (recipe, _), group in by_settings.items()
        ]
        if len(set(labels)) == len(labels):
            break
    return dict(zip(labels, by_settings.values(), strict=True))


def _distinct(runs: Iterable[Entrant]) -> tuple[tuple[Entrant, ...], list[str]]:
    """Leave out seeds that another run of the group has: they are not independent evidence."""
    kept, notes, known = [], [], set()
    for run in runs:
        rows = tuple(row for row in run.rows if run.first_seed + row not in known)
        if len(rows) < len(run.rows):
            doubles = [run.first_seed + row for row in run.rows if row not in rows]
            notes.append(
                f"'{run.path}' repeats seeds {ranges(doubles)} of another run with the same settings; each"
                " seed counts only once."
            )
        known |= {run.first_seed + row for row in rows}
        if rows:
            kept.append(dataclasses.replace(run, rows=rows))
    return tuple(kept), notes


def describe_seeds(tasks: Iterable[Task]) -> list[str]:
    """Return sentences about the seeds, and warnings if some were used to choose the settings."""
    runs = [run for task in tasks for run in task.entrants]
    sentence = f"Seeds {ranges(seed for run in runs for seed in run.seeds)}."
    warnings = []
    for run in runs:
        base = base_of(run.recipe)
        used = chosen_on(base, run.reference)
        if overlap := [seed for seed in run.seeds if any(seed in tuning for tuning in used)]:
            warnings.append(
                f"Warning: '{run.path}' has seeds {ranges(overlap)}, which were used to choose the settings"
                f" of {base}, so its score is optimistic. Report other seeds, such as --seed 100."
            )
        elif base != run.recipe and (tuned := [seed for seed in run.seeds if seed >= TUNING_SEEDS]):
            warnings.append(
                f"Warning: '{run.path}' has seeds {ranges(tuned)}, which `qhat tune` uses to choose"
                f" settings; if it chose those of {run.recipe}, the score is optimistic. Report other"
                " seeds, such as --seed 100."
            )
    if warnings:
        return [sentence, *warnings]
    return [
        f"{sentence} Tuning uses other seeds (from {TUNING_SEEDS:,} on); none of these seeds is known to"
        " have been used to choose settings."
    ]


def _listed(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
