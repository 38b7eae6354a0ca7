"""The network: torso, shared hidden layers, streams, merge. Parameters are a nested dictionary."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

from qhat.axes.actions import Actions
from qhat.axes.behaviour import Behaviour, NoBehaviour
from qhat.axes.cells import Cells
from qhat.axes.dense import Dense, Layer
from qhat.axes.joint_actions import JointActions
from qhat.axes.memory import Memory, NoMemory
from qhat.axes.merge import Merge
from qhat.axes.normalisation import init_norm, normalise
from qhat.axes.torso import Torso
from qhat.environments.observations import Observations
from qhat.recipes.recipe import Recipe
from qhat.system.errors import blaming
from qhat.system.lazy import Array, Bool, Float, jax, jnp


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
    actions: Actions
    outputs: int
    """K, numbers per choice."""
    layer_norm: bool = False
    """Whether the input of every hidden ReLU is normalised (Ba et al. 2016, arXiv:1607.06450, eq. 3)."""
    embedding: int = 0
    """Number of cosines in the embedding of a fraction; 0 if the network takes no fractions."""
    layout: Observations | None = None
    """The parts of an observation; `None` is one array, which the torso gets unchanged."""
    joint: JointActions | None = None
    """Joint actions, if Q is of them: each output is a mean of those of `actions`, which are then pairs."""
    cells: Cells | None = None
    """Cells of the joints' ranges, if outputs are theirs: they are `actions`, and a command's is a mean."""
    behaviour: Behaviour = NoBehaviour()
    """Has streams beside the values', if it learns from what they say of recorded actions."""
    memory: Memory = NoMemory()
    """What the last hidden layers see in place of the shared ones' features, if it remembers."""

    @staticmethod
    def of(
        recipe: Recipe, shape: tuple[int, ...], actions: Actions, layout: Observations | None
    ) -> Network:
        """Compose the network of a recipe that is `fitted` to observations of `shape`."""
        joint, cells = recipe.joints.joint(actions), recipe.resolution.cells(actions)
        mixes = joint or cells
        outputs = actions if mixes is None else Actions(mixes.outputs)
        return Network(
            torso=recipe.torso,
            dense=recipe.dense,
            merge=recipe.merge,
            hidden=recipe.hidden,
            shape=shape,
            actions=outputs,
            outputs=recipe.head.outputs,
            embedding=recipe.head.embedding,
            layer_norm=recipe.layer_norm,
            layout=layout,
            joint=joint,
            cells=cells,
            behaviour=recipe.behaviour,
            memory=recipe.memory,
        )

    @property
    def exists(self) -> tuple[tuple[bool, ...], ...] | None:
        """`[F, C]`, which choices each factor has; `None` where Q has a value for all."""
        return self.actions.exists if self.cells is None else Actions(self.cells.choices).exists

    @property
    def mixes(self) -> JointActions | Cells | None:
        """What makes the values of choices, or of joint actions, of the last layer's outputs."""
        return self.joint or self.cells

    def init(self, key: Array) -> dict[str, Any]:
        """Draw the parameters θ."""
        layers = self._layers()
        torso_key, *keys, embedding_key = jax.random.split(key, 2 + len(layers))
        parameters: dict[str, Any] = {}
        if torso := self._init_torsos(torso_key):
            parameters["torso"] = torso
        for name, sizes in layers.items():
            parameters[name] = self.dense.init(keys.pop(), *sizes)
            if self.layer_norm and "hidden" in name:
                parameters[f"{name}_norm"] = init_norm(sizes[1])
        if self.embedding:
            # It embeds a fraction, not the state, so it has no noise.
            parameters["embedding"] = Dense().init(embedding_key, self.embedding, self._streams_see())
        if self.memory.remembers:
            # Folded in, so that the other layers are those of the network without it.
            parameters["memory"] = self.memory.init(jax.random.fold_in(key, 1), self._shared()[-1])
        return parameters

    def projected(self, parameters: Any, moves: Bool[Array, ""]) -> Any:
        """Return the parameters after an update, within the torso's limits if it has any and they moved."""
        if not self.torso.projects:
            return parameters
        before = parameters["torso"]
        after = jax.tree.map(functools.partial(jnp.where, moves), self.torso.projected(before), before)
        return {**parameters, "torso": after}

    def noise(self, key: Array, looks: int = 1) -> Float[Array, "L N"] | None:
        """Draw the noise of every layer for each of `looks` at the network; `None` without noise."""
        size = sum(self.dense.noise_size(*sizes) for sizes in self._layers().values())
        return self.dense.noise_from(jax.random.normal(key, (looks, size))) if size else None

    def apply(
        self,
        parameters: dict[str, Any],
        observation: Any,
        noise: Float[Array, " N"] | None = None,
        fractions: Float[Array, " T"] | None = None,
    ) -> Float[Array, "F C K"]:
        """Return Z(s, ·; θ) for one observation, and the behaviour's outputs behind each choice's.

        Args:
            observation: as it is stored; with a layout, the result of its `shown`.
            noise: one row of the result of `noise`; `None` is no noise.
            fractions: the τ of the K outputs, if the network has an embedding.
        """
        by_layer = self._split(noise)
        return self._valued(
            parameters, self._encoded(parameters, observation, by_layer), by_layer, fractions
        )

    def encoded(
        self, parameters: dict[str, Any], observation: Any, noise: Float[Array, " N"] | None = None
    ) -> Float[Array, " I"]:
        """Return the features of one observation that the streams see, or the memory where there is one."""
        return self._encoded(parameters, observation, self._split(noise))

    def _encoded(
        self, parameters: dict[str, Any], observation: Any, by_layer: dict[str, Array | None]
    ) -> Float[Array, " I"]:
        x = self._features(parameters.get("torso", {}), observation)
        for index in range(len(self.hidden) - 1):
            x = self._hidden(f"hidden{index}", parameters, x, by_layer)
        return x

    def valued(
        self,
        parameters: dict[str, Any],
        x: Float[Array, " I"],
        noise: Float[Array, " N"] | None = None,
        fractions: Float[Array, " T"] | None = None,
    ) -> Float[Array, "F C K"]:
        """Return Z(s, ·; θ) for what the streams see: features, or a memory's state after them."""
        return self._valued(parameters, x, self._split(noise), fractions)

    def _valued(
        self,
        parameters: dict[str, Any],
        x: Float[Array, " I"],
        by_layer: dict[str, Array | None],
        fractions: Float[Array, " T"] | None,
    ) -> Float[Array, "F C K"]:
        if fractions is None:
            return self._outputs(parameters, x, by_layer)
        at = embed(parameters["embedding"], fractions) * x
        z = jax.vmap(self._outputs, in_axes=(None, 0, None))(parameters, at, by_layer)
        return jnp.moveaxis(z[..., 0], 0, -1)

    def activations(
        self,
        parameters: dict[str, Any],
        observation: Any,
        fractions: Float[Array, " T"] | None = None,
        memory: Float[Array, " M"] | None = None,
    ) -> dict[str, Float[Array, " _"]]:
        """Return the outputs of every hidden layer for one observation, without noise.

        Args:
            fractions: as in `apply`; of a layer after the embedding, each unit's largest output counts.
            memory: its state after the observation.
        """
        no_noise, outputs = self._split(None), {}
        x = self._features(parameters.get("torso", {}), observation)
        for index in range(len(self.hidden) - 1):
            name = f"hidden{index}"
            x = outputs[name] = self._hidden(name, parameters, x, no_noise)
        x = x if memory is None else memory
        at = x[None] if fractions is None else embed(parameters["embedding"], fractions) * x
        for name in (f"{stream}_hidden" for stream in self._streams() if self.hidden):
            every = [self._hidden(name, parameters, row, no_noise) for row in at]
            outputs[name] = jnp.max(jnp.stack(every), axis=0)
        return outputs

    def features(
        self, parameters: dict[str, Any], observation: Any, fractions: Float[Array, " T"] | None = None
    ) -> Float[Array, " I"]:
        """Return what the last layers take, of all streams together, for one observation, without noise."""
        if not self.hidden:
            return self._features(parameters.get("torso", {}), observation)
        outputs = self.activations(parameters, observation, fractions)
        return jnp.concatenate([outputs[f"{stream}_hidden"] for stream in self._streams()])

    def branches(self) -> list[tuple[str, Torso, tuple[int, ...]]]:
        """Return, for each picture, the name of its parameters, its torso and the torso's input shape."""
        if self.layout is None:
            return []
        shapes = [entry.image_shape for entry in self.layout.framed]
        torsos = [self.torso.of_image(shape) for shape in shapes]
        named = enumerate(zip(torsos, shapes, strict=True))
        return [(f"picture{index}", torso, torso.form(shape)) for index, (torso, shape) in named]

    def _init_torsos(self, key: Array) -> dict[str, Any]:
        branches = self.branches()
        if self.layout is None or not branches:
            return self.torso.init(key, self.shape)
        if self.layout.is_picture:
            _, torso, shape = branches[0]
            return torso.init(key, shape)
        keys = jax.random.split(key, len(branches))
        drawn = {
            name: torso.init(each, shape) for each, (name, torso, shape) in zip(keys, branches, strict=True)
        }
        return {name: parameters for name, parameters in drawn.items() if parameters}

    def _features(self, parameters: dict[str, Any], observation: Any) -> Float[Array, " I"]:
        """Return the features of an observation: of its pictures, then of its numbers."""
        if self.layout is None:
            return self.torso.apply(parameters, observation)
        images, numbers = observation
        if not images:
            return self.torso.apply(parameters, numbers)
        branches, parts = self.branches(), []
        for (name, torso, shape), image in zip(branches, images, strict=True):
            weights = parameters if self.layout.is_picture else parameters.get(name, {})
            parts.append(torso.apply(weights, image.reshape(shape)))
        if numbers is not None:
            parts.append(numbers.reshape(-1))
        return jnp.concatenate(parts) if len(parts) > 1 else parts[0]

    def _width(self) -> int:
        """Number of features."""
        branches = self.branches()
        if self.layout is None or not branches:
            return self.torso.features(self.shape)
        widths, several = [], self.layout.is_packed
        for entry, (_, torso, shape) in zip(self.layout.framed, branches, strict=True):
            with blaming(f"picture{entry.where}") if several else contextlib.nullcontext():
                widths.append(torso.features(shape))
        return sum(widths) + math.prod(self.layout.numbers_shape or (0,))

    def remixed(
        self, parameters: dict[str, Any], mixing: Float[Array, "K K"], offset: Float[Array, " K"]
    ) -> dict[str, Any]:
        """Return the parameters that give `mixing @ z + offset` for the K outputs z of every choice.

        With dueling streams, only the value's offset counts: the advantages' offset cancels in their mean.
        """
        last = {name: self.dense.remixed(parameters[name], mixing, offset) for name in self._streams()}
        return {**parameters, **last}

    def mapped_outputs(
        self, parameters: dict[str, Any], function: Callable[[Array], Array]
    ) -> dict[str, Any]:
        """Return a tree like the parameters with `function` of every array of the last layers."""
        last = {name: jax.tree.map(function, parameters[name]) for name in self._streams()}
        return {**parameters, **last}

    def mixed_choices(self, parameters: dict[str, Any], mixing: Float[Array, "F C C"]) -> dict[str, Any]:
        """Return a tree like the parameters, with the rows of choices in the last layers mixed."""
        F, C = self.actions.factors, self.actions.width

        def mix(rows: Array) -> Array:
            by_choice = rows.reshape(F, C, -1)
            return jnp.einsum("fdc,fcn->fdn", mixing, by_choice).reshape(rows.shape)

        several = [name for name, width in self._streams().items() if width == C]
        return {**parameters, **{name: jax.tree.map(mix, parameters[name]) for name in several}}

    def _outputs(
        self, parameters: dict[str, Any], x: Float[Array, " I"], noise: dict[str, Array | None]
    ) -> Float[Array, "F C K"]:
        streams = {}
        for name, width in self._streams().items():
            y = self._hidden(f"{name}_hidden", parameters, x, noise) if self.hidden else x
            out = self.dense.apply(parameters[name], y, noise[name])
            streams[name] = out.reshape(self.actions.factors, width, self.outputs)
        z = self.merge.merge(streams, self.actions.exists)
        z = z if self.mixes is None else self.mixes.mix(z)
        return self.behaviour.beside(z, streams, self.actions.exists) if self.behaviour.acts else z

    def parted(self, z: Float[Array, "F C _"]) -> tuple[Array, Array | None]:
        """Return Z(s, ·; θ) and the behaviour's outputs, if there are any, of the result of `apply`."""
        return (z[..., : self.outputs], z[..., self.outputs :]) if self.behaviour.acts else (z, None)

    def _hidden(
        self, name: str, parameters: dict[str, Any], x: Float[Array, " I"], noise: dict[str, Array | None]
    ) -> Float[Array, " O"]:
        y = self.dense.apply(parameters[name], x, noise[name])
        if self.layer_norm:
            y = normalise(parameters[f"{name}_norm"], y)
        return jax.nn.relu(y)

    def _split(self, noise: Float[Array, " N"] | None) -> dict[str, Array | None]:
        """Split the noise into the numbers of every layer."""
        layers = self._layers()
        if noise is None:
            return dict.fromkeys(layers)
        ends = itertools.accumulate(self.dense.noise_size(*sizes) for sizes in layers.values())
        return dict(zip(layers, jnp.split(noise, list(ends)[:-1]), strict=True))

    def _shared(self) -> list[int]:
        """Widths from the torso's features to the input of the streams."""
        return [self._width(), *self.hidden[:-1]]

    def _streams_see(self) -> int:
        """Width of what the streams see."""
        return self.memory.units if self.memory.remembers else self._shared()[-1]

    def _layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of every dense layer, by name."""
        shared = self._shared()
        layers = {f"hidden{index}": sizes for index, sizes in enumerate(itertools.pairwise(shared))}
        for name, width in self._streams().items():
            last = self._streams_see()
            if self.hidden:
                layers[f"{name}_hidden"] = (last, self.hidden[-1])
                last = self.hidden[-1]
            layers[name] = (last, self.actions.factors * width * self.outputs)
        return layers

    def _streams(self) -> dict[str, int]:
        return self.merge.streams(self.actions.width) | self.behaviour.streams(self.actions.width)


def embed(parameters: dict[str, Any], fractions: Float[Array, " T"]) -> Float[Array, "T I"]:
    """Return φ(τ) = ReLU(W cos(π·i·τ) + b) (Dabney et al. 2018b, arXiv:1806.06923, eq. 4)."""
    cosines = jnp.cos(jnp.pi * jnp.arange(parameters["weight"].shape[1]) * fractions[:, None])
    return jax.nn.relu(cosines @ parameters["weight"].T + parameters["bias"])
