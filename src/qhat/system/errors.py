"""Errors are sentences: the value, what was expected, the near miss, the fix."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class QhatError(Exception):
    """An expected failure. The command line prints it and exits with `exit_code`."""

    exit_code = 1


class UnfitActionError(QhatError):
    """An action that the environment does not have. The message says which ones it has."""


class UsageError(QhatError, ValueError):
    """A bad value from the caller. Nothing was changed, and the sentence says what to type."""

    exit_code = 2


def near_miss(value: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` if a known name is close to `value`, otherwise an empty string."""
    if len(value) > 100:
        return ""
    names = list(known)
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(value.lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""


def require(condition: bool, sentence: str) -> None:
    """Raise `UsageError(sentence)` unless `condition` holds."""
    if not condition:
        raise UsageError(sentence)


def ranges(numbers: Iterable[int]) -> str:
    """Write integers compactly: `0–4, 7`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Prefix every `UsageError` with `what`, such as the file that holds the value."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
