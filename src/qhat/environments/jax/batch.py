"""The batch that qhat makes of a `JaxEnvironment`: copies, new episodes, time limits, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from qhat.axes.actions import BINS, Actions
from qhat.environments import success
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.info import find
from qhat.environments.jax.single import BACKEND, JaxEnvironment
from qhat.environments.jax.traced import Traced, space_of
from qhat.environments.observations import Observations
from qhat.system.errors import require


class Playing(eqx.Module):
    """State of one copy."""

    state: Any
    time: Array
    """Steps since the episode began."""
    reached: Any = None
    """Whether the goal was reached before; `None` in an environment that does not report it."""


class Starts(eqx.Module):
    """State of E copies, with starts that are ready for their next episodes."""

    playing: Playing
    ready: tuple[Playing, Array]
    """Starts and their observations `[starts, ...]`."""
    turn: Int[Array, ""]
    """Index of the start that is drawn anew next."""


@jax.custom_batching.custom_vmap
def _one_for_all(due: Array) -> Array:
    """Return a flag that all seeds share, since they step together; else `vmap` takes both branches."""
    return due


@_one_for_all.def_vmap
def _(size: int, batched: Any, due: Array) -> tuple[Array, bool]:
    return due[0] if batched[0] else due, False


class JaxBatch(Environment):
    """E copies of a `JaxEnvironment`."""

    def __init__(
        self,
        single: JaxEnvironment,
        num_envs: int,
        *,
        id: str = "",
        backend: str = BACKEND,
        bins: Sequence[int] = BINS,
        options: Mapping[str, Any] | None = None,
        log: Sequence[str] = (),
    ):
        self.single, self.num_envs, self.logs = single, num_envs, tuple(log)
        name = id or type(single).__name__
        layout = Observations.of(space_of(single, "observation_space", name), name)
        actions = Actions.of(space_of(single, "action_space", name), f"Environment '{name}'", bins)
        for attribute, expected in (
            ("limit", "a number of steps, or 0 for no time limit"),
            ("starts", "how many starts are ready, or 0 for one each time"),
            ("start_every", "a number of steps"),
        ):
            value = getattr(single, attribute)
            least = attribute == "start_every"
            good = isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31
            require(good, f"'{name}': {attribute} is {value!r}; expected {expected}.")
        self._traced = Traced(single, name, layout, actions, self.logs)
        self._types, self._flags = self._traced.types()
        self.spec = Spec(
            id=name,
            backend=backend,
            shape=layout.shape,
            dtype=layout.dtype,
            actions=actions,
            masked=self._traced.mask(self._types) is not None,
            limit=single.limit,
            options=tuple(sorted((options or {}).items())),
            layout=layout,
            mirror=single.mirror,
        )

    def reset(self, key: Array) -> tuple[Playing | Starts, Array]:
        playing, observation = jax.vmap(self._fresh)(jax.random.split(key, self.num_envs))
        if not self.single.starts:
            return playing, observation
        ready = jax.vmap(self._fresh)(jax.random.split(jax.random.fold_in(key, 1), self.single.starts))
        return Starts(playing, ready, jnp.int32(0)), observation

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        keys = jax.random.split(key, self.num_envs)
        actions = self.spec.actions.to_env(action, jnp)
        if not self.single.starts:
            return jax.vmap(self._step)(state, actions, keys)
        after, now, ended = jax.vmap(self._advance)(state.playing, actions, keys)
        which, anew = jax.random.split(jax.random.fold_in(key, 1))
        due, place = state.turn % self.single.start_every == 0, state.turn // self.single.start_every
        ready = self._renewed(state.ready, place % self.single.starts, due, anew)
        index = jax.random.randint(which, (self.num_envs,), 0, self.single.starts)
        begun = jax.tree.map(lambda leaf: leaf[index], ready)
        playing, now = jax.vmap(self._begun)(after, now, ended, *begun)
        return Starts(playing, ready, state.turn + 1), now

    def legal(self, state: Any) -> Bool[Array, "E F C"] | None:
        playing = state.playing if self.single.starts else state
        return jax.vmap(self._legal)(playing.state) if self.spec.masked else None

    def require_finite(self) -> None:
        """Play one step; raise `UsageError` if its observation or reward is not finite."""
        state, first = jax.jit(self.reset)(jax.random.key(0))
        choices = jnp.zeros((self.num_envs, self.spec.actions.factors), jnp.int32)
        _, now = jax.jit(self.step)(state, choices, jax.random.key(1))
        found = {"reset's observation": first, "step's observation": now.successor, "reward": now.reward}
        for what, value in found.items():
            self._traced.require(
                bool(np.isfinite(np.asarray(value, np.float64)).all()),
                f"{what} is {np.asarray(value)[0]}; expected finite numbers.",
            )

    def _fresh(self, key: Array) -> tuple[Playing, Array]:
        state, observation = self.single.reset(key)
        reached = jnp.asarray(False) if success.key_of(self._flags) else None
        return Playing(self._typed(state), jnp.int32(0), reached), self._traced.read(observation)

    def _step(self, playing: Playing, action: Any, key: Array) -> tuple[Playing, Timestep]:
        move, again = jax.random.split(key)
        after, now, ended = self._advance(playing, action, move)
        return self._begun(after, now, ended, *self._fresh(again))

    def _advance(self, playing: Playing, action: Any, key: Array) -> tuple[Playing, Timestep, Array]:
        """Step one copy; its observation and mask are those before a new episode begins."""
        after, observed, reward, terminated, *info = self.single.step(playing.state, action, key)
        successor, terminated = self._traced.read(observed), jnp.asarray(terminated, bool)
        reward, time = jnp.asarray(reward, jnp.float32), playing.time + 1
        late = (time >= self.spec.limit) if self.spec.limit else jnp.asarray(False)
        if "truncated" in self._flags:
            late |= jnp.asarray(info[0]["truncated"], bool)
        real, broken = jnp.asarray(True), None
        if self.single.may_diverge:
            real = jnp.isfinite(successor).all() & jnp.isfinite(reward)
            broken, terminated = ~real, terminated & real
            successor, reward = (jnp.where(real, value, 0) for value in (successor, reward))
        ended = terminated | late if broken is None else terminated | late | broken
        succeeded, reached = self._judged(playing, info, real, ended)
        now = Timestep(
            observation=successor,
            reward=reward,
            terminated=terminated,
            truncated=late & ~terminated & real,
            successor=successor,
            real=real,
            legal_successor=self._legal(after) if self.spec.masked else None,
            broken=broken,
            success=succeeded,
            info=jnp.stack([self._logged(info, name) for name in self.logs]) if self.logs else None,
        )
        return Playing(self._typed(after), time, reached), now, ended

    def _begun(
        self, after: Playing, now: Timestep, ended: Array, fresh: Playing, first: Array
    ) -> tuple[Playing, Timestep]:
        """Begin a new episode where one ended."""
        playing, observation = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old), (fresh, first), (after, now.observation)
        )
        legal = self._legal(playing.state) if self.spec.masked else None
        return playing, now._replace(observation=observation, legal=legal)

    def _renewed(self, ready: Any, place: Array, due: Array, key: Array) -> Any:
        """Draw one of the starts anew, where that is due."""
        old = jax.tree.map(lambda leaf: leaf[place], ready)
        one = jax.lax.cond(_one_for_all(due), lambda: self._fresh(key), lambda: old)
        return jax.tree.map(lambda leaf, new: leaf.at[place].set(new), ready, one)

    def _judged(self, playing: Playing, info: Sequence[Any], real: Array, ended: Array) -> tuple[Any, Any]:
        """Return `Timestep.success`, and whether the goal was reached so far."""
        key = success.key_of(self._flags)
        if key is None:
            return None, None
        flags = (jnp.asarray(info[0][key]), playing.reached, real, ended & real)
        flag, so_far, is_real, over = (one[None] for one in flags)
        now, remembered = success.judge(key, flag, so_far, is_real, over, jnp)
        return now[0], remembered[0]

    def _logged(self, info: Sequence[Any], name: str) -> Array:
        return jnp.asarray(find(info[0], name), jnp.float32)

    def _legal(self, state: Any) -> Bool[Array, "F C"]:
        shape = (self.spec.actions.factors, self.spec.actions.width)
        return jnp.asarray(self.single.action_mask(state), bool).reshape(shape)

    def _typed(self, state: Any) -> Any:
        # A Python number, or an array of weak type, must have the type that the loop carries.
        return jax.tree.map(
            lambda leaf, like: (
                leaf if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, like.dtype)
            ),
            state,
            self._types,
        )
