"""The memory that a run will take, known before it is taken."""

import ctypes
import sys
from typing import Any

import jax
import numpy as np
import psutil

from qhat.errors import UsageError


def nbytes(tree: Any) -> int:
    """Bytes of a tree of arrays or of `jax.ShapeDtypeStruct`s."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return sum(
        int(np.prod(leaf.shape, dtype=np.int64)) * getattr(leaf.dtype, "itemsize", 8) for leaf in leaves
    )


PROGRAMS, PER_SEED = 80 * 2**20, 15 * 2**20
"""What compiled programs and their workspace take beside a run's state: once, and for every seed."""


def forecast(state: Any, seeds: int) -> int:
    """Return the bytes that this process will have while it trains `seeds` seeds from such a state."""
    return psutil.Process().memory_info().rss + nbytes(state) + PROGRAMS + seeds * PER_SEED


def give_back() -> None:
    """Return what the compiler left of the heap to the system: some hundred MiB, where libc is GNU's."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def require_memory(needed: int, what: str, fix: str) -> None:
    """Raise `UsageError`, with both figures, when `needed` bytes are not available."""
    available = psutil.virtual_memory().available
    if needed > available:
        raise UsageError(
            f"{what} needs {needed / 2**30:.1f} GiB, but {available / 2**30:.1f} GiB are free on this"
            f" machine; {fix}."
        )
