"""A support of evenly spaced atoms that is placed automatically.

Atom i stands for the return `origin + i·spacing`. Where the range was chosen too small, atoms that were
kept in reserve are unmasked. Where none is left and targets go on to fall beyond, the spacing doubles:
`qhat.engine.doubling` then changes the network's outputs and the optimiser's moments with it. All of it are
numbers that no gradient touches, beside the network's weights, so whoever has a policy's weights has its
support.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qhat.axes.heads.outlook import Outlook

PATIENCE = 1e-3
"""Share of a batch's mass beyond an edge from which the edge moves out by one atom."""
MARGIN = 0.5
"""Atoms in use at first: the range of observed returns, widened by this share of it at each end."""
RESERVE = 4.0
"""Atoms at all: the same with this share, as far as rewards of the observed sizes can reach."""
SPARE = 3
"""Atoms beyond that reach at each end, for what a Gaussian about the last value needs."""
TOLERATED = 1e-2
"""Share of a batch's mass that may lie beyond the last atom for ever; reports warn of more."""
PRESSURE = 2.0
"""Batches' worth of mass beyond the last atom, in excess of `TOLERATED`, at which the spacing doubles."""


class Atoms(NamedTuple):
    """What the K outputs of a categorical head stand for."""

    values: Float[Array, " K"]
    active: Bool[Array, " K"]
    """Atoms that are in use; the others have probability 0."""
    spacing: Float[Array, ""]
    low: Float[Array, ""]
    """Value of the first active atom."""
    high: Float[Array, ""]
    """Value of the last one."""


def fixed(low: float, high: float, atoms: int, placed: bool = True) -> dict[str, Array]:
    """Return the support of `atoms` atoms from `low` to `high`, all in use.

    Args:
        placed: false lets `calibrate` choose another place, once there is something to go by.
    """
    spacing = jnp.float32((high - low) / (atoms - 1))
    return _support(jnp.float32(low), spacing, 0.0, atoms - 1.0, jnp.asarray(placed))


def calibrate(outlook: Outlook, atoms: int) -> dict[str, Array]:
    """Choose the support of `atoms` atoms from the returns in replay.

    All atoms together reach as far as `RESERVE` allows, but not beyond r/(1−γ), which no return
    exceeds; those within `MARGIN` of what was seen are in use. With nothing seen but zeros it is
    [−1, 1], and not placed yet.
    """
    low, high = outlook.returns
    nothing = high - low < 1e-6
    low, high = jnp.where(nothing, -1.0, low), jnp.where(nothing, 1.0, high)
    limits = outlook.rewards / max(1.0 - outlook.gamma, 1e-4)
    limits = jnp.where(nothing, jnp.array([-1.0, 1.0]), limits)
    width = high - low
    first = jnp.maximum(low - RESERVE * width, jnp.minimum(limits[0], low))
    last = jnp.minimum(high + RESERVE * width, jnp.maximum(limits[1], high))
    spare = _spare(atoms)
    spacing = (last - first) / (atoms - 1 - 2 * spare)
    first = first - spare * spacing
    lowest = jnp.floor((low - MARGIN * width - first) / spacing)
    highest = jnp.ceil((high + MARGIN * width - first) / spacing)
    return _support(first, spacing, jnp.maximum(lowest, 0.0), jnp.minimum(highest, atoms - 1.0), ~nothing)


def widen(support: dict[str, Array], overflow: Float[Array, " 2"], atoms: int) -> dict[str, Array]:
    """Unmask one more atom at each end that more than `PATIENCE` of the targets' mass fell beyond.

    Mass beyond an end without atoms in reserve adds to the pressure, which is what `placed` has beyond 1.
    """
    used_up = jnp.stack([support["low"] <= 0.0, support["high"] >= atoms - 1.0])
    excess = jnp.sum(jnp.where(used_up, overflow, 0.0)) - TOLERATED
    pressed = jnp.clip(support["placed"] + excess, 1.0, 1.0 + PRESSURE)
    low = jnp.where(overflow[0] > PATIENCE, support["low"] - 1.0, support["low"])
    high = jnp.where(overflow[1] > PATIENCE, support["high"] + 1.0, support["high"])
    return {
        **support,
        "low": jnp.maximum(low, 0.0),
        "high": jnp.minimum(high, atoms - 1.0),
        "placed": jnp.where(support["placed"] > 0, pressed, support["placed"]),
    }


def doubles(
    support: dict[str, Array], overflow: Float[Array, " 2"], outlook: Outlook, atoms: int
) -> Bool[Array, ""]:
    """Whether the spacing is to double now.

    The pressure has to be there, and an end that targets fell beyond has to be nearer than r/(1−γ):
    values that overestimate themselves cannot widen their support for ever.
    """
    limits = outlook.rewards / max(1.0 - outlook.gamma, 1e-4)
    ends = support["origin"] + support["spacing"] * jnp.array([0.0, atoms - 1.0])
    room = jnp.array([1.0, -1.0]) * (ends - limits) > -_spare(atoms) * support["spacing"]
    return (support["placed"] >= 1.0 + PRESSURE) & jnp.any(room & (overflow > TOLERATED))


def doubled(
    support: dict[str, Array], overflow: Float[Array, " 2"], atoms: int
) -> tuple[dict[str, Array], Float[Array, ""]]:
    """Return the support with twice the spacing, and which old atom (maybe none) its first atom lies on.

    Every new atom is an old one, or lies where none was. The atoms that this frees go to the ends that
    targets fell beyond.
    """
    low, high = jnp.round(support["low"]), jnp.round(support["high"])
    free = atoms - 1.0 - jnp.ceil((high - low) / 2.0)
    share = overflow[0] / jnp.maximum(overflow[0] + overflow[1], 1e-9)
    spare = jnp.minimum(_spare(atoms), free // 2)
    below = jnp.clip(jnp.round(share * free), spare, free - spare)
    first = low - 2.0 * below
    return rebased(support, support, first, atoms), first


def rebased(
    support: dict[str, Array], reference: dict[str, Array], first: Float[Array, ""], atoms: int
) -> dict[str, Array]:
    """Return `support` on the atoms of twice the spacing of `reference`, from its atom `first` on."""
    low = jnp.floor((jnp.round(support["low"]) - first) / 2.0)
    high = jnp.ceil((jnp.round(support["high"]) - first) / 2.0)
    return {
        "origin": reference["origin"] + first * reference["spacing"],
        "spacing": 2.0 * reference["spacing"],
        "low": jnp.clip(low, 0.0, atoms - 1.0),
        "high": jnp.clip(high, 0.0, atoms - 1.0),
        "placed": jnp.ones_like(support["placed"]),
    }


def merging(support: dict[str, Array], first: Float[Array, ""], atoms: int) -> Float[Array, "K K"]:
    """Return the matrix that shares each atom in use among the one or two new atoms nearest to it.

    Of probabilities it is the projection onto the new atoms, which keeps their mean.
    """
    old, new = jnp.arange(atoms), first + 2.0 * jnp.arange(atoms)
    near = jnp.clip(1.0 - jnp.abs(new[:, None] - old) / 2.0, 0.0, 1.0)
    return near * atoms_of(support, atoms).active


def atoms_of(support: dict[str, Array], atoms: int) -> Atoms:
    """Return the atoms of a support."""
    index = jnp.arange(atoms)
    origin, spacing = support["origin"], support["spacing"]
    # A soft target network averages the edges; half an atom is where one more comes into use.
    low, high = jnp.round(support["low"]), jnp.round(support["high"])
    return Atoms(
        values=origin + index * spacing,
        active=(index >= low) & (index <= high),
        spacing=spacing,
        low=origin + low * spacing,
        high=origin + high * spacing,
    )


def _spare(atoms: int) -> int:
    return min(SPARE, (atoms - 2) // 8)


def _support(
    origin: Array, spacing: Array, low: Array | float, high: Array | float, placed: Array
) -> dict[str, Array]:
    return {
        "origin": origin,
        "spacing": spacing,
        "low": jnp.asarray(low, jnp.float32),
        "high": jnp.asarray(high, jnp.float32),
        "placed": placed.astype(jnp.float32),
    }
