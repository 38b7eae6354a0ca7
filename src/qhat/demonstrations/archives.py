"""Recorded steps as NumPy stores them: an `.npz` archive, or a folder with an `.npy` file for each array.

Nothing of what the files say is believed: neither the sizes that they claim, nor that they hold numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy

from qhat.system.errors import UsageError, near_miss

NEEDED = ("observation", "action", "reward", "next_observation", "terminated")
OPTIONAL = ("truncated", "mask", "next_mask", "time", "row",
            "probability")  # fmt: skip
RATIO = 1_100
"""How many bytes one of a deflated archive can stand for, at most (1032, and some for its ends)."""
READ = 2**24
"""Bytes that are summed up at a time."""
LOCAL = 30
"""Bytes of a member's own header in an archive, before its name and what else it has there."""
SUFFIX = ".npy"

Header = tuple[tuple[int, ...], bool, np.dtype, int]
"""An array's shape, whether it is in Fortran's order, its type, and the length of its header."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array lies in a file."""

    path: Path
    begin: int
    """First byte of its header."""
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    length: int
    """Bytes of its header."""

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Read some rows. The file is mapped for as long as that takes.

        Raises:
            UsageError: the file is gone, or shorter than it was.
        """
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)[begin:end]
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        try:
            whole = np.memmap(self.path, self.dtype, "r", self.begin + self.length, self.shape, order)
            return np.array(whole[begin:end])
        except (OSError, ValueError) as error:
            raise UsageError(
                f"'{self.path}' cannot be read any more ({error}); expected the data that the run began"
                " with."
            ) from None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def names_folder(word: str) -> bool:
    """Whether a word names a folder of arrays."""
    return bool(word) and (Path(word) / f"reward{SUFFIX}").is_file()


def require_arrays(source: str) -> None:
    """Raise `UsageError` unless there is an archive or a folder with the arrays that are needed."""
    if names_folder(source):
        names = [path.stem for path in Path(source).glob(f"*{SUFFIX}")]
    else:
        with _opened(source) as archive:
            names = [_name(member) for member in archive.infolist()]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UsageError(
            f"Demonstrations '{source}' have no array '{missing[0]}'; expected {', '.join(NEEDED)}"
            f" (docs/demonstrations.md).{near_miss(missing[0], names)}"
        )


def rows_in(source: str) -> int:
    """Return the rows of the rewards, by the header of their array."""
    if names_folder(source):
        shape = _of_folder(source)["reward"].shape
        return shape[0] if shape else 1
    with _opened(source) as archive:
        shape = _header_of(archive, next(each for each in archive.infolist() if _name(each) == "reward"))[0]
    return shape[0] if shape else 1


def arrays_of(source: str) -> dict[str, np.ndarray]:
    """Read the arrays that are known, if the sizes that they claim fit.

    Raises:
        UsageError: they do not fit in memory, hold objects, or are damaged.
    """
    # It imports JAX, and a source is looked for before that.
    from qhat.system.host_memory import require_memory

    # Each is in memory twice while its rows are checked.
    what, fix = f"Reading demonstrations '{source}'", "expected fewer rows in a file"
    if names_folder(source):
        places = _of_folder(source)
        require_memory(2 * sum(place.nbytes for place in places.values()), what, fix)
        return {
            name: place.rows(0, place.shape[0]) if place.shape else place.rows(0, 1)
            for name, place in places.items()
        }
    if is_compressed(source):
        fix += f", or its arrays in a folder, of which rows are read: unzip {shlex.quote(source)} -d FOLDER"
    with _opened(source) as archive:
        known = _known(archive)
        require_memory(2 * sum(member.file_size for member in known.values()), what, fix)
        for member in known.values():
            _header_of(archive, member)
        columns = {}
        for name, member in known.items():
            with archive.open(member) as stream:
                columns[name] = npy.read_array(stream, allow_pickle=False)
    return columns


def is_compressed(source: str) -> bool:
    """Whether an archive's arrays have to be unpacked before a row can be read."""
    if names_folder(source):
        return False
    with _opened(source) as archive:
        return any(member.compress_type != zipfile.ZIP_STORED for member in _known(archive).values())


def places_of(source: str) -> dict[str, Place]:
    """Return where the arrays that are known lie. An archive is read to the end once, for its sums.

    Raises:
        UsageError: it is damaged.
    """
    if names_folder(source):
        return _of_folder(source)
    places: dict[str, Place] = {}
    with _opened(source) as archive, open(source, "rb") as file:
        for name, member in _known(archive).items():
            header, begin = _header_of(archive, member), _begin_of(file, member)
            if _sum_of(file, begin, member.file_size) != member.CRC:
                raise ValueError("another sum than the archive says")
            places[name] = Place(Path(source), begin, *header)
    return places


def _of_folder(source: str) -> dict[str, Place]:
    places = {}
    for name in (*NEEDED, *OPTIONAL):
        path = Path(source) / f"{name}{SUFFIX}"
        if name not in NEEDED and not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                places[name] = Place(path, 0, *_header(file, path.stat().st_size))
        except (OSError, ValueError, KeyError, EOFError) as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(
                f"Demonstrations '{source}': '{path}' holds objects or is damaged ({why}); expected an"
                " array of numbers, as np.save writes it. Nothing was stored."
            ) from None
    return places


def _known(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {_name(member): member for member in archive.infolist()}
    return {name: members[name] for name in (*NEEDED, *OPTIONAL) if name in members}


def _header_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    """Read an array's header. Raises `ValueError` unless it says just what its file unpacks to."""
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: RATIO}.get(member.compress_type, 0)
    if member.file_size > ratio * member.compress_size:
        raise ValueError("more is claimed than can be packed in it")
    with archive.open(member) as stream:
        return _header(stream, member.file_size)


def _header(stream: IO[bytes] | zipfile.ZipExtFile, size: int) -> Header:
    """Read the header of an array that has `size` bytes with it."""
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(stream)]
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or not dtype.itemsize or any(length < 0 for length in shape):
        raise ValueError("objects, or nothing")
    if stream.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError("another size than its shape's")
    return shape, fortran, dtype, stream.tell()


def _begin_of(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: after its own header. The archive's list lacks its size."""
    file.seek(member.header_offset)
    header = file.read(LOCAL)
    sizes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return member.header_offset + LOCAL + sum(sizes)


def _sum_of(file: IO[bytes], begin: int, size: int) -> int:
    total = 0
    file.seek(begin)
    while size > 0 and (block := file.read(min(READ, size))):
        total, size = zlib.crc32(block, total), size - len(block)
    return total


@contextlib.contextmanager
def _opened(source: str) -> Iterator[zipfile.ZipFile]:
    """Open an `.npz` file. Raises `UsageError` for anything else, also for what turns out to be damaged."""
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        raise UsageError(
            f"Demonstrations '{source}' are no .npz archive; expected what np.savez writes."
        ) from None
    with archive:
        try:
            yield archive
        except UsageError:
            raise
        except OSError as error:
            raise UsageError(f"Demonstrations '{source}' cannot be read: {error}.") from None
        except Exception:
            # Unpacking what is damaged raises a dozen kinds of errors, of zipfile, zlib and NumPy.
            raise UsageError(
                f"Demonstrations '{source}' hold objects or are damaged; expected arrays of numbers."
            ) from None


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(SUFFIX)
