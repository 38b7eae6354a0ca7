"""Library warnings for people: one sentence each, and each only once."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from qhat.system import compilation_cache
from qhat.system.errors import in_shell

COLOUR = re.compile(r"\x1b\[[\d;]*m")
LEVEL = "WARN: "
"""Prefix of Gymnasium's logger, after its colour code."""


class Warned:
    """Replaces `warnings.showwarning`: prints only the sentence, and each sentence only once."""

    def __init__(self, write: Callable[[str], None] | None = None):
        self._write = write or _plain
        before = warnings.showwarning
        self.said: set[str] = before.said if isinstance(before, Warned) else set()
        """Sentences already shown, including those shown by the handler that this one replaces."""

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        sentence = printable(COLOUR.sub("", in_shell(message)).removeprefix(LEVEL).strip())
        cached = compilation_cache.shortened(sentence)
        sentence = sentence if cached is None else cached
        if sentence and sentence not in self.said:
            self.said.add(sentence)
            self._write(sentence)


def printable(text: str) -> str:
    """Escape control characters: a sentence may quote a file from an untrusted source."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _plain(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)
