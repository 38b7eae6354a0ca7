"""One array within an observation: its place, its type, its bounds, and whether it is a picture."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from qhat.axes.actions import NUMBERS

NARROWER = {"float64": "float32", "float16": "float32", "int64": "int32", "uint64": "uint32"}
PIXELS, FRAME, CELLS = 16, 36, 8
"""Sides from which an array is a picture: of three axes, of two, and of grids whose cells are 0 to 1.

Smaller arrays of 0 to 255 are symbols more often than pixels (MiniGrid's 7×7×3 of 0 to 10).
"""
UNBOUNDED = 1e9
"""A bound of a float that says nothing: many spaces declare the largest float there is."""
LARGE_FLOAT, LARGE_INTEGER = 100.0, 50.0
"""Bounds of numbers beyond which a network is not shown them as they are, unless it has to."""
EXACT = 2**24
"""Whole numbers up to which float32 tells neighbours from each other."""
INT32 = 2**31 - 1
ORDER = re.compile(r"s*(hw|hwc|chw)")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array within an observation."""

    path: tuple[Any, ...]
    """Keys and indices that lead to it."""
    shape: tuple[int, ...]
    dtype: str
    choices: int = 0
    """Number of values of a `Discrete`, which is one-hot; 0 for arrays."""
    start: int = 0
    """Lowest value of a `Discrete`."""
    low: float | None = None
    """Least of its lower bounds; `None` where one has no bound."""
    high: float | None = None
    order: str = ""
    """Axes of a picture: `h`, `w`, `c` for colours, `s` for what is stacked; empty for numbers."""

    @staticmethod
    def array(path: tuple[Any, ...], shape: tuple[int, ...], dtype: str, low: Any, high: Any) -> Entry:
        """Describe an array with these bounds (numbers or arrays)."""
        least, most = _bound(low, np.min), _bound(high, np.max)
        if np.dtype(dtype).kind == "f":
            least, most = (None if end is None or abs(end) > UNBOUNDED else end for end in (least, most))
        order = _order(shape, dtype, least, most)
        return Entry(path, shape, dtype, low=least, high=most, order=order)

    @property
    def label(self) -> str:
        """The path for people: `arm.angle`; empty for the whole observation."""
        return ".".join(str(key) for key in self.path)

    @property
    def where(self) -> str:
        """The same within a sentence: ` at 'arm.angle'`."""
        return f" at '{self.label}'" if self.path else ""

    @property
    def text(self) -> str:
        """Shape and type for people."""
        if self.choices:
            return f"{self.choices} discrete"
        bounds = "" if self.low is None or self.high is None else f" {self.low:g} to {self.high:g}"
        return f"{self.shape} {self.dtype}{bounds}"

    @property
    def size(self) -> int:
        """How many numbers it comes to."""
        return self.choices or math.prod(self.shape)

    @property
    def stored(self) -> str:
        """Type that it is stored as where it is the whole observation."""
        if self.choices:
            return "bool"
        if np.dtype(self.dtype).kind in "iu" and self.is_wider_than_int32:
            return "float32"
        return NARROWER.get(self.dtype, self.dtype)

    @property
    def is_wider_than_int32(self) -> bool:
        """Whether whole numbers within its bounds do not fit in int32."""
        if np.dtype(self.dtype).itemsize < 4 or self.dtype == "int32":
            return False
        return self.low is None or self.high is None or self.low < -INT32 - 1 or self.high > INT32

    @property
    def is_bytes(self) -> bool:
        """Whether it is a picture whose pixels fit in bytes."""
        if not self.order or self.low is None or self.high is None:
            return False
        return np.dtype(self.dtype).kind in "iub" and self.low >= 0 and self.high <= 255

    @property
    def scale(self) -> tuple[float, float]:
        """(o, s): a picture is shown as (x − o) / s; (0, 1) where it is within −1…1, or has no bounds."""
        low, high = self.low, self.high
        if not self.order or low is None or high is None or low >= high or max(-low, high) <= 1:
            return 0.0, 1.0
        return low, high - low

    @property
    def is_large(self) -> bool:
        """Whether its bounds say that it is numbers that a network cannot take as they are."""
        if self.order or self.choices:
            return False
        most = LARGE_FLOAT if np.dtype(self.dtype).kind == "f" else LARGE_INTEGER
        return self.reach > most

    @property
    def reach(self) -> float:
        """Largest magnitude within its bounds, where it has some."""
        return max((abs(end) for end in (self.low, self.high) if end is not None), default=0.0)

    @property
    def has_type_bounds(self) -> bool:
        """Whether its bounds are its type's own, which says that there are none."""
        if np.dtype(self.dtype).kind not in "iu" or np.dtype(self.dtype).itemsize == 1:
            return False
        return self.reach >= float(np.iinfo(self.dtype).max)

    @property
    def image_axes(self) -> tuple[int, ...]:
        """The order of axes that brings a picture to height, width, and channels."""
        first = (self.order.index("h"), self.order.index("w"))
        return (*first, *(axis for axis in range(len(self.order)) if axis not in first))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        height, width, *channels = (self.shape[axis] for axis in self.image_axes)
        return height, width, math.prod(channels)

    def framed(self, frames: tuple[int, ...]) -> Entry:
        """Return what it is in a stack of frames."""
        order = "s" * len(frames) + self.order if self.order else ""
        return dataclasses.replace(self, shape=(*frames, *self.shape), order=order)

    def to_json(self) -> dict[str, Any]:
        """Write it, without what says nothing."""
        whole = {**dataclasses.asdict(self), "path": list(self.path), "shape": list(self.shape)}
        empty = {"choices": 0, "start": 0, "low": None, "high": None, "order": ""}
        return {name: value for name, value in whole.items() if name not in empty or value != empty[name]}

    @staticmethod
    def from_json(data: Any) -> Entry:
        """Read what `to_json` wrote. Raises `TypeError`, `ValueError` or `KeyError`."""
        if not isinstance(data, Mapping):
            raise TypeError
        known = {field.name for field in dataclasses.fields(Entry)}
        path, shape, choices = data["path"], data["shape"], data.get("choices", 0)
        start, order, ends = (
            data.get("start", 0),
            data.get("order", ""),
            (data.get("low"), data.get("high")),
        )
        good = isinstance(path, list) and len(path) <= 32 and data.keys() <= known
        good &= all(type(key) in (str, int) for key in path)
        good &= isinstance(shape, list) and len(shape) <= 32 and data["dtype"] in NUMBERS
        good &= all(type(size) is int and 0 <= size < 2**31 for size in shape)
        good &= type(choices) is int and 0 <= choices < 2**31 and type(start) is int and abs(start) < 2**63
        good &= all(end is None or (type(end) in (int, float) and math.isfinite(end)) for end in ends)
        good &= order == "" or (len(order) == len(shape) and ORDER.fullmatch(order) is not None)
        if not good or (choices and (shape or order)) or math.prod(shape) >= 2**31:
            raise TypeError
        return Entry(tuple(path), tuple(shape), data["dtype"], choices, start, *ends, order=order)


def _bound(bounds: Any, reach: Any) -> float | None:
    values = np.asarray(bounds)
    if not values.size or not np.isfinite(values).all():
        return None
    return float(reach(values))


def _order(shape: tuple[int, ...], dtype: str, low: float | None, high: float | None) -> str:
    """Return the order of a picture's axes; empty where an array is no picture."""
    if len(shape) not in (2, 3, 4):
        return ""
    order = "hw" if len(shape) == 2 else "s" * (len(shape) - 3) + _colours(shape[-3:])
    sides = [shape[order.index(side)] for side in "hw"]
    wide = low is None or high is None or max(-low, high) > 1
    whole = np.dtype(dtype).kind in "iu"
    if len(shape) == 2:
        least = PIXELS if wide and whole and high is not None and high > 1 else FRAME
    elif wide or order != "hwc":
        least = PIXELS
    else:
        # A grid of marks: its cells lie beside each other as pixels do.
        least = CELLS if shape[2] <= min(sides) else PIXELS
    return order if min(sides) >= least else ""


def _colours(shape: tuple[int, ...]) -> str:
    """Say which end of three axes the colours are: the one that differs from the others, or is shorter."""
    first, middle, last = shape
    if first == middle or middle == last:
        return "hwc" if first == middle else "chw"
    return "hwc" if last <= first else "chw"
