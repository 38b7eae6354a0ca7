"""A function is handed over in place of an environment: what it makes is looked at, and made seldom.

Protects against advice that cannot be followed (`class int(gymnasium.Env)`), and against an expensive
environment that is made only to learn its name.
"""

import functools
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import qhat
from qhat.environments.user_envs import source_of
from qhat.system.errors import UsageError


class Alone:
    """Has the methods of an environment, and is none."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed: Any = None) -> Any:
        return np.zeros(2), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2), 0.0, False, False, {}


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


MADE: dict[str, tuple[Any, str]] = {
    "a number": (lambda: 5, r"is 5; expected an environment, such as gymnasium.make"),
    "nothing": (lambda: None, "is None; .* does the function that makes it return it"),
    "a class": (lambda: Alone, r"is the class Alone; expected an environment: Alone\(\)"),
    "an id": (lambda: "CartPole-v1", r"expected an environment: gymnasium.make\('CartPole-v1'\)"),
    "two things": (lambda: (cartpole(), {}), "is a tuple of 2; expected one environment alone"),
    "a vector": (
        lambda: SyncVectorEnv([cartpole]),
        "is the vector environment SyncVectorEnv; .* itself",
    ),
    "no subclass": (Alone, r"write `class Alone\(gymnasium.Env\)`"),
    "with arguments": (lambda gravity: cartpole(), r"takes \(gravity\); .* without arguments"),
}


@pytest.mark.parametrize("what", MADE)
def test_what_a_function_makes_is_named_with_the_remedy(what: str) -> None:
    build, sentence = MADE[what]
    with pytest.raises(UsageError, match=sentence) as refused:
        qhat.train(build, "dqn", steps=10)
    assert "class int" not in str(refused.value)


def test_a_name_is_asked_for_by_making_one_environment() -> None:
    made = []

    def build() -> gymnasium.Env:
        made.append(1)
        return cartpole()

    source = source_of(build)
    assert [source.name, source.name] == ["own:CartPole-v1"] * 2
    assert len(made) == 1
    assert source_of(functools.partial(gymnasium.make, "CartPole-v1")).name == "own:CartPole-v1"
