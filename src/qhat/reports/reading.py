"""What the files of a run folder say, read without JAX; what cannot be read is a sentence."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qhat.environments.observations import read_layout
from qhat.recipes.labels import base_of, label_of_run, recipe_of, spans_of
from qhat.recipes.recipe import HORIZON, Recipe
from qhat.reports.plot import Evaluations
from qhat.runs.folder import EVALUATIONS, METRICS, RunFolder
from qhat.system.errors import UsageError
from qhat.system.files import open_plain, quote, read_json, read_text

BINS = 60
"""Points of a curve of training scores: each is a mean of the episodes that ended about there."""
TRACES = ("epsilon", "loss", "q")
"""Columns of metrics.csv that are drawn."""
CLIPPED = 0.01
"""Share of the targets' mass beyond the support from which people are warned."""
MOST = 10_000
"""Seeds beyond which a number is no seed's."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """eval.csv: T evaluations that every one of S seeds has completed, `[S, T]`."""

    step: np.ndarray
    """`[T]`"""
    score: np.ndarray
    error: np.ndarray
    """Standard error of each score, from the spread of its episodes."""

    @property
    def curve(self) -> Evaluations:
        """As `qhat plot` draws it."""
        return Evaluations(self.step, self.score)


@dataclasses.dataclass(frozen=True)
class Trace:
    """One column of metrics.csv over the steps, of every seed that has it."""

    step: np.ndarray
    """`[T]`"""
    value: np.ndarray
    """`[S, T]`, NaN where there is none."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """One run, as far as its files tell."""

    folder: RunFolder
    config: Mapping[str, Any]
    recipe: Recipe | None
    """`None` where it has parts from outside the package, or is damaged."""
    baseline: Recipe | None
    """The named recipe that the run's is nearest to; `None` where the two cannot be compared."""
    system: Mapping[str, Any]
    command: str
    """As it was started; empty where that is not known."""
    evaluated: Evaluated | None
    traces: Mapping[str, Trace]
    """By column, and `score` of the training episodes."""
    clipped: float
    """Share of the targets' mass beyond the support in the last progress rows; the worst seed's."""
    broken: int
    skipped: int
    troubles: tuple[str, ...]
    """What could not be read, a sentence each."""

    @property
    def env(self) -> str:
        return str(self.config["env"])

    @functools.cached_property
    def label(self) -> str:
        """What its recipe is called, by the recipe's value."""
        return label_of_run({**self.config, **({"recipe": self.recipe} if self.recipe else {})})

    @property
    def base(self) -> str:
        """The named recipe that its own is, or is nearest to."""
        return base_of(self.label)

    @property
    def title(self) -> str:
        return f"{self.env} · {self.label}"

    @property
    def seeds(self) -> int:
        told = self.config.get("seeds")
        return told if type(told) is int and 1 <= told <= MOST else 1

    @property
    def first_seed(self) -> int:
        told = self.config.get("seed")
        return told if type(told) is int else 0

    @property
    def steps(self) -> int:
        """Steps that the run was to do; 0 where that is not known."""
        told = self.config.get("steps")
        return told if type(told) is int else 0


def read_facts(path: Path) -> Facts:
    """Read a run folder. Raises `UsageError` where it is none, or its config.json is damaged."""
    folder = RunFolder.open(path)
    config, troubles = folder.read_config(), []
    recipe = _tried(troubles, None, lambda: Recipe.from_json(config["recipe"]))
    system = _tried(troubles, {}, lambda: _object(folder.path / "system.json"))
    command = _tried(troubles, "", lambda: read_text(folder.path / "command.txt").strip())
    evaluated = _tried(troubles, None, lambda: _evaluated(folder.evaluations))
    nothing: tuple[dict[str, Trace], dict[str, float]] = ({}, {})
    traces, last = _tried(troubles, nothing, lambda: _metrics(folder.metrics))
    return Facts(
        folder=folder,
        config=config,
        recipe=recipe,
        baseline=baseline_of(config, recipe),
        system=system,
        command=command,
        evaluated=evaluated,
        traces=traces,
        clipped=last.get("clipped", 0.0),
        broken=int(last.get("broken", 0)),
        skipped=int(last.get("skipped", 0)),
        troubles=tuple(troubles),
    )


def _tried(troubles: list[str], otherwise: Any, reading: Any) -> Any:
    """Return what `reading` gives; where it cannot, note why."""
    try:
        return reading()
    except UsageError as error:
        troubles.append(str(error))
    except FileNotFoundError as error:
        troubles.append(f"'{error.filename}' is missing.")
    return otherwise


def _object(path: Path) -> dict[str, Any]:
    told = read_json(path)
    if not isinstance(told, dict):
        raise UsageError(f"'{path}' is damaged: it is {quote(told)}; expected an object.")
    return told


def baseline_of(config: Mapping[str, Any], recipe: Recipe | None) -> Recipe | None:
    """Return the named recipe that the run's is nearest to, with what its observations make of it."""
    shape, dtype = config["spec"].get("shape"), str(config["spec"].get("dtype"))
    if recipe is None or not isinstance(shape, list):
        return None
    if not all(type(size) is int for size in shape):
        return None
    base = recipe_of(base_of(label_of_run({**config, "recipe": recipe})), config["env"])
    try:
        layout = read_layout(config["spec"].get("layout"), tuple(shape), dtype)
    except (KeyError, TypeError, ValueError):
        return None
    return base.scheduled((*spans_of(config), HORIZON)[0]).fitted(tuple(shape), layout)


def rows_of(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the named columns of a table's whole lines; a column that is not there is empty.

    Raises:
        UsageError: it is no table.
        FileNotFoundError: it is not there.
    """
    with io.TextIOWrapper(open_plain(path), encoding="utf-8", newline="") as stream:
        try:
            # A line without its end is being written.
            lines = csv.reader(line for line in stream if line.endswith("\n"))
            header = next(lines, [])
            if not {"step", "seed_index"} <= set(header):
                raise UsageError(f"'{path}' has no columns step and seed_index in its first line.")
            places = [header.index(name) if name in header else -1 for name in columns]
            for row in lines:
                yield [row[at] if 0 <= at < len(row) else "" for at in places]
        except UnicodeDecodeError:
            raise UsageError(f"'{path}' is damaged: it is no text in UTF-8.") from None
        except csv.Error as error:
            raise UsageError(f"'{path}' cannot be read: {error}.") from None


def _evaluated(path: Path) -> Evaluated | None:
    columns = EVALUATIONS[:5]
    at: dict[int, dict[int, tuple[float, float]]] = {}
    for words in rows_of(path, columns):
        step, seed, mean, spread, episodes = map(_number, words)
        if not (_counts(seed) and math.isfinite(step) and math.isfinite(mean)):
            raise UsageError(f"'{path}' has the row '{','.join(words)}'; expected finite numbers.")
        error = spread / math.sqrt(episodes) if episodes >= 1 and spread >= 0 else 0.0
        at.setdefault(int(step), {})[int(seed)] = (mean, error)
    seeds = sorted({seed for own in at.values() for seed in own})
    steps = sorted(step for step, own in at.items() if len(own) == len(seeds))
    if not steps:
        return None
    both = np.array([[at[step][seed] for step in steps] for seed in seeds])
    return Evaluated(np.array(steps, float), both[..., 0], both[..., 1])


def _metrics(path: Path) -> tuple[dict[str, Trace], dict[str, float]]:
    """Return the traces, and of `clipped`, `broken` and `skipped` what they came to."""
    points: dict[str, dict[int, list[tuple[float, float]]]] = {name: {} for name in (*TRACES, "score")}
    broken, latest = 0.0, {"clipped": {}, "skipped": {}}
    for kind, *words in rows_of(path, METRICS):
        own: dict[str, float] = dict(zip(METRICS[1:], map(_number, words), strict=True))
        if not (_counts(own["seed_index"]) and math.isfinite(own["step"])):
            continue
        seed = int(own["seed_index"])
        for name in ("score",) if kind == "episode" else TRACES:
            points[name].setdefault(seed, []).append((own["step"], own[name]))
        if kind == "progress":
            broken += own["broken"] if math.isfinite(own["broken"]) else 0.0
            for name, told in latest.items():
                told[seed] = own[name] if math.isfinite(own[name]) else 0.0
    last = {"clipped": max(latest["clipped"].values(), default=0.0), "broken": broken,
            "skipped": sum(latest["skipped"].values())}  # fmt: skip
    traces = {name: _trace(own, binned=name == "score") for name, own in points.items() if own}
    return {name: trace for name, trace in traces.items() if np.isfinite(trace.value).any()}, last


def _trace(points: Mapping[int, list[tuple[float, float]]], binned: bool) -> Trace:
    """Bring every seed's points to the same steps: means of bins, or the steps that there are."""
    tables = [np.array(points[seed]) for seed in sorted(points)]
    every = np.unique(np.concatenate([own[:, 0] for own in tables]))
    if binned or len(every) > 10 * BINS:
        edges = np.linspace(0, every[-1], min(BINS, len(every)) + 1)
        places = [np.clip(np.searchsorted(edges, own[:, 0]) - 1, 0, len(edges) - 2) for own in tables]
        every = edges[1:]
    else:
        places = [np.searchsorted(every, own[:, 0]) for own in tables]
    value = np.full((len(tables), len(every)), np.nan)
    for row, own, place in zip(value, tables, places, strict=True):
        good = np.isfinite(own[:, 1])
        count = np.bincount(place[good], minlength=len(every))
        total = np.bincount(place[good], weights=own[good, 1], minlength=len(every))
        known = np.flatnonzero(count)
        row[known] = total[known] / count[known]
        if binned and known.size:
            # Where no episode ended, the curve goes straight on to where the next one did.
            within = slice(known[0], known[-1] + 1)
            row[within] = np.interp(every[within], every[known], row[known])
    return Trace(every, value)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _counts(seed: float) -> bool:
    return math.isfinite(seed) and 0 <= seed < MOST
