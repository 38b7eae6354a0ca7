"""Action spaces as the engine sees them: `factors × choices`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qhat.errors import UsageError, require
from qhat.files import brief

Number = float | int
NUMBERS = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
)
"""Names of the types that observations and commands can have."""

MOST = 1_000_000
"""Choices of all factors together that a network can have outputs for."""
BINS = (3,)
"""Choices of a joint, unless a recipe says otherwise: its lowest command, its middle, its highest."""


@dataclasses.dataclass(frozen=True)
class Actions:
    """An action is one choice per factor: a vector of integers of shape `[factors]`.

    `Discrete(n)` has one factor with n choices. Q(s, a) is the mean over the factors of
    Q_f(s, a_f) (Seyde et al. 2022, arXiv:2210.12566, eq. 3).
    """

    choices: tuple[int, ...]
    """Number of choices of each factor."""
    commands: tuple[tuple[Number, ...], ...] | None = None
    """What every choice of a joint commands, in the environment's units; `None` where a choice is the
    action itself."""
    dtype: str = dataclasses.field(default="float32", compare=False)
    """Type of the commands."""
    listed: bool = dataclasses.field(default=False, compare=False)
    """Whether an action of one factor is a vector all the same, as `MultiDiscrete([n])` takes it."""

    def __post_init__(self):
        require(
            len(self.choices) > 0 and all(n >= 1 for n in self.choices),
            f"Action choices are {brief(self.choices)}; expected one positive whole number per factor.",
        )
        require(
            len(self.choices) * max(self.choices) <= MOST,
            f"Action choices are {brief(self.choices)}; expected at most {MOST:,}, factors times choices.",
        )
        if self.commands is not None:
            counts = tuple(len(own) for own in self.commands)
            require(
                counts == self.choices and all(map(math.isfinite, itertools.chain(*self.commands))),
                f"Commands are {brief(self.commands)}; expected {brief(self.choices)} finite numbers for"
                " the joints.",
            )

    @staticmethod
    def binned(
        low: Sequence[Number],
        high: Sequence[Number],
        bins: Sequence[int],
        name: str,
        dtype: str = "float32",
    ) -> Actions:
        """Cut the range of every joint into evenly spaced commands, both ends among them.

        Two bins are the ends alone: bang-bang control (Seyde et al. 2021, arXiv:2111.02552). A joint
        that takes whole numbers has no more commands than there are numbers.

        Args:
            bins: number of commands of every joint, or one number for all.
            name: what the joints are of, for errors.
            dtype: type of the commands.

        Raises:
            UsageError: a joint without bounds, or another number of bins than joints.
        """
        joints = len(low)
        require(
            len(bins) in (1, joints),
            f"--bins has {len(bins)} numbers and {name} {joints} joints; expected one number, or {joints}.",
        )
        for joint, (least, most) in enumerate(zip(low, high, strict=True)):
            if not (math.isfinite(least) and math.isfinite(most) and least < most):
                raise UsageError(
                    f"{name}: joint {joint} takes actions from {least:g} to {most:g}; expected finite"
                    " bounds, low < high, to cut into bins. Bound it: --wrap bound_actions:low=-1,high=1."
                )
        counts = tuple(bins) * joints if len(bins) == 1 else tuple(bins)
        cut = _whole if np.dtype(dtype).kind in "iu" else _evenly
        commands = tuple(map(cut, low, high, counts))
        return Actions(tuple(map(len, commands)), commands, dtype)

    def to_json(self) -> dict[str, Any]:
        """Write what there is to choose, and what it commands."""
        commands = None if self.commands is None else [list(own) for own in self.commands]
        told: dict[str, Any] = {"choices": list(self.choices), "commands": commands}
        if commands is not None:
            told["dtype"] = self.dtype
        if self.listed:
            told["listed"] = True
        return told

    @staticmethod
    def from_json(data: Any) -> Actions:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        choices, commands, listed = data["choices"], data["commands"], data.get("listed", False)
        dtype = data.get("dtype", "float32")
        if not (isinstance(dtype, str) and dtype in NUMBERS and isinstance(listed, bool)):
            raise TypeError
        kinds = (int,) if np.dtype(dtype).kind in "iu" else (int, float)
        told = None
        if commands is not None:
            told = tuple(tuple(map(kinds[-1], _listed(own, kinds))) for own in _listed(commands, (list,)))
        return Actions(tuple(_listed(choices, (int,))), told, dtype, listed)

    @property
    def factors(self) -> int:
        """F, the number of factors."""
        return len(self.choices)

    @property
    def width(self) -> int:
        """C, the largest number of choices of a factor: the tensors' second axis."""
        return max(self.choices)

    @property
    def exists(self) -> tuple[tuple[bool, ...], ...] | None:
        """`[F, C]`, which choices each factor has; `None` where all factors have as many."""
        if len(set(self.choices)) == 1:
            return None
        return tuple(tuple(choice < count for choice in range(self.width)) for count in self.choices)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """`[F, C]`, the commands; a choice that a joint does not have repeats its last one."""
        assert self.commands is not None
        rows = [[*own, *own[-1:] * (self.width - len(own))] for own in self.commands]
        return np.asarray(rows, dtype=self.dtype)

    @property
    def vector(self) -> bool:
        """Whether an action is a vector also to whoever takes it, and no number."""
        return self.factors > 1 or self.commands is not None or self.listed

    def spoken(self, choice: np.ndarray) -> Any:
        """Return choices `[F]` as one takes them: a number, the choices, or commands `[F]`."""
        if self.commands is not None:
            return self.table[np.arange(self.factors), choice]
        return choice if self.vector else int(choice[0])

    def nearest(self, command: np.ndarray) -> np.ndarray:
        """Return the choices `[..., F]` whose commands are nearest to `[..., F]`."""
        return np.abs(self.table.astype(float) - command[..., None]).argmin(axis=-1)

    def same(self, other: Actions) -> bool:
        """Whether what is learned for one is right for the other: the same choices and commands."""
        if self.commands is None or other.commands is None:
            return self == other
        # One library gives a joint's bounds in float32, another in float64.
        return self.choices == other.choices and np.allclose(
            self.table.astype(float), other.table.astype(float), rtol=1e-6, atol=0
        )

    def __str__(self) -> str:
        if self.commands is None:
            return str(self.choices)
        return f"commands {', '.join(str(list(own)) for own in self.commands)}"

    @property
    def all_legal(self) -> tuple[tuple[bool, ...], ...]:
        """`[F, C]`, the mask that allows every choice there is."""
        return self.exists or ((True,) * self.width,) * self.factors

    @property
    def joint(self) -> int:
        """Number of joint actions."""
        return math.prod(self.choices)


def _listed(value: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Return a list of such values. Raises `TypeError` for anything else, also for true and false."""
    if not isinstance(value, list) or any(type(part) not in kinds for part in value):
        raise TypeError
    return value


def _evenly(least: Number, most: Number, count: int) -> tuple[Number, ...]:
    return (*(least + (most - least) * index / (count - 1) for index in range(count - 1)), most)


def _whole(least: Number, most: Number, count: int) -> tuple[Number, ...]:
    low, high = int(least), int(most)
    steps = min(count - 1, high - low)
    return tuple(low + (high - low) * index // steps for index in range(steps + 1))
