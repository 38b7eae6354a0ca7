"""N actors around one learner, simulated event by event from measured costs (`cluster_model.py`).

The learner's loop is that of `qhat/cluster/session.py`, and the policy of requests that of
`qhat/cluster/crew.py`; their constants are read there. The simulation replaces only what takes time.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq

from cluster_terms import LEARNER, Costs, Outcome, Place, Policy
from qhat.cluster import crew

WARMUP, CALLS = 2.0, 20
"""Simulated seconds before counting begins, and calls before it and while it lasts, at least."""


@dataclasses.dataclass
class _Waiting:
    actor: int
    rows: int


class _Learner:
    """The loop of the learner; all times are simulated."""

    def __init__(self, costs: Costs, actors: int, policy: Policy, place: Place, slowdown: float):
        self.costs, self.N, self.policy, self.place, self.slow = costs, actors, policy, place, slowdown
        self.now = self.network_free = 0.0
        self.version = self.updates = self.carry = self.waiting = 0
        self.asked = [0] * actors
        """Requests that every actor has."""
        self.rows_asked = 0
        self.rate = [0.0] * actors
        self.free = [0.0] * actors
        self.working: list[tuple[float, int, int, int, float]] = []
        """Blocks in work: when they end, actor, rows, version of the weights, seconds."""
        self.arriving: list[tuple[float, int, int, int, float]] = []
        self.queue: collections.deque[_Waiting] = collections.deque()
        self.turn = self.published = 0.0
        row = costs.packed_bytes
        self.depth = int(min(max(policy.call_bytes // max(row, 1), 4), policy.depth))
        self.spent = dict.fromkeys(LEARNER, 0.0)
        self.stored = self.blocks = self.rows = self.iterations = self.calls = self.places = 0
        self.worked = self.cores = self.bytes = self.stale = 0.0
        self.stale_most = 0

    def restart_counts(self) -> None:
        """Count from now on."""
        self.spent = dict.fromkeys(LEARNER, 0.0)
        self.stored = self.blocks = self.rows = self.calls = self.places = 0
        self.worked = self.cores = self.bytes = self.stale = 0.0
        self.stale_most = 0

    def spend(self, part: str, seconds: float) -> None:
        seconds *= self.slow
        self.spent[part] += seconds
        self.cores += seconds / self.slow
        self.now += seconds

    def request(self) -> None:
        """As `Crew.request`."""
        policy, costs = self.policy, self.costs
        most = max(policy.underway, crew.STEPS_OF_A_COPY * self.N)
        room = most - self.waiting - self.rows_asked
        longest = max(1, most // (policy.in_flight * self.N))
        for depth in range(policy.in_flight):
            for actor in range(self.N):
                if self.asked[actor] > depth:
                    continue
                rows = int(min(max(self.rate[actor] * policy.seconds, 1), longest, policy.most_rows))
                if room < rows:
                    return
                self.spend("submit", costs.submit)
                start = max(self.now + costs.travel * self.slow, self.free[actor])
                seconds = rows * (costs.wait + costs.work * self.slow) + costs.block * self.slow
                self.free[actor] = start + seconds
                heapq.heappush(self.working, (start + seconds, actor, rows, self.version, seconds))
                self.asked[actor] += 1
                self.rows_asked += rows
                room -= rows

    def travel(self, until: float) -> None:
        """Move what actors finished over the network, first come first served."""
        costs = self.costs
        while self.working and self.working[0][0] <= until:
            end, actor, rows, version, seconds = heapq.heappop(self.working)
            size = costs.block_bytes + rows * costs.row_bytes
            self.network_free = max(self.network_free, end) + size / self.place.bandwidth
            self.bytes += size
            self.worked += seconds
            self.cores += rows * costs.work + costs.block + costs.around
            heapq.heappush(
                self.arriving,
                (self.network_free + costs.travel * self.slow, actor, rows, version, seconds),
            )

    def poll(self, patience: float) -> None:
        """As `Crew.poll`: take the oldest block of each actor, of those that came."""
        costs = self.costs
        self.spend("poll", costs.poll + costs.poll_slot * self.N)
        self.travel(self.now)
        if not (self.arriving and self.arriving[0][0] <= self.now):
            limit = self.now + patience
            while self.working and (
                not self.arriving or self.arriving[0][0] > max(self.working[0][0], self.now)
            ):
                if self.working[0][0] > limit:
                    break
                self.travel(self.working[0][0])
            first = self.arriving[0][0] if self.arriving else limit
            self.now = min(max(first, self.now), limit)
            self.travel(self.now)
        taken: set[int] = set()
        later = []
        while self.arriving and self.arriving[0][0] <= self.now:
            found = heapq.heappop(self.arriving)
            if found[1] in taken:
                later.append(found)
                continue
            taken.add(found[1])
            self.receive(*found[1:])
        for each in later:
            heapq.heappush(self.arriving, each)

    def receive(self, actor: int, rows: int, version: int, seconds: float) -> None:
        costs = self.costs
        self.spend("get", costs.get + costs.get_byte * (costs.block_bytes + rows * costs.row_bytes))
        self.spend("read", costs.read + costs.read_row * rows)
        self.asked[actor] -= 1
        self.rows_asked -= rows
        rate = rows / seconds
        self.rate[actor] = rate if not self.rate[actor] else 0.5 * (self.rate[actor] + rate)
        self.queue.append(_Waiting(actor, rows))
        self.waiting += rows
        self.blocks, self.rows = self.blocks + 1, self.rows + rows
        self.stale += self.version - version
        self.stale_most = max(self.stale_most, self.version - version)

    def take(self, most: int) -> tuple[int, int, int]:
        """As `Queue.take`: return the depth and the steps of what was packed, and of how many blocks."""
        filled: dict[int, int] = {}
        later: collections.deque[_Waiting] = collections.deque()
        steps = blocks = 0
        while self.queue and steps < most:
            waiting = self.queue.popleft()
            blocks += 1
            first = filled.get(waiting.actor, 0)
            count = min(waiting.rows, self.depth - first, most - steps)
            steps += count
            waiting.rows -= count
            filled[waiting.actor] = first + count
            if waiting.rows:
                later.append(waiting)
                filled[waiting.actor] = self.depth
        self.queue.extendleft(reversed(later))
        self.waiting -= steps
        return min(max(filled.values()), self.depth), steps, blocks

    def step(self) -> None:
        """One turn of the loop in `Session.advance`."""
        costs, N, policy = self.costs, self.N, self.policy
        self.poll(0.0 if self.carry + self.waiting >= N else policy.patience)
        self.request()
        if self.carry + self.waiting < N:
            return
        pace = 1 if not self.turn else int(min(max(policy.call / self.turn, 1), self.depth))
        size = self.depth * N * costs.packed_bytes
        depth, steps, blocks = self.take(max(pace * N - self.carry, 1))
        self.spend("take", costs.take + costs.take_byte * size)
        self.spend("take", costs.take_block * blocks + costs.take_full * costs.packed_bytes * steps)
        turns = (self.carry + steps) // N
        began = self.now
        self.spend("store", costs.call + costs.call_byte * size)
        self.spend("store", depth * (costs.store + costs.store_lane * N))
        self.iterations += turns
        due = int(self.iterations * N * costs.replay_ratio)
        self.spend("update", (due - self.updates) * costs.update)
        self.updates = due
        self.spend("log", costs.log + costs.log_step * steps)
        self.carry += steps - turns * N
        self.stored, self.places = self.stored + steps, self.places + depth * N
        if turns:
            self.calls += 1
            each = (self.now - began) / turns
            self.turn = each if not self.turn else 0.8 * self.turn + 0.2 * each
        if self.now - self.published > policy.publish:
            self.spend("publish", costs.publish)
            self.bytes += costs.weight_bytes * min(self.place.nodes, N)
            self.version, self.published = self.updates, self.now


def _simulated(
    costs: Costs, actors: int, seconds: float, place: Place, policy: Policy, slowdown: float
) -> tuple[Outcome, float]:
    """Return what happened, and the cores that it would take at full speed."""
    learner = _Learner(costs, actors, policy, place, slowdown)
    learner.request()
    # Slow learners get all steps that may be underway first.
    most = max(policy.underway, crew.STEPS_OF_A_COPY * actors)
    warm = max(WARMUP, 1.5 * most * (costs.wait + costs.work) / actors)
    while learner.now < warm or learner.calls < CALLS:
        learner.step()
    learner.restart_counts()
    start = learner.now
    while learner.now < start + seconds or learner.calls < CALLS:
        learner.step()
    span = learner.now - start
    rate = learner.stored / span
    outcome = Outcome(
        actors,
        rate,
        rate * (costs.wait + costs.work) / actors,
        learner.rows / max(learner.blocks, 1),
        learner.blocks / span,
        learner.stale / max(learner.blocks, 1),
        learner.stale_most,
        learner.worked / span / actors,
        sum(learner.spent.values()) / span,
        learner.stored / max(learner.places, 1),
        learner.bytes / span / place.bandwidth,
        slowdown,
        {part: spent / span for part, spent in learner.spent.items()},
    )
    return outcome, learner.cores / span + costs.idle


def simulate(
    costs: Costs,
    actors: int,
    seconds: float = 8.0,
    place: Place | None = None,
    policy: Policy | None = None,
) -> Outcome:
    """Return what N actors and their learner do in steady state.

    Where they share too few cores, everything that needs a core takes longer by one factor, which is
    searched for: then the cores suffice exactly.
    """
    place, policy = place or Place(), policy or Policy()
    outcome, cores = _simulated(costs, actors, seconds, place, policy, 1.0)
    if cores <= place.cores:
        return outcome
    low, high = 1.0, 64.0
    for _ in range(9):
        middle = (low * high) ** 0.5
        outcome, cores = _simulated(costs, actors, seconds, place, policy, middle)
        low, high = (middle, high) if cores > place.cores else (low, middle)
    return outcome
