"""What an environment is to the engine: a batch, stepped by pure functions."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from qhat.axes.actions import Actions
from qhat.environments.mirror import Mirror
from qhat.environments.observations import Observations
from qhat.environments.term import Term
from qhat.system.errors import require
from qhat.system.lazy import Array, Bool, Int, jax


class Timestep(NamedTuple):
    """One step of E environments. Adapters hide every autoreset convention behind it.

    An environment that Python steps gives NumPy arrays with a leading axis of seeds, `[S, E, ...]`.
    """

    observation: Any
    """`[E, ...]`, the observation to act on next (after a reset where the episode ended)."""
    reward: Any
    """`[E]` of float32."""
    terminated: Any
    """`[E]` of bool. The task ended here: nothing follows, its value is 0."""
    truncated: Any
    """`[E]` of bool. A time limit cut the episode here: the future still has value."""
    successor: Any
    """`[E, ...]`, the true successor of the acted-on observation, also where the episode ended."""
    real: Any
    """`[E]` of bool. False where the row is a reset and no transition."""
    legal: Any = None
    """`[E, F, C]` of bool, the actions that `observation` allows, in an environment that masks."""
    legal_successor: Any = None
    """`[E, F, C]` of bool, the actions that `successor` allows."""
    score: Any = None
    """`[E]` of float32, the reward in the units of scores, where `reward` is transformed."""
    over: Any = None
    """`[E]` of bool. Whether what is scored ended here, where it is more than an episode (a game of several
    lives). May be true in a row that is not `real`: a game can end in the reset after a lost life."""
    broken: Any = None
    """`[E]` of bool. Where the episode is over because its numbers are not finite, or its process was lost;
    such a row is not `real`. `None` in an environment that does not check."""
    success: Any = None
    """`[E]` of float32: 1 where a try at the task's goal succeeded in this step, 0 where one failed, NaN
    where none ended. `None` in an environment that does not report it."""
    info: Any = None
    """`[E, K]` of float32, values of the environment's `logs`, NaN where a step has none. `None` where
    nothing is logged."""

    @property
    def scored(self) -> Any:
        """What the step adds to a score."""
        return self.reward if self.score is None else self.score

    @property
    def finished(self) -> Any:
        """Whether a score is complete."""
        return (self.terminated | self.truncated) & self.real if self.over is None else self.over

    @property
    def closed(self) -> Any:
        """Whether nothing more counts for this score: it is complete, or its episode broke off."""
        return self.finished if self.broken is None else self.finished | self.broken


SEEDS = "seeds"
"""Name of the axis of devices that a training's seeds are spread over."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a composition needs to know of an environment."""

    id: str
    backend: str
    shape: tuple[int, ...]
    """Shape of one observation."""
    dtype: str
    """Observations are stored and kept as this dtype until they reach the network."""
    actions: Actions
    reference: str | None = None
    """Gymnasium id of the reference implementation, if there is one."""
    masked: bool = False
    """Whether `legal` comes with every observation."""
    stack: int = 1
    """Frames along the first axis of an observation, the newest last; each step moves them on by one."""
    limit: int = 0
    """Steps after which the reference cuts an episode too; 0 where it has its limit anyway."""
    options: tuple[tuple[str, Any], ...] = ()
    """Options that the task was made with, where they are not its library's defaults."""
    layout: Observations | None = None
    """What an observation is made of; `None` is one array, shown as it is (runs of earlier versions)."""
    mirror: Mirror | None = None
    """The task's mirror image, where it is known; it is not written to a run's folder."""

    def require_fits(self, policy: "Spec") -> None:
        """Raise `UsageError` unless a policy that was learned in `policy` can play here."""
        older = policy.layout is None and self.layout is not None and self.layout.is_packed
        hint = (
            " It was trained by an earlier version, which made one vector of pictures too." if older else ""
        )
        require(
            self.shape == policy.shape and self.actions.same(policy.actions),
            f"'{self.id}' has observations {self.shape} and actions {self.actions}; the policy takes"
            f" {policy.shape} and {policy.actions}.{hint}",
        )

    def completed(self, environment: "Spec") -> "Spec":
        """Take from an environment that fits what an older version did not write of its actions."""
        if self.actions.complete or not self.actions.same(environment.actions):
            return self
        return dataclasses.replace(self, actions=self.actions.completed(environment.actions))


def laid_out(spec: Spec) -> Spec:
    """Return the spec with what its observations are made of, where that is a picture of whole numbers."""
    plain = Observations.plain(spec.shape, spec.dtype)
    pictured = spec.layout is None and plain.is_picture and np.dtype(spec.dtype).kind in "iu"
    return dataclasses.replace(spec, layout=plain) if pictured else spec


class AnyEnvironment(abc.ABC):
    """E copies of one environment for each seed: what both flavours promise.

    `Environment` is a set of pure functions that compile into the training loop; `HostEnvironment` is
    stepped by Python.
    """

    spec: Spec
    num_envs: int
    snapshots: bool
    """Whether its state is a value that can be saved and restored."""
    is_async: bool = False
    """Whether it steps between `send` and `receive`, while the program continues."""
    logs: tuple[str, ...] = ()
    """Names of the values in `Timestep.info`, each `info.` and a name."""

    terms: tuple[Term, ...] = ()
    """What sensors give, in the order of the observation; empty where that is not known."""
    joints: tuple[str, ...] = ()
    """Names of the actions' factors; empty where they have none."""
    drives: tuple[tuple[float, float], ...] = ()
    """Scale and offset of every joint: its position is to be `offset + scale · action`."""
    period: float | None = None
    """Seconds between two actions, where that is known."""

    def log_notes(self) -> list[str]:
        """Return sentences about names of `logs` that had no number so far, each one time."""
        return []

    def records(self, step: int) -> list[dict[str, Any]]:
        """Return what its processes did since the last call, as rows of metrics.csv, if that is due.

        Args:
            step: environment steps of the run.
        """
        return []

    def close(self) -> None:
        """End processes and close windows, where it has any."""
        return


class Environment(AnyEnvironment):
    """E environments of one kind whose step compiles into the training loop."""

    snapshots: bool = True

    def start(self, keys: Array) -> tuple[Any, Array]:
        """Return fresh environments for every seed of `keys` `[S]`; leaves `[S, ...]`."""
        return _start()(self, keys)

    @abc.abstractmethod
    def reset(self, key: Array) -> tuple[Any, Array]:
        """Return the state of E fresh environments and their observations `[E, ...]`."""

    @abc.abstractmethod
    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        """Step all E environments; one that ends starts anew."""

    def send(self, state: Any, action: Int[Array, "E F"]) -> tuple[Any, Int[Array, ""]]:
        """Begin a step of environments that are `is_async`.

        Returns:
            the state, and a token: 0, which the compiler cannot know before the step has begun.
        """
        raise NotImplementedError(f"'{self.spec.id}' is stepped within the program.")

    def receive(self, state: Any) -> tuple[Any, Timestep]:
        """End the step that `send` began."""
        raise NotImplementedError(f"'{self.spec.id}' is stepped within the program.")

    def legal(self, state: Any) -> Bool[Array, "E F C"] | None:
        """Return the actions that the observations of `reset` allow; `None` is all."""
        return None


def _reset(environment: Environment, keys: Array) -> tuple[Any, Array]:
    return jax.vmap(environment.reset)(keys)


@functools.cache
def _start() -> Callable[[Environment, Array], tuple[Any, Array]]:
    """Compile at the first call: actors of a cluster import this module, and need no JAX."""
    from qhat.system.devices import jit_fast_compile

    return jit_fast_compile(_reset, static_argnums=0)
