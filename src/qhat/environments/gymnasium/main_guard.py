"""Refuses scripts that would start processes without end: each process imports the script again.

Python imports the main script in every process that `spawn` or `forkserver` starts. A script that starts
processes at its top level would start more of them there, unless `if __name__ == "__main__":` keeps it out.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from qhat.system.errors import UsageError, setting

UNGUARDED = 117
"""Exit status of a process that was about to run the training of the script again."""


def require_guard(name: str) -> None:
    """Raise `UsageError` if the processes that are to be started would run the caller's script again.

    Args:
        name: the environment's, for the error.
    """
    for frame in _frames():
        if frame.f_code.co_name == "<module>" and _runs_again(frame):
            raise UsageError(sentence(name, Path(frame.f_code.co_filename).name))


def leave_copy(prefix: str) -> None:
    """End this process if it is one of qhat's that runs the script again; the parent then says why.

    Args:
        prefix: of the names of qhat's processes.
    """
    again = any(frame.f_globals.get("__name__") == "__mp_main__" for frame in _frames())
    if again and multiprocessing.current_process().name.startswith(prefix):
        os._exit(UNGUARDED)


def sentence(name: str, script: str = "the script") -> str:
    """Return what is wrong, and what to write."""
    return (
        f"Environment '{name}': {setting('vector', 'async')} starts processes, and each imports {script},"
        " which would train again at its top level; expected the training below"
        f' `if __name__ == "__main__":`, or {setting("vector", "sync")}.'
    )


def _frames() -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _runs_again(frame: FrameType) -> bool:
    """Whether a module's frame is the main script's, at a statement that no condition keeps out."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    module = getattr(getattr(main, "__spec__", None), "name", "")
    if frame.f_globals is not vars(main) or path is None or module.endswith("__main__"):
        return False
    if os.path.abspath(frame.f_code.co_filename) != os.path.abspath(path):
        return False
    try:
        source = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    at = [one for one in source.body if one.lineno <= frame.f_lineno <= (one.end_lineno or one.lineno)]
    # Any condition may be a guard, so it is left to the processes themselves.
    return bool(at) and not any(
        isinstance(node, ast.If | ast.IfExp | ast.BoolOp | ast.Match) for node in ast.walk(at[0])
    )
