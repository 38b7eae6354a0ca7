"""The places of a crew's actors, and what is known of each."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from qhat.cluster.actor import Facts


@dataclasses.dataclass
class Request:
    """A block that an actor was asked for."""

    ref: Any
    rows: int


@dataclasses.dataclass
class Slot:
    """The place of an actor: its process now, and its record."""

    actor: int
    incarnation: int = -1
    handle: Any = None
    facts: Facts | None = None
    making: Any = None
    """Reference to the facts of a process that makes its environment."""
    sign: Any = None
    """Reference to an answer that comes after all else that the process was asked for, if it lives."""
    requests: collections.deque[Request] = dataclasses.field(default_factory=collections.deque)
    expected: int = 0
    """Number of the next block of this incarnation."""
    steps: int = 0
    """Steps that this incarnation sent and the learner took."""
    since: float = 0.0
    """When the process began to make what it owes now."""
    failures: int = 0
    rows_per_second: float = 0.0


@dataclasses.dataclass
class Record:
    """What an actor did since the last look."""

    steps: int = 0
    staleness: int = 0
    """Gradient updates between the weights that acted and the newest ones when the block came, at most."""
    lost: int = 0
    """Processes."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """A lost process: the open episodes of its copies are over."""

    actor: int
    why: str
    node: str

    @property
    def sentence(self) -> str:
        """Say it."""
        where = f" on {self.node}" if self.node else ""
        return (
            f"Actor {self.actor}{where} was lost ({self.why}); another takes its place, and its open"
            " episodes were cut."
        )


def reason(error: Exception) -> str:
    """Say in a line why an actor was lost."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        said = getattr(cause, "sentence", None) or f"{type(cause).__name__}: {cause}"
        return " ".join(str(said).split()).rstrip(".")[:400]
    names = {"ActorDiedError": "its process or its node died", "ActorUnavailableError": "its node is away"}
    known = names.get(type(error).__name__)
    said = " ".join(str(error).split())
    return known if known and "The actor died because" not in said else said.rstrip(".")[:300]
