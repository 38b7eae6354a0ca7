"""A signal makes a run save and stop within seconds; a second signal ends it immediately.

Protects against signals that wait for the end of a long compiled call of a large network.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from everything import everything
from qhat import recipes
from qhat.axes.torso import MLP
from qhat.engine.pace import SECONDS, Pace
from qhat.recipes.config import TrainConfig
from qhat.runs.run import Run
from qhat.runs.train import Interrupted, train

# An update of several milliseconds: the 2,500 iterations of one call would take minutes.
HEAVY = ("--hidden", "1024", "1024", "--batch-size", "512", "--learning-starts", "512",
         "--eval-episodes", "1")  # fmt: skip


def learning(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a run, and wait until its first call makes updates."""
    command = [sys.executable, "-m", "qhat", "train", "CartPole-v1", "--steps", "50000000",
               "--replay-ratio", "1", "--run-dir", str(folder), *HEAVY, *words]  # fmt: skip
    says, shown = folder.with_name("says"), {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "200"}
    with says.open("w") as file:
        process = subprocess.Popen(command, stderr=file, env=shown)
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:
        steps = [int(number.replace(",", "")) for number in re.findall(r"step ([\d,]+)/", says.read_text())]
        if any(step > 512 for step in steps):
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError(says.read_text())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_checkpoint_within_seconds_though_a_call_takes_minutes(number: int, code: int, tmp_path: Path):
    folder = tmp_path / "run"
    process = learning(folder)
    process.send_signal(number)
    assert process.wait(60) == code
    reached = Run.open(folder).summary()["step"]
    assert 0 < reached < 2_500, "it was within its first call"
    assert str(reached) in {path.name for path in (folder / "checkpoints").iterdir()}


def test_a_second_signal_ends_the_process_immediately(tmp_path: Path):
    """While JAX compiles, or a long call runs, Python handles no signal."""
    folder = tmp_path / "run"
    process = learning(folder, "--eval-episodes", "1000")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # The same key press, from a program that tells the group as well.
    time.sleep(0.4)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not (folder / "last").exists(), "there was no checkpoint yet"


def test_pieces_grow_to_a_second_and_are_small_again_when_updates_begin():
    pace, at, done = Pace(learns_at=1_000), 0, []
    while at < 6_000:
        piece = pace.piece(at, 2_500)
        took = 5.0 if not at else piece * (1e-5 if at < 1_000 else 1e-2)
        pace.took(piece, took)
        done.append((at, piece, took))
        at += piece
    assert [piece for _, piece, _ in done[:3]] == [1, 1, 4], "what was compiled meanwhile is no measure"
    assert [piece for at, piece, _ in done if at == 1_000] == [1]
    assert max(took for _, _, took in done[1:]) <= SECONDS
    assert done[-1][1] == 100


def config(folder: Path, **settings: object) -> TrainConfig:
    recipe = dataclasses.replace(
        recipes.get("per_dqn"), hidden=(8,), batch_size=16, learning_starts=50, torso=MLP()
    )
    fields = {"steps": 900, "eval_every": 300, "eval_episodes": 2, "save_every": 300, **settings}
    return TrainConfig("CartPole-v1", "per_dqn", recipe, run_dir=folder, **fields)  # pyright: ignore


def test_an_evaluation_that_a_signal_cut_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With an environment in Python, whose evaluation can stop at every step."""
    from qhat.evaluation.play import Cut
    from qhat.runs import job

    made = job.play_of

    def cut_short(*args: Any, **options: Any):
        def play(*args: Any):
            raise Cut

        return play if cutting else made(*args, **options)

    monkeypatch.setattr(job, "play_of", cut_short)
    cutting = False
    train("CartPole-v1", config(tmp_path / "whole"))
    cutting = True
    with pytest.raises(Interrupted):
        train("CartPole-v1", config(tmp_path / "parts"), should_stop=lambda: True)
    assert Run.open(tmp_path / "parts").summary()["step"] == 300
    assert Run.open(tmp_path / "parts").summary()["best_score"] == [None]
    cutting = False
    train("CartPole-v1", config(tmp_path / "parts", resume=True))
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_a_run_in_pieces_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The speed of the machine determines only the pieces."""
    train("CartPole-v1", config(tmp_path / "whole"))
    monkeypatch.setattr(Pace, "piece", lambda _, at, wanted: min(wanted, 1 + at % 7))
    train("CartPole-v1", config(tmp_path / "pieces"))
    assert everything(tmp_path / "pieces") == everything(tmp_path / "whole")
