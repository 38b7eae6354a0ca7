"""Shapes in signatures are checked while the tests run; JAX gets two devices, as `qhat train` asks.

Generated cases are the same in every run of one commit, so that a failure can be had again;
`make test-full` draws new ones.

Most of a test run is XLA's compiler, working for programs that run for less time than it takes to make
them. It does not optimise here, and little in the processes that tests start. `make test-full`,
`make smoke`, test_newcomer.py and the processes whose bits test_training.py compares run what users run.
"""

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

from browser import browser, window  # noqa: F401 - fixtures, for every test
from full import FULL, LONG
from places import SOURCE
from qhat.system import devices

# JAX is imported first, so that annotations name real array types; see qhat/system/lazy.py.
assert jax.__name__ == "jax"
# Without optimisation two programs of one arithmetic differ in bits that tests compare, by multiplications
# and additions that LLVM fuses in one of them: AVX has no fused ones.
HAS_AVX = platform.machine().lower() in ("x86_64", "amd64")
UNOPTIMISED = "jax_disable_most_optimizations"
QUICK = (
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
    f" --xla_cpu_parallel_codegen_split_count=1{' --xla_cpu_max_isa=AVX' if HAS_AVX else ''}"
)
MOST = 2 * 1024**3
"""Bytes of a process beyond which it forgets programs."""
STATM = Path("/proc/self/statm")
LIBC = ctypes.CDLL("libc.so.6") if platform.libc_ver()[0] == "glibc" else None
quick = not FULL and "optimization_level" not in os.environ.get("XLA_FLAGS", "")
if quick:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
# Tests leave the cache folder of whoever runs them alone; the Makefile names another one.
os.environ.setdefault("QHAT_CACHE", "0")
flags = os.environ.get("XLA_FLAGS")
devices.prepare(devices=2)
jax.devices()  # Now, before a first test trains one seed and asks for one device.
# XLA has read its flags. Processes that tests start prepare their own devices.
del os.environ["XLA_FLAGS"]
if flags is not None:
    os.environ["XLA_FLAGS"] = flags
# All rooms but the command line: for what a person has to type it passes tyro.MISSING, which has no type.
ROOMS = [f"qhat.{room.name}" for room in SOURCE.iterdir() if room.is_dir() and room.name != "cli"]
install_import_hook(ROOMS, "beartype.beartype")
jax.config.update(UNOPTIMISED, HAS_AVX and quick)

from ray_cluster import ray_cluster, started_cluster  # noqa: E402, F401 - the hook finds its modules
from tiny import trained_cartpole  # noqa: E402, F401

hypothesis.settings.register_profile("qhat", derandomize=not FULL)
hypothesis.settings.load_profile("qhat")


@pytest.fixture
def optimised() -> Iterator[None]:
    """XLA optimises in this test: its programs run for longer than it takes to make them."""
    jax.config.update(UNOPTIMISED, False)
    yield
    jax.config.update(UNOPTIMISED, HAS_AVX and quick)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between two files: thousands of tests compile gigabytes of them."""
    if nextitem is None or nextitem.path == item.path or resident() < MOST:
        return
    jax.clear_caches()
    gc.collect()
    if LIBC is not None:
        LIBC.malloc_trim(0)


def resident() -> int:
    """Return the bytes of this process in memory; 0 where no system says."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is long to `make test-full`. A name in that list that no test has is an error."""
    names = {f"{item.path.name}::{item.nodeid.partition('::')[2]}": item for item in items}
    if not any("::" in argument for argument in config.args):
        files = {item.path.name for item in items}
        unknown = [name for name in LONG if name.partition("::")[0] in files and name not in names]
        if unknown and not config.option.keyword:
            raise pytest.UsageError(f"full.py names tests that are not there: {', '.join(unknown)}")
    for name in () if FULL else LONG.keys() & names.keys():
        near = f"long, and near to {LONG[name]}: make test-full"
        names[name].add_marker(pytest.mark.skip(reason=near))
