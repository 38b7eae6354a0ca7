"""Files that anyone may have written: what they are and how large is looked at before they are read."""

from __future__ import annotations

import json
import os
import reprlib
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from qhat.system.errors import UsageError, require

LARGEST = 4 * 2**20
"""Bytes of the largest text that is read as data: a manifest of 10,000 seeds takes a tenth."""
DEEPEST = 32
"""Lists and objects within one another that JSON may have."""
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def quote(value: Any) -> str:
    """Say a value that a file held: cut short, and without characters that a terminal obeys."""
    return _short.repr(value)


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file to read. Never follows a link, waits for a pipe or touches a device.

    Raises:
        FileNotFoundError: nothing is there.
        UsageError: something else is, or it cannot be read.
    """
    try:
        _require_plain(path, path.lstat().st_mode)
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        # Once more on what was opened: somebody may have put another thing there since.
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from None
    try:
        _require_plain(path, os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def size_of(file: BufferedReader) -> int:
    """Return the bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def read_text(path: Path, most: int = LARGEST) -> str:
    """Read a text of at most `most` bytes.

    Raises:
        FileNotFoundError: nothing is there.
        UsageError: it is larger, no UTF-8, or no regular file.
    """
    with open_plain(path) as file:
        size = size_of(file)
        require(size <= most, f"'{path}' is damaged: it has {size:,} bytes; expected at most {most:,}.")
        data = file.read(most + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is damaged: it is no text in UTF-8.") from None


def read_json(path: Path) -> Any:
    """Read a file of JSON, as `parse_json` does. Raises what `read_text` raises, and `UsageError`."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path) -> Any:
    """Read JSON in which no name comes twice, nothing is nested deep and whole numbers have 64 bits.

    Raises:
        UsageError: it is none; the sentence names `path`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_named_once, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"'{path}' cannot be read as JSON, it is damaged: {why}.") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [part for each in level for part in _parts(each)]
    require(not level, f"'{path}' is damaged: its JSON is nested more than {DEEPEST} deep.")
    return value


def require_plain_tree(folder: Path, depth: int) -> None:
    """Raise `UsageError` for the first thing in a folder that is neither a file nor a folder.

    What is written or removed there could otherwise be somewhere else.
    """
    try:
        within = sorted(os.scandir(folder), key=lambda entry: entry.name)
        modes = [entry.stat(follow_symlinks=False).st_mode for entry in within]
    except FileNotFoundError:
        return  # A writer renames what is new while we look.
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be read: {error.strerror}.") from None
    for entry, mode in zip(within, modes, strict=True):
        if not stat.S_ISDIR(mode):
            _require_plain(Path(entry.path), mode)
        elif depth > 1:
            require_plain_tree(Path(entry.path), depth - 1)


def _require_plain(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        raise UsageError(f"'{path}' is {kind}; expected a regular file. Nothing was read from it.")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {quote(twice)} comes twice")
    return named


def _whole_number(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) >= 2**64:
        raise ValueError(f"the number {quote(digits)} has more than 64 bits")
    return number


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
