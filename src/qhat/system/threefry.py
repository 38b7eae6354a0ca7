"""JAX's random generator, compiled without loops: the same numbers from fewer operations.

Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", §4.1). For
a processor JAX compiles the rounds as a loop, which compiles faster. In a loop of small operations, as
training is, starting the operations of that loop takes longer than their arithmetic.
"""

from __future__ import annotations

from typing import Any

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
"""The third word of a key is the parity of the other two and this number."""


def encrypt(key1: Any, key2: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Encrypt counters of two words each with a key of two words; all are uint32."""
    words = (key1, key2, key1 ^ key2 ^ PARITY)
    first, second = first + key1, second + key2
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            first = first + second
            second = (second << rotation | second >> (32 - rotation)) ^ first
        first = first + words[(group + 1) % 3]
        second = second + words[(group + 2) % 3] + (group + 1)
    return first, second


def draw_without_loops() -> None:
    """Have JAX compile draws on a processor by `encrypt`, in every program of this process."""
    from jax.extend.random import threefry2x32_p
    from jax.interpreters import mlir

    rule = mlir.lower_fun(encrypt, multiple_results=True)
    mlir.register_lowering(threefry2x32_p, rule, platform="cpu")
