"""The memory that a run will take, known before it is taken."""

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


def require_memory(needed: int, what: str, fix: str) -> None:
    """Raise `UsageError`, with both figures, when `needed` bytes are not available."""
    available = psutil.virtual_memory().available
    if needed > available:
        raise UsageError(
            f"{what} needs {needed / 2**30:.1f} GiB, but {available / 2**30:.1f} GiB are free on this"
            f" machine; {fix}."
        )
