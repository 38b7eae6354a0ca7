"""What `qhat train` prints during a run and at its end."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qhat.cli.warned import Warned
from qhat.environments.catalogue import Entry
from qhat.evaluation.statistics.text import score_text
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import base_of, label_of_run
from qhat.recipes.parts import flags, names_of
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.schedule_text import FIXED, schedules
from qhat.reports.reading import CLIPPED
from qhat.runs.card import ending, further_flag
from qhat.runs.folder import RunFolder
from qhat.runs.progress import GroupProgress
from qhat.runs.spread.groups import read_division
from qhat.system.errors import in_shell

if TYPE_CHECKING:
    from qhat.runs.run import Run

COMPILING = "compiling (a few seconds, once)"
WIDE = 110
"""Terminal width from which the full progress line fits."""


class Bars(Progress):
    """The progress line, and below it a line for each group of seeds on a cluster."""

    groups: Sequence[GroupProgress] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn."""
        yield self.make_tasks_table(self.tasks)
        if self.groups:
            yield groups_table(self.groups)


def groups_table(groups: Sequence[GroupProgress]) -> Table:
    """Return a line for each group: its seeds, its node, its step and its scores."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("seeds", "node"):
        table.add_column(name)
    for name in ("step", "score", "greedy"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in groups:
        scores = score_text(each.score), score_text(each.evaluation)
        table.add_row(each.seeds.split(" ", 1)[1], each.node, f"{each.step:,}", *scores, each.state)
    return table


class TrainingScreen:
    """A live progress line on stderr while a run trains, and its results at the end."""

    def __init__(self, config: TrainConfig, entry: Entry, started: float):
        self._config, self._started = config, started
        self._console = Console(stderr=True, highlight=False)
        self._bar = Bars(
            TextColumn("{task.percentage:3.0f}%"),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=False,
        )
        self._now: Any = None
        self._reported = 0
        self._introduce(entry)

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show the progress line, and warnings above it."""
        if self._config.resume:
            for line in _resuming(self._config):
                self._console.print(line, soft_wrap=True)
        with self._bar, warnings.catch_warnings():
            warnings.showwarning = Warned(self._warn)
            actors = self._config.actors
            words = f"starting {actors:,} actors, and compiling" if actors else COMPILING
            self._task = self._bar.add_task("train", total=self._config.steps, words=words)
            yield

    def starting(self) -> contextlib.AbstractContextManager[Any]:
        """Show that slow modules are imported."""
        return self._console.status("starting JAX and compiling")

    def update(self, now: Any) -> None:
        """Take in a `Progress`."""
        is_first = self._now is None
        chosen = self._config.recipe.torso.name == "auto" and now.torso not in ("mlp", "auto", "")
        if is_first and chosen:
            self._console.print(f"torso [bold]{now.torso}[/], for images (change it with --torso)")
        for sentence in now.faults[self._reported :]:
            self._warn(in_shell(sentence))
        self._now, self._reported = now, len(now.faults)
        words = _words(now, self._console.width < WIDE)
        self._bar.groups = now.groups
        self._bar.update(self._task, completed=min(now.step, now.steps), words=words)

    def close(self, run: Run, interrupted: bool) -> dict[str, Any]:
        """Print the results and the next commands; return what `--json` prints."""
        if self._now is not None:
            self._sum_up()
        outcome = {
            "run": str(run.folder.path),
            "env": self._config.env,
            "recipe": label_of_run(run.folder.read_config()),
            "interrupted": interrupted,
            "seconds": round(time.perf_counter() - self._started, 2),
            **run.summary(),
        }
        _close(self._console, self._config, outcome)
        return outcome

    def _introduce(self, entry: Entry) -> None:
        config, label = self._config, self._config.recipe_name
        if config.resume:
            assert config.run_dir is not None
            # The label depends on the torso that the observations chose.
            run_config = RunFolder.open(config.run_dir).read_config()
            label = label_of_run({**run_config, "recipe": config.recipe})
        self._console.print(
            f"[bold]{config.env}[/] ({entry.backend}) · recipe [bold]{label}[/] ·"
            f" {config.seeds} seed{'s' * (config.seeds > 1)} × {config.steps:,} steps"
        )
        if base_of(label) == PRESET:
            self._console.print(
                "The settings were tuned for this task (docs/presets.md); --recipe qhat uses general ones."
            )

    def _warn(self, sentence: str) -> None:
        self._console.print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True)

    def _sum_up(self) -> None:
        """Warn of what went wrong by the last numbers."""
        now, config = self._now, self._config
        name = config.recipe.head.name
        if now.clipped > CLIPPED:
            self._warn(
                f"{now.clipped:.1%} of the targets' mass lay outside the support of {name} at the end and"
                " was moved to its outermost atoms; values there are wrong. Use a wider support:"
                f" --head {name}:v_min=LOW,v_max=HIGH."
            )
        if now.cut:
            self._warn(
                f"the last evaluation cut {now.cut:,} of its {config.eval_episodes * config.seeds:,}"
                " episodes before their end; they count with the return so far (column cut of eval.csv)."
            )
        if now.broken:
            self._warn(
                f"{now.broken:,} episode(s) were discarded, because the environment's numbers were not"
                " finite, its process died, or an evaluation played in its simulation; those steps were not"
                " learned from (column broken of metrics.csv)."
            )


def _resuming(config: TrainConfig) -> list[str]:
    """Return lines that say where the run resumes and what its schedules do from there."""
    from qhat.runs.curves import has_reached
    from qhat.runs.manifest import read_about

    assert config.run_dir is not None
    if config.cluster is not None and read_division(config.run_dir):
        return ["resuming each group of seeds from its newest checkpoint"]
    about = read_about(RunFolder.open(config.run_dir).last())
    step = about["step"]
    floor = config.stop_below if isinstance(config.stop_below, int | float) else None
    if has_reached(config.run_dir, about, config.stop_at, floor):
        return [
            f"{ending(config.run_dir, about, config)} To train further: qhat train --resume --run-dir"
            f" {config.run_dir}{further_flag(about['stopped_by'])}"
        ]
    if step >= config.steps:
        return [
            f"already finished, at step {step:,} of {config.steps:,}. To train further: qhat train --resume"
            f" --run-dir {config.run_dir} --steps {2 * config.steps}"
        ]
    lines = schedules(config.recipe, step, config.steps)
    return [f"resuming at step {step:,}. {FIXED}", *(f"  {line}" for line in lines)]


def _words(now: Any, narrow: bool) -> str:
    """Return the progress line; a shorter one in 80 columns, so that the bar and the time left fit."""

    def number(value: float) -> str:
        return score_text(value)

    if now.playing:
        return f"step {now.step:,} · {now.playing}"
    if narrow:
        return f"step {now.step:,} · greedy {number(now.evaluation)} · {now.steps_per_second:,.0f} steps/s"
    greedy, speed = f"greedy {number(now.evaluation)}", f"{now.steps_per_second:,.0f} steps/s"
    if math.isnan(now.epsilon):
        # Nothing acts.
        return f"step {now.step:,}/{now.steps:,} · {greedy} · {speed}"
    return (
        f"step {now.step:,}/{now.steps:,} · score {number(now.score)} · {greedy} · ε {now.epsilon:.2f}"
        f" · {speed}"
    )


def _close(console: Console, config: TrainConfig, outcome: dict[str, Any]) -> None:
    """Print the results and the next commands to type."""
    folder = outcome["run"]
    parts = "".join(f" {word}" for word in flags(names_of(config.recipe)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    best = outcome["best_score"]
    shown = score_text(sum(best) / len(best)) if best and None not in best else "–"
    table.add_row("best greedy score", f"{shown} (chosen by the run itself, so optimistic)")
    table.add_row("steps", f"{outcome['step']:,} of {config.steps:,} per seed")
    table.add_row("wall time", f"{outcome['seconds']:.1f} s, including start-up and compilation")
    table.add_row("saved in", folder)
    if sentence := ending(Path(folder), outcome, config):
        console.print(sentence, soft_wrap=True)
    console.print(table)
    console.print("\nnext:")
    if outcome["interrupted"] or outcome["step"] < config.steps:
        further = further_flag(outcome["stopped_by"])
        console.print(
            f"  qhat train --resume --run-dir {folder}{further}{parts}   # resume", soft_wrap=True
        )
    console.print(
        f"  qhat evaluate {folder}{parts}   # an unbiased score, in fresh episodes", soft_wrap=True
    )
    console.print(f"  qhat plot {folder}       # the learning curve", soft_wrap=True)
    console.print(f"  qhat report {folder}{parts}     # an HTML report", soft_wrap=True)
    if config.env == "TurtleBot3-v0":
        console.print(
            f"  qhat export {folder} --ros2 --web{parts}   # a ROS 2 package and a page to try it in"
        )
    else:
        console.print(
            f"  qhat export {folder}{parts}     # the policy for a robot, without JAX", soft_wrap=True
        )
    console.print(f"  qhat play {folder}{parts}       # a film of the policy", soft_wrap=True)
