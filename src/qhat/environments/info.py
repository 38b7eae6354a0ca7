"""Values of `info` that a run logs: how they are named, found, and read from a batch.

`info.distance` is `info["distance"]`, `info.rewards.speed` is `info["rewards"]["speed"]`, and
`info.position.0` is the first number of an array. A key that has dots itself is found too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qhat.system.errors import UsageError, near_miss, require, setting
from qhat.system.files import quote

PREFIX = "info."
NOT_IN_A_NAME = set(',"\r\n')
"""Characters that a header of metrics.csv cannot have."""
LONGEST = 200
"""Characters of a name."""
SHOWN = 40
"""Names of a long list that are shown."""
WITHOUT_INFO = ("gymnax", "qhat")
"""Backends that have no `info`."""
OTHERS = ("final_obs", "final_info", "final_observation")
"""Keys that vector environments add."""


def require_names(names: Any) -> None:
    """Raise `UsageError` unless `names` are different names of values of `info`."""
    good = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    require(good, f"{setting('log')} is {quote(names)}; expected names such as 'info.distance'.")
    for name in names:
        plain = name.isprintable() and not set(name) & NOT_IN_A_NAME and len(name) <= LONGEST
        bare = name.removeprefix(PREFIX) or "distance"
        require(
            name.startswith(PREFIX) and name != PREFIX and plain,
            f"{setting('log')} has {quote(name)}; expected info. and a name, such as"
            f" '{PREFIX}{bare if plain else 'distance'}'.",
        )
    twice = next((name for name in names if names.count(name) > 1), "")
    require(not twice, f"{setting('log')} has '{twice}' twice; expected each name one time.")


def find(info: Any, name: str) -> Any:
    """Return the value of a name, with its column of an array's last axes; `None` if it is not there."""
    return next((value for value, _ in _places(info, name.removeprefix(PREFIX))), None)


def names_in(info: Any, before: str = PREFIX) -> list[str]:
    """Return the names of all values, those in dictionaries too."""
    names = []
    for key, value in info.items() if isinstance(info, Mapping) else ():
        if not isinstance(key, str) or key in OTHERS or (key[:1] == "_" and key[1:] in info):
            continue
        within = isinstance(value, Mapping)
        names += names_in(value, f"{before}{key}.") if within else [before + key]
    return names


def require_known(names: Sequence[str], known: Collection[str], env_id: str) -> None:
    """Raise `UsageError` for the first name that an environment does not have."""
    for name in names:
        if name not in known:
            raise UsageError(
                f"{setting('log')} has '{name}', and {_has(env_id, known)}.{_close(name, known)}"
            )


def require_backend(names: Sequence[str], env_id: str, backend: str) -> None:
    """Raise `UsageError` if a run would log names in an environment that has no `info`."""
    if not names or backend not in WITHOUT_INFO:
        return
    raise UsageError(
        f"{setting('log')} has '{names[0]}', and environments of {backend}, such as '{env_id}', have no"
        " info; expected one of gym: or envpool:, or a JaxEnvironment that returns info from its step."
    )


def _has(env_id: str, known: Collection[str]) -> str:
    names = sorted(known)
    if not names:
        return f"the info of '{env_id}' is empty"
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"the info of '{env_id}' has {', '.join(names[:SHOWN])}{more}"


def _close(name: str, known: Collection[str]) -> str:
    # Without the prefix, which every name shares.
    hint = near_miss(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known])
    return hint.replace("'", f"'{PREFIX}", 1)


def _places(info: Any, path: str) -> Iterator[tuple[Any, Any]]:
    """Yield what a path leads to, and the mask that a vector environment put beside it."""
    if not isinstance(info, Mapping):
        return
    if path in info:
        yield info[path], info.get(f"_{path}")
    at = path.rfind(".")
    while at > 0:
        head, rest = path[:at], path[at + 1 :]
        if isinstance(inner := info.get(head), Mapping):
            yield from _places(inner, rest)
        elif inner is not None and all(each.isdecimal() for each in rest.split(".")):
            value = inner if hasattr(inner, "shape") else np.asarray(inner)
            index = tuple(int(each) for each in rest.split("."))
            shape = value.shape[len(value.shape) - len(index) :]
            if len(index) <= len(value.shape) and all(i < n for i, n in zip(index, shape, strict=True)):
                yield value[(..., *index)], info.get(f"_{head}")
        at = path.rfind(".", 0, at)


class InfoReader:
    """Reads the values from the `info` of N copies, and notes which names it never finds."""

    def __init__(self, names: Sequence[str], copies: int, env_id: str):
        self.names, self._copies, self._id = tuple(names), copies, env_id
        self._missing, self._known = set(names), set[str]()
        self._odd: dict[str, str] = {}

    def read(self, info: Any, ended: np.ndarray | None = None) -> np.ndarray:
        """Return the values `[N, K]` of float32; NaN where a copy has none.

        Args:
            ended: copies that were reset in this step: their values are in `final_info`.
        """
        if self._missing:
            self._known.update(names_in(info), *([names_in(info.get("final_info"))] if info else []))
        rows = np.stack([self._column(info, name) for name in self.names], axis=-1)
        if ended is not None and ended.any():
            final = info.get("final_info", {})
            last = np.stack([self._column(final, name) for name in self.names], axis=-1)
            rows = np.where(ended[:, None], last, rows)
        return rows

    def nothing(self) -> np.ndarray:
        """Return the values of a step that brought none."""
        return np.full((self._copies, len(self.names)), np.nan, np.float32)

    def require_numbers(self, info: Any) -> None:
        """Raise `UsageError` if the `info` of a reset has something else than a number for a name."""
        self.read(info)
        for sentence in self._odd.values():
            raise UsageError(sentence)

    def notes(self) -> list[str]:
        """Return a sentence for each name without a number so far; each is returned one time."""
        notes = list(self._odd.values())
        for name in self.names:
            if name in self._missing and name not in self._odd:
                notes.append(
                    f"{setting('log')} has '{name}', which was in no step so far: its column in metrics.csv"
                    f" is empty. So far {_has(self._id, self._known)}.{_close(name, self._known)}"
                )
        self._missing, self._odd = set(), {}
        return notes

    def _column(self, info: Any, name: str) -> np.ndarray:
        column = np.full(self._copies, np.nan, np.float32)
        value, mask = next(_places(info, name.removeprefix(PREFIX)), (None, None))
        if value is None:
            return column
        try:
            there = np.ones(self._copies, bool) if mask is None else np.asarray(mask, bool)
            if there.any():
                numbers = _numbers(value, there)
                column[there] = numbers[there]
                self._missing.discard(name)
        except (TypeError, ValueError, IndexError, OverflowError):
            self._odd.setdefault(name, self._said(name, value))
        return column

    def _said(self, name: str, value: Any) -> str:
        given = np.asarray(value)
        if given.dtype.kind in "biuf" and given.size > self._copies:
            shape = given.shape[1:]
            first = ".".join("0" for _ in shape)
            what = (
                f"an array of shape {shape}; expected a number: name one of its entries, '{name}.{first}'"
            )
        else:
            one = next((each for each in given.ravel().tolist() if each is not None), None)
            what = f"{quote(one)}; expected a number"
        return f"{setting('log')} has '{name}', which is {what}."


def _numbers(value: Any, there: np.ndarray) -> np.ndarray:
    """Read one number for each copy. Raises `TypeError` or `ValueError` for anything else."""
    given = np.asarray(value)
    if given.dtype == object:
        numbers = np.full(len(there), np.nan, np.float32)
        for copy in np.flatnonzero(there):
            numbers[copy] = np.nan if given[copy] is None else _number(given[copy])
        return numbers
    if given.dtype.kind not in "biuf":
        raise TypeError
    return given.reshape(there.shape).astype(np.float32)


def _number(value: Any) -> float:
    if np.asarray(value).dtype.kind not in "biuf":
        raise TypeError
    return float(np.asarray(value).reshape(()))
