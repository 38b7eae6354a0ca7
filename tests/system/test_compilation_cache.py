"""Compiled programs are kept in the user's cache folder: bounded, private, never in a run's way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

from places import python_path
from qhat.cli.warned import Warned
from qhat.system import compilation_cache
from qhat.system.compilation_cache import FRESH, enable, folder_of, shortened

COMPILE = """
import sys, jax
from qhat.system import devices
devices.prepare(1)
hits = []
count = lambda name, **_: hits.append(name) if "cache_hits" in name else None
jax.monitoring.register_event_listener(count)
total = jax.jit(lambda x: (x @ x).sum() + {salt})(jax.numpy.ones((8, 8)))
print(f"{{float(total):.0f}}", len(hits))
"""
CONFIG: Any = jax.config
CONFIGURED = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "QHAT_CACHE")


def start(home: Path, more: Mapping[str, str] | None = None, salt: int = 0) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in CONFIGURED}
    environment = {**kept, "PYTHONPATH": python_path(), "XDG_CACHE_HOME": str(home), **(more or {})}
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", COMPILE.format(salt=salt)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip(), err


def entries(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file() and path.name != ".checked")


@pytest.fixture
def unconfigured(tmp_path, monkeypatch):
    """JAX and the environment as for somebody who configured no cache."""
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    jax.config.update(names[1], 1.0)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_second_process_finds_the_programs_and_a_damaged_entry_is_replaced(tmp_path):
    out, err = ended(start(tmp_path))
    assert (out, err) == ("512 0", "")
    made = entries(tmp_path)
    assert made
    out, err = ended(start(tmp_path))
    assert out.split()[0] == "512"
    assert int(out.split()[1]) == len(made)
    assert err == ""
    # Cut, as by a kill while it was written, and long enough ago for a check.
    longest = max(made, key=lambda path: path.stat().st_size)
    whole = longest.read_bytes()
    longest.write_bytes(whole[: len(whole) // 2])
    (folder,) = tmp_path.rglob(".checked")
    os.utime(folder, (0, 0))
    # A check spares what another process may be writing, so JAX reads the damaged entry and says so.
    out, err = ended(start(tmp_path))
    assert out.split()[0] == "512"
    assert err.count("Error reading persistent compilation cache entry") == 1


def test_two_processes_share_the_folder(tmp_path):
    both = [start(tmp_path, salt=1) for _ in range(2)]
    for out, err in map(ended, both):
        assert out.split()[0] == "513"
        # One may read an entry that the other is writing; then it compiles.
        assert all("Error reading persistent" in line for line in err.splitlines() if "Warning" in line)
    out, err = ended(start(tmp_path, salt=1))
    assert int(out.split()[1]) == len(entries(tmp_path)) > 0


@pytest.mark.parametrize("more", [{"QHAT_CACHE": "0"}, {"JAX_ENABLE_COMPILATION_CACHE": "false"}])
def test_one_variable_turns_it_off(tmp_path, more):
    assert ended(start(tmp_path, more)) == ("512 0", "")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_the_user_named_is_used_instead(tmp_path):
    named = tmp_path / "named"
    more = {"JAX_COMPILATION_CACHE_DIR": str(named), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    ended(start(tmp_path / "home", more))
    assert entries(named)
    assert not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_made_gives_one_sentence_and_no_cache(unconfigured):
    (unconfigured / "qhat").write_text("a file in its place")
    with pytest.warns(UserWarning, match="cannot be used .*; QHAT_CACHE=0 turns the cache off") as caught:
        enable()
    assert len(caught) == 1
    assert CONFIG.jax_compilation_cache_dir is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
def test_a_folder_that_others_can_write_is_not_used(unconfigured):
    enable()
    folder = Path(CONFIG.jax_compilation_cache_dir or "")
    assert folder.stat().st_mode & 0o077 == 0
    assert CONFIG.jax_persistent_cache_min_compile_time_secs == 0
    jax.config.update("jax_compilation_cache_dir", None)
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="other users can write"):
        enable()
    assert CONFIG.jax_compilation_cache_dir is None


def test_damaged_and_oldest_entries_go(unconfigured, monkeypatch):
    monkeypatch.setattr(compilation_cache, "LARGEST", 250)
    monkeypatch.setattr(compilation_cache, "FRESH", 0.0)
    folder = folder_of(os.environ) / "another processor"
    folder.mkdir(parents=True)
    sizes = {"cut": 100, "empty": 0, "oldest": 100, "older": 100, "newest": 100, "unknown": 50}
    for name, size in sizes.items():
        # Not compressible, so that the size of an entry is nearly that of its content.
        (folder / name).write_bytes(zlib.compress(os.urandom(max(0, size - 11)), 0)[:size])
    (folder / "cut").write_bytes(zlib.compress(os.urandom(200), 0)[:100])
    (folder / "unknown").write_bytes(b"a format that this version does not know".ljust(50))
    for age, name in enumerate(("newest", "unknown", "older", "oldest")):
        past = time.time() - 1000 * (1 + age)
        os.utime(folder / name, (past, past))
    enable()
    assert sorted(path.name for path in folder.iterdir()) == ["newest", "older", "unknown"]


def test_an_entry_that_is_being_written_stays(unconfigured):
    folder = folder_of(os.environ) / "this processor"
    folder.mkdir(parents=True)
    (folder / "half").write_bytes(b"\x78\x9c")
    enable()
    assert (folder / "half").exists()
    assert FRESH >= 10


def test_every_system_has_its_folder():
    home = Path.home()
    assert folder_of({}, "linux") == home / ".cache" / "qhat" / "jax"
    assert folder_of({"XDG_CACHE_HOME": "relative"}, "linux") == home / ".cache" / "qhat" / "jax"
    assert folder_of({"XDG_CACHE_HOME": "/x"}, "linux") == Path("/x/qhat/jax")
    assert folder_of({}, "darwin") == home / "Library" / "Caches" / "qhat" / "jax"
    assert folder_of({"LOCALAPPDATA": "/local"}, "win32") == Path("/local/qhat/Cache/jax")


def test_the_terminal_shows_one_sentence_for_all_entries_that_cannot_be_written():
    shown: list[str] = []
    warned = Warned(shown.append)
    for name in ("jit_run", "jit_add"):
        for what in ("writing", "reading"):
            why = "OSError: [Errno 28] No space left on device"
            warned(
                UserWarning(f"Error {what} persistent compilation cache entry for '{name}': {why}"),
                UserWarning, "compiler.py", 1,
            )  # fmt: skip
    assert len(shown) == 1
    assert "No space left on device" in shown[0]
    assert shortened("Some other warning.") is None
    assert not isinstance(warnings.showwarning, Warned)
