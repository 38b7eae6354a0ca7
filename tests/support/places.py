"""Where things are in the repository, and the path of Python processes that tests start."""

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
SOURCE = ROOT / "src" / "qhat"


def python_path(*first: Path) -> str:
    """Return a PYTHONPATH: `first`, the tests' helpers, and what was there."""
    return os.pathsep.join([*map(str, first), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
