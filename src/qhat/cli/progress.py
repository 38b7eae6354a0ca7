"""What `qhat train` prints during a run and at its end."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qhat.cli.stopping import StopOnSignal
from qhat.cli.warned import Warned
from qhat.environments.catalogue import Entry
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import base_of, label_of_run
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.schedule_text import FIXED, schedules
from qhat.reports.reading import CLIPPED
from qhat.runs.folder import RunFolder

WIDE = 110
"""Terminal width from which the full progress line fits."""


def show_training(config: TrainConfig, entry: Entry, stop: StopOnSignal, started: float) -> dict[str, Any]:
    """Train with a live progress line on stderr; return what `--json` prints."""
    console = Console(stderr=True, highlight=False)
    label = config.recipe_name
    if config.resume:
        assert config.run_dir is not None
        # The label depends on the torso that the observations chose.
        run_config = RunFolder.open(config.run_dir).read_config()
        label = label_of_run({**run_config, "recipe": config.recipe})
    console.print(
        f"[bold]{config.env}[/] ({entry.backend}) · recipe [bold]{label}[/] ·"
        f" {config.seeds} seed{'s' * (config.seeds > 1)} × {config.steps:,} steps"
    )
    if base_of(label) == PRESET:
        console.print(
            "The settings were tuned for this task (docs/presets.md); --recipe qhat uses general ones."
        )
    with console.status("starting JAX and compiling"):
        from qhat.runs import train as experiment

    if config.resume:
        for line in _resuming(config):
            console.print(line, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.percentage:3.0f}%"),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=False,
    )
    interrupted, clipped, broken, cut, reported = False, 0.0, 0, 0, 0
    with bar, warnings.catch_warnings():
        warnings.showwarning = Warned(
            lambda sentence: console.print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True)
        )
        task = bar.add_task("train", total=config.steps, words="compiling (a few seconds, once)")

        def tell(now: experiment.Progress) -> None:
            nonlocal clipped, broken, cut, reported
            if (
                config.recipe.torso.name == "auto"
                and now.torso not in ("mlp", "auto")
                and not bar.tasks[task].completed
            ):
                console.print(f"torso [bold]{now.torso}[/], for images (change it with --torso)")
            clipped, broken, cut = now.clipped, now.broken, now.cut
            for sentence in now.faults[reported:]:
                bar.console.print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True)
            reported = len(now.faults)
            bar.update(task, completed=min(now.step, now.steps), words=_words(now, console.width < WIDE))

        try:
            run = experiment.train(config.env, config, progress=tell, should_stop=stop)
        except experiment.Interrupted as stopped:
            run, interrupted = stopped.run, True
    if clipped > CLIPPED:
        name = config.recipe.head.name
        console.print(
            f"[yellow]warning:[/] {clipped:.1%} of the targets' mass lay outside the support of"
            f" {name} at the end and was moved to its outermost atoms; values there are wrong."
            f" Use a wider support: --head {name}:v_min=LOW,v_max=HIGH."
        )
    if cut:
        console.print(
            f"[yellow]warning:[/] the last evaluation cut {cut:,} of its"
            f" {config.eval_episodes * config.seeds:,} episodes before their end; they count with the"
            " return so far (column cut of eval.csv).",
            soft_wrap=True,
        )
    if broken:
        console.print(
            f"[yellow]warning:[/] {broken:,} episode(s) were discarded, because the environment's numbers"
            " were not finite or its process died; those steps were not learned from (column broken of"
            " metrics.csv)."
        )
    seconds = time.perf_counter() - started
    outcome = {
        "run": str(run.folder.path),
        "env": config.env,
        "recipe": label_of_run(run.folder.read_config()),
        "interrupted": interrupted,
        "seconds": round(seconds, 2),
        **run.summary(),
    }
    _close(console, config, outcome)
    return outcome


def _resuming(config: TrainConfig) -> list[str]:
    """Return lines that say where the run resumes and what its schedules do from there."""
    from qhat.runs.manifest import read_about

    assert config.run_dir is not None
    step = read_about(RunFolder.open(config.run_dir).last())["step"]
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
        return "–" if math.isnan(value) else f"{value:.1f}"

    if now.playing:
        return f"step {now.step:,} · evaluating: {now.playing}"
    if narrow:
        return f"step {now.step:,} · greedy {number(now.evaluation)} · {now.steps_per_second:,.0f} steps/s"
    return (
        f"step {now.step:,}/{now.steps:,} · score {number(now.score)} · greedy"
        f" {number(now.evaluation)} · ε {now.epsilon:.2f} · {now.steps_per_second:,.0f} steps/s"
    )


def _close(console: Console, config: TrainConfig, outcome: dict[str, Any]) -> None:
    """Print the results and the next commands to type."""
    folder = outcome["run"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    best = outcome["best_score"]
    shown = f"{sum(best) / len(best):.1f}" if best and None not in best else "–"
    table.add_row("best greedy score", f"{shown} (chosen by the run itself, so optimistic)")
    table.add_row("steps", f"{outcome['step']:,} of {config.steps:,} per seed")
    table.add_row("wall time", f"{outcome['seconds']:.1f} s, including start-up and compilation")
    table.add_row("saved in", folder)
    console.print(table)
    console.print("\nnext:")
    if outcome["interrupted"] or outcome["step"] < config.steps:
        console.print(f"  qhat train --resume --run-dir {folder}   # resume")
    console.print(f"  qhat evaluate {folder}   # an unbiased score, in fresh episodes", soft_wrap=True)
    console.print(f"  qhat plot {folder}       # the learning curve", soft_wrap=True)
    console.print(f"  qhat report {folder}     # an HTML report", soft_wrap=True)
    if config.env == "TurtleBot3-v0":
        console.print(f"  qhat export {folder} --ros2 --web   # a ROS 2 package and a page to try it in")
    else:
        console.print(f"  qhat export {folder}     # the policy for a robot, without JAX", soft_wrap=True)
    console.print(f"  qhat play {folder}       # a film of the policy", soft_wrap=True)
