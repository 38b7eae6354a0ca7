"""Data parallelism: each of D devices computes the loss and gradient of its share of a batch.

Every device has the whole state and replay, draws the same batch, and computes with B/D of its transitions.
Gradients and metrics are averaged over the devices, and errors are gathered, so that the new state is the
same on each. With one device all of it changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
"""Name of the mesh's axis."""


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """D devices that share every batch; D divides its size."""

    devices: int = 1

    def spread(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function computed on every device, with the same arguments and results on each."""
        if self.devices == 1:
            return function
        same = PartitionSpec()
        # That results are the same on each device follows from how they are computed.
        return jax.shard_map(function, mesh=self._mesh, in_specs=same, out_specs=same, check_vma=False)

    def share(self, batch: Any) -> Any:
        """Return this device's share of a tree of arrays `[B, ...]`: `[B/D, ...]`."""
        if self.devices == 1:
            return batch

        def one(leaf: Any) -> Any:
            size = leaf.shape[0] // self.devices
            return jax.lax.dynamic_slice_in_dim(leaf, jax.lax.axis_index(AXIS) * size, size)

        return jax.tree.map(one, batch)

    def mean(self, tree: Any) -> Any:
        """Return the mean over the devices; of means over equal shares it is the mean over the batch."""
        return tree if self.devices == 1 else jax.lax.pmean(tree, AXIS)

    def joined(self, shares: Any) -> Any:
        """Return whole arrays `[B, ...]` of the shares of every device."""
        return shares if self.devices == 1 else jax.lax.all_gather(shares, AXIS, tiled=True)

    def agreed(self, batch: Any) -> Any:
        """Return what was drawn, `[B, ...]`, each share of it as its device drew it.

        A GPU that writes two values to one place keeps either, as for a slot that a batch has twice.
        Draws may then come to differ between devices, and an error has to return to the slot that it is of.
        """
        return self.joined(self.share(batch))

    @property
    def layout(self) -> NamedSharding | None:
        """Layout of what every device has; `None` for one device."""
        return None if self.devices == 1 else NamedSharding(self._mesh, PartitionSpec())

    def laid(self, tree: Any) -> Any:
        """Return the arrays on every device; those that are there already are not copied."""
        return tree if self.devices == 1 else jax.device_put(tree, self.layout)

    def shapes(self, tree: Any) -> Any:
        """Return the shapes of arrays with the layout that `laid` gives them."""
        if self.devices == 1:
            return tree

        def one(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.layout)

        return jax.tree.map(one, tree)

    @property
    def _mesh(self) -> Mesh:
        return Mesh(jax.local_devices()[: self.devices], (AXIS,))
