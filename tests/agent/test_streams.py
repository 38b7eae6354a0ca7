"""Streams: replay returns the steps of each robot, in whatever order the robots take turns.

Protects against n-step returns that cross streams or cuts, or that end where a sensor was read twice.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat.agent.stream_names import read_names, read_stream
from qhat.agent.streams import Streams
from qhat.agent.waiting_rows import BlockLayout
from qhat.axes.actions import Actions
from qhat.engine.replay import linked
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import NOTHING
from qhat.system.errors import UsageError

ROWS, N, GAMMA = 64, 3, 0.5
ACTIONS = Actions((2,))
LAYOUT = ((2,), "float32", ACTIONS, False)


@functools.partial(jax.jit, static_argnums=2)
def written(ring: replay.Ring, data: Any, size: int) -> replay.Ring:
    return linked.write(ring, BlockLayout(LAYOUT).read(data, size)[0])[0]


@jax.jit
def everything(ring: replay.Ring) -> tuple[Any, Any]:
    window = replay.view(ring, jnp.arange(ROWS), N, GAMMA)
    return window, replay.look_up(ring, jnp.arange(ROWS), window)


def drained(ring: replay.Ring, streams: Streams) -> replay.Ring:
    taken = streams.take()
    if taken is None:
        return ring
    if taken.lost is not None and taken.lost.count:
        ring = linked.merged(ring, taken.lost.count, taken.lost.mean, taken.lost.m2)
    while size := taken.block_size():
        # A copy: a small block is used again, and JAX may still read it.
        ring = written(ring, taken.block(size).bytes.copy(), size)
        taken.advance(size)
    return ring


@dataclasses.dataclass
class Step:
    """A step, as simply as possible."""

    row: int
    before: np.ndarray
    after: np.ndarray
    reward: float
    terminated: bool
    over: bool
    next: "Step | None" = None


class Model:
    """A naive list of all steps of all streams, to compare with."""

    def __init__(self) -> None:
        self.rows, self.steps, self.last = 0, [], {}
        self.observations: list[np.ndarray] = []

    def add(self, stream: int, step: Step) -> None:
        last = self.last.pop(stream, None)
        if last is not None and not np.array_equal(last.after, step.before):
            self._row(last.after)
        step.row = self._row(step.before)
        if last is not None:
            last.next = step
        if step.over:
            self._row(step.after)
        else:
            self.last[stream] = step
        self.steps.append(step)

    def cut(self, stream: int) -> None:
        last = self.last.pop(stream, None)
        if last is not None:
            last.over = True
            self._row(last.after)

    def _row(self, observation: np.ndarray) -> int:
        self.observations.append(observation)
        self.rows += 1
        return self.rows - 1


def n_step(step: Step) -> tuple[float, float, np.ndarray] | None:
    total, discount, now = 0.0, 1.0, step
    for j in range(N):
        total += GAMMA**j * now.reward
        discount *= 0.0 if now.terminated else GAMMA
        if now.over or j == N - 1:
            return total, discount, now.after
        if now.next is None:
            return None
        now = now.next
    return None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(1, 5))
def test_replay_has_the_steps_of_every_stream(seed: int, drains: float, count: int) -> None:
    rng, model = np.random.default_rng(seed), Model()
    ring = linked.linked(replay.Ring.empty(1, ROWS, *LAYOUT[:3], watch=GAMMA, normalise=True))
    streams = Streams(ROWS, *LAYOUT, GAMMA, True)
    streams._size = 8
    now = {stream: rng.normal(size=2).astype(np.float32) for stream in range(count)}
    for number in range(int(rng.integers(1, 250))):
        stream = int(rng.integers(count))
        if rng.random() < 0.05:
            streams.cut(stream)
            model.cut(stream)
        before, after = now[stream], rng.normal(size=2).astype(np.float32)
        terminated, truncated = rng.random(2) < 0.1
        reward = float(number + 1)
        model.add(stream, Step(0, before, after, reward, terminated, terminated or truncated))
        streams.add(
            stream, before, np.array([number % 2]), reward, after, bool(terminated), bool(truncated)
        )
        # The sensor is read again, or it is not.
        now[stream] = after if rng.random() < 0.6 else after + np.float32(1e-6)
        if rng.random() < drains:
            ring = drained(ring, streams)
    ring = drained(ring, streams)
    assert len(streams) == 0
    window, batch = jax.tree.map(np.asarray, everything(ring))
    kind, rewards = np.asarray(ring.kind), np.asarray(ring.reward)
    kept = [step for step in model.steps if step.row >= model.rows + len(model.last) - ROWS]
    assert np.sum(kind != NOTHING) == len(kept)
    assert int(ring.filled[0]) == min(model.rows, ROWS)
    complete = 0
    for step in kept:
        slot, expected = step.row % ROWS, n_step(step)
        assert rewards[slot] == step.reward
        np.testing.assert_array_equal(batch.observation[slot], step.before)
        assert bool(window.complete[slot]) == (expected is not None)
        if expected is not None:
            complete += 1
            assert window.reward[slot] == pytest.approx(expected[0])
            assert window.discount[slot] == expected[1]
            np.testing.assert_array_equal(batch.successor[slot], expected[2])
    assert np.sum(window.complete) == complete
    # Statistics are of everything, also of what replay never held.
    assert ring.moments is not None
    every = np.array(model.observations, np.float64)
    assert ring.moments.count == len(every)
    np.testing.assert_allclose(ring.moments.mean, every.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(ring.moments.m2, ((every - every.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-3)


def test_rows_wait_up_to_the_size_of_replay() -> None:
    streams = Streams(ROWS, *LAYOUT, GAMMA, False)
    streams._size = 8
    for number in range(10_000):
        streams.add(number % 3, np.zeros(2), np.array([0]), 0.0, np.zeros(2), False, False)
    assert len(streams) == ROWS
    assert len(streams._chunks) <= ROWS // 8 + 6


def test_streams_that_never_end_are_forgotten_with_their_rows() -> None:
    streams = Streams(ROWS, *LAYOUT, GAMMA, False)
    for number in range(5_000):
        streams.add(number, np.zeros(2), np.array([0]), 0.0, np.zeros(2), False, False)
    assert len(streams.open) <= 1_025


@pytest.mark.parametrize("stream", [1.5, None, True, ("a", 1), [0]])
def test_names_of_streams_are_numbers_or_texts(stream: Any) -> None:
    with pytest.raises(UsageError, match="expected a whole number or a text"):
        read_stream(stream)


@pytest.mark.parametrize("names", [None, {}, [0, 0], [1.5], [True], [[0]], "0"])
def test_damaged_names_in_a_manifest_are_refused(names: Any) -> None:
    with pytest.raises(UsageError, match="streams are damaged"):
        read_names({"streams": names}, "streams")
