"""The memory of a task: forecast on a node from the sizes of the state, and asked of Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from qhat.environments.base import Environment, laid_out
from qhat.environments.host import HostEnvironment
from qhat.recipes.config import TrainConfig
from qhat.runs.job import loop_of
from qhat.runs.run import program_of
from qhat.system.errors import require, setting
from qhat.system.host_memory import REST, give_back, nbytes, resident

COMPILED = 160 * 2**20
"""What compiled programs take, and what their compiler leaves. Measured: 54 to 145 MiB."""


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes of the host's memory."""

    process: int
    """Of a process that trains, without the state of its seeds."""
    seed: int
    """Of the state of each: replay, weights, optimiser."""

    def of(self, seeds: int) -> int:
        """Return what a process with so many seeds takes."""
        return self.process + seeds * self.seed

    def most(self, other: Need) -> Need:
        """Return what is enough for both."""
        return Need(max(self.process, other.process), max(self.seed, other.seed))


def need_of(environment: Environment | HostEnvironment, config: TrainConfig) -> Need:
    """Forecast what training in an environment takes, which this process has made; nothing is compiled."""
    program = program_of(config.recipe, laid_out(environment.spec), config.wrap)
    shape = jax.eval_shape(loop_of(program, environment, 1).init, jax.vmap(jax.random.key)(jnp.arange(1)))
    # A process of an earlier task may have what that one gave back to the heap.
    give_back()
    # On a GPU the state is in its memory.
    return Need(resident() + REST + COMPILED, 0 if config.device == "cuda" else nbytes(shape))


def parts_of(need: Need, seeds: int, count: int, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return in how many groups seeds are divided: as many as can train at the same time.

    Args:
        count: of tasks that there are cores for.
        nodes: the resources of those that have the cores of a task.

    Raises:
        UsageError: none has room for one seed.
    """
    require_room(need, 1, nodes)
    memories = [resources.get("memory", 0.0) for resources in nodes]
    for parts in range(min(count, seeds), 0, -1):
        each = need.of(math.ceil(seeds / parts))
        if sum(int(memory // each) for memory in memories) >= parts:
            return parts
    # Some have to wait until others have trained.
    fits = (_largest(nodes) - need.process) // max(need.seed, 1)
    return max(count, math.ceil(seeds / fits))


def require_room(need: Need, seeds: int, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise `UsageError` where no node has room for a task with so many seeds."""
    needed, largest = need.of(seeds), _largest(nodes)
    less = f"a lower {setting('replay_capacity')}, or " if need.seed > need.process else ""
    require(
        needed <= largest,
        f"A task with {seeds} seed{'s' * (seeds > 1)} of this run takes about {needed / 2**30:.1f} GiB of"
        f" memory, and no node of the cluster has so much (the largest has {largest / 2**30:.1f} GiB for"
        f" tasks); expected {less}a larger node.",
    )


def _largest(nodes: Sequence[Mapping[str, float]]) -> int:
    return int(max((resources.get("memory", 0.0) for resources in nodes), default=0.0))
