"""Action masks as Gymnasium writes them, and as the engine takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.system.errors import require

NAMES = ("action_mask", "action_masks")
"""By which environments show which actions are legal: Gymnasium's and PettingZoo's, sb3-contrib's."""


def read_mask(mask: Any, actions: Actions, name: str) -> np.ndarray | None:
    """Read an action mask as `[F, C]`: an array, a tuple of one per factor, or all factors' in one array.

    Entry i of a factor is its i-th choice: the action `start + i`.

    Raises:
        UsageError: a wrong shape, or a factor with no legal choice.
    """
    if mask is None:
        return None
    if isinstance(mask, tuple | list) and all(np.ndim(part) == 0 for part in mask):
        mask = np.asarray(mask)
    alone = isinstance(mask, tuple | list) and len(mask) == 1 and np.ndim(mask[0]) == 1
    parts = mask if alone or (isinstance(mask, tuple | list) and actions.factors > 1) else [mask]
    if len(parts) == 1 < actions.factors and np.shape(parts[0]) == (actions.factors, actions.width):
        # A row for every factor, where all have as many choices; else the rest of a row says nothing.
        parts = [row[:count] for row, count in zip(np.asarray(parts[0]), actions.choices, strict=True)]
    if len(parts) == 1 < actions.factors and np.shape(parts[0]) == (sum(actions.choices),):
        # The convention of sb3-contrib.
        parts = np.split(np.asarray(parts[0]), np.cumsum(actions.choices)[:-1])
    sizes = tuple(np.size(part) for part in parts)
    require(
        sizes == actions.choices,
        f"{name} has {list(sizes)} entries; expected {list(actions.choices)}, one per action.",
    )
    legal = np.zeros((actions.factors, actions.width), bool)
    for factor, part in enumerate(parts):
        legal[factor, : sizes[factor]] = _zeros_and_ones(part, name)
        require(
            bool(legal[factor].any()),
            f"{name} allows no action"
            + (f" of factor {factor}" if actions.factors > 1 else "")
            + "; expected at least one. Nothing was stored or done.",
        )
    return legal


def _zeros_and_ones(mask: Any, name: str) -> np.ndarray:
    value = np.asarray(mask)
    good = value.ndim == 1 and value.dtype.kind in "biuf" and bool(np.isin(value, (0, 1)).all())
    require(good, f"{name} is {mask!r}; expected one 0 or 1 per action.")
    return value.astype(bool)
