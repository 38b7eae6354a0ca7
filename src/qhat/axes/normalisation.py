"""Layer normalisation (Ba et al. 2016, arXiv:1607.06450), and vectors of length 1."""

from __future__ import annotations

from typing import Any

from qhat.system.lazy import Array, Float, jax, jnp

EPSILON = 1e-5
"""Added to the variance, against division by 0."""
SHORTEST = 1e-8
"""Added to the square of a length, against division by 0."""


def init_norm(width: int) -> dict[str, Array]:
    """Return the scale and the offset of a fresh layer."""
    return {"scale": jnp.ones(width), "offset": jnp.zeros(width)}


def normalise(parameters: dict[str, Any], x: Float[Array, " O"]) -> Float[Array, " O"]:
    """Return x with mean 0 and variance 1 over its features, scaled and moved (eq. 4)."""
    centred = x - jnp.mean(x)
    spread = jax.lax.rsqrt(jnp.mean(centred**2) + EPSILON)
    return centred * spread * parameters["scale"] + parameters["offset"]


def unit(x: Float[Array, " O"]) -> Float[Array, " O"]:
    """Return x with length 1."""
    return x * jax.lax.rsqrt(jnp.sum(x**2) + SHORTEST)
