"""Warnings of libraries, as a person reads them: one sentence, once."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

COLOUR = re.compile(r"\x1b\[[\d;]*m")
LEVEL = "WARN: "
"""What Gymnasium's logger begins with, behind a colour."""


class Warned:
    """In place of `warnings.showwarning`, which shows whose line warned, each time anew."""

    def __init__(self, write: Callable[[str], None] | None = None):
        self._write = write or _plain
        before = warnings.showwarning
        self.said: set[str] = before.said if isinstance(before, Warned) else set()
        """Sentences that were shown already, also by the one that this one stands in for."""

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        sentence = printable(COLOUR.sub("", str(message)).removeprefix(LEVEL).strip())
        if sentence not in self.said:
            self.said.add(sentence)
            self._write(sentence)


def printable(text: str) -> str:
    """Spell out what a terminal would obey: a sentence may quote a file of somebody else's."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _plain(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)
