"""Evaluations where no time limit is declared: they end, and say what they cut."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit

import qhat
from facts import some_facts
from probes import TRUNCATION, Probes
from qhat.axes.actions import Actions
from qhat.engine.learner import Learner
from qhat.environments import limits
from qhat.evaluation import play as evaluation
from qhat.evaluation.outcomes import Played
from qhat.evaluation.play import LONGEST_EPISODE, EvaluationProgress, cut_of, play_of
from qhat.evaluation.statistics import Score
from qhat.recipes.config import TrainConfig
from qhat.reports.findings import findings
from qhat.reports.measure import Measured
from qhat.reports.sections import _score_rows
from qhat.runs.progress import Progress
from qhat.runs.worlds import Worlds, no_limit
from tiny import TINY_DQN


class Stuck(gymnasium.Env):
    """The first copy's episodes take three steps, the others' never end."""

    observation_space, action_space = Box(-1, 1, (7,), np.float32), Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.time, self.ends = 0, seed == 5 or (seed is None and self.ends)
        return np.zeros(7, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.zeros(7, np.float32), -1.0, self.ends and self.time == 3, False, {}


def test_a_cut_follows_the_budget_where_no_limit_is_declared():
    assert cut_of(500, 2_500, 50_000) == LONGEST_EPISODE, "the environment cuts by itself"
    assert cut_of(0, 2_500, 50_000) == 2_500
    assert cut_of(0, 2_500, 2_000) == 2_000
    assert cut_of(0, 100, 400) == evaluation.SHORTEST_CUT
    assert cut_of(0, 10**9, 10**9) == LONGEST_EPISODE


def test_limits_are_found_where_environments_keep_them():
    inner = Stuck()
    assert limits.declared_by(inner) == 0
    assert (
        limits.declared_by(gymnasium.wrappers.TransformReward(TimeLimit(Stuck(), 9), lambda reward: reward))
        == 9
    )
    inner.max_steps = 12  # pyright: ignore[reportAttributeAccessIssue]
    assert limits.declared_by(inner) == 12
    with gymnasium.make("CartPole-v1", max_episode_steps=20) as made:
        assert limits.declared_by(made) == 20
    with gymnasium.make("CliffWalking-v1") as made:
        assert limits.declared_by(made) == 0


def test_what_was_cut_is_counted_compiled_and_hosted():
    learner = Learner.of(TINY_DQN, (7,), Actions((2,)))
    parameters = jax.jit(jax.vmap(learner.init_parameters))(jax.random.split(jax.random.key(0), 1))
    calls: list[Any] = []
    key = jax.random.key(0)
    play = play_of(learner, Probes(5), longest=2, show_progress=lambda *where: calls.append(where))
    played = play(parameters, key)
    assert played.cut[0].tolist() == [int(kind == TRUNCATION) for kind in range(5)]
    assert calls[0][:2] == (0, 2)
    hosted = play_of(learner, Stuck, 3, longest=4)(parameters, key, [5])
    assert hosted.cut[0].tolist() == [0, 1, 1]
    assert hosted.lengths[0].tolist() == [3, 4, 4]
    score = Score.of_played("any", hosted, commanded=False)
    assert (score.cut, score.cut_at, score.to_json()["cut"]) == (2, 4, 2)
    (finding,) = (one for one in findings(some_facts(), Measured(score=score)) if one.name == "Length")
    assert "2 of the score's 3 episodes were cut after 4 steps" in finding.found
    assert "max_episode_steps=" in finding.next
    assert "2 were cut at 4" in dict(_score_rows(score))["Length"]
    whole = play_of(learner, lambda: TimeLimit(Stuck(), 4), 3)(parameters, key, [5])
    assert not whole.cut.any(), "its own limit ended them"


def test_long_evaluations_say_how_far_they_are(monkeypatch: pytest.MonkeyPatch):
    now, said = [0.0], list[str]()
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])
    show_progress = EvaluationProgress(said.append)
    for now[0] in (0.0, 1.9, 2.0, 2.5, 3.1):
        show_progress(1_000 * int(now[0]), 5_000, np.array([True, False]))
    steps = ("2,000", "3,000")
    assert said == [f"1 of 2 episodes over, step {step} of at most 5,000" for step in steps]


def test_a_run_says_so_before_it_begins_and_where_it_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "SHORTEST_CUT", 30)
    monkeypatch.setattr(evaluation, "SILENCE", -1.0)
    monkeypatch.setattr(evaluation, "EVERY", 0.0)
    folder, reported = tmp_path / "run", list[Progress]()
    config = TrainConfig("", "dqn", TINY_DQN, steps=20, eval_every=20, eval_episodes=2, run_dir=folder)
    with pytest.warns(
        UserWarning, match=r"'own:Stuck' declares no time limit: .* after 30 steps.*TimeLimit"
    ):
        qhat.train(Stuck, config, progress=reported.append)
    with (folder / "eval.csv").open() as file:
        assert [(row["cut"], row["mean_length"]) for row in csv.DictReader(file)] == [("2", "30.0")]
    assert reported[-1].cut == 2
    assert reported[-1].playing == ""
    assert any("of at most 30" in now.playing for now in reported)
    monkeypatch.setattr(evaluation, "LONGEST_EPISODE", 40)
    assert qhat.evaluate(folder, episodes=3, env=Stuck).cut_at == 40


def test_the_sentence_says_how_a_limit_is_set():
    spec = dataclasses.replace(Probes(5).spec, id="N-v0", backend="gym")
    environment: Any = Probes(5)
    ours = Worlds(environment, Stuck, spec, 0)
    assert "--env-kwargs max_episode_steps=N" in no_limit(ours, 100)
    theirs = dataclasses.replace(ours, judge=environment, spec=dataclasses.replace(spec, id="own:N"))
    assert "Spec(..., limit=N)" in no_limit(theirs, 100)


def test_nothing_is_cut_before_an_evaluation_ends():
    assert not Played.nothing((2,), 1, np).cut.any()
