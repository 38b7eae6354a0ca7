"""An axis of the family: a set of named values, each a frozen dataclass, spelled as text or JSON.

`categorical:atoms=51,v_min=-10` on the command line and `{"name": "categorical", "atoms": 51, ...}`
in a manifest are the same value. Parts from outside the package are handed to the readers as
`extra`; there is no global registry to mutate.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from qhat.system.errors import UsageError, near_miss
from qhat.system.files import quote

F = TypeVar("F", bound=Callable[..., Any])


class AxisValue:
    """Base of everything that a recipe composes. Subclasses are frozen dataclasses with a `name`."""

    axis: ClassVar[str]
    name: ClassVar[str]

    def validate(self) -> None:
        """Raise `UsageError` when a field has no meaning."""

    def validate_within(self, recipe: Any) -> None:
        """Raise `UsageError` when the part has no meaning beside the other parts of its recipe."""

    def schedules(self, steps: int) -> list[Schedule]:
        """Return what of the part changes over a run of `steps` environment steps."""
        return []


class Schedule(NamedTuple):
    """A number that changes on a line over environment steps, and then stays."""

    name: str
    start: float
    """At step 0."""
    end: float
    """From step `steps` on."""
    steps: int


def defines(part: AxisValue, method: str, arithmetic: str) -> bool:
    """Return whether the class that defines the arithmetic, or one derived from it, defines `method`.

    A subclass that computes something else does not inherit a description of what it computes.
    """
    for kind in type(part).__mro__:
        if method in vars(kind):
            return not getattr(vars(kind)[method], "is_missing", False)
        if arithmetic in vars(kind):
            return False
    return False


def missing(method: F) -> F:
    """Mark a method of a base class as one that a value may leave out; `defines` says whether it did."""
    method.is_missing = True  # pyright: ignore[reportFunctionMemberAccess]
    return method


V = TypeVar("V", bound=AxisValue)


def spell(value: AxisValue) -> str:
    """Write a value as the command line reads it; fields at their defaults are left out."""
    changed = [
        f"{field.name}={write_field(getattr(value, field.name))}"
        for field in dataclasses.fields(value)  # pyright: ignore[reportArgumentType]
        if getattr(value, field.name) != field.default
    ]
    return value.name + (":" + ",".join(changed) if changed else "")


def parse(text: str, known: Iterable[type[V]]) -> V:
    """Read `name` or `name:key=value,key=value`.

    Raises:
        UsageError: unknown name or key, or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    return _build(name, {key.strip(): raw for key, _, raw in pairs}, known)


def to_json(value: AxisValue) -> dict[str, Any]:
    """Write a value with all its fields, for a manifest."""
    return {"name": value.name, **dataclasses.asdict(value)}  # pyright: ignore[reportArgumentType]


def from_json(data: Any, known: Iterable[type[V]]) -> V:
    """Read what `to_json` wrote. Raises `UsageError` as `parse` does."""
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise UsageError(f"{quote(data)} is not a named part of a recipe; expected an object with a name.")
    fields = {key: item for key, item in data.items() if key != "name"}
    return _build(data["name"], fields, known)


def check(value: AxisValue) -> None:
    """Check that every field has its type and a number that float32 and int32 hold.

    Raises:
        UsageError: the first that has not.
    """
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):  # pyright: ignore[reportArgumentType]
        item, hint = getattr(value, field.name), hints[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(_fits(item, option) for option in options):
            limit = _limit(item, options)
            raise UsageError(f"{value.name}:{field.name} is {item!r}; expected {_expected(hint)}{limit}.")


def _limit(item: Any, options: Iterable[Any]) -> str:
    """Say what is too large about a number of the right kind."""
    number = isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
    if number and isinstance(item, int) and int in options:
        return ", below 2147483648"
    return ", below 3e38" if number and float in options else ""


def _fits(item: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < 3e38
    if hint is int:
        return isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**31
    if typing.get_origin(hint) is tuple:
        return isinstance(item, tuple) and all(_fits(part, typing.get_args(hint)[0]) for part in item)
    return not isinstance(hint, type) or isinstance(item, hint)


def _build(name: str, fields: Mapping[str, Any], known: Iterable[type[V]]) -> V:
    by_name = {kind.name: kind for kind in known}
    if name not in by_name:
        axis = next(iter(by_name.values())).axis
        raise UsageError(
            f"{axis} {quote(name)} is not known; expected one of {', '.join(by_name)}."
            + near_miss(name, by_name)
        )
    kind = by_name[name]
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in fields:
        if key not in names:
            raise UsageError(
                f"{kind.axis} '{name}' has no setting {quote(key)}; it has {', '.join(names) or 'none'}."
                + near_miss(key, names)
            )
    values = {key: _read(raw, hints[key], f"{name}:{key}") for key, raw in fields.items()}
    value = kind(**values)
    check(value)
    value.validate()
    return value


def write_field(item: Any) -> str:
    """Write a field's value as the command line reads it."""
    if isinstance(item, tuple):
        return "x".join(str(part) for part in item)
    return str(item).lower() if isinstance(item, bool) else str(item)


def _read(raw: Any, hint: Any, where: str) -> Any:
    """Read one field. Text comes from the command line, everything else from JSON."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if raw is None or (isinstance(raw, str) and raw.lower() == "none"):
        if type(None) in options:
            return None
        raise UsageError(f"{where} is none; expected {_expected(hint)}.")
    hint = next(option for option in options if option is not type(None))
    if typing.get_origin(hint) is tuple:
        parts = raw.split("x") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple):
            raise UsageError(f"{where} is {quote(raw)}; expected {_expected(hint)}.")
        return tuple(_read(part, typing.get_args(hint)[0], where) for part in parts)
    try:
        if hint is bool:
            return raw if isinstance(raw, bool) else {"true": True, "false": False}[raw.lower()]
        if isinstance(raw, bool):
            raise TypeError
        if hint is str and not isinstance(raw, str):
            raise TypeError
        if hint is int and isinstance(raw, float) and raw != int(raw):
            raise TypeError
        return hint(raw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UsageError(f"{where} is {quote(raw)}; expected {_expected(hint)}.") from None


def _expected(hint: Any) -> str:
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    if isinstance(hint, types.UnionType):
        return " or ".join(_expected(option) for option in typing.get_args(hint))
    return words.get(hint, "none" if hint is type(None) else str(hint))
