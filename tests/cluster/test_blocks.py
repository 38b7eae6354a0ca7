"""What an actor sends is what the learner reads, and what is packed is what was sent, each row one time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhat.cluster.blocks import Block, Recorder, Rows, read
from qhat.cluster.queue import Queue
from qhat.environments.base import Timestep

K, F, C = 2, 1, 3


def steps_of(seed: int, turns: int, stack: int, same: bool, masked: bool) -> tuple[Any, list[Any]]:
    """Return the first observation and mask, and the actions and timesteps of a made-up environment.

    Args:
        same: whether it resets in the step that ends an episode.
    """
    random = np.random.default_rng(seed)
    frame = (4,) if stack == 1 else (1, 2)

    def begun() -> np.ndarray:
        one = random.normal(size=frame).astype(np.float32)
        return one if stack == 1 else np.repeat(one, stack, axis=0)

    def onward(before: np.ndarray) -> np.ndarray:
        one = random.normal(size=frame).astype(np.float32)
        return one if stack == 1 else np.concatenate([before[1:], one])

    def mask() -> np.ndarray:
        return random.random((K, F, C)) < 0.7

    first = np.stack([begun() for _ in range(K)])
    now, over, found = first, np.zeros(K, bool), []
    for _ in range(turns):
        resets = over.copy() if not same else np.zeros(K, bool)
        successor = np.stack(
            [begun() if reset else onward(row) for reset, row in zip(resets, now, strict=True)]
        )
        terminated = (random.random(K) < 0.2) & ~resets
        truncated = (random.random(K) < 0.2) & ~resets & ~terminated
        over, legal = terminated | truncated, mask()
        after, legal_after = successor, legal
        if same and over.any():
            after = np.stack([begun() if ends else row for ends, row in zip(over, successor, strict=True)])
            legal_after = np.where(over[:, None, None], mask(), legal)
        reward = random.normal(size=K).astype(np.float32)
        masks: dict[str, Any] = {"legal": legal_after, "legal_successor": legal} if masked else {}
        step = Timestep(after, reward, terminated, truncated, successor, ~resets, score=reward + 1, **masks)
        found.append((random.integers(0, C, (K, F)).astype(np.int32), step))
        now = after
    return (first, mask() if masked else None), found


@given(seed=st.integers(0, 10**6), stack=st.sampled_from([1, 3]), same=st.booleans(), masked=st.booleans())
def test_a_block_reads_as_it_was_recorded(seed: int, stack: int, same: bool, masked: bool):
    (first, legal), steps = steps_of(seed, 9, stack, same, masked)
    recorder = Recorder(first, legal, stack)
    for action, now in steps:
        recorder.add(action, now)
    rows = read(Block(0, 0, 0, 0, 0, 0.0, recorder.arrays()), stack)
    before, allowed = first, legal
    for turn, (action, now) in enumerate(steps):
        np.testing.assert_array_equal(rows.observation[turn], before)
        np.testing.assert_array_equal(rows.after[turn], now.observation)
        np.testing.assert_array_equal(rows.successor[turn], now.successor)
        np.testing.assert_array_equal(rows.action[turn], action)
        flags = (now.terminated, now.truncated, now.real)
        numbers = np.stack([now.reward, *flags, now.score, now.finished, np.zeros(K)])
        np.testing.assert_array_equal(rows.numbers[turn], numbers.astype(np.float32))
        if masked:
            assert rows.legal is not None
            assert rows.legal_after is not None
            assert rows.legal_successor is not None
            np.testing.assert_array_equal(rows.legal[turn], allowed)
            np.testing.assert_array_equal(rows.legal_after[turn], now.legal)
            np.testing.assert_array_equal(rows.legal_successor[turn], now.legal_successor)
        before, allowed = now.observation, now.legal


def test_a_block_says_each_observation_one_time():
    (first, _), steps = steps_of(0, 64, 1, False, False)
    recorder = Recorder(first, None)
    for action, now in steps:
        recorder.add(action, now)
    bytes_of_a_step = sum(array.nbytes for array in recorder.arrays().values()) / 64 / K
    # Four floats, an action, a reward, a score and a byte of flags.
    assert bytes_of_a_step < 16 + 1 + 4 + 4 + 1 + 1


def numbered(first: int, turns: int, real: np.ndarray) -> Rows:
    """Return rows in which the action says which row it is."""
    number = np.arange(first, first + turns, dtype=np.int32)
    action = np.broadcast_to(number[:, None, None], (turns, K, 1)).astype(np.int32)
    observation = np.zeros((turns, K, 1), np.float32)
    numbers = np.zeros((turns, 7, K), np.float32)
    numbers[:, 3] = real[:, None]
    return Rows(observation, action, observation, observation, numbers)


@given(
    blocks=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7), st.booleans()), max_size=12),
    most=st.integers(1, 20),
)
def test_each_row_is_taken_one_time_and_in_the_order_of_its_actor(
    blocks: list[tuple[int, int, bool]], most: int
):
    queue = Queue(3, K, 4, numbered(0, 0, np.zeros(0, bool)))
    sent: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for place, (actor, turns, cuts) in enumerate(blocks, 1):
        rows = numbered(100 * place, turns, np.arange(turns) % 3 != 1)
        queue.add(actor, rows)
        numbers = rows.action[:, 0, 0].tolist()
        sent[actor] += zip(numbers, rows.real[:, 0].tolist(), strict=True)
        if cuts:
            queue.cut(actor)
            sent[actor].append("cut")
    waits = sum(K * row[1] for rows in sent.values() for row in rows if row != "cut")
    assert queue.steps == waits
    got: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    while (packed := queue.take(most)) is not None:
        assert packed.steps < most + K
        assert packed.depth <= 4
        waits -= packed.steps
        assert queue.steps == waits
        assert packed.rows.real.sum() == packed.steps
        for actor, row in itertools.product(got, range(packed.depth)):
            lane, number = packed.rows.numbers[row, :, actor * K], packed.rows.action[row, actor * K, 0]
            if lane[6]:
                got[actor].append("cut")
            elif number:
                got[actor].append((int(number), bool(lane[3])))
    assert got == sent
    assert waits == 0


@pytest.mark.parametrize("real", [True, False])
def test_places_without_a_row_are_no_steps(real: bool):
    queue = Queue(3, K, 4, numbered(0, 0, np.zeros(0, bool)))
    queue.add(1, numbered(1, 2, np.full(2, real)))
    packed = queue.take(100)
    assert packed is not None
    assert packed.rows.real[:, :K].sum() == packed.rows.real[:, 2 * K :].sum() == 0
    assert packed.rows.real.sum() == 2 * K * real
