"""The memory that a run will take, known before it is taken."""

import ctypes
import sys
from typing import Any

import jax
import numpy as np
import psutil

from qhat.system.devices import free_bytes
from qhat.system.errors import UsageError


def nbytes(tree: Any) -> int:
    """Bytes of a tree of arrays or of `jax.ShapeDtypeStruct`s."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return sum(
        int(np.prod(leaf.shape, dtype=np.int64)) * getattr(leaf.dtype, "itemsize", 8) for leaf in leaves
    )


REST = 48 * 2**20
"""What a run takes beside its compiled loop and its state: the program of the first state, evaluations,
checkpoints as they are written. Measured: 27 to 72 MiB, of which an evaluation's own workspace is most."""


def resident() -> int:
    """Bytes of memory that this process has now."""
    return psutil.Process().memory_info().rss


def give_back() -> None:
    """Return to the system what is free of the heap (where libc is GNU's).

    After a compilation that is some hundred MiB, as much as all that a small training needs.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def available() -> int:
    """Bytes that are free where JAX computes."""
    of_gpu = free_bytes()
    return psutil.virtual_memory().available if of_gpu is None else of_gpu


def require_memory(needed: int, what: str, fix: str) -> None:
    """Raise `UsageError`, with both figures, when `needed` bytes are not available where JAX computes."""
    free = available()
    if needed > free:
        where = "this machine" if free_bytes() is None else "the GPU"
        raise UsageError(
            f"{what} needs {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free on {where}; {fix}."
        )
