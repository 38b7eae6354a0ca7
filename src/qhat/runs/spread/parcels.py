"""A run folder in pieces: the task sends the files that the driver lacks, the driver puts them together.

Files are named by their SHA-256, so that the pieces of replay that did not change are sent one time. No
disk is shared: a folder exists on the group's node, and again on the driver's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from qhat.runs import checkpoint
from qhat.runs.folder import RunFolder
from qhat.runs.spread.events import File, Saved
from qhat.system.errors import QhatError
from qhat.system.files import replacing, replacing_folder

GROWING = ("metrics.csv", "eval.csv")
"""Files that are appended to in place; all others are replaced as a whole, so a link keeps the old one."""
ALONE = ("config.json", "README.md", *GROWING)
FAULTS = "faults"


class Snapshot:
    """A copy of a group's folder right after a checkpoint, by links where possible."""

    def __init__(self, folder: RunFolder, place: Path):
        """Copy. The folder must not change meanwhile.

        Args:
            place: a new folder on the same disk.
        """
        last = folder.last()
        self.step, self._place = int(last.name), place
        shutil.rmtree(place, ignore_errors=True)
        for path in _files(folder, last):
            to = place / path.relative_to(folder.path)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.name in GROWING:
                shutil.copyfile(path, to)
            else:
                link(path, to)

    def parcels(self, known: Mapping[str, str]) -> Iterator[File | Saved]:
        """Yield the files that are not in `known`, and the list of all; remove the copy."""
        digests, sent = {}, set(known.values())
        hashes = checkpoint.read_manifest(self._place / "checkpoints" / str(self.step))["sha256"]
        for path in sorted(each for each in self._place.rglob("*") if each.is_file()):
            name = path.relative_to(self._place).as_posix()
            known_hash = hashes.get(path.name) if name.startswith("checkpoints/") else None
            digest = known_hash or hashlib.sha256(path.read_bytes()).hexdigest()
            digests[name] = digest
            if digest not in sent:
                sent.add(digest)
                yield File(digest, path.read_bytes())
        shutil.rmtree(self._place, ignore_errors=True)
        yield Saved(self.step, digests)


class Inbox:
    """The driver's copy of a group's folder."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self._incoming = folder.path / ".incoming"
        self._places: dict[str, Path] = {}

    def add(self, file: File) -> None:
        """Store a file until the list that names it arrives."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        path = self._incoming / file.digest
        try:
            with path.open("wb") as stream:
                stream.write(file.data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise QhatError(
                f"A checkpoint cannot be written to '{self.folder.path}': {error.strerror}. What was saved"
                " before is whole."
            ) from error
        self._places[file.digest] = path

    def close(self, saved: Saved) -> None:
        """Put the folder together. After a kill the old state or the new one is there."""
        root, inside = self.folder.path, f"checkpoints/{saved.step}/"
        groups = {inside: self.folder.checkpoints / str(saved.step), "best/": self.folder.best}
        for prefix, folder in groups.items():
            with replacing_folder(folder) as new:
                for name, digest in saved.digests.items():
                    if name.startswith(prefix):
                        link(self._places[digest], new / name.removeprefix(prefix))
        for name, digest in saved.digests.items():
            if not name.startswith(tuple(groups)):
                path = root / _plain(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as new:
                    shutil.copyfile(self._places[digest], new)
        self.folder.set_last(saved.step)
        self._places = {digest: root / name for name, digest in saved.digests.items()}
        self.clear()

    def clear(self) -> None:
        """Forget files that came without their list."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files with which a task continues, by their paths; the task has them from then on."""
        self.clear()
        self._places = {}
        last = self.folder.last()
        yield "last", f"{last.name}\n".encode()
        for path in _files(self.folder, last):
            data = path.read_bytes()
            self._places[hashlib.sha256(data).hexdigest()] = path
            yield path.relative_to(self.folder.path).as_posix(), data

    def prune(self, merged: int) -> None:
        """Remove checkpoints that the run itself has, but for the newest."""
        for step in self.folder.steps()[:-1]:
            if step <= merged:
                checkpoint.remove(self.folder.checkpoints / str(step))


def unpack(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """Write files into a folder; return their SHA-256."""
    for name, data in files.items():
        path = folder / _plain(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def link(old: Path, new: Path) -> None:
    """Give a file a second name; copy it on a disk without hard links."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(old, new)
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            shutil.copyfile(old, new)


def _files(folder: RunFolder, last: Path) -> list[Path]:
    alone = [folder.path / name for name in ALONE]
    within = [path for each in (last, folder.best, folder.path / FAULTS) for path in each.rglob("*")]
    return [path for path in (*alone, *within) if path.is_file()]


def _plain(name: str) -> Path:
    """Return a path within a folder. Raises `QhatError` for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise QhatError(f"A task sent the file '{name}', which is outside of its folder.")
    return Path(*path.parts)
