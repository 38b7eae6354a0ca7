"""The learner: one gradient update of Q-learning, for every member of the family.

Reads like the algorithm box: predict, choose a', back up, regress, follow.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from qhat.actions import Actions
from qhat.networks.network import Network
from qhat.recipe import Recipe
from qhat.replay.ring import Transition


class LearnerState(eqx.Module):
    """θ, θ⁻ and the optimiser. A value."""

    online: Any
    target: Any
    optimiser: Any


class Metrics(eqx.Module):
    """What one update reports, averaged over the batch."""

    loss: Float[Array, ""]
    q: Float[Array, ""]
    """Mean of Q(s, a) over the batch's own actions."""
    gradient_norm: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Learner:
    """The pure functions of a composition on given spaces. Holds no arrays."""

    recipe: Recipe
    network: Network
    actions: Actions

    @staticmethod
    def of(recipe: Recipe, shape: tuple[int, ...], actions: Actions) -> "Learner":
        """Compose a learner for observations of `shape` and the given actions."""
        network = Network(
            torso=recipe.torso,
            dense=recipe.dense,
            merge=recipe.merge,
            hidden=recipe.hidden,
            shape=shape,
            factors=actions.factors,
            choices=actions.width,
            outputs=recipe.head.outputs,
        )
        return Learner(recipe, network, actions)

    def init(self, key: Array) -> LearnerState:
        """Draw θ; θ⁻ = θ."""
        online = self.network.init(key)
        return LearnerState(
            online, jax.tree.map(jnp.copy, online), self._optimiser.init(ravel_pytree(online)[0])
        )

    def q_values(
        self, parameters: Any, observation: Array, key: Array | None = None
    ) -> Float[Array, "F C"]:
        """Return Q_f(s, ·; θ) for one observation, without noise unless `key` is given."""
        return self._means(self.network.apply(parameters, observation, key))

    def greedy(self, parameters: Any, observations: Array, key: Array | None = None) -> Int[Array, "E F"]:
        """Return argmax_a Q(s, a; θ) for each of a batch of observations."""
        q = jax.vmap(self.q_values, in_axes=(None, 0, None))(parameters, observations, key)
        return jnp.argmax(q, axis=-1).astype(jnp.int32)

    def update(
        self,
        state: LearnerState,
        batch: Transition,
        weights: Float[Array, " B"],
        key: Array,
        updates: Int[Array, ""],
    ) -> tuple[LearnerState, Float[Array, " B"], Metrics]:
        """Do gradient update number `updates` (from 1).

        Returns:
            the new state, the error of every transition (for its priority), and metrics.
        """

        recipe = self.recipe

        def objective(online: Any) -> tuple[Float[Array, ""], tuple[Array, Array]]:
            regress = jax.vmap(self._regress, in_axes=(None, None, 0, None))
            losses, errors, q = regress(online, state.target, batch, key)
            return jnp.mean(weights * losses), (errors, q)

        (loss, (errors, q)), gradient = jax.value_and_grad(objective, has_aux=True)(state.online)
        # One flat vector: a small network's optimiser is otherwise dozens of tiny operations.
        flat, unravel = ravel_pytree(gradient)
        norm = jnp.sqrt(jnp.dot(flat, flat))
        if recipe.max_gradient_norm is not None:
            flat *= jnp.minimum(1.0, recipe.max_gradient_norm / (norm + 1e-12))
        change, optimiser = self._optimiser.update(flat, state.optimiser)
        change = -self.learning_rate(updates) * jnp.asarray(change)
        online = optax.apply_updates(state.online, unravel(change))
        target = recipe.target.follow(state.target, online, updates)
        metrics = Metrics(loss, jnp.mean(q), norm)
        return LearnerState(online, target, optimiser), errors, metrics

    def _means(self, z: Float[Array, "F C K"]) -> Float[Array, "F C"]:
        """Return the mean of every choice, −∞ where a factor has fewer choices than the widest."""
        means, actions = self.recipe.head.mean(z), self.actions
        if len(set(actions.choices)) == 1:
            return means
        exists = jnp.arange(actions.width) < jnp.asarray(actions.choices)[:, None]
        return jnp.where(exists, means, -jnp.inf)

    def learning_rate(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        """Return the step size of gradient update number `updates`."""
        recipe = self.recipe
        start, end = recipe.learning_rate, recipe.learning_rate_end
        if end is None:
            return jnp.float32(start)
        fraction = jnp.clip(updates / (recipe.learning_rate_steps * recipe.replay_ratio), 0.0, 1.0)
        return jnp.asarray(start + fraction * (end - start), jnp.float32)

    def _regress(
        self, online: Any, target: Any, transition: Transition, key: Array
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """Return the loss, error and Q(s, a) of one transition."""
        recipe, head, network = self.recipe, self.recipe.head, self.network
        online_key, target_key, selection_key = jax.random.split(key, 3)

        z = network.apply(online, transition.observation, online_key)
        z_next = network.apply(target, transition.successor, target_key)
        q_next = self._means(z_next)
        q_select = q_next
        if recipe.policy.uses_online:
            q_select = self._means(network.apply(online, transition.successor, selection_key))
        policy, shift = recipe.policy.probabilities(q_next, q_select)

        prediction = head.predict(z, transition.action)
        goal = head.backup(transition.reward, transition.discount, z_next, policy, shift)
        loss, error = head.loss(prediction, jax.lax.stop_gradient(goal))
        chosen = jnp.take_along_axis(head.mean(z), transition.action[:, None], axis=1)
        return loss, error, jnp.mean(chosen)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(eps=self.recipe.adam_epsilon)
