"""Terms of the model in `cluster_simulation.py`: what things cost, where they run, and what came of it."""

from __future__ import annotations

import dataclasses

from qhat.cluster import crew, loop, session

BUSY = 0.9
"""Share of its time from which on a part counts as full."""
LEARNER = {
    "submit": "Ray: requests", "poll": "Ray: waiting for blocks", "get": "Ray: getting blocks",
    "read": "reading blocks", "take": "packing rows", "store": "storing rows",
    "update": "gradient updates", "log": "logging steps", "publish": "publishing weights",
}  # fmt: skip
"""What the learner does, and what its share of the time is called."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What takes time. Seconds and bytes; of one copy of the environment in every actor."""

    wait: float
    """Of a simulator's step, in which no core is busy."""
    work: float
    """Core seconds of an actor for a step besides: simulator, network, exploration, recorder."""
    block: float
    """Core seconds of an actor for a block besides its steps."""
    around: float
    """Core seconds of Ray's other processes for a block."""
    idle: float
    """Cores that Ray's processes use when nothing happens."""
    travel: float
    """From the request to the begin of the work, and from its end to the learner."""
    submit: float
    poll: float
    poll_slot: float
    """Of a look for blocks, for every actor."""
    get: float
    get_byte: float
    read: float
    read_row: float
    take: float
    take_byte: float
    take_block: float
    take_full: float
    """Of packing: for every byte of the arrays, for every block, and more for every byte that has a row."""
    call: float
    call_byte: float
    """Of the compiled call, for every byte of the packed arrays."""
    store: float
    store_lane: float
    """Of storing a row of all actors, and for every actor."""
    update: float
    log: float
    log_step: float
    publish: float
    block_bytes: float
    row_bytes: float
    """Of a block: what each has, and what each row adds."""
    packed_bytes: float
    """Of one row of one actor in the packed arrays."""
    weight_bytes: float
    replay_ratio: float
    """Gradient updates for each environment step."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where it runs."""

    cores: float = float("inf")
    """Cores that actors, learner and Ray share; no limit where every actor has a core on its machine."""
    bandwidth: float = 1.25e9
    """Bytes per second into the learner's machine, and as many out of it."""
    nodes: int = 16
    """Machines with actors: each fetches published weights one time. At most one for each actor."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """The constants of the loop."""

    in_flight: int = crew.IN_FLIGHT
    seconds: float = crew.SECONDS
    underway: int = crew.STEPS_UNDERWAY
    most_rows: int = crew.MOST_ROWS
    depth: int = loop.DEPTH
    call_bytes: float = loop.CALL_BYTES
    call: float = session.CALL
    publish: float = session.PUBLISH
    patience: float = session.PATIENCE


@dataclasses.dataclass
class Outcome:
    """What a simulated run did, per second or as shares of the time."""

    actors: int
    rate: float = 0.0
    """Environment steps per second."""
    efficiency: float = 0.0
    """Of the rate that the actors would have alone."""
    rows: float = 0.0
    """Of a block, the mean."""
    blocks: float = 0.0
    """Per second."""
    staleness: float = 0.0
    staleness_most: float = 0.0
    """Gradient updates between the weights that acted and the newest when a block came."""
    actor_busy: float = 0.0
    learner_busy: float = 0.0
    filled: float = 0.0
    """Share of the places in the stored rows, one for each actor, that have a step."""
    network: float = 0.0
    """Share of the bandwidth."""
    slowdown: float = 1.0
    """Of everything that needs a core, where the cores do not suffice."""
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of the learner's time."""

    @property
    def limit(self) -> str:
        """What saturates."""
        if self.slowdown > 1.02:
            return "cores"
        if self.network > BUSY:
            return "network"
        if self.actor_busy > BUSY:
            return "simulators"
        if self.learner_busy > BUSY:
            return LEARNER[max(self.shares, key=self.shares.__getitem__)]
        return "steps underway"
