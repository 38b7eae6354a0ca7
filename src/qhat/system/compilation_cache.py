"""JAX's compilation cache: compiled programs on disk, so that a second start does not compile again.

JAX reads and writes the entries. This module picks the folder and bounds its size: JAX's bound
(`jax_compilation_cache_max_size`) takes a lock for every read, and after a process dies between the two
files of an entry, JAX writes nothing more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import stat
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qhat.system.machine import processor

SWITCH = "QHAT_CACHE"
"""Environment variable: 0 turns the cache off."""
LARGEST = 200 * 2**20
"""Bytes that the entries may have at the start of a process; a program of a small network has 0.6 MB."""
FRESH = 60.0
"""Seconds within which another process may still be writing an entry."""
CHECKED = ".checked"
"""File whose time of change is that of the last check for damaged entries."""
MESSAGE = re.compile(
    r"Error (?P<what>reading|writing) persistent compilation cache entry for '.*?': (?P<why>.*)", re.DOTALL
)
"""JAX's warning about one entry."""


def enable() -> None:
    """Let JAX keep compiled programs in the user's cache folder, unless the user configured JAX's cache.

    Safe to call again, and after JAX has compiled. The setting holds for all programs of this process.

    Warns:
        UserWarning: the folder cannot be used; programs compile as without a cache.
    """
    if os.environ.get(SWITCH, "").strip().lower() in ("0", "off", "no", "false"):
        return
    import jax

    config: Any = jax.config
    # The user's settings count, also those that JAX reads from the environment.
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    if config.jax_compilation_cache_max_size != -1 or _crashes():
        return
    try:
        base = folder_of(os.environ)
        folder = base / _fingerprint()
        _make_private(folder)
        _sweep(base, LARGEST)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        warnings.warn(
            f"The compilation cache cannot be used ({reason}), so every start compiles again."
            " JAX_COMPILATION_CACHE_DIR names another folder; QHAT_CACHE=0 turns the cache off.",
            stacklevel=2,
        )
        return
    config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX keeps only what took a second; most of a start is programs that took less.
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def folder_of(environment: Mapping[str, str], system: str = sys.platform) -> Path:
    """Return the folder of the cache on this system. Raises `RuntimeError` if there is no home folder."""
    if system == "win32":
        home = environment.get("LOCALAPPDATA", "")
        return (Path(home) if home else Path.home() / "AppData" / "Local") / "qhat" / "Cache" / "jax"
    if system == "darwin":
        return Path.home() / "Library" / "Caches" / "qhat" / "jax"
    home = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is ignored.
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "qhat" / "jax"


def shortened(message: str) -> str | None:
    """Return JAX's warning about an entry as a sentence that names no entry, '' if nobody needs it.

    Returns `None` for every other message.
    """
    found = MESSAGE.fullmatch(message)
    if found is None:
        return None
    if found["what"] == "reading":
        return ""  # The program is compiled again, and the next start removes the entry.
    return f"The compilation cache cannot be written ({found['why']}), so the next start compiles again."


def _crashes() -> bool:
    """Whether this jaxlib can crash while it reads an entry: by a stack overflow, on macOS before 0.10."""
    import jaxlib.version

    return sys.platform == "darwin" and jaxlib.version.__version_info__ < (0, 10)


def _fingerprint() -> str:
    """Return a name for this processor and jaxlib: a shared home must serve no code of another one."""
    import jaxlib.version

    flags = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    parts = (jaxlib.version.__version__, platform.machine(), processor(), flags)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _make_private(folder: Path) -> None:
    """Make the folder. Raises `OSError` unless only this user can write it: its entries are run as code."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(0, f"'{folder}' cannot be written")
    if hasattr(os, "geteuid"):
        about = folder.stat()
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(0, f"other users can write '{folder}'")


def _sweep(base: Path, largest: int) -> None:
    """Remove damaged entries and, while there are more than `largest` bytes, those unused for longest."""
    checked, now = base / CHECKED, time.time()
    since = checked.stat().st_mtime - FRESH if checked.exists() else 0.0
    kept: list[tuple[float, int, Path]] = []
    for path, about in _entries(base):
        changed = max(about.st_mtime, about.st_ctime)
        if since < changed < now - FRESH and _is_damaged(path):
            _remove(path)
        else:
            kept.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    checked.touch()
    size = sum(each for _, each, _ in kept)
    for _, each, path in sorted(kept):
        if size <= largest:
            break
        _remove(path)
        size -= each


def _entries(base: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below a folder; another process may remove some meanwhile."""
    for folder, _, names in os.walk(base):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                if name != CHECKED:
                    yield path, path.lstat()


def _is_damaged(path: Path) -> bool:
    """Whether an entry is empty, or compressed by zlib and cut or changed."""
    try:
        data = path.read_bytes()
        if data[:1] == b"\x78":
            zlib.decompress(data)
    except zlib.error:
        return True
    except OSError:
        return False
    return not data


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
