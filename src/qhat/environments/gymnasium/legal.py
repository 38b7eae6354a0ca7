"""The legal actions of a batch of copies, read from what their vector environment says beside a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.masks import read_mask
from qhat.environments.gymnasium.mask_source import KEY, KEYS
from qhat.system.errors import QhatError, UsageError


class LegalReader:
    """Reads `info["action_mask"]` of every copy, from the first reset on or never."""

    def __init__(self, actions: Actions, env_id: str):
        self._actions, self._id, self.masked = actions, env_id, False
        self.where = f"info['{KEY}']"
        """Where the environment gives its masks, for people."""

    def first(self, info: dict[str, Any], count: int) -> np.ndarray | None:
        """Read the masks of a reset of `count` copies, `[N, F, C]`; `None` where there are none."""
        info = renamed(info)
        self.masked = self.masked or KEY in info
        return self.read(info, np.zeros(count, bool), 0)

    def read(self, info: dict[str, Any], free: np.ndarray, step: int) -> np.ndarray | None:
        """Read masks, `[N, F, C]`; rows that are `free` need none.

        Args:
            step: of the run, for the error.

        Raises:
            QhatError: one is missing, is no mask, or comes after a start without.
        """
        info = renamed(info)
        if not self.masked:
            if KEY in info:
                raise UsageError(
                    f"Environment '{self._id}' gave its first {self.where} at step {step:,} of the run;"
                    " expected one from its reset on: what was chosen until then may have been illegal."
                    " Give it in the info of reset too."
                )
            return None
        every = np.full(len(free), KEY in info)
        given = info.get(f"_{KEY}", every)
        rows = [self._row(info, index, given, free, step) for index in range(len(free))]
        return np.stack(rows)

    def _row(
        self, info: dict[str, Any], index: int, given: np.ndarray, free: np.ndarray, step: int
    ) -> np.ndarray:
        if free[index]:
            return np.asarray(self._actions.all_legal)
        if not given[index]:
            raise QhatError(
                f"Environment '{self._id}' gave no {self.where} at step {step:,} of the run; expected one"
                " at every step, as its first reset gave one."
            )
        try:
            mask = read_mask(info[KEY][index], self._actions, self.where)
        except UsageError as error:
            raise QhatError(
                f"Environment '{self._id}' at step {step:,} of the run: {error.sentence}"
            ) from None
        assert mask is not None
        return mask


def renamed(info: dict[str, Any]) -> dict[str, Any]:
    """Return what a vector environment says, with masks under Gymnasium's name."""
    other = KEYS[1]
    if KEY in info or other not in info:
        return info
    return {**info, KEY: info[other], f"_{KEY}": info.get(f"_{other}", np.ones(len(info[other]), bool))}


def merged(rows: np.ndarray, new: np.ndarray | None, old: np.ndarray | None) -> np.ndarray | None:
    """Return the `new` masks of these rows and the `old` ones of the others."""
    return None if new is None or old is None else np.where(rows[:, None, None], new, old)
