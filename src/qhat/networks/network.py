"""The network: torso, shared hidden layers, streams, merge. Parameters are a nested dictionary."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from qhat._lazy import Array, Float, jax
from qhat.networks.dense import Layer
from qhat.networks.merge import Merge
from qhat.networks.torso import Torso


@dataclasses.dataclass(frozen=True)
class Network:
    """Z(s, ·; θ): one observation to outputs `[factors, choices, K]`. Holds no arrays."""

    torso: Torso
    dense: Layer
    merge: Merge
    hidden: tuple[int, ...]
    """Widths of the hidden layers; the last one belongs to the merge's streams."""
    shape: tuple[int, ...]
    """Shape of one observation."""
    factors: int
    choices: int
    outputs: int
    """K, numbers per choice."""

    def init(self, key: Array) -> dict[str, Any]:
        """Draw the parameters θ."""
        sizes = [self.torso.features(self.shape), *self.hidden[:-1]]
        layers = list(itertools.pairwise(sizes))
        torso_key, *keys = jax.random.split(key, 1 + len(layers) + 2 * len(self._streams()))
        parameters: dict[str, Any] = {}
        if torso := self.torso.init(torso_key, self.shape):
            parameters["torso"] = torso
        for index, (inputs, outputs) in enumerate(layers):
            parameters[f"hidden{index}"] = self.dense.init(keys.pop(), inputs, outputs)
        for name, width in self._streams().items():
            last = sizes[-1]
            if self.hidden:
                last = self.hidden[-1]
                parameters[f"{name}_hidden"] = self.dense.init(keys.pop(), sizes[-1], last)
            parameters[name] = self.dense.init(keys.pop(), last, self.factors * width * self.outputs)
        return parameters

    def apply(
        self, parameters: dict[str, Any], observation: Array, key: Array | None = None
    ) -> Float[Array, "F C K"]:
        """Return Z(s, ·; θ) for one observation. `key` draws the layers' noise; `None` is none."""
        noise = dict.fromkeys(parameters) if key is None else _split(key, list(parameters))

        def layer(name: str, x: Array) -> Array:
            return self.dense.apply(parameters[name], x, noise[name])

        x = self.torso.apply(parameters.get("torso", {}), observation)
        for index in range(len(self.hidden) - 1):
            x = jax.nn.relu(layer(f"hidden{index}", x))
        streams = {}
        for name, width in self._streams().items():
            y = jax.nn.relu(layer(f"{name}_hidden", x)) if self.hidden else x
            streams[name] = layer(name, y).reshape(self.factors, width, self.outputs)
        return self.merge.merge(streams)

    def _streams(self) -> dict[str, int]:
        return self.merge.streams(self.choices)


def _split(key: Array, names: list[str]) -> dict[str, Array]:
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))
