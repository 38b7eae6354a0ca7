"""The actors of one learner: asks them for blocks, and puts another process where one is lost.

Ray runs each request at most one time and restarts nothing: a lost actor's place gets a new incarnation,
which begins new episodes. What the old one had sent stays; what it had not sent is lost, and nothing that
comes from it later counts.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
import uuid
from typing import Any

import numpy as np

from qhat.cluster.actor import Actor, Behaviour, Build, Facts, Place
from qhat.cluster.blocks import Block
from qhat.cluster.slots import Cut, Record, Request, Slot, reason
from qhat.environments.make_args import MakeArgs
from qhat.system.errors import QhatError, UsageError, setting

IN_FLIGHT = 2
"""Requests that an actor has at once: it works on one while the other travels."""
SECONDS = 0.25
"""Seconds that a block takes about."""
STEPS_UNDERWAY = 2_048
"""Environment steps of all actors together that were asked for and are not stored. They are chosen by
weights that are older than those that learn from them."""
STEPS_OF_A_COPY = 64
"""Steps of one copy that may be underway, whatever their number: short blocks cost calls of Ray's."""
MOST_ROWS = 256
SIGNS = 1.0
"""Seconds between two signs of life of an actor while there is an evaluation."""
STARTS = 180.0
"""Seconds that the first actors have to make their environments."""
NAMESPACE = "qhat"
"""Ray's namespace of the actors, in which `qhat cluster status` counts them."""
FAILURES = 10
"""Losses of one actor, with no block between them, after which the run ends."""


class Crew:
    """N actors. Not for several threads at once."""

    def __init__(
        self,
        build: Build,
        args: MakeArgs,
        actors: int,
        cpus: float,
        seconds: float,
        numbers: np.random.Generator,
        name: str,
    ):
        """Start the actors.

        Args:
            args: of one actor's copies; their seeds are drawn for every process.
            cpus: cores that an actor takes.
            seconds: how long an actor may take for a step before it counts as hanging.
            numbers: draws the seeds.
            name: of the environment, for `qhat cluster status`.
        """
        import ray

        self._build, self._args, self._seconds, self._numbers = build, args, seconds, numbers
        options = {"num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0}
        self._kind: Any = ray.remote(**options)(Actor)
        self._name = f"{name} on {platform.node()}, process {os.getpid()}, {uuid.uuid4().hex[:6]}"
        self.slots = [Slot(actor) for actor in range(actors)]
        self._records = [Record() for _ in self.slots]
        self.accepted = self.refused = 0
        """Steps taken from blocks, and blocks that were not the expected ones."""
        self._signs = 0.0  # When signs of life were asked for.
        self.cuts: list[Cut] = []
        """Losses for `poll` to return."""
        self._failure: QhatError | None = None
        """Why the run has to end; raised after all that came before it was taken."""
        self._behaviour: Any = None
        self._weights: Any = None
        self._version = -1
        for slot in self.slots:
            self._make(slot)

    def meet(self) -> Facts:
        """Wait until every actor has its environment; return what the first one says of it.

        Raises:
            UsageError: one could not make it, or they differ.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        deadline = time.monotonic() + STARTS
        for slot in self.slots:
            try:
                slot.facts = ray.get(slot.making, timeout=max(deadline - time.monotonic(), 0.01))
            except GetTimeoutError:
                raise UsageError(
                    f"Actor {slot.actor} had no environment after {STARTS:g} s; expected all"
                    f" {len(self.slots)} to have one. Does the cluster have the cores for them?"
                    f" {setting('actor_cpus')} says how many each takes."
                ) from None
            except RayError as error:
                raise UsageError(f"Actor {slot.actor} cannot begin: {reason(error)}.") from None
            slot.making, slot.since = None, time.monotonic()
        first = self.slots[0].facts
        assert first is not None
        for slot in self.slots:
            if slot.facts is not None and slot.facts.spec != first.spec:
                raise UsageError(
                    f"The environments differ: '{first.spec.id}' has other spaces on {slot.facts.node} than"
                    f" on {first.node}; expected the same package on every node."
                )
        return first

    def behave(self, behaviour: Behaviour) -> None:
        """Say how the actors choose actions."""
        import ray

        self._behaviour = ray.put(behaviour)

    @property
    def behaviour(self) -> Any:
        """Reference to how the actors choose actions."""
        return self._behaviour

    def publish(self, weights: np.ndarray, version: int) -> None:
        """Give the actors new weights, from their next request on.

        Args:
            version: gradient updates that they had.
        """
        import ray

        self._weights, self._version = ray.put(weights), version

    @property
    def version(self) -> int:
        """Gradient updates of the weights that were published last."""
        return self._version

    def request(self, waiting: int, step: int) -> None:
        """Ask for as many steps as may be underway.

        Args:
            waiting: steps that came and are not stored.
            step: environment steps stored.
        """
        copies = self._args.num_envs
        most = max(STEPS_UNDERWAY, STEPS_OF_A_COPY * copies * len(self.slots))
        room = most - waiting - sum(each.rows for slot in self.slots for each in slot.requests) * copies
        longest = max(1, most // (IN_FLIGHT * copies * len(self.slots)))
        for depth in range(IN_FLIGHT):
            for slot in self.slots:
                if slot.facts is None or len(slot.requests) > depth:
                    continue
                rows = int(np.clip(slot.rows_per_second * SECONDS, 1, min(longest, MOST_ROWS)))
                if room < rows * copies:
                    return
                if not slot.requests:
                    slot.since = time.monotonic()
                asked = (self._behaviour, self._weights, self._version, rows, step)
                slot.requests.append(Request(slot.handle.rollout.remote(*asked), rows))
                room -= rows * copies

    def poll(self, patience: float) -> list[Block | Cut]:
        """Return the blocks that came, each actor's in order, and which processes were lost.

        Args:
            patience: seconds to wait where nothing has come.

        Raises:
            QhatError: an actor was lost again and again.
        """
        import ray

        self._require_sound()
        owed = {slot.requests[0].ref: slot for slot in self.slots if slot.requests}
        owed |= {slot.making: slot for slot in self.slots if slot.making is not None}
        found: list[Block | Cut] = [*self.cuts]
        refs, ready, self.cuts = list(owed), [], []
        if refs:
            ready, rest = ray.wait(refs, num_returns=1, timeout=patience)
            if ready and rest:
                ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for ref in ready:
            found += self._take(owed[ref], ref)
        found += [self._replace(slot, self._hanging()) for slot in self.slots if self._hangs(slot)]
        return found

    def rested(self) -> None:
        """Count the time that what is underway takes anew: the actors did something else."""
        for slot in self.slots:
            slot.since = time.monotonic()

    def greet(self, patience: float) -> None:
        """Take in the facts of new processes, and replace those that are gone.

        Args:
            patience: seconds to wait for a first new one.

        Raises:
            QhatError: an actor was lost again and again.
        """
        import ray

        self._require_sound()
        self._look_for_signs()
        making = {slot.making: slot for slot in self.slots if slot.making is not None}
        ready = ray.wait(list(making), num_returns=1, timeout=patience)[0] if making else []
        for ref in ready:
            self.cuts += [each for each in self._take(making[ref], ref) if isinstance(each, Cut)]

    def _look_for_signs(self) -> None:
        """Replace processes that died: one that plays nothing owes nothing else that would say so."""
        import ray
        from ray.exceptions import RayError

        asked = {slot.sign: slot for slot in self.slots if slot.sign is not None}
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else ():
            slot = asked[ref]
            slot.sign = None
            try:
                ray.get(ref)
            except RayError as error:
                self.lose(slot, slot.incarnation, reason(error))
        if time.monotonic() - self._signs > SIGNS:
            self._signs = time.monotonic()
            for slot in self.slots:
                if slot.sign is None and slot.facts is not None:
                    slot.sign = slot.handle.totals.remote()

    def lose(self, slot: Slot, incarnation: int, why: str) -> None:
        """Replace a process that was found lost, if that is not done; the next `poll` says so."""
        if slot.incarnation == incarnation:
            self.cuts.append(self._replace(slot, why))

    def records(self, seconds: float) -> list[dict[str, Any]]:
        """Return what every actor did in the last `seconds`, and begin to count anew."""
        rows = []
        for slot, record in zip(self.slots, self._records, strict=True):
            row = {"actor": slot.actor, "node": slot.facts.node if slot.facts else "", "lost": record.lost}
            row |= {"steps_per_second": f"{record.steps / seconds:.4g}", "staleness": record.staleness}
            rows.append(row)
        self._records = [Record() for _ in self.slots]
        return rows

    def drain(self, patience: float) -> tuple[int, int]:
        """Take what is underway; it is not stored.

        Returns:
            steps of the processes that are alive: that they sent, and that were received.
        """
        import ray
        from ray.exceptions import RayError

        deadline = time.monotonic() + patience
        sent = received = 0
        for slot in self.slots:
            if slot.facts is None:
                continue
            asked = [*(request.ref for request in slot.requests), slot.handle.totals.remote()]
            try:
                *late, (blocks, steps) = ray.get(asked, timeout=max(deadline - time.monotonic(), 0.1))
            except (RayError, TimeoutError):
                continue
            numbers = [block.number for block in late]
            self.refused += numbers != list(range(slot.expected, blocks))
            sent, received = sent + steps, received + slot.steps + sum(block.steps for block in late)
        return sent, received

    def close(self) -> None:
        """End all processes."""
        import ray

        for slot in self.slots:
            if slot.handle is not None:
                ray.kill(slot.handle, no_restart=True)
                slot.handle, slot.facts = None, None
            slot.requests.clear()

    def _take(self, slot: Slot, ref: Any) -> list[Block | Cut]:
        import ray
        from ray.exceptions import RayError

        try:
            value: Any = ray.get(ref)
        except RayError as error:
            return [self._replace(slot, reason(error))]
        slot.since = time.monotonic()
        if isinstance(value, Facts):
            slot.facts, slot.making = value, None
            return []
        slot.requests.popleft()
        if (value.actor, value.incarnation, value.number) != (slot.actor, slot.incarnation, slot.expected):
            self.refused += 1
            return []
        slot.expected, slot.failures = value.number + 1, 0
        slot.steps, self.accepted = slot.steps + value.steps, self.accepted + value.steps
        rows, record = len(value.arrays["flags"]), self._records[slot.actor]
        rate = rows / max(value.seconds, 1e-6)
        slot.rows_per_second = rate if not slot.rows_per_second else 0.5 * (slot.rows_per_second + rate)
        record.steps += value.steps
        record.staleness = max(record.staleness, self._version - value.version)
        return [value]

    def _hangs(self, slot: Slot) -> bool:
        working = slot.requests or slot.making is not None
        limit = self._seconds if slot.requests else max(self._seconds, STARTS)
        return bool(working) and time.monotonic() - slot.since > limit

    def _hanging(self) -> str:
        return f"it did not answer within {self._seconds:g} s"

    def _replace(self, slot: Slot, why: str) -> Cut:
        """End what is left of a lost process, and start another in its place."""
        import ray

        node = slot.facts.node if slot.facts is not None else ""
        if slot.handle is not None:
            ray.kill(slot.handle, no_restart=True)
        slot.failures += 1
        self._records[slot.actor].lost += 1
        slot.requests.clear()
        if slot.failures > FAILURES:
            slot.handle = slot.facts = slot.making = slot.sign = None
            self._failure = QhatError(
                f"Actor {slot.actor} was lost {slot.failures} times without a step between: {why}."
            )
        else:
            self._make(slot)
        return Cut(slot.actor, why, node)

    def _require_sound(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _make(self, slot: Slot) -> None:
        slot.incarnation += 1
        slot.expected = slot.steps = 0
        slot.facts, slot.sign, slot.since = None, None, time.monotonic()
        args = dataclasses.replace(self._args, seeds=(int(self._numbers.integers(2**62)),))
        name = f"{self._name}#{slot.actor}.{slot.incarnation}"
        kind = self._kind.options(name=name, namespace=NAMESPACE)
        slot.handle = kind.remote(Place(slot.actor, slot.incarnation, self._build, args))
        slot.making = slot.handle.facts.remote()
