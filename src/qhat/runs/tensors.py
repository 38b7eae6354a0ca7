"""Reads files of tensors (safetensors); the header must account for every byte before one is read."""

from __future__ import annotations

from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qhat.system.errors import UsageError, require
from qhat.system.files import LARGEST, parse_json, quote, size_of

CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64",
}  # fmt: skip
"""The format's names of NumPy's types."""
LENGTH = 8
"""Number of bytes that give the length of the header."""


class Form(NamedTuple):
    """The expected shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        # Not NumPy's product, which overflows.
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


def places(file: BufferedReader, path: Path, forms: Mapping[str, Form]) -> dict[str, int]:
    """Return the byte at which each tensor of `forms` begins; only the header is read.

    Raises:
        UsageError: the tensors, shapes or types are others, or tensors overlap or leave gaps.
    """
    # The longest header for these tensors: names escaped, shapes of many digits.
    longest = 4_096 + sum(12 * len(name) + 1_000 for name in forms)
    header, size, first = _header(file, path, longest)
    if odd := sorted(forms.keys() ^ header.keys()):
        verb = "lacks" if odd[0] in forms else "has an unexpected"
        raise UsageError(
            f"'{path}' has a different network architecture: it {verb} tensor {quote(odd[0])}."
        )
    spans = [(*_span(header[name], name, form, path), name) for name, form in forms.items()]
    at = 0
    for begin, end, name in sorted(spans):
        require(
            begin == at,
            f"'{path}' is damaged: tensor '{name}' begins at byte {begin:,}; expected {at:,}, where the one"
            " before it ends.",
        )
        at = end
    require(
        first + at == size,
        f"'{path}' is damaged: it has {size:,} bytes; expected {first + at:,}, as its header says.",
    )
    return {name: first + begin for begin, _, name in spans}


def place(file: BufferedReader, path: Path, name: str, form: Form) -> int:
    """Return the byte at which one tensor of a file begins; the file may have others.

    Raises:
        UsageError: it is missing, has another shape or type, or ends after the file.
    """
    header, size, first = _header(file, path, LARGEST)
    require(
        name in header, f"'{path}' has a different network architecture: it lacks tensor {quote(name)}."
    )
    begin, end = _span(header[name], name, form, path)
    require(
        first + end <= size,
        f"'{path}' is damaged: it has {size:,} bytes; tensor '{name}' would end at {first + end:,}.",
    )
    return first + begin


def _header(file: BufferedReader, path: Path, longest: int) -> tuple[dict[str, Any], int, int]:
    """Read a file's header; return it, the file's size, and the byte at which the first tensor begins."""
    size = size_of(file)
    length = int.from_bytes(file.read(LENGTH), "little")
    require(
        2 <= length <= min(longest, size - LENGTH),
        f"'{path}' is damaged or has a different network architecture: its header is {length:,} bytes of a"
        f" file of {size:,}; expected at most {longest:,}.",
    )
    try:
        text = file.read(length).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is damaged: its header is no text in UTF-8.") from None
    header = parse_json(text, path)
    require(isinstance(header, dict), f"'{path}' is damaged: its header is no object.")
    header.pop("__metadata__", None)
    return header, size, LENGTH + length


def _span(entry: Any, name: str, form: Form, path: Path) -> tuple[int, int]:
    """Check one entry of the header; return its first byte and the one after its last."""
    fields = {"dtype", "shape", "data_offsets"}
    require(
        isinstance(entry, dict) and entry.keys() == fields,
        f"'{path}' is damaged: tensor '{name}' is {quote(entry)}; expected its dtype, shape and"
        " data_offsets.",
    )
    shape = list(form.shape)
    require(
        _numbers(entry["shape"]) and entry["shape"] == shape,
        f"'{path}' has a different network architecture: tensor '{name}' has shape {quote(entry['shape'])};"
        f" expected {shape}.",
    )
    require(
        entry["dtype"] == CODES.get(form.dtype.name),
        f"'{path}' has a different network architecture: tensor '{name}' is {quote(entry['dtype'])};"
        f" expected {CODES.get(form.dtype.name)}.",
    )
    offsets = entry["data_offsets"]
    require(
        _numbers(offsets) and len(offsets) == 2 and offsets[1] - offsets[0] == form.nbytes,
        f"'{path}' is damaged: tensor '{name}' has offsets {quote(offsets)}; expected"
        f" {form.nbytes:,} bytes.",
    )
    return offsets[0], offsets[1]


def load(file: BufferedReader, path: Path, name: str, at: int, form: Form) -> np.ndarray:
    """Read the tensor that begins at byte `at`. Raises `UsageError` if it is damaged."""
    value = np.empty(form.shape, form.dtype)
    raw = value.reshape(-1).view(np.uint8)
    file.seek(at)
    require(
        file.readinto(raw.data) == form.nbytes,
        f"'{path}' is damaged: it ends within tensor '{name}'.",
    )
    require(
        form.dtype.kind != "b" or not raw.size or raw.max() <= 1,
        f"'{path}' is damaged: tensor '{name}' has values that are neither true nor false.",
    )
    return value


def _numbers(value: Any) -> bool:
    """Whether a value is a list of whole numbers that are not negative."""
    return isinstance(value, list) and all(type(part) is int and part >= 0 for part in value)
