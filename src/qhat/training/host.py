"""The host loop: the same iteration, around environments that Python steps.

    store what the last action led to, choose the next one        (waits for the update before)
    hand it to the environments; update while they step

An action is chosen before the update that its own step brings about, not after it as in the compiled
loop: that is what lets the two run side by side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.environments.base import Timestep
from qhat.environments.host import HostEnvironment, HostStep
from qhat.learner import Metrics
from qhat.training.iteration import Program, split, tally
from qhat.training.packing import Packing
from qhat.training.state import Clock, Log, SeedState, TrainState


@dataclasses.dataclass(frozen=True)
class HostLoop:
    """Runs a program with environments on the host, all seeds on one device."""

    program: Program
    environment: HostEnvironment

    def init(self, keys: Array) -> TrainState:
        """Return a fresh state for the seeds of `keys` `[S]`."""
        observation = self.environment.start()
        seed_keys = jax.vmap(jax.random.split)(keys)[:, 1]
        seeds = jax.jit(jax.vmap(lambda key, *seen: self.program.init(key, seen[0], None, *seen[1:])))(
            seed_keys, observation, *self._legal()
        )
        return TrainState(Clock(jnp.int32(0), jnp.int32(0)), seeds)

    def restart(self, state: TrainState, keys: Array) -> TrainState:
        """Go on with fresh episodes: the open ones count as cut."""
        observation = self.environment.start()
        steps = state.clock.iterations * self.program.recipe.num_envs

        def one(key: Array, seed: SeedState, observation: Array, legal: Array | None = None) -> SeedState:
            return self.program.begin(seed, observation, None, legal, key, steps)

        seeds = jax.jit(jax.vmap(one))(keys, state.seeds, observation, *self._legal())
        return TrainState(state.clock, seeds)

    def _legal(self) -> list[np.ndarray]:
        legal = self.environment.legal()
        return [] if legal is None else [legal]

    def compile(self, longest: int) -> Callable[[TrainState, int], tuple[TrainState, Log]]:
        """Return a function that does `count` iterations; `longest` is for the compiled loop's sake."""
        calls: _Calls | None = None

        def advance(state: TrainState, count: int) -> tuple[TrainState, Log]:
            nonlocal calls
            if calls is None:
                calls = _Calls(self.program, state, self.environment.seeds)
            parts, logs = calls.pack(state), []
            self.environment.send(np.asarray(state.seeds.action))
            for turn in range(count):
                step = self.environment.receive()
                *parts[1:], chosen, told = calls.observe(*parts, *_inputs(step))
                action = np.asarray(chosen)
                if turn + 1 < count:
                    self.environment.send(action)
                *parts[:2], metrics = calls.learn(*parts)
                logs.append((told, metrics))
            return calls.unpack(*parts), _log(logs)

        return advance


class _Calls:
    """The two compiled calls of an iteration, on packed states.

    A state is four parts, each a vector and a list of large arrays: learner and clock, sampler, ring, and
    everything else. A call takes all four and gives back those that it changes, updated in place.
    """

    def __init__(self, program: Program, state: TrainState, seeds: int):
        self.program, self.seeds = program, seeds
        self.packings = [Packing.of(part) for part in _parts(state)]
        self._vectors = jax.jit(
            lambda *small: [p.pack(s) for p, s in zip(self.packings, small, strict=True)]
        )
        self._leaves = jax.jit(
            lambda *vectors: [p.unpack(v) for p, v in zip(self.packings, vectors, strict=True)]
        )
        self.observe = jax.jit(self._observe, donate_argnums=(1, 2, 3))
        self.learn = jax.jit(self._learn, donate_argnums=(0, 1))

    def pack(self, state: TrainState) -> list[Any]:
        """Return a state's parts. Its large arrays are theirs from now on."""
        pairs = zip(self.packings, _parts(state), strict=True)
        small, large = zip(*(packing.split(part) for packing, part in pairs), strict=True)
        return list(zip(self._vectors(*small), large, strict=True))

    def unpack(self, *parts: Any) -> TrainState:
        """Return the state of parts."""
        vectors, large = zip(*parts, strict=True)
        return self._join(self._leaves(*vectors), large)

    def _join(self, small: Any, large: Any) -> TrainState:
        pairs = zip(self.packings, small, large, strict=True)
        (learner, clock), sampler, ring, rest = (packing.join(*leaves) for packing, *leaves in pairs)
        return TrainState(clock, _with(rest, {"learner": learner, "sampler": sampler, "ring": ring}))

    def _observe(self, *inputs: Any) -> tuple[Any, Any, Any, Array, Array]:
        """Store a step and choose the next actions: sampler, ring, rest, actions, what ended."""
        state, seen = self.unpack(*inputs[:4]), inputs[4:]

        def one(clock: Clock, seed: SeedState, observation: Array, successor: Array, *rest: Array):
            (reward, terminated, truncated, real, score, over), *legal = rest
            flags = (terminated > 0, truncated > 0, successor, real > 0)
            timestep = Timestep(observation, reward, *flags, *legal, score=score, over=over > 0)
            steps = (clock.iterations + 1) * self.program.recipe.num_envs
            seed, told = tally(self.program.store(seed, timestep), timestep)
            key = self._key(clock, seed, "act")
            seed = self.program.act(seed, observation, timestep.legal, key, steps)
            return seed, jnp.stack([each.astype(jnp.float32) for each in told])

        seeds, told = self._each(one, state, *seen)
        return *self.pack(TrainState(state.clock, seeds))[1:], seeds.action, told

    def _learn(self, *parts: Any) -> tuple[Any, Any, Array]:
        """Do the updates that are due, and tick: learner, sampler, metrics."""
        state = self.unpack(*parts)

        def one(clock: Clock, seed: SeedState):
            steps = clock.iterations * self.program.recipe.num_envs
            seed, metrics = self.program.learn(seed, self._key(clock, seed, "learn"), steps, clock)
            return seed, jnp.stack(jax.tree.leaves(metrics))

        seeds, metrics = self._each(one, state)
        packed = self.pack(TrainState(self.program.tick(state.clock), seeds))
        return packed[0], packed[1], metrics

    def _key(self, clock: Clock, seed: SeedState, name: str) -> Array:
        now = jax.random.fold_in(seed.key, clock.iterations)
        return split(now, "environment", "learn", "act")[name]

    def _each(self, one: Callable[..., Any], state: TrainState, *rows: Array) -> Any:
        """Run `one` for every seed; a single one is not batched, which is faster."""
        if self.seeds > 1:
            axes = (None, *[0] * (1 + len(rows)))
            return jax.vmap(one, in_axes=axes)(state.clock, state.seeds, *rows)
        alone = jax.tree.map(lambda leaf: leaf[0], (state.seeds, rows))
        out = one(state.clock, alone[0], *alone[1])
        return jax.tree.map(lambda leaf: leaf[None], out)


def _parts(state: TrainState) -> tuple[Any, Any, Any, Any]:
    seeds = state.seeds
    rest = _with(seeds, {"learner": None, "sampler": None, "ring": None})
    return (seeds.learner, state.clock), seeds.sampler, seeds.ring, rest


def _with(seeds: SeedState, parts: dict[str, Any]) -> SeedState:
    """Return `seeds` with other parts. Its leaves have an axis S that its constructor does not know."""
    names = list(parts)
    return eqx.tree_at(
        lambda seeds: [getattr(seeds, name) for name in names],
        seeds,
        [parts[name] for name in names],
        is_leaf=lambda node: node is None,
    )


def _inputs(step: HostStep) -> tuple[np.ndarray, ...]:
    """A step as arrays: `[S, E, ...]` twice, rewards and flags `[S, 6, E]`, and masks if there are any."""
    flags = (step.reward, step.terminated, step.truncated, step.real, step.scored, step.finished)
    numbers = np.stack(flags, axis=1, dtype=np.float32, casting="unsafe")
    masks = [mask for mask in (step.legal, step.legal_successor) if mask is not None]
    return step.observation, step.successor, numbers, *masks


def _log(logs: list[tuple[Array, Array]]) -> Log:
    """Put the reports of many iterations together: leaves `[S, N, ...]`."""
    told, metrics = (np.stack(each, axis=1) for each in zip(*jax.device_get(logs), strict=True))
    ended, returns, lengths = np.moveaxis(told, 2, 0)
    leaves = [ended > 0, returns, lengths.astype(np.int32), *np.moveaxis(metrics, 2, 0)]
    return jax.tree.unflatten(_log_structure(), leaves)


@functools.cache
def _log_structure() -> Any:
    zero = jnp.zeros(1)
    metrics = Metrics(*(zero[0] for _ in dataclasses.fields(Metrics)))
    return jax.tree.structure(Log(zero > 0, zero, zero.astype(jnp.int32), metrics))
