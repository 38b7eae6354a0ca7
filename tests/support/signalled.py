"""A test of a real signal, in a process of its own: here one that comes late would end all tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def signalled(folder: str, script: str, package: Path, number: int) -> Any:
    """Run a script, which can import the tests of `folder`; return the JSON of its last line.

    Args:
        script: gets the package and the signal's number as its arguments, and sends itself the signal.
    """
    paths = os.pathsep.join([str(TESTS / folder), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", script, str(package), str(int(number))],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
