"""Where a run's environments come from: what every kind of source promises, and those that an id makes."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium

from qhat.environments.base import Environment
from qhat.environments.catalogue import find, marked
from qhat.environments.extras import load
from qhat.environments.gymnasium.on_node import BuildOnNode, by_id
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_with
from qhat.environments.make_args import MakeArgs
from qhat.environments.pictured import pictured
from qhat.environments.wrappers import Wrapper
from qhat.system.errors import UsageError, setting


class Source(abc.ABC):
    """Where a run's environments come from."""

    closes: bool = True
    """Whether the run closes what it made of it."""
    by_id: bool = False
    """Whether an id makes it again."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the run calls it: an id, or `own:` and an id or the name of a class."""

    @abc.abstractmethod
    def make(self, args: MakeArgs) -> Environment | HostEnvironment:
        """Make what the loops take.

        Raises:
            UsageError: it has another number of copies than the run, or cannot be wrapped.
        """

    def build_on_node(self) -> BuildOnNode:
        """Return what makes it in other processes, without JAX. Raises `UsageError` if nothing does."""
        raise UsageError(
            f"'{self.name}' cannot be made on a node: {setting('actors')} expects a gym: id, or a function"
            " that makes an environment of Gymnasium's."
        )

    def judge(self, wrap: Sequence[Wrapper]) -> Environment | Callable[[], gymnasium.Env] | None:
        """Return what plays the scores: others of the same kind. `None` where `make` makes them, or an id.

        Raises:
            UsageError: no others can be made.
        """
        raise UsageError(
            f"'{self.name}' plays the training alone; expected judge=, a function that makes a single"
            " environment for the run's evaluations."
        )

    def in_python(self) -> bool:
        """Return whether Python steps it, and may run anything in a step."""
        return True

    def has_pictures(self) -> bool:
        """Whether observations have pictures of 36 pixels or more a side.

        True where that is known only of one that is made.
        """
        return True

    def require_copies(self, count: int) -> None:
        """Raise `UsageError` where a training would use another number of copies than there are."""
        return

    def look(self) -> int | None:
        """Check the contract, before anything is made of it.

        Returns:
            the time limit in steps, 0 for none; `None` where only what plays the scores says it.
        """
        return None


@dataclasses.dataclass(frozen=True)
class ById(Source):
    """An id that `qhat envs` lists, or one of Gymnasium's registry."""

    env_id: str
    options: Mapping[str, Any]
    by_id = True

    @property
    def name(self) -> str:
        return self.env_id

    def in_python(self) -> bool:
        return find(self.env_id, self.options).backend == "gym"

    def has_pictures(self) -> bool:
        entry = find(self.env_id, self.options)
        if entry.backend == "envpool":
            arrays = load("envpool", self.env_id).make_spec(entry.name).state_array_spec
            return any(pictured(array) for name, array in arrays.items() if name.startswith("obs"))
        # Of those in JAX all are small; one of the caller's may not be, and has `threads`.
        return entry.backend == "gym"

    def build_on_node(self) -> BuildOnNode:
        entry = find(self.env_id, self.options)
        if entry.backend == "gym":
            return functools.partial(by_id, self.env_id)
        advice = f" Its reference is: gym:{entry.reference}." if entry.reference else ""
        raise UsageError(
            f"'{self.env_id}' ({entry.backend}) is compiled into the learner, and needs no"
            f" {setting('actors')}: leave them out, or name a gym: environment.{advice}"
        )

    def make(self, args: MakeArgs) -> Environment | HostEnvironment:
        return make_with(self.env_id, args)

    def judge(self, wrap: Sequence[Wrapper]) -> None:
        return None

    def look(self) -> int | None:
        entry = find(self.env_id, self.options)
        return entry.limit if entry.backend == "gym" and not entry.batch else None


@dataclasses.dataclass(frozen=True)
class Given(Source):
    """An environment that is made already, and that its caller closes."""

    env: Any
    closes = False

    @property
    def name(self) -> str:
        spec = getattr(self.env, "spec", None)
        known = getattr(spec, "id", None)
        return marked(known or type(getattr(self.env, "unwrapped", self.env)).__name__)

    def has_pictures(self) -> bool:
        return pictured(self.env.spec)
