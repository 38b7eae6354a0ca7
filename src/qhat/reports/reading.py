"""Reads the files of a run folder without JAX; unreadable files become sentences."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhat.axes.axis import AxisValue
from qhat.environments import info
from qhat.environments.catalogue import is_from_python
from qhat.environments.observations import read_layout
from qhat.environments.scales import largest_score
from qhat.recipes.labels import base_of, label_of_run, recipe_of, spans_of
from qhat.recipes.parts import flags, names_of
from qhat.recipes.recipe import HORIZON, Recipe
from qhat.reports.plot import Evaluations
from qhat.runs.folder import EVALUATIONS, METRICS, RunFolder
from qhat.system.errors import UsageError, in_shell
from qhat.system.files import open_plain, quote, read_json, read_text

BINS = 60
"""Points of a training-score curve: each is the mean of the episodes that ended nearby."""
TRACES = ("epsilon", "loss", "q")
"""Columns of metrics.csv that are drawn."""
LOGGED = 12
"""Most values of `info` that are drawn."""
CLIPPED = 0.01
"""Share of the targets' mass outside the support above which there is a warning."""
MOST = 10_000
"""Upper bound of valid seed counts and indices."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """eval.csv: the T evaluations that all S seeds completed, `[S, T]`."""

    step: np.ndarray
    """`[T]`"""
    score: np.ndarray
    error: np.ndarray
    """Standard error of each score, from the spread of its episodes."""

    @property
    def curve(self) -> Evaluations:
        """The curve in the form that `qhat plot` draws."""
        return Evaluations(self.step, self.score)


@dataclasses.dataclass(frozen=True)
class Trace:
    """One column of metrics.csv over steps, for every seed that has it."""

    step: np.ndarray
    """`[T]`"""
    value: np.ndarray
    """`[S, T]`, NaN where missing."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the files of one run contain."""

    folder: RunFolder
    config: Mapping[str, Any]
    recipe: Recipe | None
    """`None` if it has parts from outside the package, or is damaged."""
    baseline: Recipe | None
    """The named recipe nearest to the run's; `None` if the two cannot be compared."""
    system: Mapping[str, Any]
    command: str
    """Command that started the run; empty if unknown."""
    evaluated: Evaluated | None
    traces: Mapping[str, Trace]
    """By column name, and `score` for the training episodes."""
    clipped: float
    """Share of the targets' mass outside the support in the last progress rows; the worst seed's."""
    broken: int
    skipped: int
    troubles: tuple[str, ...]
    """What could not be read, one sentence each."""

    @property
    def env(self) -> str:
        return str(self.config["env"])

    @functools.cached_property
    def label(self) -> str:
        """Name of its recipe, from the recipe's value."""
        return label_of_run({**self.config, **({"recipe": self.recipe} if self.recipe else {})})

    @property
    def unit(self) -> str:
        """What a step of the run is."""
        return (self.recipe or Recipe()).training.unit

    @property
    def base(self) -> str:
        """The named recipe that it is or is nearest to."""
        return base_of(self.label)

    @property
    def title(self) -> str:
        return f"{self.env} · {self.label}"

    @property
    def seeds(self) -> int:
        count = self.config.get("seeds")
        return count if type(count) is int and 1 <= count <= MOST else 1

    @property
    def first_seed(self) -> int:
        seed = self.config.get("seed")
        return seed if type(seed) is int else 0

    @property
    def largest_score(self) -> float | None:
        """Largest possible score; `None` if unknown, or if wrappers or options change the task."""
        spec = self.config.get("spec")
        reference = spec.get("reference") if isinstance(spec, Mapping) else None
        reference = reference if isinstance(reference, str) else None
        changed = self.config.get("wrap") or self.config.get("env_kwargs") or is_from_python(self.env)
        return None if changed else largest_score(self.env, reference)

    @property
    def parts(self) -> list[str]:
        """The words that name its parts from outside the package in a command; none without such parts."""
        return flags(names_of(self.recipe)) if self.recipe else []

    @property
    def steps(self) -> int:
        """Planned steps of the run; 0 if unknown."""
        steps = self.config.get("steps")
        return steps if type(steps) is int else 0


def read_facts(path: Path, parts: Sequence[type[AxisValue]] = ()) -> Facts:
    """Read a run folder. Raises `UsageError` if it is not one, or its config.json is damaged."""
    folder = RunFolder.open(path)
    config, troubles = folder.read_config(), []
    recipe = _tried(troubles, None, lambda: Recipe.from_json(config["recipe"], parts))
    system = _tried(troubles, {}, lambda: _object(folder.path / "system.json"))
    command = _tried(troubles, "", lambda: read_text(folder.path / "command.txt").strip())
    evaluated = _tried(troubles, None, lambda: _evaluated(folder.evaluations))
    nothing: tuple[dict[str, Trace], dict[str, float]] = ({}, {})
    traces, last = _tried(troubles, nothing, lambda: _metrics(folder.metrics, _logged(config)))
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
    """Return the result of `reading`; if it fails, add the reason to `troubles`."""
    try:
        return reading()
    except UsageError as error:
        troubles.append(in_shell(error))
    except FileNotFoundError as error:
        troubles.append(f"'{error.filename}' is missing.")
    return otherwise


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UsageError(f"'{path}' is damaged: it is {quote(value)}; expected an object.")
    return value


def baseline_of(config: Mapping[str, Any], recipe: Recipe | None) -> Recipe | None:
    """Return the named recipe nearest to the run's, fitted to the run's observations."""
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
    """Yield the named columns of a table's complete lines; a missing column is empty.

    Raises:
        UsageError: it is not a table.
        FileNotFoundError: it does not exist.
    """
    with io.TextIOWrapper(open_plain(path), encoding="utf-8", newline="") as stream:
        try:
            # A line without its newline is still being written.
            lines = csv.reader(line for line in stream if line.endswith("\n"))
            header = next(lines, [])
            if not {"step", "seed_index"} <= set(header):
                raise UsageError(f"'{path}' has no columns step and seed_index in its first line.")
            places = [header.index(name) if name in header else -1 for name in columns]
            for row in lines:
                yield [row[at] if 0 <= at < len(row) else "" for at in places]
        except UnicodeDecodeError:
            raise UsageError(f"'{path}' is damaged: it is not UTF-8 text.") from None
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
    seeds = sorted({seed for by_seed in at.values() for seed in by_seed})
    steps = sorted(step for step, by_seed in at.items() if len(by_seed) == len(seeds))
    if not steps:
        return None
    both = np.array([[at[step][seed] for step in steps] for seed in seeds])
    return Evaluated(np.array(steps, float), both[..., 0], both[..., 1])


def _logged(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the first names of `info` that the run logs; none if they are damaged."""
    names = config.get("log", [])
    try:
        info.require_names(tuple(names) if isinstance(names, list) else names)
    except UsageError:
        return ()
    return tuple(names[:LOGGED])


def _metrics(path: Path, logged: tuple[str, ...] = ()) -> tuple[dict[str, Trace], dict[str, float]]:
    """Return the traces, and the final `clipped`, `broken` and `skipped`."""
    drawn, columns = (*TRACES, *logged), (*METRICS, *logged)
    points: dict[str, dict[int, list[tuple[float, float]]]] = {name: {} for name in (*drawn, "score")}
    broken, latest = 0.0, {"clipped": {}, "skipped": {}}
    for kind, *words in rows_of(path, columns):
        row: dict[str, float] = dict(zip(columns[1:], map(_number, words), strict=True))
        known = kind in ("episode", "progress")
        if not (known and _counts(row["seed_index"]) and math.isfinite(row["step"])):
            continue
        seed = int(row["seed_index"])
        for name in ("score",) if kind == "episode" else drawn:
            points[name].setdefault(seed, []).append((row["step"], row[name]))
        if kind == "progress":
            broken += row["broken"] if math.isfinite(row["broken"]) else 0.0
            for name, by_seed in latest.items():
                by_seed[seed] = row[name] if math.isfinite(row[name]) else 0.0
    last = {"clipped": max(latest["clipped"].values(), default=0.0), "broken": broken,
            "skipped": sum(latest["skipped"].values())}  # fmt: skip
    traces = {name: _trace(by_seed, name == "score") for name, by_seed in points.items() if by_seed}
    return {name: trace for name, trace in traces.items() if np.isfinite(trace.value).any()}, last


def _trace(points: Mapping[int, list[tuple[float, float]]], binned: bool) -> Trace:
    """Bring every seed's points to the same steps: means over bins, or the existing steps."""
    tables = [np.array(points[seed]) for seed in sorted(points)]
    every = np.unique(np.concatenate([table[:, 0] for table in tables]))
    if binned or len(every) > 10 * BINS:
        edges = np.linspace(0, every[-1], min(BINS, len(every)) + 1)
        places = [np.clip(np.searchsorted(edges, table[:, 0]) - 1, 0, len(edges) - 2) for table in tables]
        every = edges[1:]
    else:
        places = [np.searchsorted(every, table[:, 0]) for table in tables]
    value = np.full((len(tables), len(every)), np.nan)
    for row, table, place in zip(value, tables, places, strict=True):
        good = np.isfinite(table[:, 1])
        count = np.bincount(place[good], minlength=len(every))
        total = np.bincount(place[good], weights=table[good, 1], minlength=len(every))
        known = np.flatnonzero(count)
        row[known] = total[known] / count[known]
        if binned and known.size:
            # Interpolate bins in which no episode ended.
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
