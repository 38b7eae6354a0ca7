"""Errors are sentences: the value, what was expected, the near miss, the fix.

A sentence may name settings. Python calls one `learning_rate=0.001`, the shell `--learning-rate 0.001`.
`setting` and `spelled` write both, and each reader gets theirs: `str(error)` is for Python, and the command
line prints `in_shell(error)`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

BOTH = re.compile("⟨([^⟨|⟩]*)\\|([^⟨⟩]*)⟩")
"""Words in both spellings, as `spelled` writes them."""


class QhatError(Exception):
    """An expected failure. The command line prints it and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, sentence: str = ""):
        super().__init__(sentence)
        self.sentence = sentence
        """What happened, with the settings in both spellings: pass this on in another error."""

    def __str__(self) -> str:
        return in_python(self.sentence)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class UnfitActionError(QhatError):
    """An action that the environment does not have. The message says which ones it has."""


class UsageError(QhatError, ValueError):
    """A bad value from the caller. Nothing was changed, and the sentence says what to type."""

    exit_code = 2


class QhatWarning(UserWarning):
    """A warning of qhat. Its sentence may name settings, as an error's does."""

    def __init__(self, sentence: str):
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return in_python(self.sentence)


def warn(sentence: str, stacklevel: int = 2) -> None:
    """Warn with `sentence`, at the line `stacklevel` calls above, as `warnings.warn` counts."""
    warnings.warn(QhatWarning(sentence), stacklevel=stacklevel + 1)


def spelled(python: str, shell: str) -> str:
    """Return words that differ between Python and the shell, for a sentence."""
    return f"⟨{python}|{shell}⟩"


def setting(name: str, value: Any = None, shell: str | None = None) -> str:
    """Name a setting in a sentence, and its value where there is one.

    Args:
        name: as Python spells it: `learning_rate`.
        value: an example or a remedy; in the shell, `True` is the flag alone and `False` its `--no-` form.
        shell: how the shell writes the value, if not as `str` does.
    """
    flag = "--" + name.replace("_", "-")
    if value is None:
        return spelled(name, flag)
    if isinstance(value, bool) and shell is None:
        return spelled(f"{name}={value}", flag if value else f"--no-{flag[2:]}")
    return spelled(f"{name}={value!r}", f"{flag} {value if shell is None else shell}")


def fitting(name: str, value: Any) -> str:
    """Name a setting and a value that fits, which may be none."""
    none = spelled(f"{name}=None", f"--{name.replace('_', '-')} None")
    return none if value is None else setting(name, value)


def in_python(sentence: str) -> str:
    """Return `sentence` as Python spells its settings."""
    return BOTH.sub(r"\1", sentence)


def in_shell(sentence: BaseException | str) -> str:
    """Return a sentence, or that of an error or a warning, as the shell spells its settings."""
    known = sentence if isinstance(sentence, str) else getattr(sentence, "sentence", str(sentence))
    return BOTH.sub(r"\2", known)


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


def described(error: BaseException) -> str:
    """Describe an error of other code: type and message; without a message, where it was raised."""
    name, message = type(error).__name__, str(error)
    if message:
        return f"{name}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{name} in {frames[-1].filename}, line {frames[-1].lineno}" if frames else name


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Prefix every `UsageError` with `what`, such as the file that holds the value."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what}: {error.sentence}") from None
