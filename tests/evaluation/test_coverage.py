"""What logs have of a policy's actions, and whether its values are what came of them.

Protects against an action that is called tried because somebody took it elsewhere, a calibration by returns
that were cut, and a page that breaks at a damaged file.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import qhat
from qhat.cli import evaluate, report
from qhat.demonstrations.reading import Demonstrations
from qhat.evaluation.coverage import covered, looks, promises
from qhat.reports.offline import offline
from qhat.runs.folder import RunFolder

GAMMA = 0.9


def steps(
    action: np.ndarray, terminated: np.ndarray, truncated: np.ndarray | None = None
) -> Demonstrations:
    T = len(action)
    nothing = np.zeros((T, 1), np.float32)
    return Demonstrations(
        nothing, action.reshape(T, -1).astype(np.int32), np.ones(T, np.float32), nothing, terminated,
        np.zeros(T, bool) if truncated is None else truncated,
    )  # fmt: skip


def see(observations: np.ndarray) -> np.ndarray:
    """The features of an observation are its numbers."""
    return observations


def test_an_action_is_tried_where_it_was_taken_and_not_elsewhere() -> None:
    """On the left 0 was taken, on the right 1: a policy that does the contrary has tried nothing."""
    rng, T = np.random.default_rng(0), 400
    right = np.arange(T) % 2
    features = np.stack([right + 0.01 * rng.normal(size=T), np.zeros(T)], axis=1)
    data = dataclasses.replace(steps(right, np.ones(T, bool)), observation=features.astype(np.float32))
    same = covered(data, right[:, None], see, (2,))
    assert same.untried == 0.0
    assert same.recorded == same.chosen == [[0.5, 0.5]]
    other = covered(data, 1 - right[:, None], see, (2,))
    assert other.untried == 1.0
    half = covered(data, np.zeros((T, 1), int), see, (3,))
    assert half.untried == pytest.approx(0.5, abs=0.05)
    assert half.chosen == [[1.0, 0.0, 0.0]]
    # Of two joints, one that was never moved so suffices.
    two = steps(np.stack([right, right], 1), np.ones(T, bool))
    two = dataclasses.replace(two, observation=data.observation)
    both = covered(two, np.stack([right, 1 - right], 1), see, (2, 2))
    assert both.untried == 1.0


def test_values_that_are_the_returns_promise_what_came() -> None:
    T = 200
    ends = np.arange(T) % 20 == 19
    to_go = np.array([(1 - GAMMA ** (20 - t % 20)) / (1 - GAMMA) for t in range(T)])
    data = steps(np.zeros(T), ends)
    found = promises(data, to_go, to_go, GAMMA)
    assert len(found) == 10
    assert sum(each.steps for each in found) == T
    for each in found:
        assert each.promised == pytest.approx(each.returned)
    assert [each.promised for each in found] == sorted(each.promised for each in found)
    twice = promises(data, 2 * to_go, to_go, GAMMA)
    assert twice[-1].promised == pytest.approx(2 * twice[-1].returned)


def test_steps_before_a_cut_are_left_out() -> None:
    T, never = 200, np.zeros(200, bool)
    cut = np.arange(T) == T - 1
    found = promises(steps(np.zeros(T), never, cut), np.zeros(T), np.zeros(T), GAMMA)
    # 0.9^29 is less than 0.05: the last 28 steps have more ahead.
    assert sum(each.steps for each in found) == T - 28
    assert promises(steps(np.zeros(20), never[:20], cut[-20:]), np.zeros(20), np.zeros(20), GAMMA) == []


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned from logs, and what the logs say of it."""
    folder = tmp_path_factory.mktemp("coverage")
    rng, T = np.random.default_rng(0), 600
    observation, ends = rng.normal(size=(T + 1, 4)).astype(np.float32), np.arange(T) % 6 == 5
    columns: dict[str, Any] = {
        "observation": observation[:-1], "action": rng.integers(2, size=T), "reward": np.ones(T),
        "next_observation": observation[1:], "terminated": ends,
    }  # fmt: skip
    np.savez(folder / "data.npz", **columns)
    run, data = folder / "run", str(folder / "data.npz")
    qhat.learn(
        data, "CartPole-v1", run_dir=run, steps=80, eval_every=80, eval_episodes=1, seeds=2, hidden=(8,),
        batch_size=16,
    )  # fmt: skip
    assert evaluate.run([str(run), "--offline", data, "--updates", "20", "--json"]) == 0
    return run


def test_the_run_keeps_the_estimate_and_its_report_shows_it(estimated: Path) -> None:
    kept = json.loads((estimated / "offline.json").read_text())
    assert len(kept["scores"]) == 2
    first = kept["scores"][0]
    assert sum(first["coverage"]["recorded"][0]) == pytest.approx(1.0)
    assert len(first["calibration"]) == 10
    assert report.run([str(estimated), "--episodes", "2", "--no-video"]) == 0
    text = (estimated / "report.html").read_text()
    for part in ("By recorded steps", "Nobody tried nearby", "Calibration of seed 1", first["verdict"]):
        assert part in text, part
    # Nothing acted.
    assert "× 80 updates" in text
    assert "ε, share of actions" not in text
    assert "80 of 80 updates each" in (estimated / "README.md").read_text()


@pytest.mark.parametrize(
    "damage",
    ["[", "{}", "[]", '{"data": [], "checkpoint": 1, "scores": []}', '{"data": 3, "scores": [{}]}', "null",
     '{"data": [], "checkpoint": 1,"scores": [{"behaviour_interval": [1, 2], "gamma": 1,"steps": 1e999}]}',
     '{"data": ["<script>"], "checkpoint": "best", "scores": [{"behaviour_interval": [1, "x"]}]}'],
)  # fmt: skip
def test_a_damaged_estimate_is_a_sentence_of_the_page(damage: str, estimated: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert offline(folder) is None
    (tmp_path / "offline.json").write_text(damage)
    shown = str(offline(folder))
    assert "There is no estimate" in shown
    assert "<script>" not in shown
    whole = json.loads((estimated / "offline.json").read_text())
    whole["scores"][0]["verdict"] = "<script>alert(1)</script>"
    (tmp_path / "offline.json").write_text(json.dumps(whole))
    assert "<script>" not in str(offline(folder))


def test_looks_show_values_and_what_the_last_layer_takes(estimated: Path) -> None:
    run = qhat.Run.open(estimated)
    learner = run.program.learner
    parameters = jax.tree.map(lambda leaf: leaf[0], run.weights("last"))
    observations = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    q, features = (look(observations) for look in looks(learner, parameters))
    assert q.shape == (5, 1, 2)
    assert features.shape == (5, 8)
    last = parameters["q"]
    np.testing.assert_allclose(q[:, 0], features @ last["weight"].T + last["bias"], rtol=1e-5)
