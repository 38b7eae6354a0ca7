"""How XLA compiles the loops."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

COMPILER_OPTIONS = {
    # Seeds fill the cores. An operation that is cut up for the threads of the other devices runs more
    # slowly itself: the gradient of a convolution, joined to one vector, a hundred times.
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    # Fewer copies of what the loop carries: a Double or prioritised update is 15–30% cheaper.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # Products by the library, sums by XLA itself, which fuses them with what they sum.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


def after_token(key: Array, token: Int[Array, ""]) -> Array:
    """Return the same key, which is not to be had before the token is: what needs it has to wait.

    An optimization barrier does not do: the CPU compiler takes barriers away before it orders operations.

    Args:
        token: 0.
    """
    data = jax.random.key_data(key) + token.astype(jnp.uint32)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function."""

    call: Callable[..., Any]
    workspace: int = 0
    """Bytes that a call takes beside its arguments and results, where that is known."""

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def compiled(function: Callable[..., Any], like: tuple | None = None, **told: Any) -> Compiled:
    """Return the function compiled as the loops are: now for arguments `like` these, or at its first call.

    Args:
        like: arrays, or `jax.ShapeDtypeStruct`s in their place.
        told: what `jax.jit` is told.
    """
    jitted = jax.jit(function, compiler_options=COMPILER_OPTIONS, **told)
    if like is None:
        return Compiled(jitted)
    ahead = jitted.lower(*like).compile()
    return Compiled(ahead, getattr(ahead.memory_analysis(), "temp_size_in_bytes", 0))
