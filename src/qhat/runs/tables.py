"""A run's tables: metrics.csv and eval.csv."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np

from qhat.engine.learner import Metrics
from qhat.engine.state import Log, TrainState
from qhat.evaluation.outcomes import Played
from qhat.evaluation.statistics import mean_of_finite
from qhat.recipes.recipe import Recipe
from qhat.runs.folder import RunFolder
from qhat.runs.tracking import Tracking

LEARNER_METRICS = tuple(field.name for field in dataclasses.fields(Metrics))


@dataclasses.dataclass(frozen=True)
class Call:
    """The iterations of one compiled call, or of several that were split by time."""

    first: int
    """Iterations done before it."""
    count: int
    log: Log
    """Leaves `[S, count, ...]`."""
    seconds: float

    @property
    def last(self) -> int:
        """Iterations done after it."""
        return self.first + self.count


class Tables:
    """Writes metrics.csv: finished episodes, and the progress of learning."""

    def __init__(self, folder: RunFolder, tracking: Tracking, recipe: Recipe, logs: Sequence[str] = ()):
        """Begin.

        Args:
            logs: names of the values of the log's `info`; those with a column in the folder are written.
        """
        self._folder, self._tracking, self._recipe = folder, tracking, recipe
        self._columns = {name: index for index, name in enumerate(logs) if name in folder.logged}
        self._broken = 0

    def write(
        self, call: Call, state: TrainState, more: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """Add a call's rows, and `more`; return the fields of `Progress` that they change."""
        recipe, log = self._recipe, call.log
        step, seeds = call.last * recipe.num_envs, len(log.ended)
        rate = call.count * recipe.num_envs * seeds / call.seconds
        epsilon = epsilon_at(recipe, step)
        means = {name: mean_of_finite(np.asarray(getattr(log.metrics, name))) for name in LEARNER_METRICS}
        rows = episode_rows(log, call.first, recipe.num_envs, self._columns)
        scores = [row["score"] for row in rows]
        same = {"epsilon": f"{epsilon:.4g}", "steps_per_second": speed(rate)}
        skipped = np.asarray(state.seeds.guard.skipped)
        latest = progress_rows(step, means, np.asarray(log.broken), skipped, same)
        for name, at in self._columns.items():
            for row, value in zip(latest, _mean_over_steps(np.asarray(log.info)[..., at]), strict=True):
                row[name] = _written(value)
        rows += [*latest, *more]
        self._folder.append(self._folder.metrics, rows)
        self._tracking.rows(rows)
        self._broken += int(log.broken.sum())
        return {
            "step": step,
            "epsilon": epsilon,
            "loss": float(np.mean(means["loss"])),
            "clipped": float(np.nanmax(means["clipped"], initial=0.0)),
            "broken": self._broken,
            "steps_per_second": rate,
            **({"score": float(np.mean(scores[-100:]))} if scores else {}),
        }


def epsilon_at(recipe: Recipe, step: int) -> float:
    """Return the share of random actions at a step; NaN where nothing acts."""
    return float(recipe.explore.epsilon(jnp.int32(step))) if recipe.training.acts else math.nan


def evaluation_rows(step: int, played: Played, commanded: bool) -> list[dict[str, Any]]:
    """Return eval.csv's rows of an evaluation, one per seed.

    Args:
        commanded: whether actions are joint commands, which can saturate.
    """
    rows = []
    for seed, returns in enumerate(played.returns):
        row = {
            "step": step,
            "seed_index": seed,
            "mean_return": float(returns.mean()),
            "std_return": float(returns.std()),
            "episodes": returns.size,
            "mean_length": float(played.lengths[seed].mean()),
            "cut": int(played.cut[seed].sum()),
        }
        if played.attempts[seed].sum():
            row["success_rate"] = f"{played.success_rate(axis=1)[seed]:.6g}"
        if commanded:
            joints = np.round(played.saturation()[seed], 4)
            row["saturation"] = " ".join(f"{share:g}" for share in joints)
            row["smoothness"] = f"{played.smoothness(axis=1)[seed]:.6g}"
        rows.append(row)
    return rows


def episode_rows(
    log: Log, first: int, num_envs: int, columns: Mapping[str, int] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return metrics.csv's rows of finished episodes, by turn, then by seed; the latest come last.

    Args:
        log: leaves `[S, turns, E]`.
        first: iterations done before the log.
        columns: names to write, with their places in the log's `info`. A row has the value of the
            episode's last step.
    """
    rows, values = [], np.asarray(log.info)
    for turn, seed, env in np.argwhere(np.swapaxes(log.ended, 0, 1)):
        score, length = float(log.returns[seed, turn, env]), int(log.lengths[seed, turn, env])
        step = int((first + turn + 1) * num_envs)
        row = {"kind": "episode", "seed_index": seed, "step": step, "score": score, "length": length}
        row |= {name: _written(values[seed, turn, env, at]) for name, at in columns.items()}
        rows.append(row)
    return rows


def _mean_over_steps(values: np.ndarray) -> np.ndarray:
    """Average `[S, turns, E]` over the steps that have a value; `[S]`."""
    return mean_of_finite(np.asarray(values).reshape(len(values), -1))


def _written(value: Any) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def speed(rate: float) -> str:
    """Write steps per second with at least four digits, because a run's time is computed from them."""
    return f"{rate:.0f}" if rate >= 1_000 else f"{rate:.4g}"


def progress_rows(
    step: int,
    means: Mapping[str, np.ndarray],
    broken: np.ndarray,
    skipped: np.ndarray,
    now: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return metrics.csv's rows of the progress of learning, one per seed.

    Args:
        means: the learner's metrics, averaged over a call, each `[S]`.
        broken: episodes that were given up, `[S, turns, E]`.
        skipped: transitions left out so far, `[S]`.
        now: cells that are the same for all seeds.
    """
    rows = []
    for seed in range(len(skipped)):
        row = {name: f"{means[name][seed]:.6g}" for name in means}
        row |= {"broken": str(int(broken[seed].sum())), "skipped": str(int(skipped[seed]))}
        rows.append({"kind": "progress", "seed_index": seed, "step": step, **row, **now})
    return rows


def has_row(table: Path, step: int) -> bool:
    """Return whether a table has a row of `step`."""
    with table.open(newline="") as file:
        return any(row.get("step") == str(step) for row in csv.DictReader(file))
