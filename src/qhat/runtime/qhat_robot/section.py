"""Reads the keys of a map (YAML) with errors that name the key, what was expected, and a near miss."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .messages import near
from .task import UnusableError

MISSING: Any = object()
TOPIC = re.compile(r"(~?/)?[A-Za-z_{][\w{}]*(/[A-Za-z_{][\w{}]*)*", re.ASCII)
"""A topic's name, in which ROS may put names in braces ({node})."""


class Section:
    """One mapping of the file, and its place in it, such as `observation[2]`."""

    def __init__(self, value: Any, where: str, known: tuple[str, ...]):
        """Check the keys.

        Raises:
            UnusableError: the value is no mapping, or has a key that is not known.
        """
        self.where, self._known = where, known
        if not isinstance(value, Mapping):
            raise UnusableError(f"{where} is {shown(value)}; expected keys and values: {', '.join(known)}.")
        self._value: Mapping[Any, Any] = value
        for key in value:
            if key not in known:
                raise UnusableError(
                    f"{self.name(str(key))} is no key of a map; expected one of {', '.join(known)}."
                    f"{near(str(key), known)}"
                )

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def name(self, key: str) -> str:
        """Return the whole name of a key."""
        return f"{self.where}.{key}" if self.where else key

    def get(self, key: str, default: Any = MISSING) -> Any:
        """Return a value. Raises `UnusableError` if it is missing and has no default."""
        if key not in self._value:
            if default is MISSING:
                there = ", ".join(map(str, self._value)) or "nothing"
                raise UnusableError(f"{self.where or 'the map'} has no {key}; expected it beside {there}.")
            return default
        return self._value[key]

    def number(
        self, key: str, default: Any = MISSING, least: float = -math.inf, above: bool = False
    ) -> Any:
        """Return a finite number, at least `least` (with `above`: more than it)."""
        value = self.get(key, default)
        if value is default:
            return default
        number = as_number(value)
        if number is None or not math.isfinite(number) or number < least or (above and number == least):
            bound = "" if least == -math.inf else f", {'more than' if above else 'at least'} {least:g}"
            raise UnusableError(f"{self.name(key)} is {shown(value)}; expected a number{bound}.")
        return number

    def pair(self, key: str) -> tuple[float, float] | None:
        """Return two numbers in order, or `None` if the key is missing."""
        value = self.get(key, None)
        if value is None:
            return None
        ends = [as_number(one) for one in value] if isinstance(value, (list, tuple)) else []
        if len(ends) != 2 or None in ends or not ends[0] < ends[1]:  # type: ignore[operator]
            raise UnusableError(
                f"{self.name(key)} is {shown(value)}; expected the lowest and the highest number, [-1, 1]."
            )
        return (float(ends[0]), float(ends[1]))  # type: ignore[arg-type]

    def word(self, key: str, known: tuple[str, ...], default: Any = MISSING) -> Any:
        """Return one of the known words."""
        value = self.get(key, default)
        word = str(value).lower() if isinstance(value, bool) else value
        if value is not default and word not in known:
            raise UnusableError(
                f"{self.name(key)} is {shown(value)}; expected {', '.join(known)}.{near(str(value), known)}"
            )
        return word

    def text(self, key: str, default: Any = MISSING) -> Any:
        """Return a text that is not empty."""
        value = self.get(key, default)
        if value is not default and (not isinstance(value, str) or not value.strip()):
            raise UnusableError(f"{self.name(key)} is {shown(value)}; expected a text.")
        return value

    def topic(self, key: str, default: Any = MISSING) -> Any:
        """Return the name of a topic, as ROS 2 takes it."""
        value = self.text(key, default)
        if not TOPIC.fullmatch(value):
            raise UnusableError(
                f"{self.name(key)} is {shown(value)}; expected a topic's name: letters, digits and _, with"
                " / between parts, as in /arm/joint_states."
            )
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return `true` or `false`."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise UnusableError(f"{self.name(key)} is {shown(value)}; expected true or false.")
        return value

    def read(self, key: str, reader: Callable[[Any], Any], default: Any = MISSING) -> Any:
        """Return what a reader makes of a value; its errors get the key's name."""
        value = self.get(key, default)
        if value is default:
            return default
        with blaming(self.name(key)):
            return reader(value)

    def rows(self, key: str) -> list[Any]:
        """Return a list that has entries."""
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise UnusableError(f"{self.name(key)} is {shown(value)}; expected a list of entries ('- …').")
        return value


@contextlib.contextmanager
def blaming(name: str) -> Iterator[None]:
    """Begin the sentence of every `UnusableError` with a key."""
    try:
        yield
    except UnusableError as error:
        raise UnusableError(f"{name} {error}") from None


def is_finite(value: Any) -> bool:
    """Whether a value is a number other than infinity and NaN."""
    number = as_number(value)
    return number is not None and math.isfinite(number)


def as_number(value: Any) -> float | None:
    """Return a number, also one that YAML reads as a text (`1e-3`); `None` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def shown(value: Any) -> str:
    """Return a value as a sentence shows it."""
    if value is None:
        return "empty"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
