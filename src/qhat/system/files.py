"""Reads untrusted files, whose kind and size are checked first, and writes files and folders atomically."""

from __future__ import annotations

import contextlib
import json
import os
import reprlib
import shutil
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from qhat.system.errors import QhatError, UsageError, require

LARGEST = 4 * 2**20
"""Largest text file that is read as data, in bytes: ten times a manifest of 10,000 seeds."""
DEEPEST = 32
"""Maximum nesting depth of JSON."""
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def quote(value: Any) -> str:
    """Return a value from a file as short text without control characters."""
    return _short.repr(value)


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading. Never follows a link, waits for a pipe or touches a device.

    Raises:
        FileNotFoundError: it does not exist.
        UsageError: it is not a regular file, or cannot be read.
    """
    try:
        _require_plain(path, path.lstat().st_mode)
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        # Checked again after opening, because the file may have been replaced meanwhile.
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
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def read_text(path: Path, most: int = LARGEST) -> str:
    """Read a text file of at most `most` bytes.

    Raises:
        FileNotFoundError: it does not exist.
        UsageError: it is larger, not UTF-8, or not a regular file.
    """
    with open_plain(path) as file:
        size = size_of(file)
        require(size <= most, f"'{path}' is damaged: it has {size:,} bytes; expected at most {most:,}.")
        data = file.read(most + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is damaged: it is not UTF-8 text.") from None


def read_json(path: Path) -> Any:
    """Read a JSON file; see `parse_json`. Raises what `read_text` and `parse_json` raise."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path) -> Any:
    """Parse JSON with unique names, limited nesting and integers of at most 64 bits.

    Raises:
        UsageError: the text is not such JSON; the sentence names `path`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_names, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"'{path}' cannot be read as JSON, it is damaged: {why}.") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [part for each in level for part in _parts(each)]
    require(not level, f"'{path}' is damaged: its JSON is nested more than {DEEPEST} levels deep.")
    return value


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into a `QhatError`."""
    try:
        yield
    except OSError as error:
        raise QhatError(
            f"'{path}' cannot be written: {error.strerror or error}. What was saved before is whole."
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file name next to `path`, and rename it to `path` at the end: no reader sees half a file.

    If an exception is raised, `path` is unchanged and the new file is removed.
    """
    new = path.with_name(path.name + ".new")
    with writing(path):
        try:
            yield new
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises `QhatError` if it cannot be written."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to `folder`, which replaces it at the end.

    If an exception is raised, `folder` is unchanged and the new one is removed. After a kill, the old or
    the new folder is complete: at `folder`, or where `current_folder` finds it.
    """
    new, old = _beside(folder, "new"), _beside(folder, "old")
    if old.exists() and not folder.exists():
        # A kill between the two renames below.
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def current_folder(folder: Path) -> Path:
    """Return where the folder is now: under its old name while `replacing_folder` swaps it."""
    old = _beside(folder, "old")
    return old if old.exists() and not folder.exists() else folder


def _beside(folder: Path, word: str) -> Path:
    """Return a name next to `folder` that nothing else uses."""
    return folder.with_name(f".{folder.name}.qhat-{word}")


def require_plain_tree(folder: Path, depth: int) -> None:
    """Raise `UsageError` if a folder contains anything but files and folders.

    Otherwise writing or deleting there could affect files elsewhere.
    """
    try:
        within = sorted(os.scandir(folder), key=lambda entry: entry.name)
        modes = [entry.stat(follow_symlinks=False).st_mode for entry in within]
    except FileNotFoundError:
        return  # A writer renamed it meanwhile.
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


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        names: set[str] = set()
        twice = next(name for name, _ in pairs if name in names or names.add(name))
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
