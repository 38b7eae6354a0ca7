"""What the parts of a run with actors cost on this machine, measured with qhat's functions.

`cluster_model.py --measure` calls it, each case in a process.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cluster_terms import Costs
from qhat import recipes
from qhat.axes.torso import Nature
from qhat.cluster.actor import Actor, Behaviour, Place
from qhat.cluster.blocks import Block, read
from qhat.cluster.crew import Crew
from qhat.cluster.loop import ActorLoop
from qhat.cluster.queue import Queue, empty
from qhat.cluster.slots import Request, Slot
from qhat.engine.iteration import Program
from qhat.environments.gymnasium.on_node import by_id
from qhat.environments.make_args import MakeArgs
from qhat.environments.wrappers import FrameStack
from qhat.recipes.recipe import Recipe

ENV = "gym:cluster_env:Waiting-v0"
HERE = Path(__file__).resolve().parent
ROWS = (4, 32)
"""Rows of the two blocks that each pair of costs is fitted to."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of environment, and what learns from it."""

    name: str
    about: str
    kind: str
    wait: float
    """Seconds of a step in which no core is busy."""
    work: float
    """Core seconds of the simulator itself in a step."""
    recipe: Recipe
    lanes: tuple[int, int]
    """Numbers of actors for which the learner's costs are measured."""
    stack: int = 1


_FRAMES = dataclasses.replace(
    recipes.get("dqn"), torso=Nature(), hidden=(512,), batch_size=32, replay_ratio=0.25,
    replay_capacity=20_000, learning_starts=100,
)  # fmt: skip
CASES = (
    Case(
        "small", "a 5 ms simulator with 8 floats, recipe qhat", "small", 0.005, 0.0,
        dataclasses.replace(recipes.get("qhat"), learning_starts=100), (8, 128),
    ),
    Case(
        "robot", "a 33 ms robot simulator with 60 floats and 6 joints, recipe decqn", "robot", 0.033, 0.0,
        dataclasses.replace(recipes.get("decqn"), learning_starts=100), (8, 128),
    ),
    Case(
        "frames", "Atari frames of 84×84 in a stack of 4, dqn with the Nature network", "frames", 0.0,
        0.001, _FRAMES, (4, 16), 4,
    ),
)  # fmt: skip


class _NoCrew:
    """Stands in for the actors, where only the learner is measured."""

    def __init__(self, actors: int):
        self.slots = [Slot(actor) for actor in range(actors)]
        self.version = 0

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour


class _Stand:
    """Stands in for `ActorEnvironment`."""

    def __init__(self, case: Case, actors: int):
        self.environment = by_id(ENV, arguments(case))
        self.spec, self.logs = self.environment.spec, self.environment.logs
        self.crew, self.num_envs, self.copies = _NoCrew(actors), actors, 1
        self.stored = self.left_out = self.waiting = 0


def arguments(case: Case, seconds: float = 0.0) -> MakeArgs:
    """Return how an actor makes the environment of a case."""
    options = {"kind": case.kind, "seconds": seconds}
    wrap = (FrameStack(case.stack),) if case.stack > 1 else ()
    return MakeArgs(1, (1,), options=options, wrap=wrap, bins=case.recipe.bins)


def seconds_of(function: Callable[[], Any], repeat: int = 15) -> float:
    """Return the shortest time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def line(low: tuple[float, float], high: tuple[float, float]) -> tuple[float, float]:
    """Return what is fixed and what each unit adds, from two pairs of units and seconds."""
    each = max((high[1] - low[1]) / (high[0] - low[0]), 0.0)
    return max(low[1] - each * low[0], 0.0), each


def measure(case: Case) -> Costs:
    """Return the costs of a case."""
    found: dict[str, float] = {}
    learners = [_learner(case, lanes) for lanes in case.lanes]
    (few, many), (low, high) = case.lanes, learners
    found["call"], found["call_byte"] = line((low["packed"], low["call"]), (high["packed"], high["call"]))
    found["take"], found["take_byte"] = line((low["packed"], low["take"]), (high["packed"], high["take"]))
    found["take_block"] = statistics.mean((low["take_block"], high["take_block"]))
    found["take_full"] = statistics.mean((low["take_full"], high["take_full"]))
    found["store"], found["store_lane"] = line((few, low["store"]), (many, high["store"]))
    found["update"] = statistics.mean((low["update"], high["update"]))
    found["log"], found["log_step"] = line((low["logged"], low["log"]), (high["logged"], high["log"]))
    found["packed_bytes"] = low["packed_bytes"]
    behaviour, weights = low["behaviour"], low["weights"]
    blocks = _actor(case, behaviour, weights, found)
    times = [seconds_of(functools.partial(read, block, case.stack)) for block in blocks]
    found["read"], found["read_row"] = line(*zip(ROWS, times, strict=True))
    sizes = [float(len(pickle.dumps(block, 5))) for block in blocks]
    found["block_bytes"], found["row_bytes"] = line(*zip(ROWS, sizes, strict=True))
    found["weight_bytes"] = float(weights.nbytes)
    _ray(case, behaviour, weights, low["weigh"], found)
    found |= {"wait": case.wait, "replay_ratio": case.recipe.replay_ratio}
    return Costs(**found)


def _learner(case: Case, lanes: int) -> dict[str, Any]:
    """Time the learner's parts with a number of actors."""
    import jax

    stand = _Stand(case, lanes)
    recipe = dataclasses.replace(case.recipe, num_envs=lanes)
    spec = stand.spec
    recipe = recipe.fitted(spec.shape, spec.layout)
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, stack=spec.stack, layout=spec.layout)
    loop = ActorLoop(program, stand)  # type: ignore[arg-type]
    state = loop.init(jax.random.split(jax.random.key(0), 1))
    session: Any = loop.compile(1, state).call.__self__  # type: ignore[attr-defined]
    like, depth = loop._like(), session._depth
    rows, few = (_rows(case, like, count) for count in (depth, 1))
    queue = Queue(lanes, 1, depth, like)
    for actor in range(lanes):
        queue.add(actor, rows)
    packed = queue.take(depth * lanes)
    assert packed is not None
    data = dict(packed.rows.leaves())

    def take(count: int) -> Any:
        for actor in range(lanes):
            queue.add(actor, few if count == 1 else rows)
        return queue.take(count * lanes)

    def call(state: Any, data: Any, stored: int, turns: int) -> tuple[Any, tuple, Any]:
        done = session._call(state, data, np.int32(stored), np.int32(turns))
        return jax.block_until_ready(done)

    turns = 4
    for _ in range(case.recipe.first_update // (turns * lanes) + 2):
        state, logs, metrics = call(state, data, depth, turns)
    times: dict[int, list[float]] = {}
    for _ in range(12):
        # What a call has is new, and mostly memory that nothing wrote to.
        fresh = dict(take(1).rows.leaves())
        for which, what in enumerate(((1, 0), (1, turns), (1, 0), (depth, 0))):
            start = time.perf_counter()
            state, logs, metrics = call(state, fresh if which < 2 else data, *what)
            times.setdefault(which, []).append(time.perf_counter() - start)
    base, learned, short, long = (min(each) for each in times.values())
    each = max((long - short) / (depth - 1), 0.0)
    updates = turns * lanes * recipe.replay_ratio
    state, logs, metrics = call(state, data, depth, turns)

    def log() -> None:
        session._keep(logs, packed, False)
        session._log(depth, metrics)

    weights = np.asarray(session._weights(state.seeds.learner.online))
    one, all_ = (seconds_of(functools.partial(take, count)) for count in (1, depth))
    size = float(sum(value.nbytes for value in data.values()))
    return {
        "packed": size, "packed_bytes": size / depth / lanes, "call": max(base - each, 0.0),
        "store": each, "update": max(learned - base, 0.0) / updates, "log": seconds_of(log),
        "logged": float(depth * lanes), "take": seconds_of(queue._empty),
        "take_block": max(one - seconds_of(queue._empty), 0.0) / lanes,
        "take_full": max(all_ - one, 0.0) / (size - size / depth),
        "behaviour": stand.crew.behaviour, "weights": weights,
        "weigh": seconds_of(lambda: np.asarray(session._weights(state.seeds.learner.online))),
    }  # fmt: skip


def _rows(case: Case, like: Any, depth: int) -> Any:
    """Rows of one actor, as a call has at most."""
    rows = empty(like, depth, 1)
    rows.numbers[:, 3] = 1
    drawn = np.random.default_rng(0)
    observation = rows.observation
    values = drawn.integers(0, 256, observation.shape) if case.kind == "frames" else drawn.normal(
        size=observation.shape
    )  # fmt: skip
    observation[...] = values
    return rows


def _actor(case: Case, behaviour: Behaviour, weights: np.ndarray, found: dict[str, float]) -> list[Block]:
    """Time an actor in this process; return a block of each size."""
    actor = Actor(Place(0, 0, functools.partial(by_id, ENV), arguments(case)))
    actor.facts()
    blocks, times = [], []
    for rows in ROWS:
        measured = [actor.rollout(behaviour, weights, version, rows, 0) for version in range(15)]
        blocks.append(measured[-1])
        times.append(min(block.seconds for block in measured[1:]))
    found["block"], work = line(*zip(ROWS, times, strict=True))
    found["work"] = (_after_waits(case, behaviour, weights) if case.wait else work) + case.work
    return blocks


def _after_waits(case: Case, behaviour: Behaviour, weights: np.ndarray) -> float:
    """Return the core seconds of a step that comes after a wait, when little of it is in the caches."""
    arranged = arguments(case, case.wait)
    actor = Actor(Place(0, 0, functools.partial(by_id, ENV), arranged))
    actor.facts()
    actor.rollout(behaviour, weights, 0, ROWS[1], 0)
    before, rows = time.process_time(), 200
    actor.rollout(behaviour, weights, 0, rows, 0)
    return (time.process_time() - before) / rows


def _ray(
    case: Case, behaviour: Behaviour, weights: np.ndarray, weigh: float, found: dict[str, float]
) -> None:  # fmt: skip
    """Time Ray's calls, with the block's real actor on a cluster of this machine."""
    import psutil
    import ray

    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        kind: Any = ray.remote(num_cpus=0, max_restarts=0)(Actor)
        place = functools.partial(by_id, ENV)
        handles = [kind.remote(Place(at, 0, place, arguments(case))) for at in range(2)]
        ray.get([handle.facts.remote() for handle in handles])
        shared, ref = ray.put(behaviour), ray.put(weights)
        found["publish"] = weigh + seconds_of(lambda: ray.put(weights))
        ray.get([handle.rollout.remote(shared, ref, 0, 4, 0) for handle in handles for _ in range(10)])
        gets, travels, submits = [], [], []
        for rows in ROWS:
            took: list[tuple[float, float, float]] = []
            for _ in range(40):
                start = time.perf_counter()
                asked = handles[0].rollout.remote(shared, ref, 0, rows, 0)
                sent = time.perf_counter()
                ray.wait([asked], timeout=None)
                ready = time.perf_counter()
                block: Any = ray.get(asked)
                done = time.perf_counter()
                took.append((sent - start, ready - sent - block.seconds, done - ready))
            submit, travel, get = (statistics.median(each) for each in zip(*took, strict=True))
            submits.append(submit)
            travels.append(travel)
            gets.append(get)
        found["submit"] = statistics.mean(submits)
        found["travel"] = max(travels[0] / 2, 0.0)
        sizes = [found["block_bytes"] + rows * found["row_bytes"] for rows in ROWS]
        found["get"], found["get_byte"] = line(*zip(sizes, gets, strict=True))
        others = psutil.Process().children(recursive=True)
        found["idle"] = _cores(others, lambda: time.sleep(2.0))[0] / 2.0
        worked: list[Any] = []

        def rolled() -> None:
            for _ in range(20):
                asked = [
                    handle.rollout.remote(shared, ref, 0, 4, 0) for handle in handles for _ in range(5)
                ]
                worked.extend(ray.get(asked))

        cores, seconds = _cores(others, rolled)
        found["around"] = max(
            cores - found["idle"] * seconds - sum(block.seconds for block in worked), 0.0
        ) / len(worked)
        found["poll"], found["poll_slot"] = _polls(handles[1], shared, ref)
    finally:
        ray.shutdown()


def _cores(processes: list[Any], function: Callable[[], Any]) -> tuple[float, float]:
    """Return the core seconds of processes, and the seconds, while a function runs."""

    def total() -> float:
        return sum(times.user + times.system for times in (each.cpu_times() for each in processes))

    before, start = total(), time.perf_counter()
    function()
    return total() - before, time.perf_counter() - start


def _polls(handle: Any, shared: Any, ref: Any) -> tuple[float, float]:
    """Time a look for blocks where none came, with few and with many actors."""
    waiting = handle.rollout.remote(shared, ref, 0, 20_000, 0)
    refs = [waiting, *(handle.totals.remote() for _ in range(255))]
    times = []
    for count in (8, 256):
        crew = Crew.__new__(Crew)
        crew._failure = None
        crew._seconds, crew.slots, crew.cuts, now = 1e9, [], [], time.monotonic()
        for at, each in enumerate(refs[:count]):
            slot = Slot(at, since=now)
            slot.requests.append(Request(each, 1))
            crew.slots.append(slot)
        times.append(seconds_of(lambda crew=crew: crew.poll(0.0), 50))
    return line((8, times[0]), (256, times[1]))
