"""Doubles the spacing of a support during training, and changes everything that refers to its atoms.

The K outputs of a choice are logits of atoms, and the optimiser's moments are of those atoms' gradients.
With twice the spacing, pairs of atoms become one:

    probabilities       p′ = M p, M the projection onto the new atoms: the mean stays. It is not linear in
                        logits, so each new logit is the mean of its old neighbours' times a sharpness, and
                        the sharpness is the one that keeps the values of the batch best
    gradients           g = p − target per atom: with both projected g′ = M g, and so are first moments;
                        second moments are bounded by (M √v)²
    target network      changed by the same map

Atoms beyond the old support start with little probability and masked; they come into use one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from qhat.axes.dense import mix
from qhat.axes.heads import support as supports
from qhat.axes.heads.base import Head
from qhat.engine.calibration import SUPPORT, split_trainable
from qhat.engine.network import Network

Support = dict[str, Array]
Weights = dict[str, Any]
State = tuple[Weights, Weights | None, Any]
"""θ, θ⁻ and the optimiser's state."""

SHARPNESS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Factors of the averaged logits: 1 keeps broad distributions, 2 to 4 those within one or two atoms."""
ENOUGH = 0.1
"""Error of a value, in atoms, that is accepted for a lower sharpness, as this keeps logits small."""
QUIET = -4.0
"""Logit of an atom beyond the old support, relative to the mean over it."""
SQUARES = ("nu",)
"""Optax's names of running means of squared gradients; its other vectors are linear in the gradients."""


def logit_map(
    support: Support, first: Float[Array, ""], sharpness: Float[Array, ""] | float, atoms: int
) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """Return the matrix and the offset that make logits of the new atoms from those of the old."""
    near = supports.merging(support, first, atoms)
    covers = jnp.sum(near, axis=1, keepdims=True)
    active = supports.atoms_of(support, atoms).active
    rows = jnp.where(covers > 0, near / jnp.maximum(covers, 1e-9), active / jnp.sum(active))
    return sharpness * rows, jnp.where(covers[:, 0] > 0, 0.0, QUIET)


def best_sharpness(
    head: Head, z: Float[Array, "B F C K"], support: Support, wider: Support, first: Float[Array, ""]
) -> Float[Array, ""]:
    """Return the sharpness with which the new logits keep the means of `z` best."""
    K = head.outputs

    def means(z: Array, support: Support) -> Array:
        basis = head.basis(support, None)
        return jax.vmap(lambda each: head.mean(each, basis))(z)

    before = means(z, support)

    def error(sharpness: Array) -> Array:
        mixing, offset = logit_map(support, first, sharpness, K)
        return jnp.mean((means(z @ mixing.T + offset, wider) - before) ** 2)

    candidates = jnp.array(SHARPNESS)
    errors = jax.lax.map(error, candidates)
    good = errors <= jnp.min(errors) + (ENOUGH * support["spacing"]) ** 2
    return candidates[jnp.argmax(good)]


def double(
    network: Network,
    head: Head,
    state: State,
    z: Float[Array, "B F C K"],
    overflow: Float[Array, " 2"],
) -> State:
    """Return the state on a support of twice the spacing.

    Args:
        z: outputs of the online network for a batch of observations.
        overflow: share of the targets' mass below and above the support.
    """
    online, target, optimiser = state
    K, old = head.outputs, online[SUPPORT]
    wider, first = supports.doubled(old, overflow, K)
    sharpness = best_sharpness(head, z, old, wider, first)

    def moved(parameters: Weights) -> Weights:
        support = parameters[SUPPORT]
        changed = network.remixed(parameters, *logit_map(support, first, sharpness, K))
        return {**changed, SUPPORT: supports.rebased(support, old, first, K)}

    near = supports.merging(old, first, K)
    flat, unravel = ravel_pytree(split_trainable(online)[0])

    def moment(path: tuple, leaf: Array) -> Array:
        if leaf.shape != flat.shape:
            return leaf
        squares = getattr(path[-1], "name", "") in SQUARES
        tree = unravel(jnp.sqrt(leaf) if squares else leaf)
        new = ravel_pytree(network.mapped_outputs(tree, lambda rows: mix(near, rows)))[0]
        return new**2 if squares else new

    return moved(online), target and moved(target), jax.tree_util.tree_map_with_path(moment, optimiser)


def doubled_if(
    due: Bool[Array, ""],
    network: Network,
    head: Head,
    state: State,
    z: Callable[[Weights, Array], Array],
    overflow: Float[Array, " 2"],
) -> State:
    """Return the state of `double` where it is `due`.

    Args:
        z: a function of the online parameters that returns what `double` takes. It adds its second
            argument, a 0, to what it looks at: what no turn of the loop changes, as the layers before the
            outputs, XLA computes at every update.
    """

    def body(turn: Array, state: State) -> State:
        return double(network, head, state, z(state[0], turn), overflow)

    # A loop of 0 or 1 turns, not a `cond`: mapped over seeds, a `cond` computes both branches at every
    # update; the loop runs only if a seed needs it.
    return jax.lax.fori_loop(0, due.astype(jnp.int32), body, state)
