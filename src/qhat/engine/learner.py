"""The learner: one gradient update of Q-learning, for every member of the family.

Reads like the algorithm box: predict, choose a', back up, regress, follow.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.actions import Actions
from qhat.axes.behaviour import Case
from qhat.axes.greedy import CLOSED, best, nearly_greedy
from qhat.axes.heads.outlook import Outlook
from qhat.axes.joint_actions import of_joint_actions
from qhat.axes.optimiser import clip_norm, rate_at
from qhat.axes.policy import mask_illegal
from qhat.engine import calibration, recurrent
from qhat.engine.calibration import OPENED, REMEMBERED, STATISTICS, SUPPORT, split_trainable
from qhat.engine.data_parallel import DataParallel
from qhat.engine.doubling import doubled_if
from qhat.engine.looks import drawn
from qhat.engine.metrics import Metrics, Update
from qhat.engine.mirrored import Image, with_mirrors
from qhat.engine.network import Network
from qhat.engine.replay.moments import Moments
from qhat.engine.replay.ring import Transition
from qhat.engine.shifts import with_shifts
from qhat.environments.observations import Observations
from qhat.recipes.recipe import Recipe


class LearnerState(eqx.Module):
    """θ, θ⁻ and the optimiser. A value."""

    online: Any
    target: Any
    """`None` where targets are those of θ."""
    optimiser: Any


@dataclasses.dataclass(frozen=True)
class Learner:
    """The pure functions of a composition on given spaces. Holds no arrays."""

    recipe: Recipe
    network: Network
    actions: Actions
    parallel: DataParallel = DataParallel()
    mirror: Image | None = None
    """What transitions' mirror images are; `None` for a recipe that learns from none."""

    @staticmethod
    def of(
        recipe: Recipe, shape: tuple[int, ...], actions: Actions, layout: Observations | None = None
    ) -> "Learner":
        """Compose a learner for observations of `shape` and the given actions.

        Its recipe names the torso that fits `shape`, and says whether numbers are standardised.

        Args:
            layout: the parts of an observation.
        """
        recipe = recipe.fitted(shape, layout).scheduled()
        recipe.resolution.require_fit(actions)
        recipe.reset.require_fit(recipe.torso)
        return Learner(recipe, Network.of(recipe, shape, actions, layout), actions)

    def init_parameters(self, key: Array) -> dict[str, Any]:
        """Draw θ, and place the head's support."""
        moments = Moments.of(self.network.shape, self.network.layout) if self.recipe.normalise else None
        return self.network.init(key) | calibration.first(self.recipe, self.actions, moments)

    def init(self, key: Array) -> LearnerState:
        """Draw θ; θ⁻ = θ."""
        online = self.init_parameters(key)
        optimiser = self.recipe.optimiser.first(split_trainable(online)[0])
        return LearnerState(online, self.recipe.target.first(online), optimiser)

    def q_values(
        self, parameters: Any, observation: Array, key: Array | None = None
    ) -> Float[Array, "F C"]:
        """Return Q_f(s, ·; θ) for one observation, without noise unless `key` is given."""
        return self._q(*self._look(parameters, observation, key))

    def preferences(self, parameters: Any, observation: Array, key: Array | None = None) -> Array:
        """Return what a greedy choice is the largest of, `[F, C]`: Q, unless the behaviour has another."""
        return self._preferred(*self._look(parameters, observation, key))

    def shown(self, parameters: Any, observation: Array) -> tuple[Any, Any, Any]:
        """Return the arguments of `Network.activations` and `features` for one observation."""
        weights, fixed = split_trainable(parameters)
        return weights, self._shown(fixed, observation), self.recipe.head.fixed_fractions()

    def greedy(
        self,
        parameters: Any,
        observations: Array,
        key: Array | None = None,
        legal: Bool[Array, "E F C"] | None = None,
        recall: recurrent.Recall | None = None,
    ) -> tuple[Int[Array, "E F"], recurrent.Recall | None]:
        """Return the best legal action, argmax_a Q(s, a; θ), for each of a batch of observations.

        Also return the memories' states around them, if the network has any.
        """
        q, recall = recurrent.look(self, self.preferences, parameters, observations, key, recall)
        return best(q, legal, self.network.joint, jnp).astype(jnp.int32), recall

    def nearly_greedy(self, parameters: Any, batch: Transition, share: float) -> Bool[Array, " B"]:
        """Whether each stored action is as good as the greedy one; see `axes.greedy`."""
        q_values = jax.vmap(self.q_values, in_axes=(None, 0, None))
        q = self.parallel.joined(q_values(parameters, self.parallel.share(batch.observation), None))
        batch = of_joint_actions(batch, self.network.joint)
        action, legal = self.parallel.agreed((batch.action, batch.legal))
        return nearly_greedy(mask_illegal(q, legal), action, share)

    def update(
        self,
        state: LearnerState,
        batch: Transition,
        weights: Float[Array, " B"],
        key: Array,
        updates: Int[Array, ""],
        steps: Int[Array, ""] | None = None,
        applies: Array | bool = True,
    ) -> tuple[LearnerState, Update]:
        """Do gradient update number `updates` (from 1), unless its loss or its gradient is not finite.

        Args:
            steps: environment steps so far, for the learning rate; by default `updates` / `replay_ratio`.
            applies: whether the weights may move.
        """
        batch = of_joint_actions(with_mirrors(batch, self.mirror, key), self.network.joint)
        batch = with_shifts(batch, self.recipe.random_shift, key, self.network.layout)
        trained, fixed = split_trainable(state.online)
        noise, fractions = drawn(self, key, weights.shape[0])
        batch, weights, fractions = self.parallel.share((batch, weights, fractions))

        def objective(trained: Any) -> tuple[Float[Array, ""], tuple[Array, Array, Array]]:
            regress = jax.vmap(self._regress, in_axes=(None, None, 0, None, 0))
            online = recurrent.remembered(self, {**trained, **fixed}, batch, noise["online"])
            target = recurrent.remembered(self, state.target or state.online, batch, noise["target"])
            losses, errors, q, overflow = regress(online, target, batch.alone(), noise, fractions)
            return jnp.mean(weights * losses), (errors, q, overflow)

        (loss, (errors, q, overflow)), gradient = jax.value_and_grad(objective, has_aux=True)(trained)
        # One flat vector: a small network's optimiser is otherwise dozens of tiny operations.
        flat, unravel = ravel_pytree(gradient)
        norm, flat = clip_norm(self.parallel.mean(flat), self.recipe.max_gradient_norm)
        loss, overflow, q = self.parallel.mean((loss, jnp.mean(overflow, axis=0), jnp.mean(q)))
        metrics = Metrics(loss, q, norm, jnp.sum(overflow))
        moves = metrics.finite & applies

        steps = updates / self.recipe.replay_ratio if steps is None else steps
        change, optimiser = self._descend(flat, trained, state.optimiser, steps, moves)
        moved: Any = self.network.projected(optax.apply_updates(trained, unravel(change)), moves)
        online = {**moved, **fixed, **calibration.widened(self.recipe.head, fixed, overflow, moves)}
        target = self.recipe.target.follow(state.target, online, updates)
        errors = self.parallel.joined(jnp.where(jnp.isfinite(errors), errors, 0.0))
        return LearnerState(online, target, optimiser), Update(errors, metrics, overflow, moves)

    def fit(
        self,
        state: LearnerState,
        batch: Transition,
        weights: Float[Array, " B"],
        key: Array,
        updates: Int[Array, ""],
        outlook: Outlook | None = None,
        steps: Int[Array, ""] | None = None,
        moments: Moments | None = None,
        applies: Array | bool = True,
    ) -> tuple[LearnerState, Update]:
        """Do `update` with replay's statistics of observations, and move the support if it has to.

        Args:
            outlook: ranges of rewards and returns, which place a support that calibrates itself.
            moments: statistics that normalise observations from now on, if the recipe normalises.
        """
        head = self.recipe.head
        online, target = (now and self.ready(now, outlook, moments) for now in (state.online, state.target))
        state = LearnerState(online, target, state.optimiser)
        state, update = self.update(state, batch, weights, key, updates, steps, applies)
        if head.calibrates and outlook is not None and self.network.dense.remixes:
            # Targets still fall beyond a support that has no atoms left.
            due = update.moves & calibration.doubles(head, state.online, update.overflow, outlook)
            z = functools.partial(self._outputs, batch)
            now = (state.online, state.target, state.optimiser)
            state = LearnerState(*doubled_if(due, self.network, head, now, z, update.overflow))
        return state, update

    def ready(self, parameters: Any, outlook: Outlook | None, moments: Moments | None) -> Any:
        """Return the parameters with replay's statistics, and a support that they have placed."""
        return calibration.placed(self.recipe.head, calibration.standardised(parameters, moments), outlook)

    def _regress(
        self,
        online: Any,
        target: Any,
        transition: Transition,
        noise: dict[str, Array | None],
        fractions: dict[str, Array | None],
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""], Float[Array, " 2"]]:
        """Return the loss, error, Q(s, a) and overflow of one transition."""
        recipe, head = self.recipe, self.recipe.head

        def see(look: str, parameters: Any, observation: Array) -> tuple[Any, ...]:
            drawn = fractions[look]
            # A choice of action averages over fixed fractions, as acting does.
            at = head.fixed_fractions() if drawn is None else drawn
            return self._see(parameters, observation, noise[look], at)

        def ahead(look: str, parameters: Any) -> tuple[Any, ...]:
            # Where the return is known already its discount is 0, and any values will do.
            return now if transition.successor is None else see(look, parameters, transition.successor)

        z, basis, _, beside = now = see("online", online, transition.observation)
        z_next, basis_next, opened, _ = after = ahead("target", target)
        q_next = self._preferred(*(ahead("selection", target) if head.samples else after))
        q_select = self._preferred(*ahead("selection", online)) if recipe.policy.uses_online else q_next
        if recipe.behaviour.judges:
            z_next = recipe.behaviour.values(ahead("selection", online)[-1])
        pi, entropy = recipe.policy.probabilities(
            mask_illegal(q_next, transition.legal_next), mask_illegal(q_select, transition.legal_next)
        )
        reward = transition.reward
        looks_back = any(part.uses_target for part in (recipe.bonus, recipe.joints, recipe.behaviour))
        before: Any = see("bonus", target, transition.observation) if looks_back else (None, None)
        if recipe.bonus.uses_target:
            q_now = self._q(*before)
            reward += recipe.bonus.value(mask_illegal(q_now, transition.legal), transition.action)

        goal = head.backup(reward, transition.discount, z_next, pi, entropy, basis_next, recipe.policy)
        goal = jax.lax.stop_gradient(goal)
        loss, error = recipe.joints.regress(head, z, transition.action, goal, basis)
        if recipe.joints.uses_target:
            loss += recipe.joints.restraint(head, z, transition.action, goal, basis, before[:2])
        if recipe.behaviour.counts:
            q = mask_illegal(self._q(z, basis, opened), transition.legal)
            judged = self._q(*before) if recipe.behaviour.uses_target else None
            case = Case(loss, q, transition.action, beside, judged, transition.logged)
            loss = recipe.behaviour.loss(case)
        chosen = jnp.take_along_axis(head.mean(z, basis), transition.action[:, None], axis=1)
        return loss, error, jnp.mean(chosen), head.overflow(goal, basis)

    def _look(self, parameters: Any, observation: Array, key: Array | None) -> tuple[Any, ...]:
        """Return the result of `_see` with the noise of a key, or without."""
        noise = None if key is None else self.network.noise(key)
        noise = None if noise is None else noise[0]
        return self._see(parameters, observation, noise, self.recipe.head.fixed_fractions())

    def _see(
        self, parameters: Any, observation: Array, noise: Array | None, fractions: Array | None
    ) -> tuple[Float[Array, "F C K"], Any, Float[Array, "F C"] | None, Float[Array, "F C B"] | None]:
        """Return Z(s, ·; θ), what its K numbers stand for, what is in use, and the behaviour's outputs."""
        weights, fixed = split_trainable(parameters)
        if self.network.memory.remembers:
            z = self.network.valued(weights, fixed[REMEMBERED][observation], noise, fractions)
        else:
            z = self.network.apply(weights, self._shown(fixed, observation), noise, fractions)
        z, beside = self.network.parted(z)
        return z, self.recipe.head.basis(fixed.get(SUPPORT, {}), fractions), fixed.get(OPENED), beside

    def _outputs(self, batch: Transition, parameters: Any, zero: Array) -> Float[Array, "B F C K"]:
        """Return Z(s, ·; θ) for a batch of observations plus 0, without noise."""
        parameters = recurrent.remembered(self, parameters, batch, None)
        observations = self.parallel.share(batch.observation) + zero.astype(batch.observation.dtype)
        z = jax.vmap(lambda each: self._see(parameters, each, None, None)[0])(observations)
        return self.parallel.joined(z)

    def _shown(self, fixed: dict[str, Any], observation: Array) -> Any:
        """Return one observation in the form that the network takes."""
        layout, numbers, images = self.network.layout, observation, []
        if layout is not None:
            images, numbers = layout.shown(observation)
        if self.recipe.normalise and numbers is not None:
            numbers = fixed[STATISTICS].standardise(numbers)
        return numbers if layout is None else (images, numbers)

    def _preferred(self, *view: Any) -> Float[Array, "F C"]:
        q, beside = self._q(*view), view[-1]
        return q if beside is None else self.recipe.behaviour.preferences(q, beside)

    def _q(self, z: Float[Array, "F C K"], basis: Any, opened: Any, *_: Any) -> Float[Array, "F C"]:
        """Return the mean of every choice, −∞ where a factor has fewer choices than the widest."""
        means, exists = self.recipe.head.mean(z, basis), self.network.exists
        means = means if opened is None else jnp.where(opened > 0.5, means, CLOSED)
        return means if exists is None else jnp.where(jnp.asarray(exists), means, -jnp.inf)

    def _descend(
        self, gradient: Float[Array, " P"], weights: Any, optimiser: Any, steps: Any, moves: Bool[Array, ""]
    ) -> tuple[Float[Array, " P"], Any]:
        """Return the change of the weights, and the new optimiser; neither changes unless `moves`."""
        step, after = self.recipe.optimiser.scaling().update(gradient, optimiser, ravel_pytree(weights)[0])
        change = jnp.where(moves, -rate_at(self.recipe, steps) * jnp.asarray(step), 0.0)
        return change, jax.tree.map(functools.partial(jnp.where, moves), after, optimiser)
