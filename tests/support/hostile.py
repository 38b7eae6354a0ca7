"""Files made to break a reader, by changes to valid files."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HUGE = 10**9


def opened(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the bytes of tensors of a safetensors file."""
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def packed(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def largest(header: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the largest weights."""
    return max(header.values(), key=lambda entry: (entry["dtype"] == "F32", entry["data_offsets"][1]))


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    """Change fields of one tensor's entry in the header."""

    def change(raw: bytes) -> bytes:
        header, body = opened(raw)
        largest(header).update(fields)
        return packed(header, body)

    return change


def moved(by: int) -> Callable[[bytes], bytes]:
    """Move a tensor: over the one before it, or beyond the file."""

    def change(raw: bytes) -> bytes:
        header, body = opened(raw)
        entry = largest(header)
        entry["data_offsets"] = [max(0, at + by) for at in entry["data_offsets"]]
        return packed(header, body)

    return change


def filled(word: bytes) -> Callable[[bytes], bytes]:
    """Overwrite every number of weights, in whatever tree they are."""

    def change(raw: bytes) -> bytes:
        header, body = opened(raw)
        data = bytearray(body)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if "online" in name or "hidden" in name or name.startswith(("value", "advantage", "weights")):
                data[begin:end] = (
                    (word * end)[: end - begin] if entry["dtype"] == "F32" else data[begin:end]
                )
        return packed(header, bytes(data))

    return change


def _renamed(raw: bytes, drop: bool) -> bytes:
    header, body = opened(raw)
    if drop:
        del header[next(iter(header))]
    else:
        header["../../\x1b[2Jextra"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(body)] * 2}
    return packed(header, body)


def _twice(raw: bytes) -> bytes:
    header, body = opened(raw)
    name = next(iter(header))
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    return packed(text.encode(), body)


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def _header(length: int) -> Callable[[bytes], bytes]:
    return lambda raw: length.to_bytes(8, "little") + raw[8:]


NAN, INFINITY = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"
TENSORS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut in the length": lambda raw: raw[:5],
    "cut after the length": lambda raw: raw[:8],
    "cut in the header": lambda raw: raw[:90],
    "cut after the header": lambda raw: raw[: -len(opened(raw)[1])],
    "cut in the last tensor": lambda raw: raw[:-1],
    "a byte too many": lambda raw: raw + b"\0",
    "header of 0 bytes": _header(0),
    "header of 2^60 bytes": _header(2**60),
    "header larger than the file": lambda raw: _header(len(raw))(raw),
    "header as large as the file": lambda raw: _header(len(raw) - 8)(raw),
    "header of 2^64 - 1 bytes": _header(2**64 - 1),
    "header that is no text": lambda raw: packed(b"\xff" * 90, opened(raw)[1]),
    "header that is no JSON": lambda raw: packed(b"{" * 90, opened(raw)[1]),
    "header that is a list": lambda raw: packed([1, 2], opened(raw)[1]),
    "header that is nested deep": lambda raw: packed(_deep(1_000), opened(raw)[1]),
    "a name twice": _twice,
    "a tensor missing": lambda raw: _renamed(raw, drop=True),
    "a tensor too many": lambda raw: _renamed(raw, drop=False),
    "overlapping offsets": moved(-8),
    "offsets beyond the file": moved(2**40),
    "a hole": lambda raw: moved(8)(raw) + bytes(8),
    "offsets of words": changed(data_offsets=["0", "8"]),
    "offsets of one number": changed(data_offsets=[0]),
    "offsets below 0": changed(data_offsets=[-8, -4]),
    "another dtype of the same size": changed(dtype="I32"),
    "a dtype that is a list": changed(dtype=["F32"]),
    "a dtype that there is not": changed(dtype="O8"),
    "a shape of 10^9": changed(shape=[HUGE]),
    "a shape of 10^9 and its offsets": changed(shape=[HUGE], data_offsets=[0, 4 * HUGE]),
    "a shape that overflows": changed(shape=[2**40, 2**40]),
    "a shape below 0": changed(shape=[-1, -1]),
    "a shape of fractions": changed(shape=[1.5]),
    "a field too many": changed(code="import os"),
    "weights that are no numbers": filled(NAN),
    "weights that are infinite": filled(INFINITY),
}
"""Files of tensors, from one that is whole."""


def rehashed(folder: Path) -> None:
    """Update the hashes of a manifest, so that the checks after the hashes are tested."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def everything_in(folder: Path) -> dict[str, Any]:
    """Return the files of a folder with their contents; links and pipes are not followed."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path)] = (
                status.st_mode,
                status.st_mtime_ns,
                hashlib.sha256(content or b"").hexdigest(),
            )
    return found


_watched: list[tuple[str, list[str]]] = []


def _audit(event: str, arguments: tuple) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        folder, paths = _watched[-1]
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(folder):
            paths.append(path)


sys.addaudithook(_audit)


@contextmanager
def untouched(folder: Path, outside: Path) -> Iterator[None]:
    """Assert that nothing in `folder` changes, and that nothing in `outside` is opened."""
    before, paths = everything_in(folder), []
    _watched.append((str(outside.resolve()), paths))
    try:
        yield
    finally:
        _watched.pop()
    assert not paths, "a file outside of the run was opened"
    assert everything_in(folder) == before
