"""Many small arrays as one: what a call of a compiled function costs grows with their number.

A training state of a small network has some sixty leaves of a few numbers. Passing them in and out of a
compiled function takes longer than an update. Packed, they are one vector of 32-bit words; arrays that are
large stay as they are, and are updated in place.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

LARGE = 50_000
"""Elements from which a leaf is passed by itself."""


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the leaves of one kind of tree are packed."""

    structure: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    @staticmethod
    def of(tree: Any) -> Packing:
        """Describe a tree of arrays (or of their shapes)."""
        shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: tree))
        return Packing(structure, tuple(shapes))

    def split(self, tree: Any) -> tuple[list[Array], list[Array]]:
        """Return the small leaves and the large ones."""
        leaves = self.structure.flatten_up_to(tree)
        pairs = list(zip(leaves, self.leaves, strict=True))
        return [leaf for leaf, shape in pairs if not _is_large(shape)], [
            leaf for leaf, shape in pairs if _is_large(shape)
        ]

    def join(self, small: list[Array], large: list[Array]) -> Any:
        """Return the tree."""
        kinds = {False: iter(small), True: iter(large)}
        leaves = [next(kinds[_is_large(shape)]) for shape in self.leaves]
        return jax.tree.unflatten(self.structure, leaves)

    def pack(self, small: list[Array]) -> UInt32[Array, " W"]:
        """Return the small leaves as one vector."""
        words = [_to_words(leaf) for leaf in small]
        return jnp.concatenate(words) if words else jnp.zeros(0, jnp.uint32)

    def unpack(self, vector: UInt32[Array, " W"]) -> list[Array]:
        """Return the small leaves of a vector."""
        at, leaves = 0, []
        for shape in self.leaves:
            if not _is_large(shape):
                count = _words_of(shape)
                leaves.append(_from_words(vector[at : at + count], shape))
                at += count
        return leaves


def _is_large(shape: jax.ShapeDtypeStruct) -> bool:
    return math.prod(shape.shape) >= LARGE


def _is_key(shape: Any) -> bool:
    return jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)


def _words_of(shape: jax.ShapeDtypeStruct) -> int:
    plain = jax.eval_shape(jax.random.key_data, shape) if _is_key(shape) else shape
    return math.prod(plain.shape)


def _to_words(leaf: Array) -> UInt32[Array, " W"]:
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype.itemsize < 4:
        leaf = leaf.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32).ravel()


def _from_words(words: UInt32[Array, " W"], shape: jax.ShapeDtypeStruct) -> Array:
    if _is_key(shape):
        data = words.reshape(jax.eval_shape(jax.random.key_data, shape).shape)
        return jax.random.wrap_key_data(data)
    words = words.reshape(shape.shape)
    if np.dtype(shape.dtype).itemsize < 4:
        return words.astype(shape.dtype)
    return jax.lax.bitcast_convert_type(words, shape.dtype)
