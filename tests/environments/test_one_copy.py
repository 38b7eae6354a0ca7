"""One copy's vector environment says what Gymnasium's own says.

Protects what actors and evaluations see: true last observations, infos, types.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qhat.environments.gymnasium.one_copy import OneCopy
from qhat.environments.gymnasium.workers import Guarded, vectorise


def same(one: Any, other: Any) -> bool:
    """Whether two values of `info` are equal, down to their types."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and one.dtype == object:
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
    return type(one) is type(other) and one == other


ENVIRONMENTS = ["CartPole-v1", "FrozenLake-v1", "Taxi-v4", "CliffWalking-v1", "Pendulum-v1", "Blackjack-v1",
                "LunarLander-v3"]  # fmt: skip


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_it_says_what_gymnasium_says(env_id: str):
    def build() -> gymnasium.Env:
        return Guarded(gymnasium.make(env_id, max_episode_steps=15))

    ours = vectorise(build, 1, "sync")
    theirs = SyncVectorEnv([build], copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    assert isinstance(ours, OneCopy) == OneCopy.takes(build())
    theirs.action_space.seed(0)
    seed: Any = [3]
    for mine, its in zip(ours.reset(seed=seed), theirs.reset(seed=seed), strict=True):
        assert same(mine, its), (mine, its)
    ends = 0
    for _ in range(60):
        action = theirs.action_space.sample()
        one, other = ours.step(action), theirs.step(action)
        ends += int(np.any(one[2] | one[3]))
        for mine, its in zip(one, other, strict=True):
            assert same(mine, its), (mine, its)
    assert ends > 1, "an end was not seen"


def test_observations_stay_when_the_next_step_comes():
    """`SyncVectorEnv` without copies writes every step into one array; these are new each time."""
    envs = vectorise(lambda: gymnasium.make("CartPole-v1"), 1, "sync")
    seed: Any = [1]
    envs.reset(seed=seed)
    first = envs.step(np.array([0]))[0]
    kept = first.copy()
    envs.step(np.array([1]))
    np.testing.assert_array_equal(first, kept)
