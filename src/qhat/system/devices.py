"""JAX settings that suit small networks; made before JAX initialises a device."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from qhat.system import compilation_cache
from qhat.system.errors import UsageError, near_miss, require, setting
from qhat.system.files import quote
from qhat.system.machine import install_extra
from qhat.system.threefry import draw_without_loops

SINGLE_THREADED_EIGEN = "--xla_cpu_multi_thread_eigen=false"
REFUSED = {
    "jax_enable_x64": "computes in 32 bits",
    "jax_debug_nans": "marks missing measurements with NaN",
}
"""JAX settings under which training would fail with a JAX error."""


DEVICES = ("auto", "cpu", "cuda")
"""What JAX may compute on; auto is a GPU if JAX finds one, and else the processor."""
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""Packages that bring CUDA to JAX."""


def require_device(device: str) -> None:
    """Raise `UsageError` for a device that is none, or that JAX cannot have. Does not import JAX."""
    require(
        device in DEVICES,
        f"{setting('device')} is {quote(device)}; expected {', '.join(DEVICES[:-1])} or {DEVICES[-1]}."
        + near_miss(str(device), DEVICES),
    )
    require(
        device != "cuda" or any(importlib.util.find_spec(name) for name in PLUGINS),
        f"{setting('device', 'cuda')} needs JAX's CUDA packages, which are not installed; expected Linux,"
        f" an NVIDIA GPU with its driver, and: {install_extra('cuda')}. Leave it out to use the processor.",
    )


def prepare(devices: int, spare: int = 0, threads: int | None = None, device: str = "auto") -> None:
    """Ask JAX for `devices` CPU devices: several have one thread each, one has all of them.

    Args:
        device: one of `DEVICES`.
        threads: cores to use; by default all that this process may use.
        spare: additional threads. A program that calls Python occupies one; environments that run JAX
            programs inside that call would otherwise deadlock.

    If JAX is already initialised (a notebook), its devices stay unchanged. Call this from a
    program's entry point, not on import.

    Raises:
        UsageError: a JAX setting is incompatible with qhat, or JAX does not have the device.
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

    for name, why in REFUSED.items():
        require(not getattr(jax.config, name), f"JAX's {name} is on, and qhat {why}; turn it off.")
    compilation_cache.enable()
    draw_without_loops()
    # Where the backend is already initialised, seeds use the existing devices.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(1, devices))
    # Last, as it makes JAX take its devices.
    _choose(device)


def _choose(device: str) -> None:
    """Let JAX take the device, and see that it did."""
    require_device(device)
    if device == "auto":
        return
    import jax

    # The processor stays beside a GPU: Python's environments are called there.
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else "cuda,cpu")
    try:
        found = "cpu" if on_cpu() else "cuda"
    except RuntimeError as error:
        raise UsageError(
            f"{setting('device')} is {device}, but JAX finds none here ({str(error).splitlines()[0]});"
            " expected an NVIDIA GPU with its driver (nvidia-smi lists it)."
        ) from None
    require(
        found == device,
        f"{setting('device')} is {device}, but this process already computes on {found}; expected it before"
        " JAX's first computation, in a process of its own.",
    )


def on_cpu() -> bool:
    """Whether JAX computes on the processor. Asking makes JAX take its devices."""
    import jax

    return jax.default_backend() == "cpu"


def named() -> str:
    """Return what JAX computes with, for people: its threads, or its GPUs by name."""
    if on_cpu():
        threads = in_use()
        return f"{threads} thread{'s' if threads > 1 else ''}"
    import jax

    kinds = [each.device_kind for each in jax.local_devices()]
    return f"{len(kinds)} × {kinds[0]}" if len(kinds) > 1 else kinds[0]


def free_bytes() -> int | None:
    """Return what is free of a GPU's memory; `None` on the processor."""
    import jax

    stats = None if on_cpu() else jax.local_devices()[0].memory_stats()
    return None if not stats else stats["bytes_limit"] - stats["bytes_in_use"]


def cores() -> int:
    """Return how many cores this process may use; `taskset` or a container can reduce them.

    Two devices that share a core wait for each other's threads and run at a third of the speed of one.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_threads(threads: int | None) -> None:
    """Raise `UsageError` if there are fewer cores: threads that share one wait for each other."""
    require(
        threads is None or threads <= cores(),
        f"{setting('threads')} is {threads}, but this process may use {cores()} core{'s' * (cores() > 1)};"
        f" expected {cores()} or fewer. Leave it out to have qhat choose.",
    )


def devices_for(seeds: int, threads: int | None = None) -> int:
    """Return how many CPU devices to request: one per seed, at most one per core to use."""
    return max(1, min(seeds, threads or cores()))


def in_use() -> int:
    """Return how many threads JAX computes with on a CPU; `prepare` decided it, or the user's variable."""
    given = os.environ.get("PJRT_NPROC", "")
    return int(given) if given.isdigit() else os.cpu_count() or 1


def dividing(parts: int, devices: int) -> int:
    """Return the largest number of devices, at most `devices`, that share `parts` (of seeds) evenly."""
    return max(count for count in range(1, devices + 1) if parts % count == 0)


def learners_for(batch: int, wanted: int | None) -> int:
    """Return how many devices share each batch: by default all GPUs that can, and one processor's.

    On a processor a share costs more to exchange than to compute, unless the network is large.

    Raises:
        UsageError: JAX has fewer devices than are wanted.
    """
    import jax

    there = len(jax.local_devices())
    if wanted is None:
        return 1 if on_cpu() else dividing(batch, there)
    require(
        wanted <= there,
        f"{setting('learners')} is {wanted}, but JAX has {there} device(s) in this process; expected at"
        " most as many. A GPU is one, or each core of a processor, if the process has not computed before.",
    )
    return wanted


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
        return (plain if traced or not on_cpu() else quick)(*arguments)

    return call
