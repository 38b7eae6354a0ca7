"""Which runs are seeds of one thing, in which environment, and how far they can be compared."""

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
    """Runs of one recipe and the same settings, by their label."""
    steps: int
    """Environment steps per seed that every run has been evaluated at, or beyond: the common part."""

    @property
    def entrants(self) -> list[Entrant]:
        return [entrant for group in self.groups.values() for entrant in group]

    @property
    def reach(self) -> int:
        """Last step of the common part. A run ends in the iteration that reaches its last step, which is
        some copies beyond it."""
        return self.steps + max(entrant.num_envs for entrant in self.entrants) - 1

    @property
    def scale(self) -> tuple[float, float] | None:
        """Chance and solved, where they are known."""
        return SCALES.get(self.entrants[0].reference)


def group(entrants: Sequence[Entrant]) -> tuple[list[Task], list[str]]:
    """Return the environments with their groups, in the order of the runs, and what there is to say."""
    tasks, notes = [], []
    for env in dict.fromkeys(entrant.env for entrant in entrants):
        own = [entrant for entrant in entrants if entrant.env == env]
        groups = {}
        for label, runs in _labelled(own).items():
            groups[label], doubles = _distinct(runs)
            notes += doubles
        ends = {run.path: run.end for runs in groups.values() for run in runs}
        task = Task(env, groups, min(ends.values()))
        _require_common(task)
        longer = [str(path) for path, end in ends.items() if end > task.reach]
        if longer:
            notes.append(
                f"{env}: the runs end at different steps, {task.steps:,} to {max(ends.values()):,}; they"
                f" are compared up to step {task.steps:,}, and what {_listed(longer)} did later is left"
                " out."
            )
        tasks.append(task)
    if len(tasks) > 1:
        notes.insert(0, f"The runs are of {len(tasks)} environments: each is a comparison of its own.")
    return tasks, notes


def _require_common(task: Task) -> None:
    """Raise `UsageError` where one run ends before another's first evaluation."""
    shortest = min(task.entrants, key=lambda run: run.end)
    for run in task.entrants:
        first = int(run.evaluations.step[0])
        require(
            first <= task.reach,
            f"{task.env}: '{shortest.path}' ends at step {shortest.end:,} and '{run.path}' was first"
            f" evaluated at step {first:,}; expected runs with a common part. Leave one of them out.",
        )


def _labelled(runs: Sequence[Entrant]) -> dict[str, list[Entrant]]:
    """Return the runs by recipe and settings; one recipe of two starts has its folders too."""
    by_settings: dict[tuple[str, str], list[Entrant]] = {}
    for run in runs:
        by_settings.setdefault((run.recipe, run.settings), []).append(run)
    names = [recipe for recipe, _ in by_settings]
    labels: list[str] = []
    # Folders of the same name get their parents' too.
    for depth in range(1, 100):
        labels = [
            recipe
            if names.count(recipe) == 1
            else f"{recipe} ({'/'.join(own[0].path.resolve().parts[-depth:])})"
            for (recipe, _), own in by_settings.items()
        ]
        if len(set(labels)) == len(labels):
            break
    return dict(zip(labels, by_settings.values(), strict=True))


def _distinct(runs: Iterable[Entrant]) -> tuple[tuple[Entrant, ...], list[str]]:
    """Leave out seeds that were trained before: they are no evidence of their own."""
    kept, notes, seen = [], [], set()
    for run in runs:
        rows = tuple(row for row in run.rows if run.first_seed + row not in seen)
        if len(rows) < len(run.rows):
            doubles = [run.first_seed + row for row in run.rows if row not in rows]
            notes.append(
                f"'{run.path}' has seeds of another run of the same settings, {ranges(doubles)}: one seed"
                " is one result, and counts once."
            )
        seen |= {run.first_seed + row for row in rows}
        if rows:
            kept.append(dataclasses.replace(run, rows=rows))
    return tuple(kept), notes


def seeds_told(tasks: Iterable[Task]) -> list[str]:
    """Say which seeds the runs have, and whether their settings were chosen by some of them."""
    runs = [run for task in tasks for run in task.entrants]
    told = f"Seeds {ranges(seed for run in runs for seed in run.seeds)}."
    warnings = []
    for run in runs:
        base = base_of(run.recipe)
        used = chosen_on(base, run.reference)
        if overlap := [seed for seed in run.seeds if any(seed in own for own in used)]:
            warnings.append(
                f"Warning: '{run.path}' has seeds {ranges(overlap)}, by which the settings of {base}"
                " were chosen: its score flatters it. Report other seeds, such as --seed 100."
            )
        elif base != run.recipe and (tuned := [seed for seed in run.seeds if seed >= TUNING_SEEDS]):
            warnings.append(
                f"Warning: '{run.path}' has seeds {ranges(tuned)}, on which `qhat tune` chooses settings:"
                f" if it chose those of {run.recipe}, the score flatters them. Report other seeds, such as"
                " --seed 100."
            )
    if warnings:
        return [told, *warnings]
    return [
        f"{told} Tuning has others: presets' settings are chosen on seeds from {TUNING_SEEDS:,} on, and no"
        " recipe here is known to be chosen by its seeds."
    ]


def _listed(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
