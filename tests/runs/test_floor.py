"""A run that ends when its policy falls below those who recorded the data: `--stop-below`.

Protects against a robot that goes on unlearning, a number that is not the data's, episodes without an end
that count, a stop that nobody can explain or undo, and a run that begins with random steps unsaid.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from qhat.cli import main
from qhat.cli.train import read_train
from qhat.demonstrations.reading import joined, read
from qhat.environments.user_envs import spec_of
from qhat.runs.floor import interval_of

SMALL: dict[str, Any] = {
    "hidden": (8,), "batch_size": 16, "steps": 600, "eval_every": 200, "eval_episodes": 3,
    "learning_starts": 16,
}  # fmt: skip


def log_file(path: Path, lengths: list[int], marked: bool = True) -> str:
    """Write episodes of CartPole's shape with a reward of 1 in each step; the last one may be open."""
    T, rng = sum(lengths), np.random.default_rng(0)
    observation = rng.normal(size=(T, 4)).astype(np.float32)
    after = np.concatenate([observation[1:], observation[:1]])
    ends = np.zeros(T, bool)
    ends[np.cumsum(lengths) - 1] = True
    after[ends] = 9.0
    ends[-1] &= marked
    np.savez(
        path, observation=observation, action=rng.integers(2, size=T), next_observation=after,
        reward=np.ones(T), terminated=ends,
    )  # fmt: skip
    return str(path)


def refused(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as done:
        main.main(list(words))
    return done.value.code


def test_the_interval_is_of_whole_episodes(tmp_path: Path) -> None:
    lengths = [10, 20, 30, 40, 500]
    spec = spec_of("CartPole-v1", wrap=(), bins=())
    demos = read(log_file(tmp_path / "log.npz", lengths, marked=False), spec)
    assert demos.returns().tolist() == [10, 20, 30, 40]
    both = [demos, read(log_file(tmp_path / "other.npz", lengths), spec)]
    assert joined(both).returns().tolist() == [10, 20, 30, 40, 10, 20, 30, 40, 500]
    found = interval_of([demos])
    assert found is not None
    assert (found["episodes"], found["mean"]) == (4, 25)
    # The bootstrap's own definition: the middle 95% of means of resampled episodes.
    rng = np.random.default_rng(1)
    means = rng.choice([10, 20, 30, 40], size=(20_000, 4)).mean(axis=1)
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(means, [0.025, 0.975]), atol=1)
    assert interval_of([read(log_file(tmp_path / "one.npz", [30]), spec)]) is None


def test_a_run_below_the_data_ends_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody learns 450 of 500 in two hundred steps."""
    data, folder = log_file(tmp_path / "log.npz", [440, 450, 460]), tmp_path / "run"
    words = ["--hidden", "8", "--batch-size", "16", "--steps", "600", "--eval-every", "200"]
    words += ["--eval-episodes", "3", "--run-dir", str(folder), "--json"]
    status = refused("train", "CartPole-v1", "--demos", data, "--stop-below", "auto", *words)
    out, err = capsys.readouterr()
    assert status == 1
    outcome = json.loads(out)
    assert (outcome["stopped_by"], outcome["step"], outcome["interrupted"]) == ("stop_below", 200, False)
    known = json.loads((folder / "config.json").read_text())
    assert known["stop_below"] == known["recorded_return"]["low"]
    assert 440 <= known["stop_below"] <= 450
    sentence = " ".join(err.split())
    assert "The run ended at step 200: seed 0 scored" in sentence
    assert "(the 3 recorded episodes return 450 on average, 95% interval 44" in sentence
    assert f"qhat train --resume --run-dir {folder} --stop-below none" in sentence
    assert "The run ended at step 200: seed 0 scored" in (folder / "README.md").read_text()
    # It stays ended, says so, and goes on when it is asked to.
    assert qhat.train("CartPole-v1", run_dir=folder, resume=True).summary()["step"] == 200
    refused("train", "CartPole-v1", "--resume", "--run-dir", str(folder))
    assert "--stop-below none" in " ".join(capsys.readouterr().err.split())
    more = qhat.train("CartPole-v1", run_dir=folder, resume=True, stop_below=None)
    assert (more.summary()["step"], more.summary()["stopped_by"]) == (600, None)


def test_one_seed_below_is_enough(tmp_path: Path) -> None:
    scores: list[tuple[float, ...]] = []

    def watch(evaluation: qhat.Evaluation) -> None:
        scores.append(evaluation.scores)

    free = {**SMALL, "seeds": 2, "callback": watch}
    qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "free", **free)
    low, high = sorted(scores[0])
    assert low < high
    floor = (low + high) / 2 + 1e-3
    run = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "run", stop_below=floor, **free)
    assert (run.summary()["step"], run.summary()["stopped_by"]) == (200, "stop_below")
    above = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "above", stop_below=0.5, **free)
    assert (above.summary()["step"], above.summary()["stopped_by"]) == (600, None)


WRONG: dict[str, dict[str, Any]] = {
    "takes the interval of the demonstrations' returns, and there are none": {"stop_below": "auto"},
    "stop_below is inf; expected a finite score": {"stop_below": float("inf")},
    "stop_below is 400.0 and stop_at 300.0; expected less": {"stop_below": 400.0, "stop_at": 300.0},
    "fewer than two whole episodes": {"stop_below": "auto", "demos": True},
    "for seeds that cluster spreads over machines": {"stop_below": 3.0, "cluster": "local", "seeds": 2},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_floor_without_meaning_is_refused(sentence: str, tmp_path: Path) -> None:
    settings = {**SMALL, **WRONG[sentence]}
    if settings.get("demos"):
        settings["demos"] = [log_file(tmp_path / "log.npz", [30])]
    with pytest.raises(qhat.UsageError, match=sentence):
        qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("word", "value"), [("none", None), ("auto", "auto"), ("1e2", 100.0), ("-5", -5.0)])
def test_the_command_line_takes_a_number_or_a_word(word: str, value: Any) -> None:
    assert read_train(["CartPole-v1", "--stop-below", word]).stop_below == value
    assert read_train(["CartPole-v1", f"--stop-below={word}", "--seeds", "2"]).stop_below == value
    with pytest.raises(qhat.UsageError, match="expected a number, such as 0.98, or auto"):
        read_train(["CartPole-v1", "--stop-below", "low"])


def test_random_steps_on_top_of_a_policy_are_said(tmp_path: Path) -> None:
    data = log_file(tmp_path / "log.npz", [30] * 10)
    settings: Any = {**SMALL, "steps": 200}
    off = qhat.train(
        "CartPole-v1", "dqn", run_dir=tmp_path / "off", demos=[data], training="logs", **settings
    )
    last = off.program.recipe.learning_rate_end or off.program.recipe.learning_rate
    begun: Any = {
        **settings, "init_from": off.folder.path, "demos": [data], "demo_share": 0.5, "learning_rate": last,
        "learning_rate_end": None,
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"100% of its first steps are random .*epsilon:start=0.05,end=0.02"):
        qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "bold", **begun)
    begun["explore"] = "epsilon:start=0.05,end=0.02"
    longer: Any = {**begun, "learning_rate": 4 * last}
    with pytest.warns(UserWarning, match=rf"rate of {last:g}, and its own is {4 * last:g}.*={last / 10:g}"):
        qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "long", **longer)
    run = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "on", **begun)
    assert run.summary()["step"] == 200
