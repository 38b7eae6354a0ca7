"""Shapes in signatures are checked while the tests run; JAX gets two devices, as `qhat train` asks."""

import jax
from jaxtyping import install_import_hook

from qhat import runtime

# JAX is imported first, so that annotations name real array types; see qhat/_lazy.py.
assert jax.__name__ == "jax"
runtime.prepare(devices=2)
install_import_hook("qhat", "beartype.beartype")
