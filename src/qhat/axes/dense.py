"""The axis `dense`: what a fully connected layer is."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, missing
from qhat.system.errors import require
from qhat.system.lazy import Array, Float, jax, jnp


class Layer(AxisValue, abc.ABC):
    """A layer constructor: parameters are a dictionary of arrays, application is a function."""

    axis: ClassVar[str] = "dense"

    remixes: ClassVar[bool] = False
    """Whether `remixed` is there; a support's spacing stays as it is before a layer that has none."""

    @abc.abstractmethod
    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        """Return the parameters of a layer."""

    def noise_size(self, inputs: int, outputs: int) -> int:
        """Return how many numbers from N(0, 1) a layer takes for its noise."""
        return 0

    def noise_from(self, normal: Float[Array, "L N"]) -> Float[Array, "L N"]:
        """Return the layers' noise made from draws of N(0, 1)."""
        return normal

    @abc.abstractmethod
    def apply(
        self, parameters: dict[str, Array], x: Float[Array, " I"], noise: Float[Array, " N"] | None
    ) -> Float[Array, " O"]:
        """Apply the layer to one example. `noise` is the layer's own; `None` is none."""

    @missing
    def export_affine(self, parameters: dict[str, Array]) -> dict[str, Array]:
        """Return `weight` and `bias` of what the layer computes without noise: weight @ x + bias."""
        raise NotImplementedError(self.name)

    def remixed(
        self, parameters: dict[str, Array], mixing: Float[Array, "K K"], offset: Float[Array, " K"]
    ) -> dict[str, Array]:
        """Return the layer with `mixing @ y + offset` in place of every K neighbouring outputs y."""
        raise NotImplementedError(self.name)


@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """y = W x + b, both drawn from U(±1/√inputs)."""

    name: ClassVar[str] = "dense"
    remixes: ClassVar[bool] = True

    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        bound = inputs**-0.5
        # In one draw: every draw is compiled, and that is most of what starting a small network takes.
        drawn = jax.random.uniform(key, (outputs, inputs + 1), minval=-bound, maxval=bound)
        return {"weight": drawn[:, :-1], "bias": drawn[:, -1]}

    def apply(
        self, parameters: dict[str, Any], x: Float[Array, " I"], noise: Float[Array, " N"] | None
    ) -> Float[Array, " O"]:
        return parameters["weight"] @ x + parameters["bias"]

    def export_affine(self, parameters: dict[str, Array]) -> dict[str, Array]:
        return {name: parameters[name] for name in ("weight", "bias")}

    def remixed(
        self, parameters: dict[str, Array], mixing: Float[Array, "K K"], offset: Float[Array, " K"]
    ) -> dict[str, Array]:
        weight, bias = mix(mixing, parameters["weight"]), mix(mixing, parameters["bias"])
        return {"weight": weight, "bias": bias + jnp.tile(offset, bias.size // offset.size)}


@dataclasses.dataclass(frozen=True)
class Noisy(Layer):
    """Factorised Gaussian noise on weights and biases (Fortunato et al. 2018, arXiv:1706.10295).

    y = (μʷ + σʷ ⊙ f(ε_out)f(ε_in)ᵀ) x + μᵇ + σᵇ ⊙ f(ε_out), f(x) = sgn(x)·√|x| (eq. 9–11). Evaluation,
    export and acting without exploration use the means.
    """

    name: ClassVar[str] = "noisy"
    remixes: ClassVar[bool] = True

    sigma: float = 0.5
    """σ₀: every σ starts at σ₀/√inputs."""

    def validate(self) -> None:
        require(self.sigma > 0, f"noisy:sigma is {self.sigma}; expected more than 0.")

    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        mean = Dense().init(key, inputs, outputs)
        sigma = self.sigma * inputs**-0.5
        return {
            **mean,
            "weight_sigma": jnp.full((outputs, inputs), sigma),
            "bias_sigma": jnp.full(outputs, sigma),
        }

    def noise_size(self, inputs: int, outputs: int) -> int:
        return inputs + outputs

    def noise_from(self, normal: Float[Array, "L N"]) -> Float[Array, "L N"]:
        # f(x) = √max(x, 0) − √max(−x, 0). XLA computes a root once and not anew for every weight that
        # it multiplies, as it would the whole draw behind any cheaper last step.
        return jnp.sqrt(jnp.maximum(normal, 0.0)) - jnp.sqrt(jnp.maximum(-normal, 0.0))

    def apply(
        self, parameters: dict[str, Any], x: Float[Array, " I"], noise: Float[Array, " N"] | None
    ) -> Float[Array, " O"]:
        weight, bias = parameters["weight"], parameters["bias"]
        if noise is not None:
            outputs = bias.size
            out, in_ = noise[:outputs], noise[outputs:]
            weight = weight + parameters["weight_sigma"] * (out[:, None] * in_)
            bias = bias + parameters["bias_sigma"] * out
        return weight @ x + bias

    def export_affine(self, parameters: dict[str, Array]) -> dict[str, Array]:
        return Dense().export_affine(parameters)

    def remixed(
        self, parameters: dict[str, Array], mixing: Float[Array, "K K"], offset: Float[Array, " K"]
    ) -> dict[str, Array]:
        # Of independent noises the variances add up.
        noise = {
            name: jnp.sqrt(mix(mixing**2, parameters[name] ** 2)) for name in ("weight_sigma", "bias_sigma")
        }
        return {**Dense().remixed(parameters, mixing, offset), **noise}


@dataclasses.dataclass(frozen=True)
class Sparse(Dense):
    """`dense` of which most weights of every output start at 0, and its bias.

    The others are drawn from U(±1/√inputs), and an output has one of them at least. All of them learn. What
    an update for one observation changes is used less by others (Elsayed, Vasan & Mahmood 2024,
    arXiv:2410.14606).
    """

    name: ClassVar[str] = "sparse"

    zeros: float = 0.9
    """Share of the weights of each output that start at 0."""

    def validate(self) -> None:
        require(0 <= self.zeros < 1, f"sparse:zeros is {self.zeros}; expected a share within [0, 1).")

    def init(self, key: Array, inputs: int, outputs: int) -> dict[str, Array]:
        return sparse(key, outputs, inputs, self.zeros)


def sparse(key: Array, outputs: int, inputs: int, zeros: float) -> dict[str, Array]:
    """Draw weights `[outputs, inputs]`, the share `zeros` of each row at 0, and biases of 0."""
    drawn = jax.random.uniform(key, (2, outputs, inputs), minval=-1.0)
    rank = jnp.argsort(jnp.argsort(drawn[0], axis=1), axis=1)
    stays = rank >= min(math.ceil(zeros * inputs), inputs - 1)
    return {"weight": jnp.where(stays, inputs**-0.5 * drawn[1], 0.0), "bias": jnp.zeros(outputs)}


def mix(mixing: Float[Array, "K K"], rows: Float[Array, "R ..."]) -> Float[Array, "R ..."]:
    """Mix every K neighbouring rows by a matrix."""
    groups = rows.reshape(-1, mixing.shape[1], *rows.shape[1:])
    return jnp.einsum("ij,gj...->gi...", mixing, groups).reshape(rows.shape)


LAYERS: tuple[type[Layer], ...] = (Dense, Noisy, Sparse)
