"""A run's card: the README.md in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qhat.environments.catalogue import is_from_python
from qhat.evaluation.statistics.text import score_text
from qhat.recipes.config import TrainConfig
from qhat.recipes.parts import flags, names_of
from qhat.recipes.schedule_text import FIXED, schedules
from qhat.runs.floor import fall
from qhat.system import devices

NEW_EPISODES = (
    "Resuming begins new episodes, because the state of this environment cannot be saved. The seed and the"
    " step determine these episodes, so resuming again gives the same result."
)


def card(
    folder: Path, summary: Mapping[str, Any], config: TrainConfig, snapshots: bool, of_agent: bool = False
) -> str:
    """Return a text: what was trained, how well, where its schedules are, and the next command to type.

    Args:
        snapshots: whether a checkpoint also has the environments.
        of_agent: whether an `Agent` learned it, in a loop that is not the run's.
    """
    rows = [
        f"| {config.seed + index} | {'not evaluated' if score is None else score_text(score)} | {step:,} |"
        for index, (score, step) in enumerate(zip(summary["best_score"], summary["best_step"], strict=True))
    ]
    halted = [str(config.seed + index) for index, one in enumerate(summary["halted"]) if one]
    names = names_of(config.recipe)
    parts = "".join(f" {word}" for word in flags(names))
    kinds = "".join(f"{name.rpartition(':')[2]}, " for name in names.values())
    further = further_flag(summary["stopped_by"])
    # A run that ended before its last step goes on to it; one that is whole needs more.
    more = 2 * config.steps if summary["step"] >= config.steps else None
    commands = [
        f"qhat evaluate {folder}{parts}",
        f"qhat plot {folder}",
        f"qhat report {folder}{parts}",
        f"qhat train {config.env} --resume --run-dir {folder}"
        + ("" if more is None else f" --steps {more}")
        + further
        + parts,
    ]
    if is_from_python(config.env):
        # There is no id from which to make the environment again.
        commands = [
            f"python: qhat.evaluate('{folder}', env=...{f', parts=({kinds[:-1]})' if names else ''})",
            f"python: qhat.train(env, {'' if more is None else f'steps={more}, '}run_dir='{folder}',"
            " resume=True)",
            *commands[1:3],
        ]
    if of_agent:
        last = 1 if is_from_python(config.env) else -1
        commands[last] = f"python: qhat.Agent.load('{folder}')"
    stopped = f"Halted at a number that was not finite (faults/ has the steps before): {', '.join(halted)}."
    return "\n".join(
        [
            f"# {config.env}, recipe {config.recipe_name}",
            "",
            f"{config.seeds} seed{'s' if config.seeds > 1 else ''}, {summary['step']:,} of {config.steps:,}"
            f" {config.recipe.training.unit} each.{'' if of_agent else _threads()}",
            "",
            *([ended, ""] if (ended := ending(folder, summary, config)) else []),
            "| seed | best greedy score in the run's evaluations | at step |",
            "|---|---|---|",
            *rows,
            "",
            *([stopped, ""] if halted else []),
            "These scores chose the checkpoint, so they are optimistic. For an unbiased score:",
            "",
            *(f"    {command}" for command in commands),
            "",
            f"{FIXED} At step {summary['step']:,}:",
            "",
            *(f"- {line}" for line in schedules(config.recipe, summary["step"], config.steps)),
            "",
            *([] if snapshots else [NEW_EPISODES, ""]),
        ]
    )


def _threads() -> str:
    return f" JAX computed with {devices.named()}."


def further_flag(stopped_by: str | None) -> str:
    """Return what lets a run that its score ended train further, for the command line."""
    flags = {"stop_at": " --stop-at none", "stop_below": " --stop-below none"}
    return flags.get(stopped_by or "", "")


def ending(folder: Path, summary: Mapping[str, Any], config: TrainConfig) -> str:
    """Say what ended a run before its last step; '' if a setting or a callback did not."""
    if summary["stopped_by"] == "stop_below":
        return f"The run ended at step {summary['step']:,}: {fall(folder, summary['step'])}"
    reasons = {
        "stop_at": f"its evaluation reached stop_at ({config.stop_at or 0:g})",
        "callback": "the callback stopped it",
        "max_seconds": f"its time was up (max_seconds {config.max_seconds or 0:g})",
    }
    reason = reasons.get(summary["stopped_by"])
    return f"The run ended at step {summary['step']:,}: {reason}." if reason else ""
