"""Fitted Q evaluation against values that are known exactly.

Protects against a value that is the best action's and not the policy's, an interval that leaves the truth
out, and a verdict about actions that nobody tried.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from qhat.axes import Actions
from qhat.cli import evaluate
from qhat.demonstrations.reading import Demonstrations
from qhat.environments.base import Spec
from qhat.evaluation.fitted import OfflineEvaluation, OfflineScore, bounds
from qhat.evaluation.importance import weighted_return
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

L, GAMMA = 8, 0.9
SPEC = Spec("Corridor", "test", (2,), "float32", Actions((2,)))
LIKE = Recipe(hidden=(32,), normalise=False)
VALUE = float(np.sum(GAMMA ** np.arange(L)))


def corridor(
    episodes: int, seed: int = 0, of: tuple[int, ...] = (0, 1), ends: str = "terminated"
) -> Demonstrations:
    """Walk L steps, each time by an action that earns its number."""
    rng, T = np.random.default_rng(seed), episodes * L
    place = np.tile(np.arange(L), episodes)
    action = rng.choice(of, T).astype(np.int32)
    over, no = place == L - 1, np.zeros(T, bool)
    where = np.stack([place, place + 1], axis=1) / L
    one = np.ones(T, np.float32)
    return Demonstrations(
        observation=np.stack([where[:, 0], one], axis=1).astype(np.float32),
        action=action[:, None],
        reward=action.astype(np.float32),
        successor=np.stack([where[:, 1], one], axis=1).astype(np.float32),
        terminated=over if ends == "terminated" else no,
        truncated=no if ends == "terminated" else over,
    )


def scored(action: int, data: Demonstrations, **settings: Any) -> OfflineScore:
    def choose(observations: np.ndarray, legal: Any) -> np.ndarray:
        return np.full((len(observations), 1), action, np.int32)

    given: dict[str, Any] = {"gamma": GAMMA, "updates": 800, "resamples": 3, **settings}
    return OfflineEvaluation(LIKE, SPEC, data, **given).score(choose)


@pytest.mark.parametrize(("action", "verdict"), [(0, "worse"), (1, "better")])
def test_the_value_is_the_policys(action: int, verdict: str) -> None:
    score = scored(action, corridor(60), updates=4_000)
    assert score.value == pytest.approx(action * VALUE, abs=0.15)
    assert score.interval[0] - 0.1 <= action * VALUE <= score.interval[1] + 0.1
    assert score.verdict == f"{verdict} than the recorded actions"
    assert score.behaviour == pytest.approx(VALUE / 2, abs=0.3)
    assert score.behaviour_interval[0] < score.behaviour < score.behaviour_interval[1]
    assert score.agreement == pytest.approx(0.5, abs=0.1)
    assert (score.unseen, score.episodes, score.steps) == (0.0, 60, 60 * L)


def test_nothing_is_said_of_actions_that_nobody_tried() -> None:
    score = scored(1, corridor(20, of=(0,)), updates=10)
    assert score.unseen == 1.0
    assert score.verdict == "cannot be told from these logs: nobody tried 100% of its actions"


def test_a_policy_that_is_the_recorded_one_has_its_value() -> None:
    score = scored(1, corridor(40, of=(1,)))
    assert score.agreement == 1.0
    assert score.value == pytest.approx(VALUE, abs=0.15)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (
            {"residual": 0.4},
            "cannot be told yet: the networks have not learned the data; give them more updates",
        ),
        ({"unseen": 0.3}, "cannot be told from these logs: nobody tried 30% of its actions"),
        ({"ahead": 0.4}, "cannot be told from these logs: 40% of a return is after episodes are cut"),
        ({"interval": (1.5, 2.5)}, "cannot be told from these logs: the intervals overlap"),
        ({"interval": (0.1, 0.4)}, "worse than the recorded actions"),
        ({}, "better than the recorded actions"),
    ],
)
def test_the_verdict_says_what_the_logs_can(changes: dict[str, Any], verdict: str) -> None:
    known: dict[str, Any] = {
        "value": 2.5, "interval": (2.2, 2.8), "behaviour": 1.5, "behaviour_interval": (1.0, 2.0),
        "gamma": 0.9, "episodes": 9, "steps": 90, "agreement": 0.5, "unseen": 0.0, "residual": 0.01,
    }  # fmt: skip
    assert OfflineScore(**{**known, **changes}).verdict == verdict


def test_returns_are_expected_where_they_can_be() -> None:
    reward, to_go = np.ones(3), np.array([3.0, 2.0, 1.0])
    assert bounds(reward, to_go, 0.9) == (0.0, 5.0)
    assert bounds(reward, to_go, 0.5) == (0.0, 2.0), "a reward of 1 for ever is 2"
    assert bounds(-reward, -to_go, 0.99) == (-5.0, 0.0)


def test_weights_stand_for_the_actions_that_the_policy_would_take() -> None:
    """Of two actions as likely, one earns 1: the policy that takes it earns it in every step."""
    data = corridor(400)
    probability, same = np.full(len(data), 0.5), data.action[:, 0] == 1
    spans = [np.arange(row, row + L) for row in range(0, len(data), L)]
    given = (spans, data.reward, same, probability, GAMMA)
    plain = weighted_return(*given)
    assert plain.value == pytest.approx(VALUE), "every episode with weight has earned it"
    assert 0 < plain.effective < 10, "of 400 episodes one in 2⁸ has all of its actions"
    nobody = weighted_return(spans, data.reward, np.zeros(len(data), bool), probability, GAMMA)
    assert (nobody.value, nobody.effective) == (0.0, 0.0)
    left = np.array([np.sum(GAMMA ** np.arange(L - place)) for place in np.tile(np.arange(L), 400)])
    right = weighted_return(*given, q=left - 1 + data.reward, v=left)
    assert right.value == pytest.approx(VALUE), "with right values, whatever the weights"
    wrong = weighted_return(*given, q=left - 1 + data.reward + 0.3, v=left + 0.3)
    assert wrong.value == pytest.approx(VALUE, abs=0.35), "weights put wrong values right while they last"
    assert wrong.interval[0] <= wrong.value <= wrong.interval[1]


def test_weights_of_long_episodes_stay_numbers() -> None:
    """2⁻²⁰⁰⁰ is no float; one of the episodes leaves the policy's actions at its end."""
    T = 2_000
    spans, same = [np.arange(T), np.arange(T, 2 * T)], np.ones(2 * T, bool)
    same[-1] = False
    found = weighted_return(spans, np.ones(2 * T), same, np.full(2 * T, 0.5), GAMMA)
    assert found.value == pytest.approx(1 / (1 - GAMMA))
    assert found.effective == pytest.approx(1.0)


def test_logs_that_are_cut_early_say_so() -> None:
    ended = scored(1, corridor(20), updates=1)
    assert ended.ahead == 0
    cut = scored(1, corridor(20, ends="truncated"), updates=1)
    assert cut.ahead == pytest.approx(GAMMA**L)


def test_probabilities_that_were_logged_give_a_second_estimate() -> None:
    data = corridor(20)
    assert scored(1, data, updates=10).weighted is None
    found = scored(1, dataclasses.replace(data, probability=np.full(len(data), 0.5)), updates=10).weighted
    assert found is not None
    assert np.isfinite([found.value, *found.interval]).all()


def test_networks_that_have_not_learned_give_no_verdict() -> None:
    """Before they learn, all policies have the same value, and it may lie beyond the recorded one."""
    assert "have not learned the data" in scored(1, corridor(60), updates=5).verdict


def test_the_same_data_give_the_same_score() -> None:
    assert scored(1, corridor(10), updates=50) == scored(1, corridor(10), updates=50)


def test_the_command_estimates_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, T = np.random.default_rng(0), 60
    observation = rng.normal(size=(T, 4)).astype(np.float32)
    data = str(tmp_path / "data.npz")
    columns: dict[str, Any] = {
        "observation": observation, "action": rng.integers(2, size=T), "reward": np.ones(T),
        "next_observation": rng.normal(size=(T, 4)).astype(np.float32),
        "terminated": np.arange(T) % 6 == 5, "truncated": np.arange(T) % 6 != 5,
        "probability": np.full(T, 0.5),
    }  # fmt: skip
    np.savez(data, **columns)
    run = tmp_path / "run"
    qhat.train(
        "CartPole-v1", "dqn", run_dir=run, steps=80, eval_every=80, eval_episodes=1, seeds=2, hidden=(8,)
    )
    words = [str(run), "--offline", data, "--updates", "20"]
    assert evaluate.run(words) == 0
    shown = capsys.readouterr().out
    for part in ("seed 0", "seed 1", "recorded", "doubly robust", "cannot be told"):
        assert part in shown, part
    assert evaluate.run([*words, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert [score["steps"] for score in scores] == [T, T]
    with pytest.raises(UsageError, match="--updates is 0; expected 1 or more"):
        evaluate.run([*words[:-1], "0"])


def test_one_episode_is_refused() -> None:
    with pytest.raises(UsageError, match="a single episode; an interval needs two or more"):
        scored(1, corridor(1))
