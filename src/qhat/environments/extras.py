"""Libraries that only some environments need."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from qhat.errors import UsageError

EXTRAS = {"envpool": "robots", "ale_py": "atari", "minatar": "atari", "Box2D": "robots", "mujoco": "robots"}
"""The extra of qhat's that installs a library."""


def installed(module: str) -> bool:
    """Whether a library can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def load(module: str, env_id: str) -> Any:
    """Import a library. Raises `UsageError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"Environment '{env_id}' needs {module}, which cannot be imported ({error}); type:"
            f" pip install 'qhat[{EXTRAS[module]}]'"
        ) from None


def defer_plotting() -> None:
    """Let the plotting libraries that gymnax and minatar import load when used: two seconds saved."""
    for name in ("seaborn", "matplotlib.pyplot"):
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
