"""The axis `optimiser`: what a gradient becomes before the step size scales it."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Float, jax, jnp, optax

if TYPE_CHECKING:
    from optax import GradientTransformation


class Optimiser(AxisValue, abc.ABC):
    """Rescales a gradient by what it saw of earlier ones."""

    axis: ClassVar[str] = "optimiser"
    takes_traces: ClassVar[bool] = False
    """Whether it steps along an eligibility trace, by `step_size`, in place of a gradient."""

    @abc.abstractmethod
    def scaling(self) -> GradientTransformation:
        """Return the rescaling: without step size, and without sign."""

    def first(self, weights: Any) -> Any:
        """Return the state before the first update."""
        from jax.flatten_util import ravel_pytree

        return self.scaling().init(ravel_pytree(weights)[0])

    def step_size(
        self, rate: Float[Array, ""], error: Float[Array, ""], size: Float[Array, ""]
    ) -> Float[Array, ""]:
        """Return α of the step α·δ·z with the error δ along a trace z of this size ‖z‖₁.

        It is asked only if it `takes_traces`.
        """
        raise NotImplementedError(self.name)


@dataclasses.dataclass(frozen=True)
class Adam(Optimiser):
    """m̂ / (√v̂ + ε) (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; β₁ = 0.9, β₂ = 0.999)."""

    name: ClassVar[str] = "adam"

    epsilon: float = 1e-8
    """ε, against division by a gradient that is nearly 0."""

    def validate(self) -> None:
        require(self.epsilon > 0, f"adam:epsilon is {self.epsilon}; expected more than 0.")

    def scaling(self) -> GradientTransformation:
        return optax.scale_by_adam(eps=self.epsilon)


@dataclasses.dataclass(frozen=True)
class AdamW(Optimiser):
    """Adam's direction + λ·θ: weights decay besides the gradient (Loshchilov & Hutter 2019, algorithm 2).

    https://arxiv.org/abs/1711.05101. An update multiplies every weight by 1 − learning rate × λ, and adds
    Adam's step.
    """

    name: ClassVar[str] = "adamw"

    decay: float = 0.01
    """λ, the share of a weight that goes, in units of the learning rate; 0 is `adam`."""
    epsilon: float = 1e-8
    """ε, against division by a gradient that is nearly 0."""

    def validate(self) -> None:
        require(self.decay >= 0, f"adamw:decay is {self.decay}; expected 0 or more.")
        require(self.epsilon > 0, f"adamw:epsilon is {self.epsilon}; expected more than 0.")

    def scaling(self) -> GradientTransformation:
        return optax.chain(optax.scale_by_adam(eps=self.epsilon), optax.add_decayed_weights(self.decay))


@dataclasses.dataclass(frozen=True)
class RAdam(Optimiser):
    """r·m̂ / (√v̂ + ε): Adam's step, smaller until v̂ is a mean of enough gradients (β₁ = 0.9, β₂ = 0.999).

    Liu et al. 2020, arXiv:1908.03265. r rises from 0.03 at the sixth step to 0.65 at the thousandth, and to
    1. The first five steps are m̂ alone, as in the authors' program and in PyTorch.
    """

    name: ClassVar[str] = "radam"

    epsilon: float = 1e-8
    """ε, against division by a gradient that is nearly 0."""

    def validate(self) -> None:
        require(self.epsilon > 0, f"radam:epsilon is {self.epsilon}; expected more than 0.")

    def scaling(self) -> GradientTransformation:
        return optax.scale_by_radam(eps=self.epsilon)


@dataclasses.dataclass(frozen=True)
class RMSProp(Optimiser):
    """g / √(E[g²] − E[g]² + ε): centred RMSProp (Graves 2013, arXiv:1308.0850, eq. 38 to 40).

    DQN's own (Mnih et al. 2015, extended data table 1), with that paper's settings.
    """

    name: ClassVar[str] = "rmsprop"

    decay: float = 0.95
    """Share of the running means of g and g² that stays at an update."""
    epsilon: float = 0.01
    """ε, added to the variance under the root."""
    outside: bool = False
    """Whether ε is added to the root instead, as PyTorch does."""
    momentum: float = 0.0
    """Share of the last update that the next one keeps (heavy ball, Polyak 1964); 0 is none."""

    def validate(self) -> None:
        require(0 <= self.decay < 1, f"rmsprop:decay is {self.decay}; expected a share within [0, 1).")
        require(self.epsilon > 0, f"rmsprop:epsilon is {self.epsilon}; expected more than 0.")
        require(
            0 <= self.momentum < 1, f"rmsprop:momentum is {self.momentum}; expected a share within [0, 1)."
        )

    def scaling(self) -> GradientTransformation:
        # optax.scale_by_stddev lets rounding make the variance of a steady gradient negative.
        def init(params: Any) -> Any:
            return optax.ScaleByRStdDevState(jnp.zeros_like(params), jnp.zeros_like(params))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            mean = self.decay * state.mu + (1 - self.decay) * updates
            square = self.decay * state.nu + (1 - self.decay) * updates**2
            variance = jnp.maximum(square - mean**2, 0.0)
            root = jnp.sqrt(variance) + self.epsilon if self.outside else jnp.sqrt(variance + self.epsilon)
            return updates / root, optax.ScaleByRStdDevState(mean, square)

        scaled = optax.GradientTransformation(init, update)
        return optax.chain(scaled, optax.trace(self.momentum)) if self.momentum else scaled


@dataclasses.dataclass(frozen=True)
class ObGD(Optimiser):
    """Overshooting-bounded gradient descent (Elsayed, Vasan & Mahmood 2024, arXiv:2410.14606).

    α' = α / max(1, α·κ·max(1, |δ|)·‖z‖₁) with the learning rate α and the trace z. So one step changes the
    value that it corrects by no more than 1/κ of the error, or of 1 if that is more, where the value is
    linear in weights with features of at most 1; and the learning rate may be 1.
    """

    name: ClassVar[str] = "obgd"
    takes_traces: ClassVar[bool] = True

    kappa: float = 2.0
    """κ, how far below the largest step that cannot overshoot."""

    def validate(self) -> None:
        require(self.kappa > 0, f"obgd:kappa is {self.kappa}; expected more than 0, for example 2.")

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.training.streams,
            f"{setting('optimiser', 'obgd')} bounds steps along eligibility traces, and"
            f" {setting('training', recipe.training.name)} has none; expected"
            f" {setting('optimiser', 'adam')}, or {setting('training', 'stream')}.",
        )

    def scaling(self) -> GradientTransformation:
        raise NotImplementedError("obgd steps along a trace, by `step_size`")

    def first(self, weights: Any) -> Any:
        # As a tree: of 132,000 weights, to make one vector at every step takes as long as the rest.
        return {"steps": jnp.int32(0), "trace": jax.tree.map(jnp.zeros_like, weights)}

    def step_size(
        self, rate: Float[Array, ""], error: Float[Array, ""], size: Float[Array, ""]
    ) -> Float[Array, ""]:
        bound = self.kappa * jnp.maximum(jnp.abs(error), 1.0) * size
        return rate / jnp.maximum(rate * bound, 1.0)


def clip_norm(
    gradient: Float[Array, " P"], most: float | None
) -> tuple[Float[Array, ""], Float[Array, " P"]]:
    """Return the norm of a gradient, and the gradient scaled to a norm of at most `most`."""
    norm = jnp.sqrt(jnp.dot(gradient, gradient))
    return norm, gradient if most is None else gradient * jnp.minimum(1.0, most / (norm + 1e-12))


def rate_at(recipe: Any, steps: Array) -> Float[Array, ""]:
    """Return a recipe's learning rate at environment step `steps`."""
    start, end = recipe.learning_rate, recipe.learning_rate_end
    if end is None:
        return jnp.float32(start)
    assert recipe.learning_rate_steps is not None, "a recipe that follows the run is `scheduled` first"
    fraction = jnp.clip(steps / recipe.learning_rate_steps, 0.0, 1.0)
    return jnp.asarray(start + fraction * (end - start), jnp.float32)


OPTIMISERS: tuple[type[Optimiser], ...] = (Adam, AdamW, RAdam, RMSProp, ObGD)
