"""One process to a run folder: a lock of the operating system's, which a crash does not leave behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from qhat.system.errors import UsageError

NAME = "lock"
"""The file that is locked; it stays, and means nothing when nobody holds it."""


@contextlib.contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Be the only one that writes to a run folder.

    Raises:
        UsageError: another process trains there, or the folder cannot be written to.
    """
    lock = FileLock(folder / NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"Run folder '{folder}' is in use: another process trains there. Wait for its end, or name"
            " another --run-dir."
        ) from None
    except OSError as error:
        raise UsageError(f"Run folder '{folder}' cannot be written to: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()
