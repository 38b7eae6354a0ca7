"""Values of parts of a joint's range, large ones and small ones, of which those of commands are means."""

from __future__ import annotations

import dataclasses
from typing import Any

from qhat.system.lazy import jnp


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
        return tuple(sum(level_sizes(count, self.parts)) for count in self.choices)

    def mix(self, z: Any, xp: Any = jnp) -> Any:
        """Return means `[F, C, ...]` of what cells have, `[F, N, ...]`; 0 where there is no command.

        Args:
            z: outputs, or rows of the last layer.
        """
        if len(set(self.choices)) == 1:
            return self._mean(z, self.choices[0], xp)
        joints = []
        for joint, count in enumerate(self.choices):
            mean = self._mean(z[joint : joint + 1], count, xp)
            missing = max(self.choices) - count
            joints.append(xp.pad(mean, [(0, 0), (0, missing), *[(0, 0)] * (z.ndim - 2)]))
        return xp.concatenate(joints)

    def _mean(self, z: Any, count: int, xp: Any) -> Any:
        """Return the same of joints that all have `count` commands."""
        before, total, counts = 0, 0.0, level_sizes(count, self.parts)
        for cells in counts:
            total = total + xp.repeat(z[:, before : before + cells], count // cells, axis=1)
            before += cells
        return total / len(counts)


def level_sizes(count: int, parts: int) -> list[int]:
    """Return the cells in each level of a joint with `count` commands; none if there is no such power."""
    found = [parts]
    while found[-1] < count:
        found.append(found[-1] * parts)
    return found if found[-1] == count else []
