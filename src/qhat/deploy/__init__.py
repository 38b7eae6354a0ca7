"""Exports a run to a folder that a robot runs without JAX; docs/export-format.md describes it.

Not named `export`: `qhat.export` is the function.
"""

from __future__ import annotations

from qhat.system import machine


def require_installed() -> None:
    """Raise `UsageError` if the libraries of the extra are missing."""
    for module in ("onnx", "onnxruntime"):
        machine.require_installed(module, "qhat export needs")
