"""Locks a run folder for one process, with a lock of the operating system, which ends with the process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from qhat.system.errors import UsageError, setting

NAME = "lock"
"""The file that is locked. It stays, and has no meaning while no process locks it."""


@contextlib.contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Make this process the only one that writes to a run folder.

    Raises:
        UsageError: another process trains there, or the folder cannot be written to.
    """
    lock = FileLock(folder / NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"Run folder '{folder}' is in use: another process trains there. Wait until it ends, or name"
            f" another {setting('run_dir')}."
        ) from None
    except OSError as error:
        raise UsageError(f"Run folder '{folder}' cannot be written to: {error.strerror}.") from None
    try:
        yield
    finally:
        lock.release()
