"""Actions of several factors as one choice among all joint actions, and values of pairs of factors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, TypeVar

import numpy as np

from qhat.system.lazy import jnp

T = TypeVar("T", bound=Any)


@dataclasses.dataclass(frozen=True)
class JointActions:
    """All J joint actions of F factors, in the order of their choices: the last factor changes first."""

    choices: tuple[int, ...]
    """Number of choices of each factor."""

    @functools.cached_property
    def table(self) -> np.ndarray:
        """`[J, F]`, the choice of every factor in each joint action."""
        return np.stack(np.unravel_index(np.arange(np.prod(self.choices)), self.choices), axis=1)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every two factors."""
        return list(itertools.combinations(range(len(self.choices)), 2))

    @property
    def outputs(self) -> tuple[int]:
        """P, number of pairs of choices of any two factors."""
        return (sum(self.choices[i] * self.choices[j] for i, j in self.pairs),)

    @functools.cached_property
    def mixing(self) -> np.ndarray:
        """`[J, P]`, the share of every pair's value in each joint action's: their mean."""
        columns, before = [], 0
        for i, j in self.pairs:
            columns.append(before + self.table[:, i] * self.choices[j] + self.table[:, j])
            before += self.choices[i] * self.choices[j]
        share = np.zeros((len(self.table), before), np.float32)
        for column in columns:
            share[np.arange(len(share)), column] = 1.0 / len(columns)
        return share

    def mix(self, z: Any, xp: Any = jnp) -> Any:
        """Return means `[1, J, ...]` of what pairs have, `[1, P, ...]`.

        Args:
            z: outputs, or rows of the last layer.
        """
        return xp.einsum("jp,fp...->fj...", xp.asarray(self.mixing), z)

    def index(self, choice: Any, xp: Any = np) -> Any:
        """Return the joint actions `[..., 1]` of choices `[..., F]`."""
        strides = np.cumprod((1, *self.choices[:0:-1]))[::-1].astype(np.int32)
        return xp.sum(choice * xp.asarray(strides), axis=-1, keepdims=True)

    def choice(self, index: Any, xp: Any = np) -> Any:
        """Return the choices `[..., F]` of joint actions `[..., 1]`."""
        return xp.asarray(self.table.astype(np.int32))[index[..., 0]]

    def legal(self, mask: Any, xp: Any = np) -> Any:
        """Return which joint actions, `[..., 1, J]`, have only legal choices, of a mask `[..., F, C]`."""
        each = [mask[..., factor, self.table[:, factor]] for factor in range(len(self.choices))]
        return xp.all(xp.stack(each), axis=0)[..., None, :]


def of_joint_actions(batch: T, joint: JointActions | None) -> T:
    """Return a batch of transitions with joint actions, and masks of these, if Q is of them."""
    if joint is None:
        return batch
    legal, after = batch.legal, batch.legal_next
    return dataclasses.replace(
        batch,
        action=joint.index(batch.action, jnp),
        legal=None if legal is None else joint.legal(legal, jnp),
        legal_next=None if after is None else joint.legal(after, jnp),
    )
