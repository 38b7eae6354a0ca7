"""The checks of a report: each finds what was planted, and is silent where nothing is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from facts import EPSILON, FALLEN, LEVEL, LITE, RISING, able, diagnosis, evaluated, score, some_facts
from qhat.axes.optimiser import AdamW
from qhat.cli.train import read_train
from qhat.environments.wrappers import RewardScale
from qhat.recipes import RECIPES
from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import PRESETS
from qhat.recipes.recipe import Recipe
from qhat.reports import curves, reading
from qhat.reports.advice import again
from qhat.reports.finding import FINE, NOTE, UNKNOWN, WARNING
from qhat.reports.findings import findings
from qhat.reports.measure import Measured
from qhat.reports.spelling import OF_A_RUN
from qhat.studies.benchmark.suites import suite_of

DECAYED = dataclasses.replace(LITE, optimiser=AdamW())
GROWN = diagnosis(0, plasticity=able(growth=12.0))

CHECKS: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
    ("Interval", WARNING, {}, {"score": score(100, 400, 120)}, "--seeds 5"),
    ("Interval", FINE, {}, {"score": score(400, 401, 402)}, ""),
    ("Interval", NOTE, {}, {"score": score(400)}, "--seeds 5"),
    ("Q against returns", WARNING, {}, {"diagnosis": diagnosis(2.0)}, "--target hard:every=1000"),
    (
        "Q against returns",
        WARNING,
        {},
        {"diagnosis": diagnosis(8.0, value=[-10.0, -9.0], q=[-1.0, -1.0])},
        "--resume --run-dir runs/x --steps 2400",
    ),
    ("Q against returns", FINE, {}, {"diagnosis": diagnosis(0.2)}, ""),
    ("Q against returns", FINE, {}, {"diagnosis": diagnosis(-3.0)}, ""),
    ("Q against returns", FINE, {}, {"diagnosis": diagnosis(0, q=[14.0, 9.0])}, ""),
    ("Q against returns", UNKNOWN, {}, {"diagnosis": diagnosis(0, q=[], value=[], error=[], states=0)}, ""),
    ("Q against returns", UNKNOWN, {}, {"diagnosis": diagnosis(0), "compared": "with γ = 1"}, ""),
    ("Plasticity", WARNING, {}, {"diagnosis": GROWN}, "--optimiser adamw"),
    (
        "Plasticity",
        WARNING,
        {"recipe": DECAYED},
        {"diagnosis": GROWN},
        "--reset",
    ),
    ("Plasticity", WARNING, {}, {"diagnosis": diagnosis(0, plasticity=able(rank=3.0))}, "--reset"),
    ("Plasticity", FINE, {}, {"diagnosis": diagnosis(0, plasticity=able())}, ""),
    ("Dead units", WARNING, {}, {"diagnosis": diagnosis(0, dead=0.8)}, "--layer-norm"),
    ("Dead units", FINE, {}, {"diagnosis": diagnosis(0, dead=0.2)}, ""),
    ("Replay", WARNING, {}, {"effective": (0.5, 0.04)}, "--sampler prioritised:alpha=0.3"),
    ("Replay", FINE, {}, {"effective": (0.5, 0.4)}, ""),
    ("End", WARNING, {"evaluated": evaluated(LEVEL, FALLEN)}, {}, "--learning-rate 0.0005"),
    ("End", FINE, {"evaluated": evaluated(LEVEL, LEVEL)}, {}, ""),
    ("End", FINE, {"evaluated": evaluated(LEVEL, FALLEN, error=80.0)}, {}, ""),
    ("Still rising", NOTE, {"evaluated": evaluated(RISING, RISING)}, {}, "--steps 2400"),
    ("Still rising", FINE, {"evaluated": evaluated(LEVEL, LEVEL)}, {}, ""),
    ("Still rising", FINE, {"evaluated": evaluated(RISING, error=500.0)}, {}, ""),
    ("ε at the end", WARNING, {"traces": EPSILON}, {}, "--steps 600"),
    ("Numbers", WARNING, {"broken": 2, "skipped": 7}, {}, "qhat doctor CartPole-v1"),
    ("Halted", WARNING, {}, {"summary": {"halted": [False, True]}}, "--on-nan skip"),
    ("Score", WARNING, {}, {"why": {"score": "There is no checkpoint."}}, ""),
    ("Files", WARNING, {"troubles": ("'eval.csv' is missing.",)}, {}, ""),
    ("Files", NOTE, {"evaluated": None}, {}, "--resume"),
    ("Files", NOTE, {"evaluated": evaluated(LEVEL[:5], LEVEL[:5])}, {}, "--resume"),
]


@pytest.mark.parametrize(("name", "status", "changes", "measured", "next_"), CHECKS)
def test_a_check_finds_a_planted_fault(
    name: str, status: str, changes: dict[str, Any], measured: dict[str, Any], next_: str
):
    found = findings(some_facts(**changes), Measured(**measured))
    (one,) = (one for one in found if one.name == name)
    assert one.status == status, one.found
    assert bool(one.next) == bool(next_)
    assert next_ in one.next
    if status == WARNING and name not in ("Score", "Files"):
        assert re.search(r"\d", one.found), "with its number"
        assert one.why


def test_the_clipped_mass_of_a_support_is_reported():
    c51 = dataclasses.replace(LITE, head=qhat.recipes.get("c51").head)
    for share, status in ((0.3, WARNING), (0.001, FINE)):
        found = findings(some_facts(recipe=c51, clipped=share), Measured())
        (one,) = (one for one in found if one.name == "Support")
        assert (one.status, f"{share:.2%}" in one.found) == (status, True)


def test_a_command_is_built_from_the_runs_command():
    command = "qhat train CartPole-v1 --recipe rainbow_lite --steps 1200 --seeds 9"
    assert again(some_facts(), "--seeds", "9") == command
    spelled = some_facts(command="qhat train --seeds=2 A-v1 --run_dir 'x y' --hidden 4 4 --resume")
    assert again(spelled, "--seeds", "9") == "qhat train A-v1 --hidden 4 4 --seeds 9"
    strange = some_facts(command="qhat train a; rm -rf ~ $(b)")
    assert again(strange, "--layer-norm") == "qhat train 'a;' rm -rf '~' '$(b)' --layer-norm"
    unknown = some_facts(command="python 'my")
    assert again(unknown) == "qhat train CartPole-v1 --steps 1200 --seeds 2 --recipe rainbow_lite"
    outside = some_facts(command="python my.py", recipe=None)
    assert again(outside) == "", "no flag spells a part from outside the package"


BEGUN = [
    TrainConfig.of("Breakout-MinAtar", **suite_of("minatar-5m").task("Breakout-MinAtar").settings),
    TrainConfig.of("Acrobot-v1", seeds=3, seed=7, keep=2, wrap=(RewardScale(0.1),)),
    TrainConfig("CartPole-v1", recipe=dataclasses.replace(LITE, learning_rate=1 / 3), on_nan="skip"),
    TrainConfig("CartPole-v1", recipe=dataclasses.replace(LITE, hidden=(7, 9), learning_rate_end=None)),
    *(TrainConfig("CartPole-v1", name) for name in RECIPES),
    *(TrainConfig.of(name, seeds=2) for name in PRESETS),
]


def fitted(recipe: dict[str, Any], shape: list[int]) -> Recipe:
    """As its environment gets it; the paper is no setting."""
    read = Recipe.from_json(recipe)
    return dataclasses.replace(read.fitted(tuple(shape)), paper="")


def test_a_run_that_python_began_has_a_command_with_all_of_its_settings():
    every, commands = [json.loads(json.dumps(config.to_json())) for config in BEGUN], []
    for written in every:
        written["spec"] = {"shape": [10, 10, 4] if "MinAtar" in written["env"] else [4]}
        recipe = fitted(written["recipe"], written["spec"]["shape"])
        began = reading.baseline_of(written, recipe)
        words = shlex.split(
            again(some_facts(command="python a.py", config=written, recipe=recipe, baseline=began))
        )
        assert words[:2] == ["qhat", "train"]
        commands.append(words[2:])
    read = [json.loads(json.dumps(read_train(words).to_json())) for words in commands]
    for written, parsed in zip(every, read, strict=True):
        shape = written["spec"]["shape"]
        assert fitted(parsed["recipe"], shape) == fitted(written["recipe"], shape)
        # No command knows a name of one's own.
        assert parsed["recipe_name"] == written["recipe_name"].replace("mine", "qhat")
        assert {name: parsed[name] for name in OF_A_RUN} == {name: written[name] for name in OF_A_RUN}


def test_axes_have_round_numbers():
    assert curves.ticks(0.0, 500.0, 6) == [0, 100, 200, 300, 400, 500]
    assert curves.ticks(-210.0, 280.0, 5) == [-200, -100, 0, 100, 200]
    assert curves.ticks(0.0, 0.034, 3) == pytest.approx([0, 0.02])
    assert curves.ticks(7.0, 7.0, 4) == [7.0]
    gap = curves.Line("x", np.arange(4.0), np.array([1.0, np.nan, 2.0, 3.0]), marks=False)
    (drawn,) = re.findall(r' d="(M[^"]*)"', curves.chart([gap], "t", "y"))
    assert drawn.count("M") == 2, "a gap is no line"


def test_training_scores_are_means_of_bins_and_go_straight_over_empty_ones(tmp_path: Path):
    lines = [
        "kind,seed_index,step,score,epsilon,loss",
        "progress,0,1000,,0.5,nan",
        "progress,0,2000,,0.1,3",
    ]
    lines += ["episode,0,10,4,,", "episode,0,20,8,,", "episode,0,1990,30,,", "episode,0,2000,3"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    traces, _ = reading._metrics(tmp_path / "metrics.csv")
    assert traces["epsilon"].value.tolist() == [[0.5, 0.1]]
    np.testing.assert_array_equal(traces["loss"].value, [[np.nan, 3.0]])
    curve = traces["score"].value[0]
    assert np.isfinite(curve).all()
    assert curve[0] == 6, "of two episodes"
    assert curve[-1] == 30, "the last line is being written"
    assert (np.diff(curve) >= 0).all()


def test_returns_of_zero_are_no_divisor():
    flat = evaluated([0.0] * 8, [0.0] * 8)
    measured = Measured(score=score(0, 0, 0), diagnosis=diagnosis(0.3, scale=0.0, value=[0.0, 0.0]))
    text = " ".join(found.found for found in findings(some_facts(evaluated=flat), measured))
    assert "all scores are 0" in text
    assert not re.search(r"\d{6}|inf|nan", text)


def test_the_axis_of_scores_ends_at_the_largest_possible_one():
    x, y = np.arange(4.0), np.array([20.0, 300.0, 480.0, 490.0])
    line = curves.Line("one", x, y)
    ticks = re.findall(r">([\d.k]+)</text>", str(curves.chart([line], "", "", largest=500.0)))
    assert "500" in ticks
    assert "600" not in ticks
    assert 'cy="0.00%"' in str(curves.chart([curves.Line("top", x, y + 10)], "", "", largest=500.0))
    assert "505" not in str(curves.strip([490.0, 500.0], 495.0, None, largest=500.0))
    # A value beyond what was thought possible is still shown.
    assert 'cy="-' not in str(curves.chart([curves.Line("beyond", x, y + 100)], "", "", largest=500.0))
    config = {**some_facts().config, "env": "CartPole-v1"}
    assert some_facts(config=config).largest_score == 500
    assert some_facts(config={**config, "env_kwargs": {"max_episode_steps": 9}}).largest_score is None
    assert some_facts(config={**config, "env": "own:CartPole-v1"}).largest_score is None
