"""The axis `joints`: how actions of several factors share one target."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue
from qhat.axes.heads.base import Head
from qhat.axes.joint_actions import JointActions
from qhat.axes.policy import Greedy
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Float, Int, jax, jnp


class Joints(AxisValue, abc.ABC):
    """Regresses the outputs of the chosen actions onto the target, for one example."""

    axis: ClassVar[str] = "joints"
    uses_target: ClassVar[bool] = False
    """Whether `restraint` has a value: an update then evaluates the target network in s too."""
    rows: ClassVar[str] = "choices"
    """Of what the rows of the last layer are: weights fit others that have the same."""

    def restraint(
        self,
        head: Head,
        z: Float[Array, "F C K"],
        action: Int[Array, " F"],
        target: Any,
        basis: Any,
        before: tuple[Any, Any],
    ) -> Float[Array, ""]:
        """Return what is added to the loss of `regress`; it is asked only where `uses_target` is true.

        Args:
            target: G, as `Head.backup` returns it, with the `basis` of the online network.
            before: Z(s, ·; θ⁻) and its basis.
        """
        return jnp.float32(0.0)

    def joint(self, actions: Actions) -> JointActions | None:
        """Return the joint actions that Q has a value for; `None` where it has one per choice of a factor.

        Raises:
            UsageError: there are too many.
        """
        return None

    @abc.abstractmethod
    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the loss and the error, as `Head.loss` does."""


@dataclasses.dataclass(frozen=True)
class Together(Joints):
    """The mean over the joints is fitted (Seyde et al. 2022, arXiv:2210.12566, eq. 3–4).

    A joint learns what it adds to the others, so their sum can be right where each alone is not.
    """

    name: ClassVar[str] = "together"

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return head.loss(head.predict(z, action, basis), target, basis)


@dataclasses.dataclass(frozen=True)
class Each(Joints):
    """Every joint is fitted separately (branching: Tavakoli et al. 2018, arXiv:1711.08946, eq. 6).

    The target is the same for all, made from the mean over the joints.
    """

    name: ClassVar[str] = "each"

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def alone(outputs: Float[Array, "C K"], choice: Int[Array, ""]) -> tuple[Array, Array]:
            return head.loss(head.predict(outputs[None], choice[None], basis), target, basis)

        losses, errors = jax.vmap(alone)(z, action)
        return jnp.mean(losses), jnp.mean(jnp.abs(errors))


@dataclasses.dataclass(frozen=True)
class Regularised(Together):
    """The mean over the joints is fitted, and a joint with a large error stays near its target network.

    Where one joint explored and the return is low, the values of the others should not fall. Added to the
    loss is β times the mean over the joints of w·L(Q_f(s, a_f; θ⁻), Q_f(s, a_f)), where L is the head's
    loss, w = 1 − exp(−|δ|), and δ is the error of Q_f(s, a_f) against the target of all (Ireland & Montana
    2024, arXiv:2401.08850, §4). Their ensemble of ten networks is not here.
    """

    name: ClassVar[str] = "regularised"
    uses_target: ClassVar[bool] = True

    beta: float = 0.5
    """β, weight of the restraint."""

    def validate(self) -> None:
        good = 0 < self.beta <= 1_000
        require(good, f"regularised:beta is {self.beta}; expected a weight above 0, at most 1,000.")

    def restraint(
        self,
        head: Head,
        z: Float[Array, "F C K"],
        action: Int[Array, " F"],
        target: Any,
        basis: Any,
        before: tuple[Any, Any],
    ) -> Float[Array, ""]:
        def alone(
            outputs: Float[Array, "C K"], choice: Int[Array, ""], kept: Float[Array, "C T"]
        ) -> Float[Array, ""]:
            prediction = head.predict(outputs[None], choice[None], basis)
            _, error = head.loss(prediction, target, basis)
            weight = jax.lax.stop_gradient(1.0 - jnp.exp(-jnp.abs(error)))
            pi = jax.nn.one_hot(choice[None], outputs.shape[0])
            zero = jnp.float32(0.0)
            same = head.backup(zero, zero + 1.0, kept[None], pi, jnp.zeros_like(pi), before[1], Greedy())
            return weight * head.loss(prediction, jax.lax.stop_gradient(same), basis)[0]

        return self.beta * jnp.mean(jax.vmap(alone)(z, action, before[0]))


LARGEST = 10_000
"""Joint actions beyond which to compare all takes too long."""


@dataclasses.dataclass(frozen=True)
class Pairs(Joints):
    """Q(s, a) is the mean over all pairs of joints (i, j) of Q_ij(s, a_i, a_j): a coordination graph.

    Guestrin et al. 2002, "Coordinated reinforcement learning", eq. 3, with an edge between any two joints.
    Two joints that have to move together, such as a finger's, get a value for every pair of their commands.
    The greedy action is the best of all joint actions, of which there may be `most`. One factor has no
    pair, and is as with `together`.
    """

    name: ClassVar[str] = "pairs"
    rows: ClassVar[str] = "pairs"

    most: int = 256
    """Largest number of joint actions."""

    def validate(self) -> None:
        good = 4 <= self.most <= LARGEST
        require(good, f"pairs:most is {self.most}; expected 4 to {LARGEST:,} joint actions.")

    def joint(self, actions: Actions) -> JointActions | None:
        count, F = actions.joint, actions.factors
        choices = "×".join(map(str, actions.choices)) if F <= 8 else f"those of {F} factors"
        two = actions.commands is not None and max(actions.choices) > 2 and self.most >= 2**F
        remedies = [f"fewer bins ({setting('bins', 2)})"] if two else []
        remedies += [setting("joints", f"pairs:most={count}")] if count <= LARGEST else []
        remedies.append(setting("joints", "together"))
        require(
            count <= self.most or F == 1,
            f"{setting('joints', 'pairs')} compares all joint actions, and {choices} choices are {count:,}"
            f" of them; expected at most {self.most:,}: take {', or '.join(remedies)}.",
        )
        return JointActions(actions.choices) if F > 1 else None

    def regress(
        self, head: Head, z: Float[Array, "F C K"], action: Int[Array, " F"], target: Any, basis: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return head.loss(head.predict(z, action, basis), target, basis)


JOINTS: tuple[type[Joints], ...] = (Together, Each, Pairs, Regularised)
