"""How the command line reads dataclasses: tyro, with axis values spelled `name:key=value`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from qhat.axes.axis import AxisValue, parse, spell
from qhat.cli.numbers import plain
from qhat.environments.wrappers import WRAPPERS
from qhat.recipes.recipe import AXES
from qhat.system.errors import UsageError

T = TypeVar("T")

PARTS: dict[str, tuple[type[AxisValue], ...]] = {**AXES, "wrap": WRAPPERS}
"""What is spelled as parts are, by the flag that takes it."""


def read(kind: type[T], words: Sequence[str], command: str, default: T | None = None) -> T:
    """Parse `words` into a `kind`; defaults and help come from the dataclass.

    Exits with status 2 and a message where the words do not parse, with 0 after `--help`.
    """
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_axis_rule)
    options: dict[str, Any] = {} if default is None else {"default": default}
    with registry:
        return tyro.cli(
            kind,
            prog=f"qhat {command}",
            args=plain(kind, words),
            config=(tyro.conf.OmitArgPrefixes,),
            **options,
        )


def _axis_rule(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Read and write values of an axis."""
    kind = info.type
    if not (isinstance(kind, type) and issubclass(kind, AxisValue)):
        return None
    known = PARTS[kind.axis]

    def read_value(words: list[str]) -> AxisValue:
        try:
            return parse(words[0], known)
        except UsageError as error:
            raise ValueError(str(error)) from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(value.name for value in known) + "}[:KEY=VALUE,...]",
        instance_from_str=read_value,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [spell(value)],
    )


def value_of(words: Sequence[str], flag: str) -> str | None:
    """Return the word after the last `flag` (or behind `flag=`), before anything is parsed."""
    found = None
    # Both spellings are read: --run-dir and --run_dir.
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
    """Return the words between `flag` and the next flag, before anything is parsed."""
    found: list[str] = []
    for index, word in enumerate(words):
        name, equals, rest = word.partition("=")
        if name.replace("_", "-") == flag:
            behind = itertools.takewhile(lambda other: not other.startswith("--"), words[index + 1 :])
            found = [rest] if equals else list(behind)
    return found
