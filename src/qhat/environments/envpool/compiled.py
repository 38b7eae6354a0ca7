"""Adapter for EnvPool: C++ environments, stepped inside the compiled loop.

EnvPool resets on the step after an episode's end. That step ignores its action and brings the next
episode's first observation beside whatever reward was left over: here a timestep that is not `real`.
The step before it brought the true last observation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from qhat.axes.actions import BINS
from qhat.environments.base import SEEDS, Environment, Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.envpool.task import Past, PoolTask
from qhat.environments.spaces import episode_seeds
from qhat.system.errors import QhatError


class PoolState(eqx.Module):
    """What the compiled loop carries of a pool, which itself lives outside the program."""

    handle: UInt8[Array, " 8"]
    """Goes through every step, so that steps keep their order."""
    past: Past
    """Of the last step, what the next one's rows depend on."""


class NotCompiledError(QhatError):
    """EnvPool has no XLA interface on this platform, or for this task."""


class EnvPoolEnvironment(Environment):
    """E environments for each seed; the seeds that share a device share a pool."""

    snapshots = False
    is_async = True

    def __init__(
        self,
        entry: Entry,
        num_envs: int,
        seeds: Sequence[int],
        devices: int,
        since: int,
        *,
        options: Mapping[str, object] | None = None,
        bins: Sequence[int] = BINS,
        log: Sequence[str] = (),
    ):
        self._task, self.logs = PoolTask.of(entry, options, bins, log), tuple(log)
        self.num_envs, self._seeds, self._share = num_envs, len(seeds), len(seeds) // devices
        numbers = [[n for seed in share for n in episode_seeds(int(seed), since, num_envs)]
                   for share in np.split(np.asarray(seeds), devices)]  # fmt: skip
        self._pools = [self._task.make(each) for each in numbers]
        self._observations, self.spec = self._task.spaces(self._pools[0])
        # EnvPool's arrays may be 64 bits wide: nothing else is traced in that mode.
        with jax.enable_x64(True):
            try:
                self._handles, receives, sends, _ = zip(*(each.xla() for each in self._pools), strict=True)
            except (RuntimeError, ImportError, AttributeError, ValueError, TypeError) as error:
                raise NotCompiledError(
                    f"EnvPool has no compiled step for '{entry.id}' here ({type(error).__name__}: {error})."
                ) from None
        self._sends = [functools.partial(self._pool_send, send) for send in sends]
        self._receives = [functools.partial(self._pool_receive, receive) for receive in receives]

    def start(self, keys: Array) -> tuple[PoolState, Array]:
        """Reset every pool. EnvPool's own seeds, not `keys`, say how the episodes begin."""
        first = [self._observations.read(pool.reset()[0]) for pool in self._pools]
        observation = np.concatenate(first).reshape(self._seeds, self.num_envs, *self.spec.shape)
        handles = np.repeat(np.stack(self._handles), self._share, axis=0)
        past = Past.nothing((self._seeds, self.num_envs), jnp)
        return jax.vmap(PoolState)(jnp.asarray(handles), past), jnp.asarray(observation)

    def reset(self, key: Array) -> tuple[PoolState, Array]:
        """A pool cannot be reset inside a program: raises `TypeError`."""
        raise TypeError("EnvPool's environments are reset by `start`, outside compiled programs.")

    def step(self, state: PoolState, action: Int[Array, "E F"], key: Array) -> tuple[PoolState, Timestep]:
        return self.receive(self.send(state, action)[0])

    def send(self, state: PoolState, action: Int[Array, "E F"]) -> tuple[PoolState, Int[Array, ""]]:
        handle = self._send(state.handle, action)
        # A handle is an address, and never 0.
        return PoolState(handle, state.past), jnp.all(handle == 0).astype(jnp.int32)

    def receive(self, state: PoolState) -> tuple[PoolState, Timestep]:
        handle, *said = self._receive(state.handle)
        observation, rows, past = self._task.rows(state.past, *said, xp=jnp, layout=self._observations)
        timestep = Timestep(observation=observation, successor=observation, **rows._asdict())
        return PoolState(handle, past), timestep

    @property
    def _send(self) -> Callable[[Array, Array], Array]:
        """Hand one seed's actions to the pool; under `vmap` those of all seeds at once."""

        @jax.custom_batching.custom_vmap
        def send(handle: Array, action: Array) -> Array:
            return self._on_this_device(self._sends, handle, jnp.tile(action, (self._share, 1)))

        @send.def_vmap
        def _(size: int, batched: Any, handle: Array, action: Array) -> Any:
            handle = handle[0] if batched[0] else handle
            action = action if batched[1] else jnp.broadcast_to(action, (size, *action.shape))
            handle = self._on_this_device(self._sends, handle, action.reshape(-1, action.shape[-1]))
            return jnp.broadcast_to(handle, (size, *handle.shape)), True

        return send

    @property
    def _receive(self) -> Callable[[Array], Any]:
        """Take what a step of the pool brought one seed; under `vmap` what it brought all."""

        @jax.custom_batching.custom_vmap
        def receive(handle: Array) -> Any:
            handle, *rest = self._on_this_device(self._receives, handle)
            # Where seeds share the pool this is only traced, for its shapes: `vmap` puts the rule below.
            return handle, *jax.tree.map(lambda part: part[: self.num_envs], rest)

        @receive.def_vmap
        def _(size: int, batched: Any, handle: Array) -> Any:
            handle, *rest = self._on_this_device(self._receives, handle[0] if batched[0] else handle)
            rows = jax.tree.map(lambda part: part.reshape(size, -1, *part.shape[1:]), rest)
            out = (jnp.broadcast_to(handle, (size, *handle.shape)), *rows)
            return out, jax.tree.map(lambda _: True, out)

        return receive

    def _on_this_device(self, calls: Sequence[Callable[..., Any]], *arguments: Array) -> Any:
        if len(calls) == 1:
            return calls[0](*arguments)
        return jax.lax.switch(jax.lax.axis_index(SEEDS), calls, *arguments)

    def _pool_send(self, send: Any, handle: Array, action: Int[Array, "N F"]) -> Array:
        with jax.enable_x64(True):
            return send(handle, self._task.command(self.spec.actions, action, jnp))

    def _pool_receive(self, receive: Any, handle: Array) -> Any:
        with jax.enable_x64(True):
            handle, (observation, reward, terminated, truncated, info) = receive(handle)
            observation = self._observations.read(observation, jnp)
            used = {name: info[name].astype(jnp.float32) for name in self._task.info_names}
            return handle, observation, reward.astype(jnp.float32), terminated, truncated, used
