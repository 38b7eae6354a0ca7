"""Parses the command line into dataclasses with tyro; axis values are written `name:key=value`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from qhat.axes.axis import AxisValue, parse, spell
from qhat.cli.numbers import plain
from qhat.environments.wrappers import WRAPPERS
from qhat.recipes.recipe import AXES
from qhat.system.errors import UsageError, in_shell

T = TypeVar("T")

PARTS: dict[str, tuple[type[AxisValue], ...]] = {**AXES, "wrap": WRAPPERS}
"""Axis values and wrappers by the flag that takes them: all are written `name:key=value`."""


def read(
    kind: type[T],
    words: Sequence[str],
    command: str,
    default: T | None = None,
    parts: Sequence[type[AxisValue]] = (),
) -> T:
    """Parse `words` into a `kind`; defaults and help come from the dataclass.

    Exits with status 2 and a message if parsing fails, and with 0 after `--help`.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(functools.partial(_axis_rule, parts))
    options: dict[str, Any] = {} if default is None else {"default": default}
    with registry:
        return tyro.cli(
            kind,
            prog=f"qhat {command}",
            args=plain(kind, words, command),
            config=(tyro.conf.OmitArgPrefixes,),
            **options,
        )


def _axis_rule(parts: Sequence[type[AxisValue]], info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Tell tyro how to parse and print the values of an axis."""
    kind = info.type
    if not (isinstance(kind, type) and issubclass(kind, AxisValue)):
        return None
    known = (*PARTS[kind.axis], *(part for part in parts if part.axis == kind.axis))

    def read_value(words: list[str]) -> AxisValue:
        try:
            return parse(words[0], known)
        except UsageError as error:
            raise ValueError(in_shell(error)) from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(value.name for value in known) + "}[:KEY=VALUE,...]",
        instance_from_str=read_value,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [spell(value)],
    )


def value_of(words: Sequence[str], flag: str) -> str | None:
    """Return the value of the last `flag VALUE` or `flag=VALUE`, before parsing."""
    found = None
    # Both spellings are accepted: --run-dir and --run_dir.
    for index, word in enumerate(words):
        name, equals, rest = word.partition("=")
        if name.replace("_", "-") != flag:
            continue
        if equals:
            found = rest
        elif index + 1 < len(words):
            found = words[index + 1]
    return found


def values_of(words: Sequence[str], flag: str) -> list[str]:
    """Return the words between `flag` and the next flag, before parsing."""
    found: list[str] = []
    for index, word in enumerate(words):
        name, equals, rest = word.partition("=")
        if name.replace("_", "-") == flag:
            values = itertools.takewhile(lambda other: not other.startswith("--"), words[index + 1 :])
            found = [rest] if equals else list(values)
    return found
