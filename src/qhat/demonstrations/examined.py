"""What `qhat doctor DATA` finds in recorded steps: their ends, gaps, doubles, rewards and actions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.environments.reward_scale import LARGEST, SMALLEST, largest_return, reward_factor
from qhat.system.errors import UsageError, require

MOST_CHOICES = 1_000
"""Values of an action beyond which numbers are no choices."""
LONG_GAP = 3.0
"""How much longer than the median a time between two steps is where something is missing."""
FEW = 0.01
"""Share of an action below which the data say little of it."""
GAMMA = 0.99
"""Discount of the returns whose size is judged."""

Columns = Mapping[str, np.ndarray]
"""Of an .npz file: observation, action, reward, next_observation, terminated; maybe truncated, time."""


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Something that training would learn wrongly from, or not at all."""

    found: str
    """What it is, with its first row."""
    fix: str
    """A line that puts it right: Python on the loaded arrays, or a setting."""
    spoils: bool = False
    """Whether training refuses the data."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What one source holds."""

    source: str
    rows: int
    observation: str
    """Shape and type of one observation."""
    action: str
    """Its choices or commands."""
    shares: tuple[tuple[str, float], ...]
    """How often each choice was taken; of commands nothing."""
    terminated: int
    truncated: int
    unmarked: int
    """Times that an episode breaks off and no flag says so."""
    lengths: tuple[int, int, int]
    """Steps of the shortest episode, of the median, and of the longest."""
    returns: tuple[float, float, float]
    """Lowest, mean and highest sum of rewards of an episode."""
    rewards: tuple[float, float]
    """Lowest and highest reward of a step."""
    troubles: tuple[Trouble, ...]

    @property
    def usable(self) -> bool:
        """Whether training accepts the data."""
        return not any(trouble.spoils for trouble in self.troubles)

    @property
    def episodes(self) -> int:
        return self.terminated + self.truncated + self.unmarked

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        about = dataclasses.asdict(self)
        for name in ("returns", "rewards"):
            about[name] = [value if np.isfinite(value) else None for value in about[name]]
        return {**about, "shares": dict(self.shares), "episodes": self.episodes, "usable": self.usable}


def examine(source: str, columns: Columns) -> Contents:
    """Look at every row of one source.

    Raises:
        UsageError: the arrays are not of one length, or hold no numbers.
    """
    rows = _rows(source, columns)
    ended = _flags(columns, "terminated", rows) | _flags(columns, "truncated", rows)
    observation, after = (np.asarray(columns[name]) for name in ("observation", "next_observation"))
    follows = _same(after[:-1], observation[1:])
    breaks = np.append(~follows, True) & ~ended
    # The last row is an end like any other, if nobody marked it.
    ends = np.flatnonzero(ended | breaks)
    lengths = np.diff(np.append(-1, ends))
    reward = np.asarray(columns["reward"], np.float64).reshape(rows)
    sums = np.add.reduceat(reward, np.append(0, ends[:-1] + 1))
    action, shares = _actions(np.asarray(columns["action"]))
    terminated = _flags(columns, "terminated", rows)
    looks = (
        _not_finite(columns), _ends(terminated, ended, breaks, lengths[terminated[ends]]),
        _next_episode(observation, after, ended), _doubles(columns), _still(observation, after),
        _times(columns, ended | breaks), _rewards(reward, ended | breaks, terminated), _rare(shares),
    )  # fmt: skip
    finite = reward[np.isfinite(reward)] if np.isfinite(reward).any() else np.array([np.nan])
    return Contents(
        source=source,
        rows=rows,
        observation=f"{observation.shape[1:]} {observation.dtype}",
        action=action,
        shares=shares,
        terminated=int(terminated.sum()),
        truncated=int((ended & ~terminated).sum()),
        unmarked=int(breaks.sum()),
        lengths=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
        returns=(float(sums.min()), float(sums.mean()), float(sums.max())),
        rewards=(float(finite.min()), float(finite.max())),
        troubles=tuple(trouble for found in looks for trouble in found),
    )


def _rows(source: str, columns: Columns) -> int:
    sizes = {name: np.shape(column)[:1] for name, column in columns.items()}
    rows = sizes["reward"]
    for name, size in sizes.items():
        require(
            size == rows and rows != (0,) and rows != (),
            f"'{source}': {name} has {size[0] if size else 'no'} rows, and reward"
            f" {rows[0] if rows else 'none'}; expected one row for each step in all of them.",
        )
        if np.asarray(columns[name]).dtype.kind not in "biuf":
            raise UsageError(f"'{source}': {name} is {columns[name].dtype}; expected numbers.")
    shapes = [np.shape(columns[name]) for name in ("observation", "next_observation")]
    require(
        shapes[0] == shapes[1],
        f"'{source}': observation is {shapes[0]} and next_observation {shapes[1]}; expected the same.",
    )
    return rows[0]


def _flags(columns: Columns, name: str, rows: int) -> np.ndarray:
    return np.asarray(columns[name]).reshape(rows) != 0 if name in columns else np.zeros(rows, bool)


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether two arrays `[T, ...]` are equal in each row."""
    return np.asarray(_flat(np.equal(one, other)).all(axis=1))


def _flat(column: np.ndarray) -> np.ndarray:
    """Return `[T, ...]`, also of no rows, as `[T, N]`."""
    return column.reshape(len(column), math.prod(column.shape[1:]))


def _actions(action: np.ndarray) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Describe the actions, and count each choice."""
    columns = _flat(action)
    whole = np.isfinite(columns).all() and (columns == np.round(columns)).all()
    if not whole or columns.min() < 0 or columns.max() > MOST_CHOICES:
        low, high = columns.min(axis=0), columns.max(axis=0)
        spans = ", ".join(f"{a:.4g} to {b:.4g}" for a, b in list(zip(low, high, strict=True))[:4])
        return f"{columns.shape[1]} commands: {spans}{', …' if columns.shape[1] > 4 else ''}", ()
    shares = []
    for factor in range(columns.shape[1]):
        counts = np.bincount(columns[:, factor].astype(int))
        before = "" if columns.shape[1] == 1 else f"{factor}:"
        shares += [(f"{before}{choice}", count / len(columns)) for choice, count in enumerate(counts)]
    factors = "" if columns.shape[1] == 1 else f"{columns.shape[1]} factors of "
    return f"{factors}choices 0 to {int(columns.max())}", tuple(shares)


def _not_finite(columns: Columns) -> list[Trouble]:
    found = []
    for name in ("observation", "next_observation", "action", "reward"):
        column = np.asarray(columns[name])
        lost = ~_flat(np.isfinite(column.astype(np.float64))).all(axis=1)
        if lost.any():
            found.append(
                Trouble(
                    f"{lost.sum():,} rows of {name} are not finite, the first is row {np.argmax(lost)}",
                    f"good = np.isfinite({name}).reshape(len({name}), -1).all(axis=1), and keep the rows"
                    " that are good in every array; the rows before the gaps are then truncated",
                    spoils=True,
                )
            )
    return found


def _ends(
    terminated: np.ndarray, ended: np.ndarray, breaks: np.ndarray, lengths: np.ndarray
) -> list[Trouble]:
    """Find ends that are not marked, or marked wrongly.

    Args:
        lengths: of the terminated episodes.
    """
    found = []
    if not ended.any():
        found.append(
            Trouble(
                f"no row is terminated or truncated, and the recording breaks off {breaks.sum():,} times",
                "terminated[t] = True where the task ended, truncated[t] = True where a person or a time"
                " limit ended the episode: without ends the values of the last states are never learned",
            )
        )
    elif breaks[:-1].any():
        found.append(
            Trouble(
                f"the recording breaks off after {breaks[:-1].sum():,} rows that are neither terminated nor"
                f" truncated, the first is row {np.argmax(breaks)}",
                "truncated[t] = True there if the episode was cut, or next_observation[t] ="
                " observation[t + 1] if it continued and a sensor was read twice",
            )
        )
    if len(lengths) > 2 and lengths.min() == lengths.max() > 1:
        found.append(
            Trouble(
                f"all {len(lengths)} terminated episodes have {lengths[0]:,} steps, as a time limit gives",
                "truncated, terminated = terminated, np.zeros_like(terminated), if it is one: else the"
                " future after it counts as worth nothing",
            )
        )
    return found


def _next_episode(observation: np.ndarray, after: np.ndarray, ended: np.ndarray) -> list[Trouble]:
    """Find ends whose successor is the first observation of the next episode."""
    wrong = ended[:-1] & _same(after[:-1], observation[1:])
    if not wrong.any():
        return []
    return [
        Trouble(
            f"{wrong.sum():,} of {ended.sum():,} ends have the next episode's first observation as"
            f" next_observation, the first is row {np.argmax(wrong)}",
            "record the true last observation (Gymnasium: info['final_obs']); at terminated rows its value"
            " does not count, at truncated ones it does",
        )
    ]


def _doubles(columns: Columns) -> list[Trouble]:
    joined = [
        _flat(np.asarray(columns[name])) for name in ("observation", "action", "next_observation", "reward")
    ]
    same = np.logical_and.reduce([_same(part[1:], part[:-1]) for part in joined])
    # A robot that stands still repeats its rows too; that is the next finding.
    same &= ~_same(joined[0][1:], joined[2][1:])
    if not same.any():
        return []
    return [
        Trouble(
            f"{same.sum():,} rows repeat the row before them, the first is row {np.argmax(same) + 1}",
            "keep the first of each: a message was recorded twice",
        )
    ]


def _still(observation: np.ndarray, after: np.ndarray) -> list[Trouble]:
    share = float(_same(observation, after).mean())
    if share < 0.1:
        return []
    return [
        Trouble(
            f"in {share:.0%} of the rows next_observation is observation: nothing changed",
            "record at the rate at which actions are sent, or leave out what no action changes",
        )
    ]


def _times(columns: Columns, ends: np.ndarray) -> list[Trouble]:
    if "time" not in columns or len(ends) < 3:
        return []
    steps, within = np.diff(np.asarray(columns["time"], np.float64).reshape(-1)), ~ends[:-1]
    if not within.any():
        return []
    usual, found = float(np.median(steps[within])), []
    if (steps[within] <= 0).any():
        row = int(np.argmax((steps <= 0) & within)) + 1
        found.append(
            Trouble(f"time does not move on in row {row}", "sort the rows by time, and leave out doubles")
        )
    gaps = (steps > LONG_GAP * usual) & within
    if usual > 0 and gaps.any():
        found.append(
            Trouble(
                f"{gaps.sum():,} gaps are longer than {LONG_GAP:g} times the usual {usual:.4g} s, the first"
                f" is after row {np.argmax(gaps)}",
                "truncated[t] = True in the row before a gap: what happened in it is unknown",
            )
        )
    return found


def _rewards(reward: np.ndarray, ends: np.ndarray, terminated: np.ndarray) -> list[Trouble]:
    found = []
    if not np.isfinite(reward).all():
        return found
    if not reward.any():
        found.append(
            Trouble(
                "every reward is 0: nothing says which actions are good",
                "reward[t] = what the task is about; or --recipe bc, which imitates and reads no rewards",
            )
        )
    elif np.ptp(reward) == 0 and not terminated.any():
        found.append(
            Trouble(
                f"every reward is {reward[0]:g} and nothing terminates: every policy has the same return",
                "reward[t] = what the task is about",
            )
        )
    largest = largest_return(reward, ends, GAMMA)
    if (factor := reward_factor(largest)) is not None:
        found.append(
            Trouble(
                f"the largest return, discounted by {GAMMA:g}, is {largest:.2g}, and a network learns best"
                f" from {SMALLEST:g} to {LARGEST:,.0f}",
                f"--wrap reward_scale:factor={factor:g}",
            )
        )
    return found


def _rare(shares: tuple[tuple[str, float], ...]) -> list[Trouble]:
    never = [name for name, share in shares if share == 0]
    seldom = [name for name, share in shares if 0 < share < FEW]
    found = []
    if never:
        found.append(
            Trouble(
                f"actions {', '.join(never)} were never taken",
                "--behaviour cql: their values would be guesses (the recipe of qhat learn has it)",
            )
        )
    if seldom:
        found.append(
            Trouble(
                f"actions {', '.join(seldom)} are in less than {FEW:.0%} of the rows",
                "record more of them, or expect that the policy does not take them",
            )
        )
    return found
