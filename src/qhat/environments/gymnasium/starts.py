"""Whether an observation is a fresh start: as near to known ones as they are to each other."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

WIDEST = 256
"""Numbers of an observation that are compared; of a larger one, sums with random weights."""
MOST = 64
"""Starts that are compared with."""
SLACK = 1.5
"""How much farther than the loneliest known start another one may be."""


@dataclasses.dataclass(frozen=True)
class Starts:
    """Known starts, in units of what observations vary by."""

    known: np.ndarray
    """`[K, D]`"""
    scale: np.ndarray
    """`[D]`"""
    reach: float
    """Distance up to which an observation is taken for a start."""

    @staticmethod
    def of(starts: np.ndarray, rows: np.ndarray) -> Starts:
        """Learn from starts `[K, D]` and from whatever else was seen, `[T, N, D]`."""
        known = starts[:: -(-len(starts) // MOST)]
        spread = np.concatenate([known, rows.reshape(-1, rows.shape[-1])]).std(axis=0)
        scale = np.maximum(spread, 1e-12)
        # An element that is the same in all starts (a clock, a speed of 0) has to be that in another.
        fixed = np.ptp(known, axis=0) <= 1e-6 * scale
        scale = np.where(fixed, 1e-6 * scale, scale)
        spacing = _distances(known / scale, known / scale)
        np.fill_diagonal(spacing, np.inf)
        lonely = float(spacing.min(axis=1).max())
        return Starts(known, scale, 1.0 if fixed.all() else SLACK * lonely)

    def fresh(self, rows: np.ndarray) -> np.ndarray:
        """Return which of the observations `[T, N, D]` are starts: `[T, N]`."""
        near = [_distances(row / self.scale, self.known / self.scale).min(axis=1) for row in rows]
        return np.array(near).reshape(rows.shape[:2]) <= self.reach


def narrow(rows: np.ndarray) -> np.ndarray:
    """Return observations `[N, numbers]` as rows that are as easily compared, `[N, D]`."""
    rows = rows.astype(np.float64)
    if rows.shape[-1] <= WIDEST:
        return rows
    return rows @ _weights(rows.shape[-1])


@functools.lru_cache(maxsize=1)
def _weights(numbers: int) -> np.ndarray:
    """`[numbers, 64]`; of a large picture it takes longer to draw them than to step."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(numbers, 64))


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`[A, D]`, `[B, D] → [A, B]`, the largest difference of any element."""
    return np.abs(one[:, None] - other[None]).max(axis=-1)
