"""Reads a run's tables: training episodes, evaluations, and the time that they took."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhat.system.errors import UsageError, require, setting


@dataclass(frozen=True)
class Episodes:
    """The training episodes of one seed, in the order of `step`. Every field is `[E]`.

    Attributes:
        step: Environment steps of this seed at the episode's end.
        score: Undiscounted return of the episode, in the environment's unit of reward.
        length: Environment steps in the episode.
    """

    step: np.ndarray
    score: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class Evaluations:
    """Greedy evaluations during a run; T may be 0.

    Attributes:
        step: `[T]`, environment steps per seed at each evaluation.
        score: `[S, T]`, mean undiscounted return of each seed's greedy policy.
    """

    step: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Clock:
    """Training time of a run, with compilation, without evaluations and checkpoints. Fields are `[P]`.

    Attributes:
        step: Environment steps per seed, rising.
        seconds: Wall-clock time until then; a run trains all of its seeds at once.
    """

    step: np.ndarray
    seconds: np.ndarray

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return the seconds at environment steps, by linear interpolation."""
        return np.interp(steps, np.append(0, self.step), np.append(0, self.seconds))


def read_run(folder: str | Path) -> tuple[list[Episodes], Evaluations]:
    """Read the episodes and the evaluations of a run folder, which may still be training.

    Args:
        folder: A run folder with `metrics.csv` and `eval.csv`.

    Returns:
        One `Episodes` per seed that has finished an episode, by seed index, which are none where a run
        learns from logs; and the evaluations that every evaluated seed has completed.

    Raises:
        UsageError: If a file is missing or malformed, or if there is neither yet.
    """
    folder = Path(folder)
    for name in ("metrics.csv", "eval.csv"):
        require(
            (folder / name).is_file(),
            f"'{folder}' has no {name}, expected a run folder, as 'qhat train' writes it.",
        )

    by_seed: dict[int, list[tuple[float, ...]]] = {}
    columns = ("seed_index", "step", "score", "length")
    for seed, *episode in _rows(folder / "metrics.csv", columns, kind="episode"):
        by_seed.setdefault(int(seed), []).append(tuple(episode))
    evaluations = read_evaluations(folder)
    require(
        bool(by_seed) or evaluations.step.size > 0,
        f"'{folder}' has no finished episode in metrics.csv yet, expected at least one.",
    )
    episodes = []
    for _, rows in sorted(by_seed.items()):
        table = np.array(rows)
        table = table[np.argsort(table[:, 0], kind="stable")]
        episodes.append(Episodes(step=table[:, 0], score=table[:, 1], length=table[:, 2]))
    return episodes, evaluations


def read_evaluations(folder: Path, seeds: int | None = None) -> Evaluations:
    """Read the evaluations that every seed has completed.

    Args:
        folder: A run folder with `eval.csv`.
        seeds: The number of seeds; by default, all seeds with an evaluation.

    Raises:
        UsageError: If the file is malformed.
    """
    at: dict[float, dict[int, float]] = {}
    for step, seed, score in _rows(folder / "eval.csv", ("step", "seed_index", "mean_return")):
        at.setdefault(step, {})[int(seed)] = score
    known = {seed for scores in at.values() for seed in scores}
    every = sorted(known) if seeds is None else list(range(seeds))
    # Seeds are written one after the other: the newest evaluation may not have all of them yet.
    steps = sorted(step for step, scores in at.items() if scores.keys() >= set(every))
    score = np.array([[at[step][seed] for step in steps] for seed in every])
    return Evaluations(step=np.array(steps, dtype=np.float64), score=score.reshape(len(every), len(steps)))


def has_reached(
    folder: Path, about: Mapping[str, Any], stop_at: float | None, stop_below: float | None = None
) -> bool:
    """Whether a run ended at its last checkpoint by its score, and would end again.

    Args:
        about: the checkpoint's manifest.
        stop_at: the mean over all seeds is at least this.
        stop_below: a seed's score is less than this.
    """
    by = about["stopped_by"]
    if by not in ("stop_at", "stop_below") or {"stop_at": stop_at, "stop_below": stop_below}[by] is None:
        return False
    evaluations = read_evaluations(folder)
    scores = evaluations.score[:, evaluations.step == about["step"]]
    if not scores.size:
        return False
    if by == "stop_at":
        return stop_at is not None and bool(np.mean(scores) >= stop_at)
    return stop_below is not None and bool(np.min(scores) < stop_below)


def read_clock(folder: Path) -> Clock:
    """Read how long a run trained until each of its calls, from their speed.

    Raises:
        UsageError: If metrics.csv is malformed, or has no speed.
    """
    table, rates, seeds = folder / "metrics.csv", {}, set()
    for seed, step, rate in _rows(table, ("seed_index", "step", "steps_per_second"), kind="progress"):
        seeds.add(seed)
        rates[step] = rate
    require(bool(rates), f"'{table}' has no row of progress yet: there is no time to draw against.")
    require(
        min(rates.values()) > 0,
        f"'{table}' has a steps_per_second of 0, expected more: no time follows from it."
        f" Draw against steps: {setting('axis', 'steps')}.",
    )
    step = np.array(sorted(rates))
    rate = np.array([rates[each] for each in step])
    # The speed counts the steps of all seeds, `step` those of one.
    return Clock(step, np.cumsum(np.diff(step, prepend=0) * len(seeds) / rate))


def _rows(file: Path, columns: tuple[str, ...], kind: str | None = None) -> Iterator[tuple[float, ...]]:
    """Yield the named columns of a CSV file as finite numbers; with `kind`, only rows of that kind."""
    try:
        yield from _parsed(file, columns, kind)
    except UnicodeDecodeError:
        raise UsageError(f"'{file}' is damaged: it is no text in UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise UsageError(f"'{file}' cannot be read: {error}.") from None


def _parsed(file: Path, columns: tuple[str, ...], kind: str | None) -> Iterator[tuple[float, ...]]:
    with file.open(encoding="utf-8", newline="") as stream:
        # A line without its end is still being written: even if it parses, a number may be incomplete.
        lines = csv.reader(line for line in stream if line.endswith("\n"))
        header = next(lines, [])
        wanted = columns if kind is None else ("kind", *columns)
        missing = [name for name in wanted if name not in header]
        require(not missing, f"'{file}' has no column '{', '.join(missing)}' in its first line.")
        places, at = (
            [header.index(name) for name in columns],
            None if kind is None else header.index("kind"),
        )
        for row in lines:
            if not row or (at is not None and row[at : at + 1] != [kind]):
                continue
            try:
                values = tuple(float(row[place]) for place in places)
            except (ValueError, IndexError):
                values = (math.nan,)
            if not all(map(math.isfinite, values)):
                raise UsageError(
                    f"'{file}' line {lines.line_num} is '{','.join(row)}', "
                    f"expected finite numbers for {', '.join(columns)}."
                )
            yield values
