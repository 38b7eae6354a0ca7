"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957), without a state between updates."""

from __future__ import annotations

from qhat.system.lazy import Array, Float, jax, jnp

SQUARINGS = 6
"""They give the singular vector of 2⁶ steps of the power method: σ of fresh weights is within 0.2%."""


def normalise(weight: Float[Array, "k k I O"]) -> Float[Array, "k k I O"]:
    """Divide the kernels of a convolution by the largest singular value σ of the matrix `[k·k·I, O]`.

    The paper keeps a singular vector from update to update, and improves it by one step of the power method
    (Algorithm 1). Here the vector is found anew from the weights, so that equal weights are one network:
    squaring WᵀW six times is 64 such steps, in products `[O, O]` that are small beside a convolution. No
    gradient goes through the vectors (eq. 11).
    """
    matrix = jnp.asarray(weight).reshape(-1, weight.shape[-1])
    with jax.default_matmul_precision("highest"):
        fixed = jax.lax.stop_gradient(matrix)
        power = _scaled(fixed.T @ fixed)
        for _ in range(SQUARINGS):
            power = _scaled(power @ power)
        # Every column has the direction of the vector by now; the longest is the most exact.
        right = _unit(power[:, jnp.argmax(jnp.diagonal(power))])
        left = _unit(fixed @ right)
        sigma = left @ matrix @ right
    return weight / jnp.maximum(sigma, 1e-12)


def _scaled(matrix: Float[Array, "O O"]) -> Float[Array, "O O"]:
    return matrix / jnp.maximum(jnp.trace(matrix), 1e-30)


def _unit(vector: Float[Array, " N"]) -> Float[Array, " N"]:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)
