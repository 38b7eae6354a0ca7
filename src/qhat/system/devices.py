"""JAX settings that suit small networks; made before JAX initialises a device."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from qhat.system import compilation_cache
from qhat.system.errors import require

SINGLE_THREADED_EIGEN = "--xla_cpu_multi_thread_eigen=false"
REFUSED = {
    "jax_enable_x64": "computes in 32 bits",
    "jax_debug_nans": "marks missing measurements with NaN",
}
"""JAX settings under which training would fail with a JAX error."""


def prepare(devices: int, spare: int = 0) -> None:
    """Ask JAX for `devices` CPU devices, each with one thread.

    Args:
        spare: additional threads. A program that calls Python occupies one; environments that run JAX
            programs inside that call would otherwise deadlock.

    If JAX is already initialised (a notebook), its devices stay unchanged. Call this from a
    program's entry point, not on import.

    Raises:
        UsageError: a JAX setting is incompatible with qhat.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {SINGLE_THREADED_EIGEN}".strip()
    # A pool with more threads than devices hands the small operations of one loop back and forth
    # between cores: a step of a 64x64 network is then a third slower, of a MinAtar network 3 times.
    os.environ.setdefault("PJRT_NPROC", str(max(1, devices) + spare))
    import jax

    for setting, why in REFUSED.items():
        require(not getattr(jax.config, setting), f"JAX's {setting} is on, and qhat {why}; turn it off.")
    compilation_cache.enable()
    try:
        jax.config.update("jax_num_cpu_devices", max(1, devices))
    except RuntimeError:
        return  # The backend is already initialised: seeds use the existing devices.


def cores() -> int:
    """Return how many cores this process may use; `taskset` or a container can reduce them.

    Two devices that share a core wait for each other's threads and run at a third of the speed of one.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices_for(seeds: int) -> int:
    """Return how many CPU devices to request: one per seed, at most one per available core."""
    return max(1, min(seeds, cores()))


def dividing(seeds: int, devices: int) -> int:
    """Return the largest number of devices, at most `devices`, that divides `seeds` evenly."""
    return max(count for count in range(1, devices + 1) if seeds % count == 0)


def jit_fast_compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return the function compiled in half the time with less optimisation, for functions that run rarely.

    Args:
        options: keyword arguments of `jax.jit`.
    """
    import jax
    import jax.core

    plain = jax.jit(function, **options)
    quick = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1}, **options)

    def call(*arguments: Any) -> Any:
        # Compiler options are not allowed inside another traced program.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (plain if traced else quick)(*arguments)

    return call
