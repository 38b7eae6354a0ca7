"""How XLA compiles the loops."""

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


def held(key: Array, token: Int[Array, ""]) -> Array:
    """Return the same key, which is not to be had before the token is: what needs it has to wait.

    An optimization barrier does not do: the CPU compiler takes barriers away before it orders operations.

    Args:
        token: 0.
    """
    data = jax.random.key_data(key) + token.astype(jnp.uint32)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
