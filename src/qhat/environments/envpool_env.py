"""Adapter for EnvPool: C++ environments, stepped inside the compiled loop.

EnvPool resets on the step after an episode's end. That step ignores its action and brings the next
episode's first observation beside whatever reward was left over: here a timestep that is not `real`.
The step before it brought the true last observation.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from qhat.environments.base import SEEDS, Environment, Spec, Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.options import require_known
from qhat.environments.spaces import ActionCoding, Observations, episode_seeds

OURS = {
    "base_path", "batch_size", "env_seed", "gym_reset_return_info", "max_num_players", "num_envs",
    "num_threads", "seed", "thread_affinity_offset",
}  # fmt: skip
"""EnvPool's options that the adapter sets, and no user."""


class PoolState(eqx.Module):
    """What the compiled loop carries of a pool, which itself lives outside the program."""

    handle: UInt8[Array, " 8"]
    """Goes through every step, so that steps keep their order."""
    ended: Bool[Array, " E"]
    """Whether the last step ended the episode: the next one resets."""


class EnvPoolEnvironment(Environment):
    """E environments for each seed; the seeds that share a device share a pool."""

    snapshots = False

    def __init__(
        self,
        entry: Entry,
        num_envs: int,
        seeds: Sequence[int],
        devices: int,
        since: int,
        *,
        options: Mapping[str, object] | None = None,
    ):
        envpool = load("envpool", entry.id)
        self.num_envs, self._seeds, self._share = num_envs, len(seeds), len(seeds) // devices
        with warnings.catch_warnings():
            # Of EnvPool's own making: it builds its spaces from float64 bounds.
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            if options:
                known = set(envpool.make_spec(entry.name).config._fields)
                require_known(options, known - OURS, entry.id)
            self._pools = [
                envpool.make(
                    entry.name, env_type="gymnasium", num_envs=num_envs * len(share), num_threads=1,
                    seed=[number for seed in share for number in episode_seeds(int(seed), since, num_envs)],
                    **(options or {}),
                )
                for share in np.split(np.asarray(seeds), devices)
            ]  # fmt: skip
            pool = self._pools[0]
            space, actions = pool.observation_space, pool.action_space
        self._observations = Observations.of(space, entry.id)
        self._coding = ActionCoding.of(actions, entry.id)
        self.spec = Spec(
            id=entry.id,
            backend="envpool",
            shape=self._observations.shape,
            dtype=self._observations.dtype,
            actions=self._coding.actions,
            reference=entry.reference,
        )
        # EnvPool's arrays may be 64 bits wide: nothing else is traced in that mode.
        with jax.enable_x64(True):
            self._handles, _, _, steps = zip(*(each.xla() for each in self._pools), strict=True)
        self._steps = [functools.partial(self._pool_step, step) for step in steps]

    def start(self, keys: Array) -> tuple[PoolState, Array]:
        """Reset every pool. EnvPool's own seeds, not `keys`, say how the episodes begin."""
        first = [self._observations.read(pool.reset()[0]) for pool in self._pools]
        observation = np.concatenate(first).reshape(self._seeds, self.num_envs, *self.spec.shape)
        handles = np.repeat(np.stack(self._handles), self._share, axis=0)
        ended = np.zeros((self._seeds, self.num_envs), bool)
        return jax.vmap(PoolState)(jnp.asarray(handles), jnp.asarray(ended)), jnp.asarray(observation)

    def reset(self, key: Array) -> tuple[PoolState, Array]:
        """A pool cannot be reset inside a program: raises `TypeError`."""
        raise TypeError("EnvPool's environments are reset by `start`, outside compiled programs.")

    def step(self, state: PoolState, action: Int[Array, "E F"], key: Array) -> tuple[PoolState, Timestep]:
        handle, observation, reward, terminated, truncated = self._call(state.handle, action)
        timestep = Timestep(
            observation=observation,
            reward=reward,
            terminated=terminated & ~state.ended,
            truncated=truncated & ~terminated & ~state.ended,
            successor=observation,
            real=~state.ended,
        )
        return PoolState(handle, timestep.terminated | timestep.truncated), timestep

    @property
    def _call(self) -> Callable[[Array, Array], Any]:
        """The pool's step for one seed; under `vmap` one step of the pool serves all seeds."""

        @jax.custom_batching.custom_vmap
        def call(handle: Array, action: Array) -> Any:
            handle, *rest = self._on_this_device(handle, jnp.tile(action, (self._share, 1)))
            # Where seeds share the pool this is only traced, for its shapes: `vmap` puts the rule below.
            return handle, *(part[: self.num_envs] for part in rest)

        @call.def_vmap
        def _(size: int, batched: Any, handle: Array, action: Array) -> Any:
            handle = handle[0] if batched[0] else handle
            action = action if batched[1] else jnp.broadcast_to(action, (size, *action.shape))
            handle, *rest = self._on_this_device(handle, action.reshape(-1, action.shape[-1]))
            rows = [part.reshape(size, -1, *part.shape[1:]) for part in rest]
            out = (jnp.broadcast_to(handle, (size, *handle.shape)), *rows)
            return out, (True,) * len(out)

        return call

    def _on_this_device(self, handle: Array, action: Int[Array, "N F"]) -> Any:
        if len(self._pools) == 1:
            return self._steps[0](handle, action)
        return jax.lax.switch(jax.lax.axis_index(SEEDS), self._steps, handle, action)

    def _pool_step(self, step: Any, handle: Array, action: Int[Array, "N F"]) -> Any:
        with jax.enable_x64(True):
            handle, (observation, reward, terminated, truncated, _) = step(
                handle, self._coding.write(action, jnp).astype(jnp.int32)
            )
            observation = self._observations.read(observation, jnp)
            return handle, observation, reward.astype(jnp.float32), terminated, truncated
