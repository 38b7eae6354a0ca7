"""From a run to a folder that a robot runs without JAX: docs/export-format.md.

Not named `export`: `qhat.export` is the function.
"""

from __future__ import annotations

import importlib.util

from qhat.system.errors import require


def require_installed() -> None:
    """Raise `UsageError` where the libraries of the extra are missing."""
    for module in ("onnx", "onnxruntime"):
        require(
            importlib.util.find_spec(module) is not None,
            f"qhat export needs {module}, which is not installed; type: pip install 'qhat[export]'",
        )
