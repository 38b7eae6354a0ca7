"""Choosing actions for an `Agent`: for one robot or a batch of robots, each with its exploration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from qhat.agent.learning import Acting
from qhat.agent.recalls import Recalls
from qhat.agent.shared_memory import same_memory, share_memory
from qhat.agent.stream_names import MOST_STREAMS, Stream, read_stream
from qhat.axes.axis import defines
from qhat.axes.explore import chooses_one
from qhat.axes.greedy import best
from qhat.axes.masks import read_mask
from qhat.engine.host_network import HostNetwork
from qhat.engine.iteration import Program
from qhat.engine.recurrent import look
from qhat.engine.state import split
from qhat.system.errors import UsageError, require

MANY_ROBOTS = 16
"""Number of observations from which one call of JAX is faster than NumPy, one by one."""

Value = TypeVar("Value")


class Actor:
    """Chooses actions, and remembers for each stream its last observation and its state of exploration.

    Args:
        host: the network in NumPy, where it is fast.
        learner_of: returns the learner whose weights act.
        key: root of all random keys.
        states: state of exploration of each stream, with one row.
        acts: calls of `choose` so far.
        drawn: blocks of random numbers that they took.
    """

    def __init__(
        self,
        program: Program,
        host: HostNetwork | None,
        learner_of: Callable[[Acting], Any],
        key: Any,
        states: dict[Stream, Any],
        acts: int,
        drawn: int,
    ):
        self.program, self.states, self.acts, self.drawn = program, states, acts, drawn
        self.lock = threading.Lock()
        self._host, self._key = host, key

        def online(arrays: Any) -> Any:
            return learner_of(Acting(arrays, None)).online

        self._online = online
        explore, dense = program.recipe.explore, program.recipe.dense
        # Noisy layers draw new noise for every action, inside JAX.
        self._in_numpy = host is not None and defines(explore, "decide", "choose")
        self._in_numpy &= dense.noise_size(1, 1) == 0
        seed = np.asarray(jax.random.key_data(key)).ravel()[:2].astype(np.uint64)
        self._random = np.random.Philox(key=seed)
        self._random.advance(drawn)
        self._acted_on: dict[Stream, tuple[Any, np.ndarray]] = {}
        self._successors: dict[Stream, np.ndarray] = {}
        self._fresh = jax.tree.map(np.asarray, program.recipe.explore.init(1, program.actions))
        self._has_state = bool(jax.tree.leaves(self._fresh))
        self._choose = jax.jit(self._pure_choose)
        q_values = program.learner.q_values
        self.is_plain = self._in_numpy and not self._has_state and chooses_one(explore)
        self.is_plain &= program.actions.factors == 1 and not program.masked
        self._value = jax.jit(lambda arrays, observation: q_values(online(arrays), observation))
        every = jax.vmap(program.learner.preferences, (None, 0))
        self._preferred = jax.jit(lambda arrays, observations: every(online(arrays), observations))
        self.recalls = Recalls(program.recipe.memory.units)
        self._recalled = jax.jit(self._pure_look, static_argnums=0)

    def read(
        self, observation: Any, mask: Any, stream: Any, check: Callable[[Any, str], np.ndarray]
    ) -> tuple[bool, list[Stream], np.ndarray, np.ndarray | None]:
        """Read the arguments of `act`: whether they are a batch, and B streams, observations and masks."""
        actions = self.program.actions
        many = isinstance(stream, list | tuple | range | np.ndarray)
        batch = many or _shape(observation)[1:] == self.program.shape
        if not batch:
            names = [read_stream(0 if stream is None else stream)]
            rows, masks = [check(observation, "observation")], [mask]
            given, legal = [observation], [read_mask(mask, actions, "mask")]
        else:
            given = list(observation)
            names = [read_stream(name) for name in (stream if many else range(len(given)))]
            require(
                many or stream is None,
                f"stream is {stream!r} for {len(given)} observations; expected a list of as many.",
            )
            require(
                len(given) > 0 and len(set(names)) == len(names) == len(given),
                f"stream has {len(names)} names, {len(set(names))} of them different, for {len(given)}"
                " observations; expected a different name for each, and at least one.",
            )
            rows = [check(each, f"observation {row}") for row, each in enumerate(given)]
            masks = [None] * len(given) if mask is None else list(mask)
            require(
                len(masks) == len(given),
                f"mask has {len(masks)} rows; expected {len(given)}, one for each observation.",
            )
            legal = [read_mask(each, actions, f"mask {row}") for row, each in enumerate(masks)]
        with self.lock:
            for name, each, row in zip(names, given, rows, strict=True):
                _put(self._acted_on, name, (each, row))
        if not self.program.masked and all(each is None for each in legal):
            return batch, names, np.stack(rows) if batch else rows[0][None], None
        every = np.asarray(actions.all_legal)
        return batch, names, np.stack(rows), np.stack([every if each is None else each for each in legal])

    def one(
        self, acting: Acting, given: Any, row: np.ndarray, stream: Stream, steps: int, explore: bool
    ) -> int:
        """Return the choice of one robot with one factor, as `choose` or `greedy` do; only if `is_plain`.

        Args:
            given: the observation as the caller gave it.
            row: the same, as the network takes it.
        """
        with self.lock:
            _put(self._acted_on, stream, (given, row))
            choice = None
            if explore:
                numbers = self._draw(1)[0].tolist()
                choice = self.program.recipe.explore.decide_one(numbers, steps, self.program.actions.width)
                self.acts += 1
            if choice is None:
                assert self._host is not None
                self._host.load(acting.tensors)
                choice = int(self._host.q_values(row).argmax())
        return choice

    def greedy(
        self,
        acting: Acting,
        streams: list[Stream],
        observations: np.ndarray,
        legal: np.ndarray | None,
    ) -> np.ndarray:
        """Return the best legal choices `[B, F]`."""
        with self.lock:
            recall = self.recalls.batch(streams)
            if recall is None:
                return self._greedy(acting, observations, legal)
            q, recall = self._recalled("preferences", acting.learner, observations, recall)
            self.recalls.act(streams, recall)
        return best(np.asarray(q), legal, self.program.learner.network.joint)

    def _greedy(self, acting: Acting, observations: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        if self._host is not None and len(observations) < MANY_ROBOTS:
            self._host.load(acting.tensors)
            return self._host.greedy(observations, legal)
        q = np.asarray(self._preferred(acting.learner, observations))
        return best(q, legal, self.program.learner.network.joint)

    def choose(
        self,
        acting: Acting,
        streams: list[Stream],
        observations: np.ndarray,
        legal: np.ndarray | None,
        steps: int,
    ) -> np.ndarray:
        """Return choices `[B, F]`, exploring."""
        with self.lock:
            states = [self.states.get(stream, self._fresh) for stream in streams]
            # Most often there is one robot, and nothing to concatenate.
            state = states[0] if len(states) == 1 else _concatenated(states)
            if self._in_numpy:
                greedy = self._greedy(acting, observations, legal)
                bits = self._draw(len(streams))
                explore, actions = self.program.recipe.explore, self.program.actions
                state, choices = explore.decide(state, greedy, bits, steps, actions, legal, np)
                if self._has_state:
                    state = jax.tree.map(lambda new, old: new.astype(old.dtype), state, self._fresh)
            else:
                arrays, counts = acting.learner, (np.int32(self.acts), np.int32(steps))
                given = (arrays, state, self._key, observations, legal, *counts)
                state, choices, recall = self._choose(*given, self.recalls.batch(streams))
                self.recalls.act(streams, recall)
            self.acts += 1
            if self._has_state:
                state = jax.tree.map(np.asarray, state)
                for row, stream in enumerate(streams):
                    _put(
                        self.states, stream, jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], state)
                    )
        return np.asarray(choices)

    def values(self, acting: Acting, observation: np.ndarray, stream: Stream = 0) -> np.ndarray:
        """Return Q `[F, C]` of one observation, which a stream would see next."""
        if (recall := self.recalls.batch([stream])) is not None:
            return np.asarray(self._recalled("q_values", acting.learner, observation[None], recall)[0][0])
        if self._host is None:
            return np.asarray(self._value(acting.learner, observation))
        with self.lock:
            self._host.load(acting.tensors)
            return self._host.q_values(observation)

    def _draw(self, robots: int) -> np.ndarray:
        """Draw random numbers of 32 bits, `[B, numbers]`."""
        numbers = robots * self.program.recipe.explore.random_numbers(self.program.actions)
        # The generator draws blocks of 4 numbers of 64 bits.
        blocks = -(-numbers // 8)
        self.drawn += blocks
        drawn = self._random.random_raw(4 * blocks).view(np.uint32)  # pyright: ignore[reportAttributeAccessIssue]
        return drawn[:numbers].reshape(robots, -1)

    def stacked(self) -> tuple[list[Stream], Any]:
        """Return the streams that have a state of exploration, and these states as one batch."""
        names = list(self.states)
        states = list(self.states.values()) or [self._fresh]
        return names, _concatenated(states)

    def warmup(self, acting: Acting, batch: int) -> None:
        """Compile `choose` and `greedy` for `batch` robots. No state changes."""
        arrays = acting.learner
        observations = np.zeros((batch, *self.program.shape), self.program.dtype)
        every = np.asarray(self.program.actions.all_legal)
        legal = np.broadcast_to(every, (batch, *every.shape)) if self.program.masked else None
        state = jax.tree.map(lambda leaf: np.repeat(leaf, batch, axis=0), self._fresh)
        counts = (np.int32(0), np.int32(0))
        if not self._in_numpy:
            recall = self.recalls.batch(range(batch))
            given = (arrays, state, self._key, observations, legal, *counts)
            jax.block_until_ready(self._choose(*given, recall))
        if self.recalls.units:
            given = (arrays, observations, self.recalls.batch(range(batch)))
            jax.block_until_ready(self._recalled("preferences", *given))
        else:
            self.greedy(acting, [], observations, legal)

    def forget(self, stream: Stream) -> None:
        """Forget the last observations of a stream, whose episode was cut."""
        self._acted_on.pop(stream, None)
        self._successors.pop(stream, None)
        with self.lock:
            self.recalls.forget(stream)

    def require_one(self, acting: Acting, stream: Stream, observation: np.ndarray) -> None:
        """Make sure that the memory is one step beyond the observation that is remembered.

        Where nobody acted on it, as a person drove the robot, it is looked at now.

        Raises:
            UsageError: several calls of `act` came before.
        """
        if not self.recalls.units:
            return
        with self.lock:
            if not self.recalls.require_one(stream):
                recall = self.recalls.batch([stream])
                recall = self._recalled("preferences", acting.learner, observation[None], recall)[1]
                self.recalls.act([stream], recall, looks=False)

    def before(
        self, stream: Stream, given: tuple[Any, Any], observation: np.ndarray, after: np.ndarray
    ) -> np.ndarray:
        """Return the observation of a step, also where the environment wrote its successor over it.

        Then it is the copy that `act` made.

        Args:
            given: both observations, as the caller gave them.
            observation: the first one as it reads now.
            after: its successor.

        Raises:
            UsageError: both share memory, and `act` was not called with it since the last step. A row of a
                table, to which the last step led, is no such case.
        """
        acted_on, last = self._acted_on.pop(stream, None), self._successors.get(stream)
        if not share_memory(*given):
            before = observation
        elif acted_on is not None and same_memory(acted_on[0], given[0]):
            before = acted_on[1]
        elif last is not None and np.array_equal(last, observation):
            before = observation
        else:
            raise UsageError(
                "observation and next_observation share their memory, so what was observed before the step"
                " is lost; expected two arrays. Call .copy() on what reset and step return, or act on each"
                " observation before the step. Nothing was stored."
            )
        with self.lock:
            _put(self._successors, stream, np.array(after))
        return before

    def _pure_look(self, name: str, arrays: Any, observations: Any, recall: Any) -> tuple[Any, Any]:
        learner = self.program.learner
        return look(learner, getattr(learner, name), self._online(arrays), observations, None, recall)

    def _pure_choose(
        self,
        arrays: Any,
        state: Any,
        key: Any,
        observations: Any,
        legal: Any,
        acts: Any,
        steps: Any,
        recall: Any,
    ) -> tuple[Any, Any, Any]:
        keys = split(jax.random.fold_in(key, acts), "explore", "noise", "learn")
        online = self._online(arrays)
        greedy, recall = self.program.learner.greedy(online, observations, keys["noise"], legal, recall)
        explore, actions = self.program.recipe.explore, self.program.actions
        return *explore.choose(state, greedy, keys["explore"], steps, actions, legal), recall


def row_of(states: Any, row: int) -> Any:
    """Return one row of a batch of states of exploration."""
    return jax.tree.map(lambda leaf: leaf[row : row + 1], states)


def _concatenated(states: list[Any]) -> Any:
    return jax.tree.map(lambda *rows: np.concatenate(rows), *states)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array or a list; `()` for anything else, as a tuple may be one observation."""
    if isinstance(value, list):
        try:
            return np.shape(value)
        except ValueError:
            return ()
    shape = getattr(value, "shape", ())
    return tuple(shape) if len(shape) else ()


def _put(streams: dict[Stream, Value], stream: Stream, value: Value) -> None:
    """Set the value of a stream. With too many streams, forget the one that was set first."""
    streams.pop(stream, None)
    streams[stream] = value
    if len(streams) > MOST_STREAMS:
        streams.pop(next(iter(streams)))
