"""The environments of a run, stepped by actors on a cluster."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from qhat.cluster.actor import Build
from qhat.cluster.connection import Node
from qhat.cluster.crew import Crew
from qhat.environments.base import AnyEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.spaces import episode_seeds
from qhat.system.errors import QhatError, require, setting, warn

EVERY = 5.0
"""Seconds between two records of the actors."""
PATIENCE = 10.0
"""Seconds that the steps which are underway have at the end of a run."""
COLUMNS = ("actor", "node", "staleness", "waiting", "store_mib", "lost")
"""Columns of metrics.csv in rows of the kind `actor`."""


class ActorEnvironment(AnyEnvironment):
    """E copies of an environment, of which every actor steps as many."""

    snapshots = False

    def __init__(
        self, name: str, build: Build, args: MakeArgs, actors: int, cpus: float, nodes: list[Node]
    ):
        """Start the actors, and wait until each has its environment.

        Args:
            name: what the run calls it.
            args: of the run; its E copies are shared evenly.
            cpus: cores that an actor takes.
            nodes: of the cluster that the process is connected to.

        Raises:
            UsageError: the cluster has too few cores, or an actor cannot make the environment.
        """
        require_cores(actors, cpus, nodes)
        self.num_envs, self.copies = args.num_envs, args.num_envs // actors
        seed = episode_seeds(int(args.seeds[0]), args.since, 1)
        each = dataclasses.replace(args, num_envs=self.copies, devices=1)
        numbers = np.random.default_rng(seed)
        self.crew = Crew(build, each, actors, cpus, args.seconds, numbers, name)
        try:
            facts = self.crew.meet()
        except BaseException:
            self.crew.close()
            raise
        self.spec, self.logs = facts.spec, facts.logs
        self.stored = self.left_out = self.waiting = 0
        """Steps that are in replay, that were left out as faulty, and that wait for a call."""
        self._recorded, self._patience = time.monotonic(), min(args.seconds, PATIENCE)

    def records(self, step: int) -> list[dict[str, Any]]:
        now = time.monotonic()
        if now - self._recorded < EVERY:
            return []
        seconds, self._recorded = now - self._recorded, now
        shared = {"kind": "actor", "seed_index": 0, "step": step, "waiting": self.waiting}
        shared["store_mib"] = f"{store_in_use() / 2**20:.1f}"
        return [{**shared, **record} for record in self.crew.records(seconds)]

    def close(self) -> None:
        """Say who was lost since the last steps, count at both ends what was sent, and end the actors."""
        for cut in self.crew.cuts:
            warn(f"{cut.sentence}", stacklevel=3)
        try:
            self._require_whole()
        finally:
            self.crew.close()

    def _require_whole(self) -> None:
        """Raise `QhatError` if steps were lost or doubled between an actor and replay."""
        taken, accepted = self.stored + self.left_out + self.waiting, self.crew.accepted
        sent, received = self.crew.drain(self._patience)
        if taken != accepted or sent != received or self.crew.refused:
            raise QhatError(
                f"Actors sent {sent:,} steps and the learner counted {received:,}; it took {accepted:,}, of"
                f" which it stored {self.stored:,}, and {self.waiting:,} wait; {self.crew.refused:,} blocks"
                " were out of order. Expected the same numbers at both ends: please report this."
            )


def store_in_use() -> float:
    """Return the bytes of the cluster's object stores that are in use."""
    import ray

    name = "object_store_memory"
    return ray.cluster_resources().get(name, 0.0) - ray.available_resources().get(name, 0.0)


def require_cores(actors: int, cpus: float, nodes: list[Node]) -> None:
    """Raise `UsageError` if the nodes have no place for all actors."""
    places = sum(int((node.cpus + 1e-6) // cpus) for node in nodes)
    cores = sum(node.cpus for node in nodes)
    fits = int(cores / actors * 100) / 100
    hint = f", or {setting('actor_cpus', fits)} where simulators wait" if fits else ""
    require(
        places >= actors,
        f"{setting('actors', actors)} with {cpus:g} core(s) each take {actors * cpus:g}, and the"
        f" {len(nodes)} node(s) of the cluster have {cores:g}; expected at most"
        f" {setting('actors', max(places, 1))}{hint}.",
    )
