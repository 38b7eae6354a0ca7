"""The page of a suite: our scores with intervals, published results, and where qhat is behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from qhat.recipes.presets import CONTROL_SEEDS as FRESH
from qhat.recipes.presets import TUNING_SEEDS
from qhat.studies.benchmark import normalised
from qhat.studies.benchmark.results import WHICH, Row, Summary, summary
from qhat.studies.benchmark.tasks import SOURCES, Published, Suite, Task
from qhat.system.errors import ranges

REPORTING = range(1_000)
"""Seeds for reported scores."""
CHECKING = range(1_020, 2_000)
"""Seeds for runs that are compared with a pinned table."""
NOWHERE = "Behind in none of the tasks that were run."


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One published score compared with ours."""

    theirs: Published
    verdict: str


def page(suite: Suite, rows: Mapping[str, Sequence[Row]]) -> str:
    """Return a suite's page.

    Args:
        rows: by task; a task without rows has not been run yet.
    """
    return "\n".join(
        [
            f"# {suite.title}",
            "",
            "Written by `qhat benchmark`; do not edit.",
            suite.about,
            "",
            *_facts(suite, rows),
            "",
            "| task | steps | seeds | best: IQM [95% interval] | mean | lowest, highest seed |"
            " last: IQM [95% interval] | mean | seconds |",
            "|---|---:|---|---:|---:|---:|---:|---:|---:|",
            *(_line(task, rows.get(task.env, ())) for task in suite.tasks),
            "",
            *normalised.section(suite, rows),
            *_beside(suite, rows),
        ]
    )


def _facts(suite: Suite, rows: Mapping[str, Sequence[Row]]) -> list[str]:
    every = [row for of_task in rows.values() for row in of_task]
    lines = [
        "Every policy plays fresh greedy episodes of the reference environment"
        f"{_of([str(row.episodes) for row in every], ' ({} per seed)')}. `best` is the checkpoint that the"
        " seed's own evaluations chose, `last` the one at the end; the interval is the stratified"
        " bootstrap's over seeds. Seconds are of the training alone, all seeds of a run together; where a"
        " task's seeds were trained in several runs, of each run.",
        "",
        f"Seeds up to {REPORTING[-1]} report. No setting was chosen by those shown: presets were chosen on"
        f" seeds from {TUNING_SEEDS} on, and a task whose low seeds were looked at meanwhile begins at"
        f" {FRESH}.",
        "",
    ]
    missing = [task.env for task in suite.tasks if not rows.get(task.env)]
    if missing:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    for name, values in {
        "date": [row.date for row in every],
        "machine": [row.machine for row in every],
        "versions": [f"qhat {row.qhat}, JAX {row.jax}, Python {row.python}" for row in every],
    }.items():
        lines += [f"- {name}: {'; '.join(sorted(set(values)))}"] if values else []
    commands = sorted({row.command for row in every if row.command})
    return [*lines, "", *(f"    {command}" for command in commands or [f"qhat benchmark {suite.name}"])]


def _of(values: Sequence[str], form: str) -> str:
    return form.format(", ".join(sorted(set(values)))) if values else ""


def _line(task: Task, rows: Sequence[Row]) -> str:
    if not rows:
        return f"| {_name(task)} | {task.config(1, 0).steps:,} | | not run yet | | | | | |"
    cells = []
    for which in WHICH:
        ours = summary(rows, which, task.measure)
        assert ours is not None
        cells += [_score(task, ours), _number(task, ours.mean)]
        if which == "best":
            cells.append(f"{_number(task, min(ours.per_seed))}, {_number(task, max(ours.per_seed))}")
    runs = sorted({(row.seed, row.seconds, row.run_seeds) for row in rows if row.seconds is not None})
    seconds = sorted({f"{spent:.0f}" for _, spent, _ in runs}, key=float)
    steps = "; ".join(f"{count:,}" for count in sorted({row.steps for row in rows}))
    seeds = ranges(sorted({row.seed for row in rows}))
    return f"| {_name(task)} | {steps} | {seeds} | {' | '.join(cells)} | {', '.join(seconds)} |"


def _name(task: Task) -> str:
    options = task.settings.get("env_kwargs", {})
    return ", ".join([task.env, *(f"{key}={value}" for key, value in options.items())])


def _number(task: Task, value: float) -> str:
    return f"{value:.1%}" if task.measure == "success" else f"{value:,.1f}"


def _score(task: Task, ours: Summary) -> str:
    if ours.interval is None:
        return f"{_number(task, ours.iqm)} (one seed: no interval)"
    low, high = (_number(task, end) for end in ours.interval)
    return f"{_number(task, ours.iqm)} [{low}, {high}]"


def compared(task: Task, ours: Summary, steps: int) -> list[Comparison]:
    """Compare our interval with every published score of a task."""
    return [Comparison(theirs, _verdict(theirs, ours, steps)) for theirs in task.published]


def _verdict(theirs: Published, ours: Summary, steps: int) -> str:
    if ours.interval is None:
        way = "higher" if ours.iqm > theirs.score else "lower" if ours.iqm < theirs.score else "equal"
        standing = f"{way}, by one seed"
    elif ours.interval[0] > theirs.score:
        standing = "ahead"
    elif ours.interval[1] < theirs.score:
        standing = "**behind**"
    else:
        standing = "within our interval"
    if theirs.steps is None or theirs.steps == steps:
        return standing
    return f"{standing}, with {_times(steps / theirs.steps)} its steps"


def _times(ratio: float) -> str:
    return f"{ratio:.0%} of" if ratio < 1 else f"{ratio:.3g} times"


def _beside(suite: Suite, rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the published scores, and where qhat is behind."""
    if not any(task.published for task in suite.tasks):
        return []
    # Games are compared by the last weights, as the papers' are.
    which = "last" if any(task.players for task in suite.tasks) else "best"
    lines, lost, sources = [], [], []
    for task in suite.tasks:
        done = rows.get(task.env, ())
        found = summary(done, which, task.measure)
        ours = "not run yet" if found is None else _score(task, found)
        verdicts = (
            ["" for _ in task.published]
            if found is None
            else [each.verdict for each in compared(task, found, done[0].steps)]
        )
        for theirs, verdict in zip(task.published, verdicts, strict=True):
            steps = "" if theirs.steps is None else f"{theirs.steps:,}"
            published = f"{theirs.score:,g}{f' ({theirs.about})' if theirs.about else ''}"
            lines.append(f"| {task.env} | {theirs.system} | {steps} | {published} | {ours} | {verdict} |")
            if theirs.source not in sources:
                sources.append(theirs.source)
            if "behind" in verdict or "lower" in verdict:
                at = f" at {steps} steps" if steps else ""
                lost.append(f"- {task.env}: {theirs.system} has {theirs.score:,g}{at}, qhat {ours}")
    return [
        "## Beside what others published",
        "",
        "qhat is ahead or behind where a figure lies outside our interval; of one seed, without one, it is"
        " only higher or lower. Theirs are means where nothing else is said; several are of a single run.",
        "",
        f"| task | system | steps | published | qhat, {which} | qhat is |",
        "|---|---|---:|---|---:|---|",
        *lines,
        "",
        *(["Where qhat is behind or lower:", "", *lost] if lost else [NOWHERE]),
        "",
        "Sources:",
        "",
        *(f"- {name}: {SOURCES[name]}" for name in sources),
        "",
    ]
