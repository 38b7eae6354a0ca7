"""The axis `policy`: how a' is chosen in the backup."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

from qhat.axes.axis import AxisValue
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Bool, Float, jax, jnp


class Policy(AxisValue, abc.ABC):
    """The distribution over a' at the successor, for one example."""

    axis: ClassVar[str] = "policy"
    uses_online: ClassVar[bool]
    """Whether the online network looks at the successor too."""
    is_deterministic: ClassVar[bool] = False
    """Whether π is 1 for one choice of every factor. A head may then skip the other choices."""
    has_entropy: ClassVar[bool] = True
    """Whether the entropy term may be other than 0. A head may skip it where it cannot."""

    @property
    def temperature(self) -> float | None:
        """τ of the entropy term; `None` for a policy that has no temperature."""
        return None

    @abc.abstractmethod
    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        """Return π(a'|s') per factor, and the entropy term −τ·log π (zeros for a policy without one).

        A choice whose Q is −∞ does not exist or is not legal: its probability is 0, its entropy finite.

        Args:
            target: Q(s', ·) by the target network.
            online: Q(s', ·) by the online network; `target` again unless `uses_online`.
        """


@dataclasses.dataclass(frozen=True)
class Greedy(Policy):
    """a' = argmax Q̄(s', ·): the target network chooses and judges (Mnih et al. 2015)."""

    name: ClassVar[str] = "greedy"
    uses_online: ClassVar[bool] = False
    is_deterministic: ClassVar[bool] = True
    has_entropy: ClassVar[bool] = False

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        return _one_hot_argmax(target), jnp.zeros_like(target)


@dataclasses.dataclass(frozen=True)
class Double(Policy):
    """a' = argmax Q(s', ·): online chooses, target judges (van Hasselt et al. 2016, eq. 4).

    https://arxiv.org/abs/1509.06461
    """

    name: ClassVar[str] = "double"
    uses_online: ClassVar[bool] = True
    is_deterministic: ClassVar[bool] = True
    has_entropy: ClassVar[bool] = False

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        return _one_hot_argmax(online), jnp.zeros_like(online)


@dataclasses.dataclass(frozen=True)
class Softmax(Policy):
    """π ∝ exp(Q̄(s', ·)/τ), with its entropy in the backup (Vieillard et al. 2020, eq. 1).

    https://arxiv.org/abs/2007.14430

    Over F factors, whose mean is Q, the joint softmax is the product of softmaxes at τ·F.
    """

    name: ClassVar[str] = "softmax"
    uses_online: ClassVar[bool] = False

    tau: float = 0.03
    """τ, temperature, in the units of the return; towards 0 the policy is greedy."""

    def validate(self) -> None:
        require(
            self.tau > 0,
            f"softmax:tau is {self.tau}; expected a temperature above 0. For no temperature use"
            f" {setting('policy', 'greedy')}.",
        )

    @property
    def temperature(self) -> float | None:
        return self.tau

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        log_pi = log_softmax(target, self.tau)
        return jnp.exp(log_pi), -self.tau * target.shape[0] * jnp.where(log_pi > -1e8, log_pi, 0.0)


@dataclasses.dataclass(frozen=True)
class ExpectedSarsa(Policy):
    """The ε-greedy policy that acts is the one that is backed up (van Seijen et al. 2009).

    π = (1 − ε)·greedy + ε/n for each of a factor's n choices that exist and are legal. Every factor
    explores by itself. https://doi.org/10.1109/ADPRL.2009.4927542
    """

    name: ClassVar[str] = "expected_sarsa"
    uses_online: ClassVar[bool] = False
    has_entropy: ClassVar[bool] = False

    epsilon: float = 0.05
    """ε, the share of steps that explore; 0 is greedy, 1 the uniform policy."""

    def validate(self) -> None:
        require(
            0.0 <= self.epsilon <= 1.0,
            f"expected_sarsa:epsilon is {self.epsilon}; expected a share within [0, 1].",
        )

    def probabilities(
        self, target: Float[Array, "F C"], online: Float[Array, "F C"]
    ) -> tuple[Float[Array, "F C"], Float[Array, "F C"]]:
        allowed = (target > -jnp.inf).astype(target.dtype)
        uniform = allowed / jnp.maximum(jnp.sum(allowed, axis=1, keepdims=True), 1.0)
        pi = (1.0 - self.epsilon) * _one_hot_argmax(target) + self.epsilon * uniform
        return pi, jnp.zeros_like(target)


def mask_illegal(q: Float[Array, "*E F C"], legal: Bool[Array, "*E F C"] | None) -> Float[Array, "*E F C"]:
    """Return Q with −∞ where an action is not legal."""
    return q if legal is None else jnp.where(legal, q, -jnp.inf)


def log_softmax(q: Float[Array, "F C"], tau: float) -> Float[Array, "F C"]:
    """Return log π per factor of the joint softmax at τ; about −10⁹ where Q is −∞."""
    return jax.nn.log_softmax(jnp.maximum(q / (tau * q.shape[0]), -1e9), axis=1)


def _one_hot_argmax(q: Float[Array, "F C"]) -> Float[Array, "F C"]:
    return jax.nn.one_hot(jnp.argmax(q, axis=1), q.shape[1], dtype=q.dtype)


POLICIES: tuple[type[Policy], ...] = (Greedy, Double, Softmax, ExpectedSarsa)
