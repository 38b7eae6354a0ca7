"""What a policy takes and gives: the numbers of its observation and its actions, by place and name."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .fields import read_selection
from .messages import near
from .section import shown
from .task import UnusableError


@dataclasses.dataclass(frozen=True)
class Slot:
    """One array of the observation: all of it, or the entry of a dictionary."""

    label: str
    path: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: str
    first: int
    """Place of its first number among all numbers of the observation."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The interface of a policy, from its policy.json."""

    slots: tuple[Slot, ...]
    names: tuple[str, ...]
    """Of every number, empty if they have none."""
    kind: str
    """Of the actions: discrete, multi_discrete or joints."""
    choices: tuple[int, ...]
    starts: tuple[int, ...]
    factor_names: tuple[str, ...]
    labels: tuple[str, ...]
    """Of the actions, if they are discrete and have labels."""
    safe_action: Any
    period: float | None
    timeout: float | None
    environment: str

    @staticmethod
    def of(about: Mapping[str, Any]) -> Facts:
        """Read policy.json."""
        observation, actions = about["observation"], about["actions"]
        slots, first = [], 0
        whole = {"path": [], "shape": observation["shape"], "dtype": observation["dtype"]}
        entries = observation.get("entries") or [whole]
        for entry in entries:
            label = ".".join(map(str, entry["path"]))
            shape = tuple(entry["shape"])
            # A one-hot entry is one number of the environment's.
            dtype = "int64" if entry.get("choices", 0) else entry["dtype"]
            slots.append(Slot(label, tuple(entry["path"]), shape, dtype, first))
            first += math.prod(shape)
        factors = len(actions["choices"])
        labels = (actions.get("labels") or [None])[0] if actions["kind"] == "discrete" else None
        names = observation.get("names") or ()
        named = len(entries) == 1 and not entries[0]["path"]
        return Facts(
            tuple(slots),
            tuple(names) if named and len(names) == first else (),
            actions["kind"],
            tuple(actions["choices"]),
            tuple(actions.get("start", [0] * factors)),
            tuple(actions.get("names") or ()),
            tuple(labels or ()),
            about.get("safe_action"),
            about.get("control_period"),
            about.get("timeout"),
            about["environment"]["id"],
        )

    @property
    def size(self) -> int:
        return sum(slot.size for slot in self.slots)

    def name_of(self, place: int) -> str:
        """Return the name of a number of the observation."""
        if self.names:
            return f"{place} ({self.names[place]})"
        slot = next(one for one in reversed(self.slots) if one.first <= place)
        within = place - slot.first
        return f"{slot.label}[{within}]" if slot.label else str(place)

    def places(self, to: Any) -> np.ndarray:
        """Return the places that a `to` names: 3, '0:6', a name, a key, a key and a slice, or a list."""
        if isinstance(to, list):
            return np.concatenate([self.places(one) for one in to]) if to else np.zeros(0, int)
        if isinstance(to, bool) or not isinstance(to, (int, str)):
            raise UnusableError(f"is {shown(to)}; expected {self._wanted()}.")
        text = str(to).strip()
        if text in self.names:
            return np.array([self.names.index(text)])
        key, _, inner = text.partition("[")
        slot = next((one for one in self.slots if one.label == key), None)
        if key and slot is not None:
            chosen = inner.rstrip("] ") if inner else ":"
            return slot.first + self._within(chosen, slot.size, f"'{key}'")
        plain = len(self.slots) == 1 and not self.slots[0].label
        if plain and re.fullmatch(r"[\d:, ]+", text):
            return self._within(text, self.size, "the observation")
        known = [*self.names, *(one.label for one in self.slots if one.label)]
        raise UnusableError(f"is {shown(to)}; expected {self._wanted()}.{near(key, known)}")

    def _within(self, text: str, size: int, what: str) -> np.ndarray:
        selection = read_selection(text)
        if selection.names:
            raise UnusableError(f"is '{text}'; expected places, as in 0:6, of {what}.")
        places = np.array(selection.of(size), int)
        if not len(places) or places.max() >= size:
            raise UnusableError(f"is '{text}'; expected places below {size}, which {what} has.")
        return places

    def _wanted(self) -> str:
        if self.names:
            several = ", ".join(self.names[:8]) + (", …" if len(self.names) > 8 else "")
            return f"a place from 0 to {self.size - 1}, a slice such as '0:2', or a name: {several}"
        if self.slots[0].label:
            return f"a key, as in {', '.join(one.label for one in self.slots[:8])}, or key[0:2]"
        return f"a place from 0 to {self.size - 1}, or a slice such as '0:2'"

    def factors(self, which: Any) -> list[int]:
        """Return the numbers of the action that a key names: places, a slice, or names."""
        count = len(self.choices)
        found: list[int] = []
        for one in which if isinstance(which, list) else [which]:
            text = str(one).strip()
            if text in self.factor_names:
                found.append(self.factor_names.index(text))
                continue
            digits = not isinstance(one, bool) and re.fullmatch(r"[\d:, ]+", text)
            places = read_selection(text).of(count) if digits else []
            if not places or max(places) >= count:
                names = f", or a name: {', '.join(self.factor_names)}" if self.factor_names else ""
                raise UnusableError(
                    f"is {shown(one)}; expected places of the action's {count} numbers, as in 0 or"
                    f" '0:{count}'{names}.{near(text, self.factor_names)}"
                )
            found += places
        return found

    def observation(self, values: np.ndarray) -> Any:
        """Return the environment's observation from all of its numbers, `[size]`."""
        arrays = [_array(values[one.first : one.first + one.size], one) for one in self.slots]
        if not self.slots[0].path:
            return arrays[0]
        root: dict[Any, Any] = {}
        for slot, array in zip(self.slots, arrays):  # noqa: B905 - Python 3.9
            here = root
            for key in slot.path[:-1]:
                here = here.setdefault(key, {})
            here[slot.path[-1]] = array
        return root


def _array(values: np.ndarray, slot: Slot) -> np.ndarray:
    dtype = np.dtype(slot.dtype)
    if dtype.kind in "iu":
        values, ends = np.rint(values), np.iinfo(dtype)
        if not ((values >= ends.min) & (values <= ends.max)).all():
            name = f" '{slot.label}'" if slot.label else ""
            raise UnusableError(
                f"the observation{name} has {values.min():g} to {values.max():g}; expected {ends.min} to"
                f" {ends.max}."
            )
    elif dtype.kind == "b":
        values = values != 0
    return values.astype(dtype).reshape(slot.shape)
