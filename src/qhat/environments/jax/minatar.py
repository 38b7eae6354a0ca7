"""Adapter for MinAtar in gymnax, played as its paper plays it: sticky actions, long episodes.

Young & Tian 2019, arXiv:1903.03176. Options have the names of the reference implementation, the package
`minatar`, so that both take the same settings.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from qhat.axes.actions import Actions
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.extras import defer_plotting
from qhat.system.errors import UsageError, near_miss, require

FREEWAY_LIMIT = 2_501
"""Steps after which the reference ends an episode of Freeway itself; other games have no limit."""


@dataclasses.dataclass(frozen=True)
class MinAtarOptions:
    """What can be chosen of a game."""

    sticky_action_prob: float = 0.1
    """Probability that the step repeats the executed action of the step before."""
    use_minimal_action_set: bool = True
    """Whether only actions that do something in this game can be chosen; otherwise all 6."""
    max_episode_steps: int = 5_000
    """Steps after which an episode is cut."""

    @staticmethod
    def of(options: Mapping[str, object], env_id: str) -> "MinAtarOptions":
        """Read options by name. Raises `UsageError` for the first that is unknown or has no meaning."""
        values: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(MinAtarOptions)}
        for name in options:
            if name not in values:
                raise UsageError(
                    f"Environment '{env_id}' has no option '{name}'; it has {', '.join(values)}."
                    + near_miss(name, values)
                )
        values |= options
        probability, minimal, limit = values.values()
        number = isinstance(probability, int | float) and not isinstance(probability, bool)
        whole = isinstance(limit, int) and not isinstance(limit, bool)
        for name, value, good, expected in (
            ("sticky_action_prob", probability, number and 0 <= probability < 1, "0 or more, less than 1"),
            ("use_minimal_action_set", minimal, isinstance(minimal, bool), "true or false"),
            ("max_episode_steps", limit, whole and 1 <= limit < 2**31, "a whole number of 1 or more"),
        ):
            require(good, f"Environment '{env_id}': {name} is {value!r}; expected {expected}.")
        return MinAtarOptions(**values)


class MinAtarState(eqx.Module):
    """E games and what makes their actions stick."""

    game: Any
    last: Int[Array, " E"]
    """The action that was executed last, of all 6. A new episode does not reset it, as in the reference."""


class MinAtarEnvironment(Environment):
    """E copies of one of MinAtar's games."""

    def __init__(self, entry: Entry, num_envs: int, *, options: Mapping[str, object] | None = None):
        chosen = MinAtarOptions.of(options or {}, entry.id)
        defer_plotting()
        gymnax: Any = importlib.import_module("gymnax")
        self._game, params = gymnax.make(entry.name, use_minimal_action_set=False)
        game = entry.name.removesuffix("-MinAtar")
        limit = (
            min(chosen.max_episode_steps, FREEWAY_LIMIT) if game == "Freeway" else chosen.max_episode_steps
        )
        self._params = params.replace(max_steps_in_episode=limit)
        minimal = chosen.use_minimal_action_set
        self._meaning = self._game.minimal_action_set if minimal else self._game.full_action_set
        self._sticky = chosen.sticky_action_prob
        self.num_envs = num_envs
        self.spec = Spec(
            id=entry.id,
            backend="gymnax",
            shape=tuple(self._game.obs_shape),
            # The channels are zeros and ones, whatever dtype they come as.
            dtype="bool",
            actions=Actions((self._meaning.size,)),
            reference=f"MinAtar/{game}-{'v1' if minimal else 'v0'}",
            limit=limit,
        )

    def reset(self, key: Array) -> tuple[MinAtarState, Array]:
        keys = jax.random.split(key, self.num_envs)
        observation, game = jax.vmap(self._game.reset, in_axes=(0, None))(keys, self._params)
        # A constant leaf (time = 0) must have the type that a step gives it: the loop carries it.
        game = jax.tree.map(jnp.asarray, game)
        return MinAtarState(game, jnp.zeros(self.num_envs, jnp.int32)), observation.astype(bool)

    def step(
        self, state: MinAtarState, action: Int[Array, "E F"], key: Array
    ) -> tuple[MinAtarState, Timestep]:
        game_key, sticky_key = jax.random.split(key)
        sticks = jax.random.uniform(sticky_key, (self.num_envs,)) < self._sticky
        executed = jnp.where(sticks, state.last, self._meaning[action[:, 0]].astype(jnp.int32))
        keys = jax.random.split(game_key, self.num_envs)
        observation, game, reward, terminated, truncated, info = jax.vmap(
            self._game.step, in_axes=(0, 0, 0, None)
        )(keys, state.game, executed, self._params)
        terminated = terminated.astype(bool)
        return MinAtarState(game, executed), Timestep(
            observation=observation.astype(bool),
            reward=reward.astype(jnp.float32),
            terminated=terminated,
            truncated=truncated.astype(bool) & ~terminated,
            successor=info["final_observation"].astype(bool),
            real=jnp.ones(self.num_envs, bool),
        )
