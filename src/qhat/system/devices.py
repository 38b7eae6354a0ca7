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


def prepare(devices: int, spare: int = 0, threads: int | None = None) -> None:
    """Ask JAX for `devices` CPU devices: several have one thread each, one has all of them.

    Args:
        threads: cores to use; by default all that this process may use.
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
    # XLA splits only products and convolutions that are large enough: with all cores a small network is
    # as fast as with one, an image network up to 1.7 times as fast (docs/results/convolutions.md). Several
    # devices fill the cores already.
    pool = max(1, devices) if devices > 1 else threads or cores()
    os.environ.setdefault("PJRT_NPROC", str(pool + spare))
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


def devices_for(seeds: int, threads: int | None = None) -> int:
    """Return how many CPU devices to request: one per seed, at most one per core to use."""
    return max(1, min(seeds, threads or cores()))


def in_use() -> int:
    """Return how many threads JAX computes with on a CPU; `prepare` decided it, or the user's variable."""
    given = os.environ.get("PJRT_NPROC", "")
    return int(given) if given.isdigit() else os.cpu_count() or 1


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
