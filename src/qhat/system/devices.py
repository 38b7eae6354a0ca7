"""Settings of JAX that suit small networks, made once, before JAX touches a device."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qhat.system.errors import require

SINGLE_THREADED_EIGEN = "--xla_cpu_multi_thread_eigen=false"
REFUSED = {
    "jax_enable_x64": "computes in 32 bits",
    "jax_debug_nans": "marks what is not measured yet with NaN",
}
"""Settings of JAX under which training would stop half-way with an error of JAX's."""


def prepare(devices: int, spare: int = 0) -> None:
    """Ask JAX for `devices` CPU devices, each with one thread.

    Args:
        spare: threads beyond those. A program that calls Python fills one; environments that run programs
            of their own in there would wait for it for ever.

    Where JAX is already initialised (a notebook), its devices stay as they are. Call it from a
    program's entry, not on import.

    Raises:
        UsageError: a setting of JAX that qhat cannot work with.
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
    try:
        jax.config.update("jax_num_cpu_devices", max(1, devices))
    except RuntimeError:
        return  # The backend is up already: seeds go over the devices that it has.


def cores() -> int:
    """Return how many cores this process may use: `taskset` or a container can leave fewer than there are.

    Two devices that share a core wait for each other's threads, at a third of the speed of one.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices_for(seeds: int) -> int:
    """Return how many CPU devices to ask for: one per seed, at most one per core that may be used."""
    return max(1, min(seeds, cores()))


def dividing(seeds: int, devices: int) -> int:
    """The most devices, at most `devices`, that share `seeds` evenly."""
    return max(count for count in range(1, devices + 1) if seeds % count == 0)


def machine() -> str:
    """Describe this machine in a line."""
    import psutil

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, UnicodeDecodeError):
        pass
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def jit_fast_compile(function: Callable[..., Any], **told: Any) -> Callable[..., Any]:
    """Return the function compiled as what runs once: in half the time, with less optimisation.

    Args:
        told: what `jax.jit` is told.
    """
    import jax
    import jax.core

    plain = jax.jit(function, **told)
    quick = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1}, **told)

    def call(*arguments: Any) -> Any:
        # Within another program there are no options of one's own.
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (plain if traced else quick)(*arguments)

    return call
