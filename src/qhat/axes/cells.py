"""Values of parts of a joint's range, large ones and small ones, of which those of commands are means."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from qhat.system.lazy import Array, Float, jnp


@dataclasses.dataclass(frozen=True)
class Cells:
    """The cells of all levels, of joints with so many commands: a command lies in one cell of each level.

    The cells of the last level are the commands. A joint's cells are in the order of its levels, from the
    least command to the largest within a level.
    """

    choices: tuple[int, ...]
    """Commands of each joint: powers of `parts`, at least one of them a square or more."""
    parts: int
    """Cells of the next level in a cell."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Cells of each joint, of all levels together."""
        return tuple(sum(self._levels(count)) for count in self.choices)

    @functools.cached_property
    def mixing(self) -> np.ndarray:
        """`[F, C, N]`, the share of every cell's value in each command's: the mean of those it lies in."""
        table = np.zeros((len(self.choices), max(self.choices), max(self.outputs)), np.float32)
        for joint, count in enumerate(self.choices):
            before, levels = 0, self._levels(count)
            for cells in levels:
                for command in range(count):
                    table[joint, command, before + command * cells // count] = 1.0 / len(levels)
                before += cells
        return table

    def mix(self, z: Float[Array, "F N K"]) -> Float[Array, "F C K"]:
        """Return the outputs of commands of the outputs of cells."""
        return jnp.einsum("fcn,fnk->fck", jnp.asarray(self.mixing), z)

    def mix_rows(self, rows: Any, xp: Any) -> Any:
        """Return the rows of commands, `[F, C, K, I]`, of those of cells in the last layer."""
        return xp.einsum("fcn,fnki->fcki", self.mixing, rows)

    def _levels(self, count: int) -> list[int]:
        """Cells in each level of a joint with so many commands."""
        levels, cells = [], self.parts
        while cells <= count:
            levels, cells = [*levels, cells], cells * self.parts
        return levels
