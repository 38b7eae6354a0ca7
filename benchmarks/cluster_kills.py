"""What killed actors cost: parts `kills` and `one` of `python benchmarks/cluster_actors.py`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import random
import signal
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

COUNTED = "gym:cluster_tasks:Counted-v0"
PAUSE, QUIET = 0.25, 8.0
"""Seconds between two kills: of many, and of single ones."""
LOOK = 0.005
"""Seconds between two looks at the actors."""
STEPS = {
    "noticed": "the learner notices", "ready": "the successor has its environment",
    "block": "its first block is taken",
}  # fmt: skip
CAPACITY = 200_000
"""Of replay, so that nothing is written over."""


@dataclasses.dataclass
class Run:
    """A training run, as it is seen from within."""

    environments: list[Any] = dataclasses.field(default_factory=list)
    states: list[Any] = dataclasses.field(default_factory=list)
    """Of the checkpoints."""

    @property
    def slots(self) -> list[Any]:
        """The places of the actors; none before they have environments."""
        return self.environments[0].crew.slots if self.environments else []

    def working(self) -> list[Any]:
        """Return the places of which the process has sent a block."""
        return [slot for slot in self.slots if slot.facts is not None and slot.expected]


@dataclasses.dataclass(frozen=True)
class Replaced:
    """Seconds from a kill until it was noticed, until the successor had an environment, and its block."""

    noticed: float
    ready: float
    block: float


def kill(slot: Any) -> Callable[[], Replaced | None]:
    """Send SIGKILL to a process; return what says how it was replaced, once it was."""
    incarnation, began = slot.incarnation, time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(slot.facts.process, signal.SIGKILL)
    times: list[float] = []

    def look() -> Replaced | None:
        later = slot.incarnation > incarnation
        reached = (later, later and slot.facts is not None, later and slot.expected > 0)
        while len(times) < 3 and reached[len(times)]:
            times.append(time.monotonic() - began)
        return Replaced(*times) if len(times) == 3 else None

    return look


def kills(count: int) -> dict[str, Any]:
    """Kill random actors of 8, one process never twice; return what was counted at both ends."""
    run, ended = Run(), threading.Event()
    found: list[Replaced] = []
    killed: set[tuple[int, int]] = set()

    def killing() -> None:
        looks: list[Callable[[], Replaced | None]] = []
        due = 0.0
        while len(killed) < count or looks:
            time.sleep(LOOK)
            replaced = [look() for look in looks]
            found.extend(each for each in replaced if each is not None)
            looks = [look for look, each in zip(looks, replaced, strict=True) if each is None]
            # A process that is dead already stays in its place until the learner notices.
            able = [slot for slot in run.working() if (slot.actor, slot.incarnation) not in killed]
            if time.monotonic() > due and len(able) > 1 and len(killed) < count:
                slot = random.choice(able)
                killed.add((slot.actor, slot.incarnation))
                looks.append(kill(slot))
                due = time.monotonic() + PAUSE
        ended.set()

    said = train(run, killing, actors=8, callback=lambda _: ended.is_set(), eval_every=1_000)
    return {"kills": len(killed), **counted(run, said), "times": times_of(found)}


def one_by_one(count: int) -> dict[str, Any]:
    """Kill one of 4 actors after the other, each when all have worked for a while; return the times."""
    run, ended = Run(), threading.Event()
    found: list[Replaced] = []

    def killing() -> None:
        while len(run.working()) < 4:
            time.sleep(LOOK)
        for number in range(count):
            time.sleep(QUIET)
            look = kill(run.slots[number % 4])
            while (replaced := look()) is None:
                time.sleep(LOOK)
            found.append(replaced)
        ended.set()

    # No evaluation falls into the time of a kill.
    said = train(run, killing, actors=4, should_stop=ended.is_set, eval_every=10**6)
    return {"kills": count, **counted(run, said), "times": times_of(found)}


def times_of(found: list[Replaced]) -> dict[str, dict[str, float]]:
    """Return the median and the longest of each time, in seconds."""
    columns = {name: [getattr(each, name) for each in found] for name in STEPS}
    return {
        name: {"median": statistics.median(times), "longest": max(times)} for name, times in columns.items()
    }


def train(run: Run, killing: Callable[[], None], actors: int, **settings: Any) -> list[Any]:
    """Train beside a thread that kills; return the warnings."""
    import qhat
    from qhat.runs.train import Interrupted

    thread = threading.Thread(target=killing, daemon=True)
    with (
        _watched(run),
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(record=True) as said,
        contextlib.suppress(Interrupted),
    ):
        warnings.simplefilter("always")
        thread.start()
        qhat.train(
            COUNTED, "dqn", steps=CAPACITY // 2, run_dir=Path(folder) / "run", actors=actors,
            actor_cpus=0.2, cluster="local", replay_capacity=CAPACITY, save_every=10**6, eval_episodes=4,
            **settings,
        )  # fmt: skip
    return said


def counted(run: Run, said: list[Any]) -> dict[str, int]:
    """Return the losses, the counts of both ends, and what replay has.

    Args:
        said: the warnings.
    """
    one, state = run.environments[0], run.states[-1]
    steps: collections.Counter[tuple[float, ...]] = collections.Counter()
    joined = 0
    for observation, reward, successor in transitions(state.seeds.ring):
        steps[tuple(observation)] += 1
        episode, at = tuple(observation[:2]), observation[2]
        joined += not (tuple(successor[:2]) == episode and successor[2] == reward == at + 1)
    return {
        "lost": sum("was lost" in str(each.message) for each in said),
        "replaced": sum(slot.incarnation for slot in run.slots),
        "step": int(state.clock.iterations) * one.num_envs, "accepted": one.crew.accepted,
        "stored": one.stored, "waiting": one.waiting, "refused": one.crew.refused,
        "replay": sum(steps.values()), "joined": joined,
        "doubled": sum(number - 1 for number in steps.values()),
    }  # fmt: skip


def transitions(ring: Any) -> Iterator[tuple[np.ndarray, float, np.ndarray]]:
    """Yield observation, reward and successor of every transition in replay."""
    from qhat.engine.replay.nstep import NOTHING

    frames, rewards, kinds = (np.asarray(leaf[0]) for leaf in (ring.observation, ring.reward, ring.kind))
    for lane in range(ring.cursor.shape[1]):
        used = int(ring.filled[0, lane])
        assert used < ring.rows, "replay was written over"
        first = lane * ring.rows
        for row in first + np.flatnonzero(kinds[first : first + used] != NOTHING):
            yield frames[row], float(rewards[row]), frames[row + 1]


@contextlib.contextmanager
def _watched(run: Run) -> Iterator[None]:
    """Keep the environments of actors and the states of checkpoints that are made meanwhile."""
    from qhat.cluster.environment import ActorEnvironment
    from qhat.runs.checkpoints import Checkpoints

    begin, save = ActorEnvironment.__init__, Checkpoints.save

    def begun(self: ActorEnvironment, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        run.environments.append(self)

    def saved(self: Checkpoints, step: int, state: Any, *rest: Any) -> None:
        run.states.append(state)
        save(self, step, state, *rest)

    with (
        mock.patch.object(ActorEnvironment, "__init__", begun),
        mock.patch.object(Checkpoints, "save", saved),
    ):
        yield


def lines_of_kills(found: dict[str, Any]) -> list[str]:
    """Return the page's lines of part `kills`."""
    return [
        f"## {found['kills']} kills", "",
        f"{found['kills']} random processes of 8 actors got SIGKILL, up to four a second, none of them"
        f" twice; {found['replaced']} were replaced, with {found['lost']} warnings. The run ended at"
        f" step {found['step']:,}. {_counts(found)} There are evaluations in between, in which nobody sends"
        " blocks, and up to eight processes begin at the same time.", "",
        *_table(found),
    ]  # fmt: skip


def lines_of_one(found: dict[str, Any]) -> list[str]:
    """Return the page's lines of part `one`."""
    return [
        f"## One kill at a time, {found['kills']} times", "",
        f"One of 4 actors got SIGKILL, at least {QUIET:g} s after the one before had a successor."
        f" {_counts(found)}", "",
        *_table(found),
    ]  # fmt: skip


def _table(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {STEPS[name]} | {each['median']:.2f} s | {each['longest']:.2f} s |"
        for name, each in found["times"].items()
    ]
    return ["| from the kill until | median | longest |", "|---|---|---|", *rows, ""]


def _counts(found: dict[str, Any]) -> str:
    return (
        f"Accepted {found['accepted']:,} steps, stored {found['stored']:,}, {found['waiting']:,} waiting,"
        f" refused {found['refused']} blocks. Replay has {found['replay']:,} transitions:"
        f" {found['joined']} join two episodes, {found['doubled']} are there twice."
    )
