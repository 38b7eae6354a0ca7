"""Protects what is said of rewards too large or too small, and of supports that stay too narrow."""

import dataclasses
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.agent.notices import UPDATES, Notices
from qhat.axes.actions import Actions
from qhat.axes.heads import Categorical
from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED
from qhat.engine.replay.ring import Ring
from qhat.environments.reward_scale import largest_return, reward_scale_advice
from qhat.system.errors import in_python, in_shell

SPARSE = np.zeros(1000)
SPARSE[700] = 1.0


def every(length: int, reward: float, last: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ten episodes of equal rewards, the last of each another."""
    rewards, ends = np.full((10, length), reward), np.zeros((10, length), bool)
    ends[:, -1] = True
    if last is not None:
        rewards[:, -1] = last
    return rewards.ravel(), ends.ravel()


FINE = {
    "CartPole": every(500, 1.0),
    "Pendulum": every(200, -16.0),
    "LunarLander": every(100, -2.0, -100.0),
    "a robot": every(1000, 6.0),
    "Taxi": every(200, -10.0),
    "Atari, not clipped": every(1000, 0.0, 1000.0),
    "pays seldom": (SPARSE, np.zeros(1000, bool)),
    "has not paid yet": (np.zeros(1000), np.zeros(1000, bool)),
    "costs a little": every(1000, -0.0005),
}


@pytest.mark.parametrize("name", FINE)
def test_usual_rewards_are_left_alone(name: str):
    assert reward_scale_advice(FINE[name][0], FINE[name][1], 0.99) is None


@pytest.mark.parametrize(
    ("rewards", "factor"),
    [(every(3, 1e6), "1e-06"), (every(3, 1e-3), "1000"), (every(50, 0, -1e5), "1e-05")],
)
def test_another_scale_is_proposed_by_flag_or_by_remember(rewards: Any, factor: str):
    given, ends = rewards
    flagged, agent = (reward_scale_advice(given, ends, 0.9, flag=flag) for flag in (True, False))
    assert flagged is not None
    assert f"wrap='reward_scale:factor={factor}';" in in_python(flagged)
    assert f"--wrap reward_scale:factor={factor};" in in_shell(flagged)
    assert agent is not None
    assert f"`remember` the reward times {factor}." in agent
    assert "--" not in in_shell(agent)


def test_the_largest_return_ends_with_its_episode():
    rewards = np.array([[1.0, 0.0], [1.0, -4.0], [1.0, 0.0]])
    ends = np.array([[False, False], [True, False], [False, False]])
    assert largest_return(rewards, ends, 0.5) == 4.0
    assert largest_return(rewards[:, 0], ends[:, 0], 0.5) == 1.5


def ring(reward: float = 1e6) -> Ring:
    """One episode of three rewards, large if not given, and a row that is no start."""
    empty = Ring.empty(1, 8, (1,), "float32", Actions((2,)))
    kind = np.array([CONTINUES, CONTINUES, TERMINATED, *[NOTHING] * 5], np.uint8)
    rewards = np.array([*[reward] * 3, *[1e9] * 5], np.float32)
    filled = jnp.array([4])
    return dataclasses.replace(empty, reward=jnp.asarray(rewards), kind=jnp.asarray(kind), filled=filled)


def test_an_agent_warns_of_the_scale_at_its_first_update_and_not_again():
    metrics: dict[str, float] = {"loss": 0.0, "q": 0.0, "gradient_norm": 0.0, "clipped": 0.0}
    notices = Notices(qhat.recipes.get("dqn"))
    with pytest.warns(UserWarning, match="is 3e.06, .* times 1e-06"):
        notices.look(1, metrics, ring)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notices.look(2, metrics, ring)
        Notices(qhat.recipes.get("c51")).look(1, metrics, ring)


def test_an_agent_warns_of_mass_that_stays_beyond_the_support():
    recipe = dataclasses.replace(qhat.recipes.get("c51"), head=Categorical(v_min=0.0, v_max=1.0))

    def metrics(clipped: float) -> dict[str, float]:
        return {"loss": 0.0, "q": 0.0, "gradient_norm": 0.0, "clipped": clipped}

    def said(shares: list[float]) -> list[str]:
        notices = Notices(recipe)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number, share in enumerate(shares, 2):
                notices.look(number, cached[share], lambda: usual)
        return [str(each.message) for each in caught]

    usual = ring(reward=1.0)
    cached = {share: metrics(share) for share in (0.0, 0.3)}
    assert said([0.3] * (UPDATES - 1)) == []
    assert said([0.3, 0.0] * UPDATES) == []
    (sentence,) = said([0.3] * (2 * UPDATES))
    assert "head=Categorical(v_min=LOW, v_max=HIGH)" in sentence
    assert "30.0%" in sentence
