"""Paths of fields in messages: `angular_velocity.z`, `position[elbow, wrist]`, `data[0:3]`.

A path is checked against a message type, reads numbers from a message, or writes them into one.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .messages import NAMES, NUMBERS, TIMES, TUPLES, element, fields_of, is_array, near, of_rclpy
from .task import UnusableError

Fields = Callable[[str], "dict[str, str] | None"]
"""Returns the fields of a message type, or `None` if they are unknown."""


class AbsentError(UnusableError):
    """A message that is about other names, such as the joint states of a gripper beside those of an arm."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is taken from an array: places, a slice, or the entries with these names."""

    places: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    ends: tuple[int, int | None] | None = None
    """First place, and the place after the last; `None` is the end of the array."""

    @property
    def count(self) -> int | None:
        """Number of entries; `None` if it depends on the message."""
        if self.ends is not None:
            return None if self.ends[1] is None else self.ends[1] - self.ends[0]
        return len(self.places) or len(self.names)

    def of(self, size: int) -> list[int]:
        """Return the places of an array of this size, some of them perhaps beyond its end."""
        if self.ends is not None:
            return list(range(self.ends[0], size if self.ends[1] is None else self.ends[1]))
        return list(self.places)


def read_selection(text: str) -> Selection:
    """Read `3`, `0:6`, `0, 2` or `elbow, wrist`. Raises `UnusableError`."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UnusableError(f"is '[{text}]'; expected places, as in [0:6] or [2], or names, as in [elbow].")
    if len(words) == 1 and re.fullmatch(r"\d*\s*:\s*\d*", words[0]):
        low, high = (int(end) if end.strip() else None for end in words[0].split(":"))
        low = low or 0
        if high is not None and high <= low:
            raise UnusableError(f"is '[{text}]'; expected an end after the start, as in [0:6].")
        return Selection(ends=(low, high))
    if all(word.isdigit() for word in words):
        return Selection(places=tuple(map(int, words)))
    return Selection(names=tuple(words))


@dataclasses.dataclass(frozen=True)
class FieldPath:
    """The path of a field."""

    text: str
    steps: tuple[str | Selection, ...]

    @staticmethod
    def read(text: object) -> FieldPath:
        """Read a path. Raises `UnusableError`."""
        steps: list[str | Selection] = []
        wanted = "expected a field, as in angular_velocity.z or position[elbow, wrist]"
        if not isinstance(text, str) or not text.strip():
            raise UnusableError(f"is {text!r}; {wanted}.")
        for part in re.split(r"\.(?![^\[]*\])", text.strip()):
            found = re.fullmatch(r"([A-Za-z]\w*)((?:\[[^\[\]]*\])*)", part.strip())
            if found is None:
                raise UnusableError(f"is '{text}'; {wanted}.")
            steps.append(found[1])
            steps += [read_selection(inner) for inner in re.findall(r"\[([^\[\]]*)\]", found[2])]
        return FieldPath(text.strip(), tuple(steps))

    def leaf(self, kind: str, fields: Fields = fields_of) -> str | None:
        """Return the type at the path's end, `None` if unknown. Raises `UnusableError` for a wrong path."""
        here: str | None = kind
        for step in self.steps:
            if here is None:
                return None
            if isinstance(step, Selection):
                if not is_array(here):
                    raise UnusableError(f"is '{self.text}', but {here} is no array; expected no [ ] there.")
                self._require_within(step, here)
                here = element(here)
                continue
            known = fields(here)
            if known is None and (is_array(here) or here in NUMBERS or here == "string"):
                what = f"an array of {element(here)}" if is_array(here) else f"a {here}"
                raise UnusableError(f"is '{self.text}', but there is {what} before '.{step}'.")
            if known is not None and step not in known:
                raise UnusableError(
                    f"is '{self.text}', and {here} has no field '{step}'; expected one of"
                    f" {', '.join(known)}.{near(step, known)}"
                )
            here = None if known is None else known[step]
        return here

    def _require_within(self, step: Selection, kind: str) -> None:
        size = kind.rpartition("[")[2].strip("]")
        if size.isdigit() and any(place >= int(size) for place in step.of(int(size))):
            raise UnusableError(f"is '{self.text}'; expected places below {size}.")

    def count(self, leaf: str | None) -> int | None:
        """Return how many numbers the path has; `None` if that depends on the message."""
        total = 1
        for step in self.steps:
            if isinstance(step, Selection):
                if step.count is None:
                    return None
                total *= step.count
        if leaf is None:
            return None
        if is_array(leaf):
            size = leaf.rpartition("[")[2].strip("]")
            return total * int(size) * len(TUPLES.get(element(leaf), "1")) if size.isdigit() else None
        return total * len(TUPLES.get(leaf, "1"))

    def numbers(self, message: Any, gaps: bool = False) -> np.ndarray:
        """Return the path's numbers in a message, `[N]`.

        Args:
            gaps: whether an entry beyond the end of an array is NaN, and not an error.

        Raises:
            AbsentError: the message has none of the path's names.
            UnusableError: it lacks other entries.
        """
        found: list[Any] = [message]
        holders: list[Any] = [None]
        for step in self.steps:
            if isinstance(step, Selection):
                pairs = [self._select(step, *pair, gaps) for pair in zip(found, holders)]  # noqa: B905
                found = [one for values in pairs for one in values]
                holders = [None] * len(found)
            else:
                holders, found = found, [getattr(one, step) for one in found]
        return np.concatenate([_numbers(one, self.text) for one in found]) if found else np.zeros(0)

    def _select(self, step: Selection, array: Any, holder: Any, gaps: bool) -> list[Any]:
        places = _named(step.names, holder, self.text) if step.names else step.of(len(array))
        missing = [place for place in places if place >= len(array)]
        if missing and not gaps:
            raise UnusableError(
                f"'{self.text}' has {len(array)} entries; expected at least {max(missing) + 1}."
            )
        return [math.nan if place >= len(array) else array[place] for place in places]

    def write(self, message: Any, values: Any) -> None:
        """Write values into a message of rclpy, with the types that its setters accept."""
        _write(message, self.steps, values, self.text)


def _named(names: Sequence[str], holder: Any, text: str) -> list[int]:
    fields = [name for name in NAMES if hasattr(holder, name)]
    if not fields:
        raise UnusableError(f"'{text}' has names, and the message has none beside it; expected places.")
    there = list(getattr(holder, fields[0]))
    lost = [name for name in names if name not in there]
    if lost:
        raise AbsentError(
            f"'{text}': the message has {', '.join(there) or 'no names'}, and not {', '.join(lost)}."
            f"{near(lost[0], there)}"
        )
    return [there.index(name) for name in names]


def _numbers(value: Any, text: str) -> np.ndarray:
    """Return the numbers of a field: a number, an array, a vector, a quaternion or a time."""
    if isinstance(value, (bool, int, float, np.generic)):
        return np.array([value], np.float64)
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8).astype(np.float64)
    if hasattr(value, "nanosec"):
        return np.array([value.sec + 1e-9 * value.nanosec])
    if hasattr(value, "x") and hasattr(value, "y"):
        parts = ("x", "y", "z", "w") if hasattr(value, "w") else ("x", "y", "z")
        return np.array([getattr(value, part) for part in parts], np.float64)
    try:
        if len(value) and hasattr(value[0], "x"):
            return np.concatenate([_numbers(one, text) for one in value])
        return np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise UnusableError(f"'{text}' is a {kind}; expected a field that is a number.") from None


def make(kind: str) -> Any:
    """Return an empty message of a type, or the zero of a primitive one."""
    if "/" in kind:
        return message_class(kind)()
    return {"string": "", "bool": False}.get(kind, 0.0 if kind.startswith("float") else 0)


def message_class(kind: str) -> Any:
    """Return the class of a message type. Raises `UnusableError` if it is not installed."""
    package, _, name = kind.partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise UnusableError(
            f"the message type {kind} is not installed; expected it in this ROS 2 (apt install"
            f" ros-$ROS_DISTRO-{package.replace('_', '-')}), and this terminal to have sourced it."
        ) from None


def fields_of_class(kind: str) -> dict[str, str] | None:
    """Return the fields of a message type that is installed on this machine; `None` for a primitive one."""
    if "/" not in kind or is_array(kind):
        return None
    found = message_class(kind).get_fields_and_field_types()
    return {name: of_rclpy(spelled) for name, spelled in found.items()}


def _write(message: Any, steps: Sequence[str | Selection], values: Any, text: str) -> None:
    name = steps[0]
    assert isinstance(name, str)
    kind = of_rclpy(message.get_fields_and_field_types()[name])
    rest = steps[1:]
    if not rest:
        setattr(message, name, _typed(kind, values, text))
    elif isinstance(rest[0], str):
        _write(getattr(message, name), rest, values, text)
    else:
        array, inner = list(getattr(message, name)), element(kind)
        places = rest[0].of(len(array))
        while places and len(array) <= max(places) and not kind.rpartition("[")[2].strip("]").isdigit():
            array.append(make(inner))
        if len(rest) > 1:
            for place in places:
                _write(array[place], rest[1:], values, text)
        else:
            given = list(np.ravel(values)) if not isinstance(values, (list, tuple)) else list(values)
            _require_count(len(given), len(places), text)
            for place, value in zip(places, given):  # noqa: B905 - Python 3.9
                array[place] = _typed(inner, value, text)
        setattr(message, name, _typed(kind, array, text))


def _typed(kind: str, value: Any, text: str) -> Any:
    """Return a value as rclpy's setters want it: Python's own numbers, and lists of these."""
    if is_array(kind):
        inner, size = element(kind), kind.rpartition("[")[2].strip("]")
        entries = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
        if size.isdigit():
            _require_count(len(entries), int(size), text)
        whole = "/" in inner and inner not in TUPLES
        return entries if whole else [_typed(inner, one, text) for one in entries]
    if kind in TUPLES:
        parts, message, given = TUPLES[kind], make(kind), list(np.ravel(value))
        _require_count(len(given), len(parts), text)
        for part, number in zip(parts, given):  # noqa: B905 - Python 3.9
            setattr(message, part, float(number))
        return message
    single: Any = value
    if isinstance(value, (list, tuple, np.ndarray)):
        _require_count(len(value), 1, text)
        single = value[0]
    if kind in TIMES:
        message = make(kind)
        message.sec = math.floor(float(single))
        message.nanosec = min(round((float(single) - message.sec) * 1e9), 999_999_999)
        return message
    if kind in ("string", "bool"):
        return str(single) if kind == "string" else bool(single)
    return float(single) if kind.startswith("float") else round(float(single))


def _require_count(given: int, wanted: int, text: str) -> None:
    if given != wanted:
        raise UnusableError(f"'{text}' has {given} values; expected {wanted}.")
