"""Shapes in signatures are checked while the tests run; JAX gets two devices, as `qhat train` asks.

Generated cases are the same in every run of one commit, so that a failure can be had again;
`make test-full` draws new ones.

Most of a test run is XLA's compiler, working for programs that run for less time than it takes to make
them. It optimises less here, and in the processes that tests start; `make test-full`, `make smoke` and
test_newcomer.py run what users run.
"""

import os

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

from browser import browser  # noqa: F401 - a fixture, for every test
from full import FULL, LONG
from qhat.system import devices

# JAX is imported first, so that annotations name real array types; see qhat/_lazy.py.
assert jax.__name__ == "jax"
# With level 0 two programs of one arithmetic differ in bits that tests compare.
QUICK = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
if not FULL and "optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
flags = os.environ.get("XLA_FLAGS")
devices.prepare(devices=2)
jax.devices()  # Now, before a first test trains one seed and asks for one device.
# XLA has read its flags. Processes that tests start prepare their own devices.
del os.environ["XLA_FLAGS"]
if flags is not None:
    os.environ["XLA_FLAGS"] = flags
install_import_hook("qhat", "beartype.beartype")

hypothesis.settings.register_profile("qhat", derandomize=not FULL)
hypothesis.settings.load_profile("qhat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what is long to `make test-full`."""
    for item in items:
        name = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        if name in LONG and not FULL:
            near = f"long, and near to {LONG[name]}: make test-full"
            item.add_marker(pytest.mark.skip(reason=near))
