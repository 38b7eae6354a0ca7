"""Mirror images of a batch's transitions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from qhat.engine.replay.ring import Transition
from qhat.environments.mirror import Image, Mirror, Swapped

KEY = 2
"""Folded into an update's key for what is mirrored."""


def with_mirrors(batch: Transition, mirror: Image | None, key: Array) -> Transition:
    """Return the batch with the mirror image of every second transition, by chance."""
    if mirror is None:
        return batch
    coin = jax.random.bernoulli(jax.random.fold_in(key, KEY), 0.5, (batch.action.shape[0],))
    image = of_batch(batch, *mirror)

    def chosen(image: Array | None, plain: Array | None) -> Array | None:
        if image is None or plain is None:
            return None
        return jnp.where(coin.reshape(-1, *[1] * (plain.ndim - 1)), image, plain)

    fields = ("observation", "action", "successor", "legal", "legal_next")
    return dataclasses.replace(
        batch, **{name: chosen(getattr(image, name), getattr(batch, name)) for name in fields}
    )


def of_batch(batch: Transition, mirror: Mirror, swapped: Swapped) -> Transition:
    """Return the mirror images of all transitions."""
    places, signs = np.array(mirror.observation), np.array(mirror.signs, np.float32)
    factors, table = np.array(swapped.factors), np.array(swapped.choices)
    # Entry c of a mirrored mask belongs to the choice that has the image c.
    back = np.argsort(table, axis=1, kind="stable")

    def turned(observation: Array | None) -> Array | None:
        return None if observation is None else observation[:, places] * signs

    def masked(legal: Bool[Array, "B F C"] | None) -> Array | None:
        return (
            None
            if legal is None
            else jnp.take_along_axis(legal[:, factors], jnp.asarray(back)[None], axis=2)
        )

    return dataclasses.replace(
        batch,
        observation=turned(batch.observation),
        successor=turned(batch.successor),
        action=jnp.asarray(table)[np.arange(len(factors)), batch.action[:, factors]],
        legal=masked(batch.legal),
        legal_next=masked(batch.legal_next),
    )
