"""Films: real pictures of real environments, decoded again.

Protects against films of the wrong policy or the next episode, and files that are half written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
import pytest

import qhat
from full import FULL
from qhat.environments.scene import as_picture
from qhat.recipes.config import TrainConfig
from qhat.system.errors import QhatError, UsageError

RECIPE = replace(qhat.recipes.get("dqn"), hidden=(8,), num_envs=2, replay_ratio=0.5, replay_capacity=600)


def a_run(env_id: str, folder: Path, seeds: int = 2, **options: Any) -> qhat.Run:
    config = TrainConfig(
        env_id, recipe=RECIPE, run_dir=folder / "run", steps=200, seeds=seeds, eval_every=200,
        eval_episodes=2, save_every=200, env_kwargs=options,
    )  # fmt: skip
    return qhat.train(env_id, config)


@pytest.fixture(scope="module")
def cartpole(trained_cartpole: qhat.Run, tmp_path_factory: pytest.TempPathFactory) -> qhat.Run:
    folder = tmp_path_factory.mktemp("cartpole") / "run"
    return qhat.Run.open(shutil.copytree(trained_cartpole.folder.path, folder))


def frames(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        rate = file.streams.video[0].average_rate
    assert rate is not None
    return np.stack(pictures), float(rate)


def test_a_film_has_a_picture_of_every_step(cartpole: qhat.Run):
    counted = []
    video = qhat.play(cartpole, episodes=2, progress=counted.append)
    assert video.path == cartpole.folder.path / "videos" / "best.mp4"
    assert [path.name for path in video.path.parent.iterdir()] == ["best.mp4"]
    pictures, rate = frames(video.path)
    assert rate == 50, "Gymnasium's own for CartPole"
    # The first observation and one after every step, but the one after the last: it is reset by then.
    assert len(pictures) == sum(video.lengths) == counted[-1]
    assert video.returns == video.lengths
    assert pictures.shape[1:] == (400, 600, 3)
    # White, with a dark cart and a brown pole that move.
    assert pictures.mean() > 200
    assert (pictures.min(axis=(1, 2, 3)) < 60).all()
    assert (np.abs(np.diff(pictures.astype(int), axis=0)).max(axis=(1, 2, 3)) > 100).sum() > len(
        pictures
    ) / 2


def test_the_policy_filmed_is_the_seed_that_was_asked_for(cartpole: qhat.Run, tmp_path: Path):
    best = int(np.argmax(cartpole.summary()["best_score"]))
    assert qhat.play(cartpole, tmp_path / "a.mp4").seed_index == best
    returns = [qhat.play(cartpole, tmp_path / "b.mp4", seed_index=at, seed=5).returns[0] for at in (0, 1)]
    assert returns == [cartpole.evaluate(1, seed=5 - at).per_seed[at] for at in (0, 1)], (
        "seed i's episodes are numbered on from seed + i"
    )
    again = qhat.play(cartpole, tmp_path / "c.mp4", every=3, fps=10.0)
    pictures, rate = frames(again.path)
    assert (len(pictures), rate) == (-(-again.lengths[0] // 3), 10)


FILMED: list[tuple[str, dict[str, Any]]] = [
    ("TurtleBot3-v0", {"max_episode_steps": 8}),
]
FILMED_IN_FULL: list[tuple[str, dict[str, Any]]] = [
    ("Breakout-MinAtar", {}),
    ("gym:HalfCheetah-v5", {"max_episode_steps": 8}),
    ("FetchReach-v4", {"max_episode_steps": 8}),
]


@pytest.mark.parametrize(("env_id", "options"), [*FILMED, *(FILMED_IN_FULL if FULL else [])])
def test_every_backend_can_be_filmed(env_id: str, options: dict[str, Any], tmp_path: Path):
    run = a_run(env_id, tmp_path, seeds=1, **options)
    pictures, _ = frames(qhat.play(run).path)
    assert len(pictures) > 2
    assert min(pictures.shape[1:3]) >= 360
    assert pictures.std() > 10, "something is there"
    assert np.abs(np.diff(pictures.astype(int), axis=0)).max() > 30, "and moves"


def test_a_callers_environment_needs_a_maker_to_be_filmed(cartpole: qhat.Run, tmp_path: Path):
    path = tmp_path / "own.mp4"
    with pytest.raises(UsageError, match=r"render_mode None.*expected 'rgb_array'"):
        qhat.play(cartpole, path, env=lambda: gymnasium.make("CartPole-v1"))
    with pytest.raises(UsageError, match=r"observations \(6,\).*takes \(4,\)"):
        qhat.play(cartpole, path, env=lambda: gymnasium.make("Acrobot-v1", render_mode="rgb_array"))
    assert not list(tmp_path.iterdir())
    qhat.play(cartpole, path, env=lambda: gymnasium.make("CartPole-v1", render_mode="rgb_array"))
    assert path.exists()


class Torn(gymnasium.Wrapper):
    """Draws five pictures and then no more."""

    drawn = 0

    def render(self) -> Any:
        self.drawn += 1
        if self.drawn > 5:
            raise RuntimeError("the screen went dark")
        return self.env.render()


def test_a_film_that_fails_leaves_the_one_before(cartpole: qhat.Run, tmp_path: Path):
    path = tmp_path / "film.mp4"
    qhat.play(cartpole, path)
    before = path.read_bytes()
    with pytest.raises(QhatError, match=r"cannot be drawn.*the screen went dark"):
        qhat.play(cartpole, path, env=lambda: Torn(gymnasium.make("CartPole-v1", render_mode="rgb_array")))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["film.mp4"]


def test_bad_requests_are_refused(cartpole: qhat.Run, tmp_path: Path):
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"video": tmp_path / "film.gif"}, "ends in .mp4"),
        ({"video": tmp_path / "f.mp4", "seed_index": 2}, "seed_index is 2; expected 0 to 1"),
        (
            {"video": tmp_path / "f.mp4", "checkpoint": "worst"},
            "has no checkpoint 'worst'; expected one of best, last",
        ),
        ({"video": tmp_path / "f.mp4", "every": 0}, "every is 0"),
        ({"video": cartpole.folder.config / "f.mp4"}, "cannot be written"),
    )
    for options, words in refused:
        with pytest.raises(UsageError, match=words):
            qhat.play(cartpole, **options)
    run = a_run("Catch-bsuite", tmp_path)
    with pytest.raises(UsageError, match="'Catch-bsuite' has no pictures"):
        qhat.play(run)
    assert not (run.folder.path / "videos").exists()


def test_a_film_says_what_its_episodes_measured(tmp_path: Path):
    run = a_run("gym:Reacher-v5", tmp_path, seeds=1, max_episode_steps=8)
    assert qhat.play(run).logged == {}, "nothing was logged"
    names = ("info.reward_dist", "info.reward_ctrl", "info.nothing")
    video = qhat.play(run, episodes=2, log=names)
    assert tuple(video.logged) == names
    near, effort, nothing = video.logged.values()
    assert nothing == [None, None]
    sums = [8 * (a + b) for a, b in zip(near, effort, strict=True) if a is not None and b is not None]
    assert sums == pytest.approx(video.returns, rel=1e-4), "its reward is the sum of the two"
    with pytest.raises(UsageError, match=r"info\. and a name"):
        qhat.play(run, log=("reward_dist",))


def test_small_pictures_are_enlarged_and_odd_sides_cut():
    tiny = np.zeros((10, 10, 3))
    tiny[0, 0] = 1.0
    picture = as_picture(tiny, "any")
    assert picture.shape == (360, 360, 3)
    assert picture.dtype == np.uint8
    assert (picture[:36, :36] == 255).all()
    assert picture[36:].max() == 0
    assert as_picture(np.zeros((401, 603, 3), np.uint8), "any").shape == (400, 602, 3)
    with pytest.raises(UsageError, match=r"shape \(4, 4\)"):
        as_picture(np.zeros((4, 4)), "any")


def test_the_commands_and_a_machine_that_cannot_draw(tmp_path: Path):
    """In processes of their own: what a machine without EGL's drivers says, and one with them."""
    run, qhat_ = tmp_path / "run", [sys.executable, "-m", "qhat"]
    words = (
        "--recipe dqn --hidden 8 --steps 200 --replay-capacity 600 --env-kwargs max_episode_steps=4 --video"
    )
    train = [*qhat_, "train", "WalkerWalk-v1", *words.split(), "--run-dir", str(run)]
    trained = subprocess.run(train, capture_output=True, text=True)
    assert trained.returncode == 0, trained.stderr
    assert len(frames(run / "videos" / "last.mp4")[0]) == 4
    command = [*qhat_, "play", str(run), "--json"]
    lacking = {**os.environ, "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path), "MUJOCO_GL": "egl"}
    failed = subprocess.run(command, capture_output=True, text=True, env=lacking)
    assert failed.returncode in (1, 2), failed.stderr
    assert "apt install libegl1" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
    assert not (run / "videos" / "best.mp4").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"lengths": [4]' in done.stdout
    assert (run / "videos" / "best.mp4").exists()
