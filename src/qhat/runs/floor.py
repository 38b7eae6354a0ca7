"""Stops a run whose policy becomes worse than those who recorded the data: `stop_below`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from qhat.axes.axis import spell
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.optimiser import rate_at
from qhat.demonstrations.reading import Demonstrations
from qhat.evaluation.statistics.bootstrap import bootstrap_ci
from qhat.recipes.checks import AUTO
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import spans_of
from qhat.recipes.recipe import Recipe
from qhat.runs.curves import read_evaluations
from qhat.runs.folder import RunFolder
from qhat.runs.manifest import read_about
from qhat.system.errors import QhatError, require, setting, spelled, warn

RECORDED = "recorded_return"
"""Name of the interval of the demonstrations' returns in config.json, of a run with a floor."""
CAUTIOUS = EpsilonGreedy(start=0.05, end=0.02)
"""Exploration on top of a policy that works."""
BOLD = 0.1
"""ε from which on exploration is not what a policy that works is to begin with."""


def interval_of(demonstrations: Sequence[Demonstrations]) -> dict[str, Any] | None:
    """Return the mean return of the whole episodes and its 95% interval; `None` for fewer than two."""
    returns = np.concatenate([each.returns() for each in demonstrations])
    if len(returns) < 2:
        return None
    low, high = (float(end) for end in bootstrap_ci([returns[:, None]], np.mean))
    return {"episodes": len(returns), "mean": float(returns.mean()), "low": low, "high": high}


def floored(config: TrainConfig, demonstrations: Sequence[Demonstrations]) -> TrainConfig:
    """Return the configuration with a number for `stop_below`, where it says that the data have it.

    Raises:
        UsageError: the data have fewer than two whole episodes.
    """
    if config.stop_below != AUTO:
        return config
    found = interval_of(demonstrations)
    require(
        found is not None,
        f"{setting('stop_below', AUTO)} takes the interval of the episodes' returns, and the demonstrations"
        " have fewer than two whole episodes, whose end is marked; expected more, or a number, as"
        f" {setting('stop_below', 100.0)}.",
    )
    assert found is not None
    return dataclasses.replace(config, stop_below=found["low"])


def fall(folder: Path, step: int) -> str:
    """Say which seed's score ended a run at `step`, and what to do now."""
    known = RunFolder.open(folder).read_config()
    floor, began = float(known["stop_below"]), known.get("init_from")
    evaluations = read_evaluations(folder)
    scores = evaluations.score[:, evaluations.step == step][:, 0]
    seed, lowest = int(known["seed"]) + int(np.argmin(scores)), float(scores.min())
    found = known.get(RECORDED)
    what = f"stop_below, {floor:g}"
    if isinstance(found, dict):
        what += (
            f" (the {found['episodes']:,} recorded episodes return {found['mean']:.4g} on average, 95%"
            f" interval {found['low']:.4g} to {found['high']:.4g})"
        )
    evaluate = shlex.join(["qhat", "evaluate", str(began)]) if began else ""
    back = f" The policy that it began from: {evaluate}" if began else ""
    return f"seed {seed} scored {lowest:.4g} in an evaluation, less than {what}.{back}"


def warn_of_bold_steps(config: TrainConfig) -> None:
    """Warn if a run that goes on from a policy and from logs begins with random actions, or long steps."""
    if config.init_from is None or not config.demos or not config.recipe.training.acts:
        return
    explore = config.recipe.explore
    if isinstance(explore, EpsilonGreedy) and explore.start > BOLD:
        careful = dataclasses.replace(
            explore, start=CAUTIOUS.start, end=min(explore.end, CAUTIOUS.end), steps=None
        )
        spelling = spell(careful)
        how = spelled(f"explore={spelling!r}", f"--explore {spelling}")
        warn(
            f"The run begins with the policy of '{config.init_from}', and {explore.start:.0%} of its first"
            f" steps are random (ε). On top of a policy that works, little is enough: {how}",
            stacklevel=3,
        )
    last, rate = _last_rate(config.init_from), config.recipe.learning_rate
    if last is not None and rate >= 2 * last:
        small = last / 10
        how = spelled(
            f"learning_rate={small:g}, learning_rate_end={small:g}",
            f"--learning-rate {small:g} --learning-rate-end {small:g}",
        )
        warn(
            f"The run begins with the policy of '{config.init_from}', which ended with a learning rate of"
            f" {last:g}, and its own is {rate:g}: policies get worse for some thousand steps by that."
            f" Smaller ones kept more of them (docs/results/online_after_logs.md): {how}",
            stacklevel=3,
        )


def _last_rate(path: Path) -> float | None:
    """Return the learning rate that a run has reached; `None` where its recipe cannot be read."""
    folder = RunFolder.open(path)
    try:
        written = folder.read_config()
        recipe = Recipe.from_json(written["recipe"]).scheduled((*spans_of(written), 1)[0])
        step = jnp.int32(read_about(folder.last())["step"])
        return float(rate_at(recipe, step))
    except (QhatError, KeyError, TypeError, ValueError):
        return None
