"""Rewrites numbers as people type them (1e5, 100_000, 64,64), and checks words, before tyro parses them."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

from qhat.axes.axis import AxisValue
from qhat.environments.info import PREFIX
from qhat.recipes.habits import our_word, ours_of
from qhat.system.errors import UsageError, near_miss, require

RENAMED = {"--adam-epsilon": "--optimiser adam:epsilon="}
"""Flags of earlier versions and their replacement, up to the value."""
LOG = "--log"
"""A list of names that all begin with `PREFIX`; the flag may be repeated."""
POSITIONAL = typing.get_args(tyro.conf.Positional[str])[1]
WHOLE, REAL, SWITCH = "a whole number", "a number", "nothing"


def plain(kind: type, words: Sequence[str], command: str = "") -> list[str]:
    """Return `words` with numbers in Python's notation and positional arguments first.

    Args:
        kind: dataclass to parse into.
        command: for the errors, as `train`.

    Raises:
        UsageError: an unknown flag, a missing value, or a value that is none of the expected words or no
            number.
    """
    known, choices, instead = dict(flags_of(kind)), choices_of(kind), words_of(kind)
    switches = {flag for flag, (wanted, _, optional) in known.items() if wanted == SWITCH and not optional}
    switches |= {"--help"}
    found: list[str] = []
    places: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if (switch := _optional_switch(flag, value if equals else None, known)) is not None:
            found += switch
            continue
        if flag in switches and equals:
            raise UsageError(f"{flag} is '{value}'; expected no value: leave out '={value}'.")
        if not word.startswith("--") or flag in switches:
            (found if flag in switches else places).append(word)
            continue
        following = [value] if equals else list(itertools.takewhile(_is_value, rest))
        if flag not in known:
            if flag in RENAMED:
                new = RENAMED[flag]
                raise UsageError(f"{flag} is now {new.split()[0]}: {new}{''.join(following[:1])}.")
            _require_our_word(flag, following, known, command)
            hint = near_miss(flag, [*known, "--help"])
            raise UsageError(f"{flag} is not an option of this command; --help lists them.{hint}")
        wanted, several, optional = known[flag]
        if not following:
            raise UsageError(f"{flag} has no value; expected {wanted or 'one'}.")
        count = len(following) if several else 1
        # A word after numbers or KEY=VALUE pairs may be the environment's id.
        if several and wanted:
            count = max(1, sum(1 for _ in itertools.takewhile(_is_numeric, following)))
        elif several and "=" in following[0] and flag != "--wrap":
            count = sum(1 for _ in itertools.takewhile(lambda word: "=" in word, following))
        elif flag == LOG:
            count = max(
                1, sum(1 for _ in itertools.takewhile(lambda word: word.startswith(PREFIX), following))
            )
        taken = following[:count]
        if not equals:
            del rest[:count]
        if flag == HIDDEN:
            beside = following[count : count + 1]
            mixed = beside == ["none"] or (taken == ["none"] and any(map(_is_numeric, beside)))
            words = " ".join([*taken, *beside])
            require(not mixed, f"{flag} is {words}; expected widths, for example 64 64, or none alone.")
            taken = [] if taken == ["none"] else taken
        if wanted and not (taken and taken[0] in instead.get(flag, ())):
            parts = [part for each in taken for part in (each.split(",") if several else [each]) if part]
            also = "".join(f", or {word}" for word in instead.get(flag, ()))
            taken = [_number(flag, part, wanted, optional, also) for part in parts]
        if taken:
            _require_choice(flag, taken[0], choices.get(flag, ()))
        if flag == LOG and flag in found:
            # Each name may have its flag.
            at = found.index(flag)
            names = list(itertools.takewhile(_is_value, found[at + 1 :]))
            found[at + 1 : at + 1 + len(names)] = [*names, *taken]
        else:
            found += [flag, *taken]
    return places + found


HIDDEN = "--hidden"
"""The flag of numbers that may be none at all."""


def _require_our_word(flag: str, following: Sequence[str], known: Mapping[str, Any], command: str) -> None:
    """Raise `UsageError` for a habit from another library, if this command has qhat's setting for it."""
    ours = ours_of(flag)
    has_it = "--" + ours.replace("_", "-") in known or ours == "env"
    # One sentence for every command: what JAX runs on is no setting of any.
    sentence = our_word(flag, next(iter(following), None), f"qhat {command}")
    if sentence and (has_it or not ours):
        raise UsageError(sentence)


def _optional_switch(
    flag: str, value: str | None, known: Mapping[str, tuple[str, bool, bool]]
) -> list[str] | None:
    """Return the words for a switch that may be true, false or none; `None` for any other word."""
    wanted, _, optional = known.get(flag, ("", False, False))
    if wanted != SWITCH or not optional:
        return None
    words = {"true": "True", "false": "False", "none": "None"}
    if flag.startswith("--no-"):
        if value is not None:
            raise UsageError(f"{flag} is '{value}'; expected no value: leave out '={value}'.")
        return [f"--{flag.removeprefix('--no-')}", "False"]
    if value is not None and value.lower() not in words:
        raise UsageError(f"{flag} is '{value}'; expected {flag}, {flag}=false or {flag}=none.")
    return [flag, "True" if value is None else words[value.lower()]]


def _is_value(word: str) -> bool:
    return not word.startswith("--")


def _is_numeric(word: str) -> bool:
    return word[:1].isdigit() or word[:1] in ("-", ".")


def _number(flag: str, text: str, wanted: str, optional: bool, also: str = "") -> str:
    if optional and text.lower() == "none":
        return "None"
    try:
        value = float(text)
        if wanted == REAL:
            return text
        # Digits alone are not passed through a float64, which would round large numbers.
        return (
            str(int(value))
            if any(mark in text for mark in ".eE") and value == int(value)
            else str(int(text))
        )
    except (ValueError, OverflowError):
        such = "500 or 1e5" if wanted == WHOLE else "0.98"
        raise UsageError(f"{flag} is '{text}'; expected {wanted}, such as {such}{also}.") from None


def _require_choice(flag: str, word: str, choices: Sequence[str]) -> None:
    if choices and word not in choices:
        expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UsageError(f"{flag} is '{word}'; expected {expected}.{near_miss(word, choices)}")


def choices_of(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the words that a flag takes, for the flags of which each is a word of a list."""
    hints = typing.get_type_hints(kind)
    return {
        f"--{name.replace('_', '-')}": typing.get_args(hint)
        for name, hint in hints.items()
        if typing.get_origin(hint) is typing.Literal
    }


def words_of(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the words that a flag takes in place of a number."""
    return {
        f"--{name.replace('_', '-')}": typing.get_args(part)
        for name, hint in typing.get_type_hints(kind).items()
        for part in typing.get_args(hint)
        if typing.get_origin(hint) is typing.Union and typing.get_origin(part) is typing.Literal
    }


def flags_of(kind: type) -> Iterator[tuple[str, tuple[str, bool, bool]]]:
    """Yield every flag with its kind of number, whether it takes several, and whether it may be none."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], field.name
        if typing.get_origin(hint) is Annotated:
            hint, *about = typing.get_args(hint)
            if POSITIONAL in about:
                continue
            name = next((part.name for part in about if getattr(part, "name", None)), name)
        is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        optional = is_union and types.NoneType in typing.get_args(hint)
        # A word in place of a number: see `words_of`.
        parts = [
            part
            for part in typing.get_args(hint)
            if part is not types.NoneType and not (is_union and typing.get_origin(part) is typing.Literal)
        ]
        if optional and len(parts) == 1:
            hint = parts[0]
        shape = typing.get_origin(hint)
        several = shape in (tuple, Mapping)
        inner: Any = typing.get_args(hint)[0] if shape is tuple else hint
        if dataclasses.is_dataclass(inner) and isinstance(inner, type) and not issubclass(inner, AxisValue):
            yield from flags_of(inner)
        else:
            wanted = (
                {int: WHOLE, float: REAL, bool: SWITCH}.get(inner, "") if isinstance(inner, type) else ""
            )
            flag = name.replace("_", "-")
            yield f"--{flag}", (wanted, several, optional)
            # tyro makes a pair --flag, --no-flag of a plain bool.
            if inner is bool and typing.get_origin(hints[field.name]) is not Annotated:
                yield f"--no-{flag}", (wanted, several, optional)
