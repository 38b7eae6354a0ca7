"""An actor: a process with copies of the environment, which acts in NumPy and sends blocks of steps.

It imports no JAX, and has nothing that matters: whatever it does not send is lost with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.explore import Explore, chooses_one
from qhat.cluster.blocks import REAL, Block, Recorder
from qhat.engine.numpy_network import NumpyNetwork, Plan
from qhat.environments.base import Spec
from qhat.environments.finite import sound
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.evaluation.outcomes import Played
from qhat.system.errors import QhatError, described

Build = Callable[[MakeArgs], GymnasiumEnvironment]
"""Makes the copies of an environment, on a node."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What an actor is: the copies that it steps, and their random numbers."""

    actor: int
    incarnation: int
    build: Build
    args: MakeArgs


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How all actors choose actions; the weights come with every request."""

    plan: Plan
    explore: Explore
    """The recipe's; each actor has its own share of exploration (`Explore.for_actor`)."""
    actors: int
    state: Any
    """Of the exploration of an actor's copies, before the first step."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an actor says of itself when it has its environment."""

    node: str
    process: int
    spec: Spec
    logs: tuple[str, ...]


class Actor:
    """Steps K copies. Made by Ray, in a process of its node."""

    def __init__(self, place: Place):
        self._place = place
        self._environment: GymnasiumEnvironment | None = None
        self._behaviour: Behaviour | None = None
        self._sent = self._steps = 0

    def facts(self) -> Facts:
        """Make the environment, and say what it is. Raises `QhatError`, with the node's name."""
        try:
            self._environment = environment = self._place.build(self._place.args)
            self._observation = environment.start()[0]
        except Exception as error:
            said = error.sentence if isinstance(error, QhatError) else described(error)
            raise QhatError(f"On node {platform.node()}: {said}") from error
        legal = environment.legal()
        self._legal = None if legal is None else legal[0]
        self._random = np.random.default_rng([self._place.args.seeds[0], self._place.actor])
        return Facts(platform.node(), os.getpid(), environment.spec, environment.logs)

    def rollout(
        self, behaviour: Behaviour, weights: np.ndarray, version: int, rows: int, step: int
    ) -> Block:
        """Do `rows` steps of every copy.

        Args:
            weights: of the plan's network, joined to one vector.
            version: gradient updates that they had.
            step: environment steps that the learner has stored.
        """
        began, environment = time.perf_counter(), self._environment
        assert environment is not None, "facts makes it"
        if self._behaviour is None:
            self._prepare(behaviour)
        if version != self._version:
            self._network.load(weights)
            self._version = version
        recorder = Recorder(self._observation, self._legal, environment.spec.stack)
        drawn = self._random.integers(0, 2**32, (rows, *self._numbers), np.uint32)
        for bits in drawn:
            action = self._choose(environment.spec.actions, bits, step)
            environment.send(action[None])
            now = environment.receive_rows()
            recorder.add(action, now)
            self._observation, self._legal = now.observation, now.legal
        arrays, number, place = recorder.arrays(), self._sent, self._place
        steps = int(np.count_nonzero(arrays["flags"] & REAL))
        self._sent, self._steps = number + 1, self._steps + steps
        seconds = time.perf_counter() - began
        return Block(place.actor, place.incarnation, number, version, steps, seconds, arrays)

    def play(self, behaviour: Behaviour, weights: np.ndarray, numbers: list[int], longest: int) -> Played:
        """Play a greedy episode for each of `numbers`, in environments that they seed.

        Args:
            longest: steps after which an episode is cut.

        Returns:
            leaves `[1, len(numbers)]`.
        """
        network = NumpyNetwork(behaviour.plan)
        network.load(weights)
        args = dataclasses.replace(self._place.args, num_envs=len(numbers), vector="sync")
        environment = self._place.build(args)
        try:
            with leaving_where_it_hangs(args.seconds) as alive:
                return _play(environment, network, numbers, longest, alive)
        finally:
            environment.close()

    def totals(self) -> tuple[int, int]:
        """Return how many blocks and steps were sent."""
        return self._sent, self._steps

    def _prepare(self, behaviour: Behaviour) -> None:
        self._behaviour, self._version = behaviour, -1
        self._network = NumpyNetwork(behaviour.plan)
        self._explore = behaviour.explore.for_actor(self._place.actor, behaviour.actors)
        self._exploration = behaviour.state
        environment, explore = self._environment, self._explore
        assert environment is not None, "facts makes it"
        actions, copies = environment.spec.actions, len(self._observation)
        self._numbers = (copies, explore.random_numbers(actions))
        has_state = isinstance(behaviour.state, np.ndarray) or bool(behaviour.state)
        self._is_plain = copies == actions.factors == 1 and not has_state and self._legal is None
        self._is_plain &= chooses_one(explore)

    def _choose(self, actions: Actions, bits: np.ndarray, step: int) -> np.ndarray:
        """Return the choices `[K, F]`, by as many random numbers as `decide` takes."""
        if self._is_plain:
            choice = self._explore.decide_one(bits[0].tolist(), step, actions.width)
            if choice is None:
                choice = int(self._network.q_values(self._observation[0]).argmax())
            return np.array([[choice]], np.int32)
        greedy = self._network.greedy(self._observation, self._legal)
        state = self._exploration
        self._exploration, choices = self._explore.decide(
            state, greedy, bits, step, actions, self._legal, np
        )
        return np.asarray(choices, np.int32)


@contextlib.contextmanager
def leaving_where_it_hangs(seconds: float) -> Iterator[Callable[[], None]]:
    """End this process where nothing calls the function for so long: the learner gets it as a lost one."""
    latest, over = [time.monotonic()], threading.Event()

    def watch() -> None:
        while not over.wait(min(seconds / 4, 1.0)):
            if time.monotonic() - latest[0] > seconds:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield lambda: latest.__setitem__(0, time.monotonic())
    finally:
        over.set()


def _play(
    environment: GymnasiumEnvironment,
    network: NumpyNetwork,
    numbers: list[int],
    longest: int,
    alive: Callable[[], None],
) -> Played:
    """Play until every copy's first episode is over; say after every step that it goes on."""
    spec, observation = environment.spec, environment.begin(numbers)
    legal, playing, turn = environment.legal(), np.ones((1, len(numbers)), bool), 0
    kept, before = Played.nothing(playing.shape, spec.actions.factors, np), None
    while playing.any() and turn < longest:
        action = network.greedy(observation[0], None if legal is None else legal[0])[None]
        environment.send(action)
        now = sound(environment.receive(), np, spec.layout)
        kept = kept.add(now, playing, action, action if before is None else before, spec.actions, np)
        playing = playing & ~now.closed
        observation, legal, before, turn = now.observation, now.legal, action, turn + 1
        alive()
    return kept.ended(playing)
