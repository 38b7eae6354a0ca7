"""Options of an environment's constructor: how they are written, and who knows them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from qhat.system.errors import UsageError, near_miss, require, setting


def read_words(words: Iterable[str]) -> dict[str, Any]:
    """Read `key=value` words: values as JSON where they are JSON, as text where they are not.

    Raises:
        UsageError: a word without a key or without `=`.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        require(
            bool(equals and key),
            f"{setting('env_kwargs')} has '{word}'; expected key=value, for example gravity=-5.0.",
        )
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return check(options)


def write_words(options: Mapping[str, Any]) -> list[str]:
    """Write what `read_words` reads."""
    return [f"{key}={json.dumps(value)}" for key, value in options.items()]


def check(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that JSON keeps as they are. Raises `UsageError` for the first that it does not."""
    require(isinstance(options, Mapping), f"env_kwargs is {options!r}; expected names and their values.")
    for key, value in options.items():
        require(isinstance(key, str), f"env_kwargs has the name {key!r}; expected text.")
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            same = False
        require(
            same,
            f"env_kwargs has {key}={value!r}; expected what JSON holds (finite numbers, text, true, false,"
            " null, lists and objects), so that the run can be resumed and evaluated.",
        )
    return dict(options)


def require_known(options: Mapping[str, Any], known: Collection[str], env_id: str) -> None:
    """Raise `UsageError` for the first option that is not among `known`."""
    for key in options:
        if key not in known:
            has = ", ".join(sorted(known)) or "none"
            raise UsageError(
                f"Environment '{env_id}' has no option '{key}'; it has {has}." + near_miss(key, known)
            )


def of_gymnasium(name: str) -> set[str] | None:
    """Return the options that Gymnasium's environment of this id takes; `None` where it takes any.

    Raises:
        Exception: of Gymnasium's or the environment's own, where it cannot be loaded.
    """
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    spec = gymnasium.registry.get(name.rpartition(":")[2])
    if spec is None:
        return None  # Its module could not be imported, or registers no such id.
    entry = spec.entry_point
    takes = inspect.signature(
        load_env_creator(entry) if isinstance(entry, str) else entry or dict
    ).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values()):
        return None
    return {*takes, "max_episode_steps"}


def reference_knows(reference: str, options: Mapping[str, Any]) -> bool:
    """Whether Gymnasium's implementation takes every one of these options by its name."""
    try:
        known = of_gymnasium(reference)
    except Exception:
        # Whatever its module raises on import: it cannot be the judge.
        return False
    return known is not None and set(options) <= known
