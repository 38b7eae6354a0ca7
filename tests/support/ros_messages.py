"""Message classes as rclpy makes them, from the definitions of a ROS 2 distribution (package rosbags).

Like rclpy's, they refuse fields that a message does not have, and values of another type: a NumPy float32
or a whole number for a float64, a text for a number. `cdr` writes the bytes that go over the wire.
"""

from __future__ import annotations

import array
import functools
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

SPELLED = {"float64": "double", "float32": "float", "bool": "boolean"}
CODES = {
    "float64": "d", "float32": "f", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i",
    "uint32": "I", "int64": "q", "uint64": "Q",
}  # fmt: skip
"""Of array.array, in which rclpy keeps sequences of numbers."""


class Structure:
    """A message; `Structure.of("sensor_msgs/Imu")` is a class of them."""

    kinds: ClassVar[dict[str, Any]] = {}
    full_name: ClassVar[str]

    def __init__(self, **fields: Any):
        for name, kind in self.kinds.items():
            object.__setattr__(self, name, _zero(kind))
        for name, value in fields.items():
            setattr(self, name, value)

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        return {name: _spelled(kind) for name, kind in cls.kinds.items()}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.kinds, f"{type(self).__name__} has no field '{name}'"
        object.__setattr__(self, name, _checked(self.kinds[name], value, f"{type(self).__name__}.{name}"))


def message_type(name: str, distribution: str = "JAZZY") -> type[Structure]:
    """Return the class of a message such as `sensor_msgs/Imu`."""
    return _class(name, distribution)


@functools.cache
def _class(name: str, distribution: str) -> type[Structure]:
    _, fields = _store(distribution).fielddefs[name.replace("/", "/msg/")]
    kinds = {field: (kind, distribution) for field, kind in fields}
    return type(name.rpartition("/")[2], (Structure,), {"kinds": kinds, "full_name": name})


def known(distribution: str = "JAZZY") -> dict[str, dict[str, str]]:
    """Return the fields of every message, in the spelling of definitions.txt."""
    return {
        name.replace("/msg/", "/"): {field: _text(kind) for field, kind in fields}
        for name, (_, fields) in _store(distribution).fielddefs.items()
    }


def cdr(message: Structure, distribution: str = "JAZZY") -> bytes:
    """Serialise a message as it goes over the wire."""
    store = _store(distribution)
    kind = type(message).full_name.replace("/", "/msg/")
    return bytes(store.serialize_cdr(_plain(message, store), kind))


@functools.cache
def _store(distribution: str) -> Any:
    return get_typestore(getattr(Stores, f"ROS2_{distribution}"))


def _plain(value: Any, store: Any) -> Any:
    """Return the dataclass of rosbags for a message."""
    if isinstance(value, Structure):
        made = store.types[type(value).full_name.replace("/", "/msg/")]
        return made(**{name: _plain(getattr(value, name), store) for name in value.kinds})
    if isinstance(value, array.array):
        return np.array(value)
    return [_plain(one, store) for one in value] if isinstance(value, list) else value


def _text(kind: Any) -> str:
    node, inner = kind
    if node == Nodetype.BASE:
        return inner[0]
    if node == Nodetype.NAME:
        return inner.replace("/msg/", "/")
    return f"{_text(inner[0])}[{inner[1] or ''}]" if node == Nodetype.ARRAY else f"{_text(inner[0])}[]"


def _spelled(kind: Any) -> str:
    (node, inner), distribution = kind
    if node == Nodetype.SEQUENCE:
        return f"sequence<{_spelled((inner[0], distribution))}>"
    if node == Nodetype.ARRAY:
        return f"{_spelled((inner[0], distribution))}[{inner[1]}]"
    text = _text((node, inner))
    return SPELLED.get(text, text)


def _zero(kind: Any) -> Any:
    (node, inner), distribution = kind
    if node == Nodetype.NAME:
        return message_type(inner.replace("/msg/", "/"), distribution)()
    if node == Nodetype.BASE:
        return {"string": "", "bool": False}.get(inner[0], 0.0 if inner[0].startswith("float") else 0)
    element = _text(inner[0])
    if node == Nodetype.ARRAY:
        return np.zeros(inner[1], element)
    return array.array(CODES[element]) if element in CODES else []


def _checked(kind: Any, value: Any, name: str) -> Any:
    """Return a value as rclpy keeps it. Raises `AssertionError` where rclpy's setters do."""
    (node, inner), distribution = kind
    if node == Nodetype.NAME:
        wanted = message_type(inner.replace("/msg/", "/"), distribution)
        assert type(value) is wanted, f"{name} is {value!r}"
        return value
    if node == Nodetype.BASE:
        kinds = {"string": str, "bool": bool}.get(inner[0], float if inner[0].startswith("float") else int)
        assert isinstance(value, kinds), f"{name} is {value!r}, a {type(value).__name__}"
        if kinds is int:
            ends = np.iinfo("uint8" if inner[0] == "octet" else inner[0])
            assert ends.min <= value <= ends.max, f"{name} is {value}"
        return value
    element = _text(inner[0])
    if isinstance(value, array.array):
        assert value.typecode == CODES[element], name
        return value
    if isinstance(value, np.ndarray):
        assert node == Nodetype.ARRAY, f"{name} is a NumPy array"
        assert value.dtype == element, name
    else:
        assert isinstance(value, list | tuple), f"{name} is {value!r}"
        [_checked((inner[0], distribution), one, name) for one in value]
    if node == Nodetype.ARRAY:
        assert len(value) == inner[1], f"{name} has {len(value)} entries"
        return np.array(value, element)
    return array.array(CODES[element], value) if element in CODES else list(value)
