"""What a cluster has, and what qhat runs there."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from qhat.cluster.connection import Node, difference
from qhat.cluster.crew import NAMESPACE


@dataclasses.dataclass(frozen=True)
class NodeStatus(Node):
    """A node, and why it cannot train with this machine."""

    differs: str = ""
    """Empty where it can."""


@dataclasses.dataclass(frozen=True)
class Status:
    """A cluster at one moment. Memory is in bytes."""

    nodes: tuple[NodeStatus, ...]
    cpus: float
    free_cpus: float
    gpus: float
    free_gpus: float
    store: float
    """Of all object stores together."""
    store_used: float
    runs: dict[str, int]
    """Actors of every run of qhat's, by its name."""


def status_of(nodes: Sequence[Node]) -> Status:
    """Return the state of the cluster that this process is connected to."""
    import ray
    from ray.util import list_named_actors

    total, free = ray.cluster_resources(), ray.available_resources()
    every: list[Any] = list_named_actors(True)
    named = [each["name"] for each in every if each["namespace"] == NAMESPACE]
    store = total.get("object_store_memory", 0.0)
    return Status(
        nodes=tuple(NodeStatus(**dataclasses.asdict(node), differs=difference(node)) for node in nodes),
        cpus=total.get("CPU", 0.0),
        free_cpus=free.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
        store=store,
        store_used=store - free.get("object_store_memory", 0.0),
        runs=dict(collections.Counter(name.partition("#")[0] for name in named)),
    )
