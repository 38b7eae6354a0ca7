"""JAX on first use.

Axis values (heads, samplers, layers, ...) are plain dataclasses that the command line reads before
it knows whether the user's words make sense; JAX takes a second to import. Modules that define
axis values take `jax`, `jnp` and `optax` from here, so that importing them costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jax" in sys.modules:
    import jax
    import jax.numpy as jnp
    import optax
    from jax import Array
    from jaxtyping import Bool, Float, Int, UInt32
else:

    class _OnFirstUse:
        """Stands for a module until one of its attributes is asked for."""

        def __init__(self, name: str):
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    for _name, _module in (("jax", "jax"), ("jnp", "jax.numpy"), ("optax", "optax")):
        globals()[_name] = _OnFirstUse(_module)
    # Annotations are strings in the modules that import these; nothing evaluates them without JAX.
    globals().update(dict.fromkeys(("Array", "Bool", "Float", "Int", "UInt32"), Any))

__all__ = ["Array", "Bool", "Float", "Int", "UInt32", "jax", "jnp", "optax"]
