"""The exported learner refuses steps and files that it cannot learn from, and nothing of it changes.

Protects against one number that ends learning for good, a `save` that replaces a good file by one that
`load` refuses, arguments that are accepted in silence, files that fail when the robot moves, and schedules
that a robot continues from their first or last value.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhat import recipes
from qhat.axes import EpsilonGreedy, Pink
from qhat.deploy.about import stream_of
from qhat.deploy.learner.qhat_learner import COUNTS, FORMAT, Learner, LearnerError, _packed
from qhat.engine.calibration import RETURNS
from qhat.engine.replay.reward_scale import RewardScale

NOW, LATER = np.array([0.5, -1.0, 2.0], np.float32), np.array([0.25, 1.0, -2.0], np.float32)
SETTINGS: dict[str, Any] = {
    "format": FORMAT, "gamma": 0.9, "trace_decay": 0.8, "scale_rewards": True, "cut": 0.0,
    "learning_rate": 1.0, "kappa": 2.0, "epsilon": 0.0, "normalise": True, "layer_norm": True,
    "layers": [[8, 3], [4, 8]], "shape": [3], "kind": "joints", "choices": [2, 2], "start": [0, 0],
    "commands": [[-1.0, 1.0], [-0.1, 0.1]], "action_dtype": "float32", "action_shape": [2], "random": None,
}  # fmt: skip
DISCRETE = {
    "kind": "discrete", "choices": [4], "start": [1], "commands": None, "action_dtype": "int64",
    "action_shape": [],
}  # fmt: skip
SIZE = 8 * 4 + 4 * 9


def arrays_of(normalise: bool = True) -> dict[str, np.ndarray]:
    draw, wide = np.random.default_rng(0), 3 if normalise else 0
    return {
        "weights": draw.normal(size=SIZE).astype(np.float32) / 3,
        "trace": np.zeros(SIZE, np.float32),
        "mean": np.zeros(wide, np.float32),
        "m2": np.zeros(wide, np.float32),
        "counts": np.array([0.0, 0, 0, 0, 1, 0, 0]),
        "norm0": np.stack([np.ones(8), np.zeros(8)]).astype(np.float32),
    }


def written(path: Path, settings: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> Path:
    path.write_bytes(_packed(arrays_of() if arrays is None else arrays, settings))
    return path


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    return Learner.load(written(tmp_path / "learner", SETTINGS))


def trained(learner: Learner, steps: int = 20, action: Any = (1.0, -0.1)) -> Learner:
    draw = np.random.default_rng(0)
    for _ in range(steps):
        learner.learn(draw.normal(size=3), action, draw.normal(), draw.normal(size=3), draw.random() < 0.1)
    return learner


def bytes_of(learner: Learner, path: Path) -> bytes:
    learner.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({2: 1e20}, "too large to square"),
        ({2: -3e38}, "too large to square"),
        ({0: NOW * np.float32(1e20)}, "too large to square"),
        ({3: LATER * np.float32(1e20)}, "too large to square"),
        ({0: [1e300, 0, 0]}, "not finite"),
    ],
)
def test_a_step_of_huge_numbers_changes_nothing(
    tmp_path: Path, change: dict[int, Any], says: str, ended: bool, dtype: str
) -> None:
    learner = trained(Learner.load(written(tmp_path / "learner", SETTINGS), dtype))
    before = bytes_of(learner, tmp_path / "learner")
    step = {0: NOW, 1: [1.0, 0.1], 2: 1.0, 3: LATER, 4: ended, 5: False} | change
    with pytest.raises(LearnerError, match=f"{says}.*") as error:
        learner.learn(*step.values())
    assert "othing was learned" in str(error.value)
    assert bytes_of(learner, tmp_path / "learner") == before
    trained(learner, 5)
    learner.save(tmp_path / "learner")
    for each in ("float32", "float64"):
        assert np.isfinite(Learner.load(tmp_path / "learner", each).q_values(NOW)).all()


@pytest.mark.parametrize("settings", [{"scale_rewards": False}, {"normalise": False}])
def test_it_is_so_without_statistics_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    arrays = arrays_of(settings.get("normalise", True))
    learner = trained(Learner.load(written(tmp_path / "learner", {**SETTINGS, **settings}, arrays)))
    before = bytes_of(learner, tmp_path / "learner")
    with pytest.raises(LearnerError, match="too large to square"):
        learner.learn(NOW, [1.0, 0.1], 1e20, LATER, True)
    assert bytes_of(learner, tmp_path / "learner") == before


def test_an_error_that_is_not_finite_changes_nothing(learner: Learner, tmp_path: Path) -> None:
    trained(learner).weights[:] = 3e30
    before = bytes_of(learner, tmp_path / "learner")
    with pytest.raises(LearnerError, match="the error of step 20"):
        learner.learn(NOW, [1.0, 0.1], 1.0, LATER, False)
    assert bytes_of(learner, tmp_path / "learner") == before


def test_save_leaves_the_older_file_where_load_would_refuse_the_new(
    learner: Learner, tmp_path: Path
) -> None:
    good = bytes_of(learner, tmp_path / "learner")
    learner.weights[3] = np.nan
    with pytest.raises(LearnerError, match=r"was not written: 'weights'"):
        learner.save(tmp_path / "learner")
    learner.weights[3] = 0
    for value in ("much", np.float32(0.1), np.nan, 2):
        learner.settings["epsilon"] = value
        with pytest.raises(LearnerError, match=r"was not written: 'epsilon'"):
            learner.save(tmp_path / "learner")
    assert (tmp_path / "learner").read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == ["learner"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({1: [1.0]}, r"action is \[1.0\]"),
        ({1: 1.0}, "action is 1.0"),
        ({1: [np.nan, 0.0]}, "action is"),
        ({1: [5.0, 5.0]}, r"action is \[5.0, 5.0\]"),
        ({1: [0.0, 0.11]}, "action is"),
        ({1: [1, 0, 1]}, r"action is \[1, 0, 1\]"),
        ({1: [[1.0], [0.1]]}, "action is"),
        ({1: "a"}, "action is 'a'"),
        ({1: None}, "action is None"),
        ({1: [[1.0], [0.1, 0.2]]}, "action is"),
        ({1: [True, False]}, "action is"),
        ({2: np.ones(1)}, "reward is"),
        ({2: np.ones(2)}, "reward is"),
        ({2: "1"}, "reward is '1'; expected a finite number"),
        ({2: None}, "reward is None"),
        ({2: 1e39}, "reward is 1e[+]39"),
        ({0: "abc"}, "observation is 'abc'; expected numbers"),
        ({0: [[1.0, 2.0], [3.0]]}, "observation is .*; expected numbers"),
        ({3: {"a": 1}}, "next_observation is"),
        ({0: None}, "observation is 'None'"),
        ({3: ["1", "2", "3"]}, "next_observation is"),
        ({4: "False"}, "terminated is 'False'; expected True or False"),
        ({4: 2}, "terminated is 2"),
        ({5: None}, "truncated is None"),
        ({5: np.zeros(1, bool)}, "truncated is"),
    ],
)
def test_an_argument_that_is_none_is_refused(
    learner: Learner, tmp_path: Path, change: dict[int, Any], says: str
) -> None:
    before = bytes_of(trained(learner), tmp_path / "learner")
    step = {0: NOW, 1: [1.0, 0.1], 2: 1.0, 3: LATER, 4: False, 5: False} | change
    with pytest.raises(LearnerError, match=says):
        learner.learn(*step.values())
    assert bytes_of(learner, tmp_path / "learner") == before


@pytest.mark.parametrize("action", [True, [1], 0, 5, 1.5, np.ones(1), "1", None, np.inf])
def test_a_discrete_action_is_one_number_within_its_range(tmp_path: Path, action: Any) -> None:
    learner = Learner.load(written(tmp_path / "learner", {**SETTINGS, **DISCRETE}))
    for fine in (1, 4, np.int64(2), np.array(3)):
        learner.learn(NOW, fine, 1.0, LATER, False)
    with pytest.raises(LearnerError, match="action is"):
        learner.learn(NOW, action, 1.0, LATER, False)


def test_what_an_environment_returns_is_accepted(learner: Learner) -> None:
    for step in (
        (NOW, learner.act(NOW), 1.0, LATER, False),
        (NOW.tolist(), (0.3, 0.02), np.float64(1), LATER.astype(np.float64), np.bool_(True), 0),
        (NOW.astype(np.float16), np.array([-1.0, 0.1]), np.array(1), LATER, 1, np.array(False)),
        (NOW, np.array([1, 0]), True, LATER, 0.0),
    ):
        learner.learn(*step)
    assert learner.steps == 4


@pytest.mark.parametrize("dtype", ["zzz", None, 3, "int32", np.int32])
def test_a_type_that_is_none_is_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(LearnerError, match="expected float32 or float64"):
        Learner.load(written(tmp_path / "learner", SETTINGS), dtype)


def test_every_setting_is_needed(tmp_path: Path) -> None:
    for name in SETTINGS:
        rest = {key: value for key, value in SETTINGS.items() if key != name}
        with pytest.raises(LearnerError):
            Learner.load(written(tmp_path / "learner", rest))
        for value in (-1, 1.5, "zzz", [], [5], [[1]], {}, np.inf, np.nan, None, True):
            if value == SETTINGS[name] or (name, value) in FINE:
                continue
            try:
                Learner.load(written(tmp_path / "learner", {**SETTINGS, name: value}))
            except LearnerError:
                continue
            pytest.fail(f"{name}: {value} was accepted")


FINE = [("cut", None), ("cut", 1.5), ("learning_rate", 1.5), ("kappa", 1.5), ("action_shape", [2])]
"""Other values that can be learned with."""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gamma": 1.01}, "gamma"),
        ({"kind": "discrete"}, "commands|action_dtype|kind|action_shape"),
        ({"layers": [[8, 3], [4, 9]]}, "layers"),
        ({"layers": [[8, 4], [4, 8]]}, "layers"),
        ({"layers": []}, "layers"),
        ({"shape": [-3]}, "shape"),
        ({"choices": [5]}, "choices"),
        ({"choices": [1, 3]}, "choices"),
        ({"commands": [[-1.0, 1.0]]}, "commands"),
        ({"commands": [[-1.0, 1.0], [0.0, None]]}, "commands"),
        ({"action_dtype": "object"}, "action_dtype"),
        ({"action_shape": [3]}, "action_shape"),
        ({"random": {"bit_generator": "MT19937"}}, "no meaning"),
        ({**DISCRETE, "start": [2**63]}, "start"),
        ({**DISCRETE, "action_dtype": "int8", "start": [126]}, "start"),
        ({**DISCRETE, "action_dtype": "float32"}, "action_dtype"),
        ({**DISCRETE, "action_shape": [1]}, "action_shape"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(LearnerError, match=f"is damaged: .*({says})"):
        Learner.load(written(tmp_path / "learner", {**SETTINGS, **change}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.zeros(1, np.float32)),
        ("m2", np.zeros(1, np.float32)),
        ("m2", np.array([0, -1, 0], np.float32)),
        ("norm0", np.ones((2, 1), np.float32)),
        ("weights", np.ones(SIZE + 1, np.float32)),
        ("trace", np.full(SIZE, np.nan, np.float32)),
        ("trace", np.full(SIZE, 1e300)),
        ("counts", np.zeros(6)),
        ("more", np.zeros(1)),
        *(("counts", np.array([1.0, 0, 0, 0, 1, 0, 0]) - 2 * (np.arange(7) == COUNTS.index(one)))
          for one in ("observations", "returns", "variance", "open", "steps")),
    ],
)  # fmt: skip
def test_tensors_of_another_shape_or_meaning_are_refused(
    tmp_path: Path, name: str, value: np.ndarray
) -> None:
    with pytest.raises(LearnerError, match="is damaged: '(tensors|counts.*|" + name + ")'"):
        Learner.load(written(tmp_path / "learner", SETTINGS, {**arrays_of(), name: value}))


def test_a_robot_continues_with_the_schedules_of_the_weights_step() -> None:
    recipe = dataclasses.replace(
        recipes.get("stream_q"), learning_rate=1.0, learning_rate_end=0.5,
        explore=EpsilonGreedy(1.0, 0.1, fraction=0.5), normalise=False,
    ).scheduled(1_000)  # fmt: skip
    weights = {RETURNS: RewardScale.empty(0.9)}
    for step, rate, epsilon in ((0, 1.0, 1.0), (250, 0.875, 0.55), (500, 0.75, 0.1), (1_000, 0.5, 0.1)):
        stream = stream_of(recipe, weights, step)["stream"]
        assert stream["learning_rate"] == pytest.approx(rate)
        assert stream["epsilon"] == pytest.approx(epsilon)
    noise = dataclasses.replace(recipe, explore=Pink(steps=10))
    assert stream_of(noise, weights, 10)["stream"]["epsilon"] is None
