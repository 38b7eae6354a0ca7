"""Runs `qhat` commands in this process, because a new process needs seconds for imports.

Tests whose subject is the process (signals, locks, what is imported, the environment) start one.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple

from qhat.cli.main import main


class Done(NamedTuple):
    """The result of a command, with the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def qhat(*words: str, cwd: Path | None = None) -> Done:
    """Run one command of the command line here, and return its exit status and both of its outputs."""
    out, err = io.StringIO(), io.StringIO()
    path = list(sys.path)
    inside = contextlib.chdir(cwd) if cwd else contextlib.nullcontext()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), inside:
            main(words)
    except SystemExit as left:
        code = left.code
    else:
        raise AssertionError("main returns only by SystemExit")
    finally:
        sys.path[:] = path  # `main` adds the current folder.
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())
