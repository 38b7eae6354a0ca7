"""The compiled call of `Agent.replay`: it writes the rows that wait, and does gradient updates.

Calling a compiled program costs more than its arithmetic, for a small network. So both are one call, its
arrays are passed flat, its rows and counts as one array of bytes, and nothing waits for its result:
the program runs while the caller steps the environment. `finish` waits, and reads the metrics.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.waiting_rows import LARGE, SMALL, TINY, Block, BlockLayout
from qhat.engine.compiler import compiled
from qhat.engine.host_network import HostNetwork
from qhat.engine.iteration import Program
from qhat.engine.learner import LearnerState, Metrics
from qhat.engine.replay import linked
from qhat.engine.replay.links import Rows
from qhat.engine.replay.ring import Ring
from qhat.engine.state import no_metrics, split
from qhat.engine.streaming import streamed

State = tuple[Any, ...]
"""Leaves of a pytree."""
NAMES = tuple(field.name for field in dataclasses.fields(Metrics))
"""What an update measures."""


PACKED = 2**20
"""Bytes of a learner from which its arrays are passed one by one: to copy them takes longer."""


@dataclasses.dataclass(frozen=True)
class Acting:
    """Weights to act with."""

    learner: State
    """The learner's arrays, as `Packing` has them."""
    tensors: Any
    """For `HostNetwork.load`; `None` where the network acts in JAX."""


class Numbers(Mapping[str, float]):
    """Metrics of an update: loss, mean Q, gradient norm, clipped mass. Reading one waits for the update."""

    def __init__(self, array: Any):
        self._array = array

    @functools.cached_property
    def _values(self) -> dict[str, float]:
        return dict(zip(NAMES, np.asarray(self._array).tolist(), strict=True))

    def wait(self) -> None:
        """Wait for the update."""
        _ = self._values

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __repr__(self) -> str:
        return repr(dict(self))

    @property
    def finite(self) -> bool:
        """Whether the update could be applied."""
        return math.isfinite(self["loss"]) and math.isfinite(self["gradient_norm"])


class Packing:
    """Passes the learner to a program: as one array where it is small, as every array costs a call 2 µs."""

    def __init__(self, like: LearnerState):
        leaves, self._form = jax.tree.flatten(like)
        self._like = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        words = all(jnp.dtype(leaf.dtype).itemsize == 4 for leaf in leaves)
        self._packs = words and 4 * sum(leaf.size for leaf in leaves) < PACKED

    def pack(self, learner: LearnerState) -> State:
        """Return the arrays to pass; traceable."""
        leaves = jax.tree.leaves(learner)
        if not self._packs:
            return tuple(leaves)
        return (jnp.concatenate([_bits(leaf, jnp.uint32).ravel() for leaf in leaves]),)

    def unpack(self, arrays: State) -> LearnerState:
        """Return the learner of such arrays; traceable."""
        if not self._packs:
            return jax.tree.unflatten(self._form, arrays)
        leaves, at = [], 0
        for like in self._like:
            leaves.append(_bits(arrays[0][at : at + like.size], like.dtype).reshape(like.shape))
            at += like.size
        return jax.tree.unflatten(self._form, leaves)


def _bits(array: Any, dtype: Any) -> Any:
    return array if array.dtype == dtype else jax.lax.bitcast_convert_type(array, dtype)


class Learning:
    """The state of replay and of the learner, and the programs that change it. The caller has to lock it.

    Args:
        key: root of the random keys of updates.
    """

    def __init__(
        self,
        program: Program,
        host: HostNetwork | None,
        layout: BlockLayout,
        key: Any,
        replay: tuple[Ring, Any],
        learner: LearnerState,
    ):
        self._program, self._host, self._layout = program, host, layout
        self._key = jax.random.key_data(key)
        self.set_replay(replay)
        self.set_learner(learner)
        self._programs: dict[tuple[int, bool], Callable[..., Any]] = {}
        self._numbers: Numbers | None = None

    @property
    def replay(self) -> tuple[Ring, Any]:
        """The ring, and the sampler's state."""
        return jax.tree.unflatten(self._replay_form, self._replay)

    @property
    def learner(self) -> LearnerState:
        """The learner's state."""
        return self._packing.unpack(self.acting.learner)

    def set_replay(self, replay: tuple[Ring, Any]) -> None:
        """Replace the ring and the sampler's state."""
        leaves, self._replay_form = jax.tree.flatten(replay)
        self._replay: State = tuple(leaves)

    def set_learner(self, learner: LearnerState) -> None:
        """Replace the learner's state."""
        self._packing = Packing(learner)
        self.acting = self.acting_of(learner)

    def write(self, block: Block) -> None:
        """Write a block of rows to replay."""
        self._replay = self._call(block.size, learns=False)(self._replay, block.bytes)

    def learn(self, block: Block) -> Numbers:
        """Write a block, and do its gradient updates, after those of the last call. Waits for nothing."""
        call = self._call(block.size, learns=True)
        state = (self._replay, self.acting.learner, self._key, block.bytes)
        self._replay, learner, tensors, numbers = call(*state)
        self.acting = Acting(learner, tensors)
        self._numbers = Numbers(numbers)
        return self._numbers

    def finish(self) -> Numbers | None:
        """Wait for the last `learn`, and return its metrics; `None` if they were returned before."""
        numbers, self._numbers = self._numbers, None
        if numbers is not None:
            numbers.wait()
        return numbers

    def learner_of(self, acting: Acting) -> LearnerState:
        """Return the learner whose weights act; traceable."""
        return self._packing.unpack(acting.learner)

    def acting_of(self, learner: LearnerState) -> Acting:
        """Return a learner's weights, to act with."""
        tensors = None if self._host is None else jax.jit(self._host.tensors)(learner.online)
        return Acting(jax.jit(self._packing.pack)(learner), tensors)

    def warmup(self, padding: Callable[[int], Block]) -> None:
        """Compile everything. Nothing changes: only padding is written, and no update is done.

        Args:
            padding: returns a block of the given size without rows.
        """
        for size, learns in ((SMALL, False), (LARGE, False), (TINY, True)):
            block = padding(size)
            self.learn(block) if learns else self.write(block)
        jax.block_until_ready(self._replay)
        self._numbers = None

    def _call(self, size: int, learns: bool) -> Callable[..., Any]:
        """Return the program for blocks of `size` rows."""
        if (size, learns) not in self._programs:

            def write(replay: State, data: Any) -> State:
                return self._pure_write(replay, self._layout.read(data, size)[0])

            def learn(replay: State, learner: State, key: Any, data: Any) -> Any:
                rows, counts = self._layout.read(data, size)
                return self._pure_learn(self._pure_write(replay, rows), learner, key, counts)

            # The learner is not donated: `act` reads its weights meanwhile.
            self._programs[size, learns] = compiled(learn if learns else write, donate_argnums=0)
        return self._programs[size, learns]

    def _pure_write(self, replay: State, rows: Rows) -> State:
        ring, sampler = jax.tree.unflatten(self._replay_form, replay)
        ring, slots, starts = linked.write(ring, rows)
        sampler = self._program.recipe.sampler.store(sampler, slots, starts)
        return tuple(jax.tree.leaves((ring, sampler)))

    def _pure_learn(self, replay: State, packed: State, key: Any, counts: Any) -> Any:
        """Do `counts[2]` updates; `counts` has the steps and updates so far before it."""
        ring, sampler = jax.tree.unflatten(self._replay_form, replay)
        learner = self._packing.unpack(packed)
        steps, done, due = counts
        root = jax.random.wrap_key_data(key)
        if self._program.recipe.training.streams:
            learner, metrics, _ = streamed(self._program.learner, learner, ring, steps, due > 0)
            return self._learned(replay, learner, metrics)

        def update(index: Any, carry: Any) -> Any:
            learner, sampler, greedy, metrics = carry
            number = done + index
            keys = split(jax.random.fold_in(root, number), "explore", "noise", "learn")
            now = dataclasses.replace(ring, greedy=greedy)
            learner, sampler, greedy, latest = self._program.update(
                learner, now, sampler, keys["learn"], steps, number + 1
            )
            # One that is not finite shows, whatever comes after it.
            keep = (index > 0) & ~metrics.finite
            metrics = jax.tree.map(lambda old, new: jnp.where(keep, old, new), metrics, latest)
            return learner, sampler, greedy, metrics

        carry = (learner, sampler, ring.greedy, no_metrics())
        learner, sampler, greedy, metrics = jax.lax.fori_loop(0, due, update, carry)
        ring = dataclasses.replace(ring, greedy=greedy)
        return self._learned(tuple(jax.tree.leaves((ring, sampler))), learner, metrics)

    def _learned(self, replay: State, learner: LearnerState, metrics: Metrics) -> Any:
        tensors = None if self._host is None else self._host.tensors(learner.online)
        numbers = jnp.stack([jnp.float32(value) for value in jax.tree.leaves(metrics)])
        return replay, self._packing.pack(learner), tensors, numbers
