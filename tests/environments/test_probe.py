"""The start-up probe says what a vector environment does at episodes' ends, and not what it says it does.

Protects against learning the next episode's first observation as a successor, or a reset's row as a step,
because an environment declares another autoreset mode than it has.
"""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from qhat.environments.gymnasium.probe import Findings, probe, require_sound
from qhat.system.errors import UsageError

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


class Walk(VectorEnv):
    """Copy e walks at random from near 0 and its episodes last 5 + e steps; what it says can be a lie."""

    def __init__(
        self,
        does: AutoresetMode,
        says: Any = None,
        *,
        final: str = "true",
        sure: bool = False,
        leftover: float = 0.0,
        refuses: bool = False,
        mask: str = "kept",
    ):
        self.num_envs, self.does, self.final, self.refuses = 3, does, final, refuses
        self.sure, self.leftover, self.mask = sure, leftover, mask
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, 3)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, 3)
        self.metadata = {} if says is None else {"autoreset_mode": says}

    def _begin(self, who: np.ndarray) -> None:
        start = np.zeros((3, 2)) if self.sure else self.draw.normal(size=(3, 2)) * 0.1
        self.place[who], self.time[who], self.over[who] = start[who], 0, False

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if seed is not None:
            self.draw = np.random.default_rng(seed)
            self.place, self.time, self.over = np.zeros((3, 2)), np.zeros(3, int), np.zeros(3, bool)
        who = np.ones(3, bool)
        if options and "reset_mask" in options and self.mask == "kept":
            who = options["reset_mask"]
        self._begin(who)
        return self.place.astype(np.float32), {}

    def step(self, actions: Any) -> Any:
        if self.refuses and self.over.any():
            raise RuntimeError("the arm is parked")
        late = self.over & (self.does is NEXT)
        self.place += self.draw.normal(size=(3, 2)) + 0.5
        self.time += 1
        self._begin(late)
        ended = (self.time == np.array([5, 6, 7])) | (self.over & ~late)
        reward, info = np.where(late, self.leftover, self.time * 1.0), {}
        self.over = ended.copy()
        if self.does is SAME and ended.any():
            true = self.place.astype(np.float32)
            self._begin(ended)
            shown = {"true": true, "fresh": self.place.astype(np.float32)}.get(self.final)
            if shown is not None:
                info = {"final_obs": shown, "_final_obs": ended}
        return self.place.astype(np.float32), reward, ended, np.zeros(3, bool), info


def look(envs: VectorEnv, steps: int = 150) -> Findings:
    return probe(envs, steps=steps, seconds=30.0)


@pytest.mark.parametrize("sure", [False, True], ids=["random starts", "one start"])
@pytest.mark.parametrize("does", [NEXT, SAME, DISABLED])
def test_an_honest_environment_is_sound(does: AutoresetMode, sure: bool):
    findings = require_sound(look(Walk(does, does, sure=sure)))
    assert findings.found is findings.declared is findings.mode is does
    assert findings.final_observation is True
    assert set(findings.lengths) == {5, 6, 7}
    assert findings.rewards == (1.0, 7.0)
    assert findings.warnings == ()
    assert findings.steps == 150
    assert findings.steps_per_second > 100


LIES = [
    (Walk(NEXT, SAME), NEXT, ["says SameStep and resets in the step after", "AutoresetMode.NEXT_STEP"]),
    (Walk(NEXT, "SameStep"), NEXT, ["says SameStep and resets in the step after"]),
    (Walk(SAME, NEXT), SAME, ["says NextStep and resets in the step that ends", "AutoresetMode.SAME_STEP"]),
    (Walk(SAME, NEXT, final="none"), SAME, ["says NextStep and resets in the step that ends"]),
    (Walk(SAME, DISABLED), SAME, ["says Disabled and resets in the step that ends"]),
    (Walk(SAME, SAME, final="none"), SAME, ['leaves its last observation out of info["final_obs"]']),
    (Walk(SAME, SAME, final="fresh"), SAME, ["gives the next episode's first observation", "successor"]),
    (Walk(SAME, final="none"), SAME, ['leaves its last observation out of info["final_obs"]']),
    (Walk(DISABLED, NEXT), DISABLED, ["says NextStep and does not reset by itself", "SyncVectorEnv"]),
    (Walk(DISABLED, SAME), DISABLED, ["says SameStep and does not reset by itself"]),
    (Walk(DISABLED), DISABLED, ["says no autoreset mode and does not reset by itself"]),
    (Walk(DISABLED, NEXT, refuses=True), DISABLED, ["raised RuntimeError: the arm is parked"]),
    (Walk(DISABLED, DISABLED, mask="ignored"), DISABLED, ["reset_mask touches other copies"]),
]


@pytest.mark.parametrize("sure", [False, True], ids=["random starts", "one start"])
@pytest.mark.parametrize(("envs", "found", "words"), LIES)
def test_a_lie_is_found_and_its_fix_named(envs: Walk, found: AutoresetMode, words: list[str], sure: bool):
    envs = copy.copy(envs)
    envs.sure = sure
    findings = look(envs)
    assert findings.found is found
    with pytest.raises(UsageError) as refused:
        require_sound(findings)
    for word in ("'Walk'", *words):
        assert word in str(refused.value)


@pytest.mark.parametrize("does", [NEXT, SAME])
def test_what_is_not_declared_is_taken_as_found(does: AutoresetMode):
    findings = require_sound(look(Walk(does)))
    assert (findings.declared, findings.mode) == (None, does)


def test_a_reward_in_a_reset_row_is_reported_and_not_counted():
    findings = require_sound(look(Walk(NEXT, NEXT, leftover=-99.0)))
    assert findings.rewards == (1.0, 7.0)
    assert any("up to 99 in rows of resets" in warning for warning in findings.warnings)


def test_no_end_within_the_budget_is_said():
    findings = require_sound(look(Walk(NEXT, NEXT), steps=4))
    assert findings.found is None
    assert findings.final_observation is None
    assert findings.lengths == ()
    assert "No episode of 'Walk' ended in 4 random steps" in findings.warnings[0]
    assert probe(Walk(NEXT, NEXT), steps=10**9, seconds=0.2).steps < 10**6


class Constant(Walk):
    """Shows the same all the time."""

    def step(self, actions: Any) -> Any:
        observation, *rest = super().step(actions)
        return np.zeros_like(observation), *rest


def test_what_cannot_be_checked_is_believed_and_said():
    findings = require_sound(look(Constant(NEXT, NEXT, sure=True)))
    assert findings.found is None
    assert findings.mode is NEXT
    assert any("cannot be seen in its observations" in warning for warning in findings.warnings)


class Odd(Walk):
    """Does one thing that its spaces do not say."""

    def __init__(self, fault: str):
        super().__init__(NEXT, NEXT)
        self.fault = fault
        self.single_observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)

    def step(self, actions: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(actions)
        if self.fault == "shape":
            observation = observation[:, :1]
        elif self.fault == "dtype":
            observation = observation.astype(np.float64)
        elif self.fault == "bounds":
            observation = observation + 200
        elif self.fault == "nan":
            observation = observation * np.nan
        elif self.fault == "reward nan":
            reward = reward * np.inf
        elif self.fault == "reward shape":
            reward = reward[:, None]
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("shape", r"observations of shape \(3, 1\) for 3 copies; expected \(3, 2\)"),
        ("reward shape", r"rewards of shape \(3, 1\); expected one per copy"),
        ("nan", "observations that are not finite"),
        ("reward nan", "rewards that are not finite"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(fault: str, words: str):
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(UsageError, match=words),
    ):
        require_sound(look(Odd(fault)))


@pytest.mark.parametrize(
    ("fault", "words"), [("dtype", "of float64 and declares float32"), ("bounds", "beyond the bounds")]
)
def test_what_differs_from_the_space_is_reported(fault: str, words: str):
    warnings = look(Odd(fault)).warnings
    assert any(words in warning for warning in warnings), warnings


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1", "LunarLander-v3"])
def test_the_vector_environments_of_gymnasium_are_sound(env_id: str, mode: AutoresetMode):
    envs = SyncVectorEnv([lambda: gymnasium.make(env_id)] * 4, autoreset_mode=mode)
    findings = require_sound(look(envs, 300))
    assert findings.mode is mode
    # Blackjack's hands begin as they go on: nothing can be told there.
    assert findings.found is mode or env_id == "Blackjack-v1"
    assert findings.lengths
    assert findings.limit == gymnasium.spec(env_id).max_episode_steps
    envs.close()


class Dictionary(gymnasium.Env):
    """Observations with names, cut after 9 steps."""

    observation_space = gymnasium.spaces.Dict(
        {"goal": gymnasium.spaces.Box(-9, 9, (2,), np.float32), "_arm": gymnasium.spaces.Discrete(3)}
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def _see(self) -> Any:
        return {"goal": np.full(2, self.time, np.float32), "_arm": 1}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._see(), 0.0, False, self.time == 9, {}


def test_dictionaries_are_looked_into():
    findings = require_sound(look(SyncVectorEnv([Dictionary] * 2, autoreset_mode=SAME)))
    assert findings.found is SAME
    assert set(findings.lengths) == {9}
