"""Shapes in signatures are checked while the tests run; JAX gets two devices, as `qhat train` asks.

Generated cases are the same in every run of one commit, so that a failure can be had again;
`make test-full` draws new ones.
"""

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

from browser import browser  # noqa: F401 - a fixture, for every test
from full import FULL, LONG
from qhat import devices

# JAX is imported first, so that annotations name real array types; see qhat/_lazy.py.
assert jax.__name__ == "jax"
devices.prepare(devices=2)
jax.devices()  # Now, before a first test trains one seed and asks for one device.
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
