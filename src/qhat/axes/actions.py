"""The codec of actions: the engine's choices, `factors × choices`, and the environment's actions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qhat.system.errors import UsageError, blaming, require, setting
from qhat.system.files import quote

Number = float | int
NUMBERS = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
)
"""Names of the types that observations and commands can have."""

DERIVED: tuple[int, ...] = (-1,)
"""In place of the shape of an action: one number alone, or a number per factor or joint."""
WHOLE = "iub"
"""Kinds of types that hold whole numbers."""
SLACK = 1e-5
"""Share of a joint's range that a command may be beyond it: what float32 rounds."""
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
    """What every choice of a joint commands, in the environment's units; `None` where actions are whole
    numbers: choice i of a factor is the environment's `start + i`."""
    dtype: str = dataclasses.field(default="", compare=False)
    """Type of the environment's actions; by default float32 of commands, else int64."""
    start: tuple[int, ...] = ()
    """Lowest number of every factor; 0 unless given."""
    shape: tuple[int, ...] = DERIVED
    """Shape of the environment's action: `()` where it is a number and no array."""
    complete: bool = dataclasses.field(default=True, compare=False)
    """False where they were read from a file of an older version, which says neither start nor shape."""

    def __post_init__(self):
        require(
            len(self.choices) > 0 and all(n >= 1 for n in self.choices),
            f"Action choices are {quote(self.choices)}; expected one positive whole number per factor.",
        )
        require(
            len(self.choices) * max(self.choices) <= MOST,
            f"Action choices are {quote(self.choices)}; expected at most {MOST:,}: take a MultiDiscrete.",
        )
        if self.commands is not None:
            counts = tuple(len(row) for row in self.commands)
            require(
                counts == self.choices and all(map(math.isfinite, itertools.chain(*self.commands))),
                f"Commands are {quote(self.commands)}; expected {quote(self.choices)} finite numbers for"
                " the joints.",
            )
        shape = () if self.commands is None and self.factors == 1 else (self.factors,)
        dtype = self.dtype or ("int64" if self.commands is None else "float32")
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "start", self.start or (0,) * self.factors)
        object.__setattr__(self, "shape", shape if self.shape == DERIVED else self.shape)
        require(
            len(self.start) == self.factors and math.prod(self.shape) == self.factors,
            f"Actions start at {quote(self.start)} and have shape {quote(self.shape)}; expected"
            f" {self.factors} numbers.",
        )
        good = self.commands is not None and not any(self.start)
        if self.commands is None and np.dtype(self.dtype).kind in "iu":
            last = max(low + count - 1 for low, count in zip(self.start, self.choices, strict=True))
            good = np.iinfo(dtype).min <= min(self.start) <= last <= min(np.iinfo(dtype).max, 2**62)
        require(
            good,
            f"Actions are {self.dtype} and start at {quote(self.start)}; expected whole numbers that the"
            " type can hold, or commands, which have no start.",
        )

    @staticmethod
    def of(space: Any, name: str, bins: Sequence[int] = BINS) -> Actions:
        """Read an action space of Gymnasium.

        Args:
            name: what has it, for errors: `Environment 'x'`.
            bins: number of commands of every joint of a Box, or one number for all.

        Raises:
            UsageError: it is none that a Q-function can choose from, or a joint has no bounds.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Box):
            low, high = (part.ravel().tolist() for part in (space.low, space.high))
            return Actions.binned(low, high, bins, name, np.dtype(space.dtype).name, tuple(space.shape))
        if isinstance(space, spaces.Discrete):
            choices, start, shape = (int(space.n),), (int(space.start),), ()
        elif isinstance(space, spaces.MultiDiscrete):
            choices, start = (tuple(map(int, part.ravel())) for part in (space.nvec, space.start))
            shape = tuple(space.shape)
        elif isinstance(space, spaces.MultiBinary):
            choices, start, shape = (2,) * math.prod(space.shape), (), tuple(space.shape)
        else:
            raise UsageError(
                f"{name} has actions {space!r}; expected Discrete, MultiDiscrete, MultiBinary or Box."
                " Wrap it: gymnasium.wrappers.TransformAction."
            )
        with blaming(name):
            return Actions(choices, None, np.dtype(space.dtype).name, start, shape)

    @staticmethod
    def binned(
        low: Sequence[Number],
        high: Sequence[Number],
        bins: Sequence[int],
        name: str,
        dtype: str = "float32",
        shape: tuple[int, ...] = DERIVED,
    ) -> Actions:
        """Cut the range of every joint into evenly spaced commands, both ends among them.

        Two bins are the ends alone: bang-bang control (Seyde et al. 2021, arXiv:2111.02552). A joint
        that takes whole numbers has no more commands than there are numbers.

        Args:
            bins: number of commands of every joint, or one number for all.
            name: what the joints are of, for errors.
            dtype: type of the commands.
            shape: of an action; a number per joint unless given.

        Raises:
            UsageError: a joint without bounds, or another number of bins than joints.
        """
        joints = len(low)
        require(
            len(bins) in (1, joints),
            f"{setting('bins')} has {len(bins)} numbers, {name} {joints} joints; expected 1 or {joints}.",
        )
        for joint, (least, most) in enumerate(zip(low, high, strict=True)):
            if not (math.isfinite(least) and math.isfinite(most) and least < most):
                raise UsageError(
                    f"{name}: joint {joint} takes actions from {least:g} to {most:g}; expected finite"
                    " bounds, low < high, to cut into bins. Bound it:"
                    f" {setting('wrap', 'bound_actions:low=-1,high=1')}, or a Box with bounds."
                )
        counts = tuple(bins) * joints if len(bins) == 1 else tuple(bins)
        cut = _whole if np.dtype(dtype).kind in WHOLE else _evenly
        commands = tuple(map(cut, low, high, counts))
        return Actions(tuple(map(len, commands)), commands, dtype, shape=shape)

    def to_json(self) -> dict[str, Any]:
        """Write what there is to choose, and what it is to the environment."""
        commands = None if self.commands is None else [list(row) for row in self.commands]
        written = {"choices": list(self.choices), "commands": commands, "dtype": self.dtype}
        if self.complete:
            return {**written, "start": list(self.start), "shape": list(self.shape)}
        return {**written, "listed": True} if self.vector else written

    @staticmethod
    def from_json(data: Any) -> Actions:
        """Read what `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else.

        What an older version wrote has no start and no shape: it is not `complete`.
        """
        choices = tuple(_listed(data["choices"], (int,)))
        rows, listed = data["commands"], data.get("listed", False)
        dtype = data.get("dtype", "int64" if rows is None else "float32")
        if not (isinstance(dtype, str) and dtype in NUMBERS and isinstance(listed, bool)):
            raise TypeError
        commands = None
        if rows is not None:
            kinds = (int,) if np.dtype(dtype).kind in WHOLE else (int, float)
            commands = tuple(tuple(map(kinds[-1], _listed(row, kinds))) for row in _listed(rows, (list,)))
        if "start" not in data:
            shape = (len(choices),) if listed else DERIVED
            return Actions(choices, commands, dtype, shape=shape, complete=False)
        start, shape = (tuple(_listed(data[name], (int,))) for name in ("start", "shape"))
        if len(start) != len(choices) or any(size < 0 for size in shape) or len(shape) > 32:
            raise ValueError
        return Actions(choices, commands, dtype, start, shape)

    def completed(self, other: Actions) -> Actions:
        """Take start and shape of the `same` actions of an environment, where they are not known."""
        if self.complete:
            return self
        dtype = other.dtype if self.commands is None else self.dtype
        return dataclasses.replace(self, dtype=dtype, start=other.start, shape=other.shape, complete=True)

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
        rows = [[*row, *row[-1:] * (self.width - len(row))] for row in self.commands]
        return np.asarray(rows, dtype=self.dtype)

    @property
    def vector(self) -> bool:
        """Whether values come as `[F, C]`: not where an action is one whole number."""
        return self.commands is not None or self.shape != ()

    def to_env(self, choice: Any, xp: Any = np) -> Any:
        """Return the environment's actions `[..., *shape]` of choices `[..., F]`.

        Args:
            xp: NumPy or `jax.numpy`, which keeps the type of whole numbers.

        Returns:
            an array; of NumPy's choices `[F]`, where an action is one whole number, an `int`.
        """
        if xp is np and not self.vector and choice.ndim == 1:
            return int(choice[0]) + self.start[0]
        if self.commands is not None:
            action = xp.asarray(self.table)[xp.arange(self.factors), choice]
        elif xp is np:
            action = (np.asarray(choice, np.int64) + np.asarray(self.start)).astype(self.dtype)
        else:
            action = choice + xp.asarray(self.start, choice.dtype)
        return action.reshape((*choice.shape[:-1], *self.shape))

    def from_env(self, action: Any) -> np.ndarray:
        """Return the choices `[..., F]` of an environment's actions `[..., *shape]`."""
        value = np.asarray(action)
        return self.nearest(value.reshape(*value.shape[: value.ndim - len(self.shape)], self.factors))

    def flat(self, action: Any, batch: tuple[int, ...] = ()) -> np.ndarray | None:
        """Return actions that anyone wrote as numbers `[*batch, F]`; `None` where they are none.

        They have the environment's shape, or a number per factor in C order.
        """
        try:
            value = np.asarray(action)
        except ValueError:
            return None
        first, rest = value.shape[: len(batch)], value.shape[len(batch) :]
        alone = self.factors == 1 and math.prod(rest) == 1
        fits = first == batch and (alone or rest in (self.shape, (self.factors,)))
        return value.reshape(*batch, self.factors) if fits and value.dtype.kind in "biuf" else None

    def holds(self, flat: np.ndarray) -> np.ndarray:
        """Whether numbers `[..., F]` are an action's, each; commands may lie between those there are."""
        if self.commands is None:
            above = flat - np.asarray(self.start, float)
            return (flat == np.floor(flat)) & (above >= 0) & (above < np.asarray(self.choices))
        low, high = self.ends
        slack = SLACK * (high - low)
        return (flat >= low - slack) & (flat <= high + slack)

    def nearest(self, flat: np.ndarray) -> np.ndarray:
        """Return the choices `[..., F]` of numbers `[..., F]`: those with the nearest commands."""
        if self.commands is None:
            return flat.astype(np.int64) - np.asarray(self.start)
        return np.abs(self.table.astype(float) - flat.astype(float)[..., None]).argmin(axis=-1)

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """`[F]` each, the lowest and the highest number of every factor."""
        if self.commands is None:
            return np.asarray(self.start), np.asarray(self.start) + np.asarray(self.choices) - 1
        table = self.table.astype(float)
        return table.min(axis=1), table.max(axis=1)

    @property
    def expected(self) -> str:
        """What an action is, for errors: `a whole number from 0 to 3`."""
        low, high = (end.tolist() for end in self.ends)
        whole = "" if self.commands is not None else "whole "
        if self.shape == ():
            return f"a {whole}number from {low[0]} to {high[0]}"
        of = "" if len(self.shape) == 1 else f" of shape {self.shape}"
        return f"{self.factors} {whole}numbers{of}, from {quote(low)} to {quote(high)}"

    def same(self, other: Actions) -> bool:
        """Whether what is learned for one is right for the other: the same choices and commands.

        Nor may choices start at different numbers, where both are known. Shapes may differ.
        """
        if self.commands is None or other.commands is None:
            known = self.complete and other.complete
            alike = (self.choices, self.commands) == (other.choices, other.commands)
            return alike and (self.start == other.start or not known)
        # One library gives a joint's bounds in float32, another in float64.
        return self.choices == other.choices and np.allclose(
            self.table.astype(float), other.table.astype(float), rtol=1e-6, atol=0
        )

    def __str__(self) -> str:
        if self.commands is None:
            return str(self.choices) + (f" starting at {self.start}" if any(self.start) else "")
        return f"commands {', '.join(str(list(row)) for row in self.commands)}"

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
