"""How XLA compiles the loops."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qhat.system.devices import on_cpu

# Of the processor alone.
COMPILER_OPTIONS = {
    # Seeds fill the cores already. An operation that is split over more threads becomes slower: the
    # gradient of a convolution, joined to one vector, takes a hundred times as long.
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    # Fewer copies of what the loop carries: a Double or prioritised update is 15–30% cheaper.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # The library computes products; XLA computes sums, and fuses each with its operands.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


def after_token(key: Array, token: Int[Array, ""]) -> Array:
    """Make `key` depend on `token`, so that XLA cannot reorder them.

    An optimization barrier is not enough: the CPU compiler removes barriers before it orders operations.

    Args:
        token: 0, so that the key keeps its value.
    """
    data = jax.random.key_data(key) + token.astype(jnp.uint32)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function."""

    call: Callable[..., Any]
    workspace: int = 0
    """Bytes that a call needs besides its arguments and results; 0 if unknown."""

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def compiled(function: Callable[..., Any], like: tuple | None = None, **options: Any) -> Compiled:
    """Compile a function with the options of the loops.

    Args:
        like: arguments, as arrays or `jax.ShapeDtypeStruct`s, to compile for now; by default the function
            compiles at its first call.
        options: keywords of `jax.jit`.
    """
    jitted = jax.jit(function, compiler_options=COMPILER_OPTIONS if on_cpu() else None, **options)
    if like is None:
        return Compiled(jitted)
    ahead = jitted.lower(*like).compile()
    return Compiled(ahead, getattr(ahead.memory_analysis(), "temp_size_in_bytes", 0))
