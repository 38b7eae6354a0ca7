"""Data that replay is a window over: read piece by piece, checked before training, resumed exactly.

Protects against rows that are learned from too often or never, episodes that are glued together where
pieces meet, training on data that turn out to be damaged later, and a resumed run that sees other rows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import qhat
from qhat.axes.training import Logs
from qhat.demonstrations.pieces import pieces_of, rows_in
from qhat.demonstrations.reading import joined, read
from qhat.engine.feed import TURN, Feed, digest
from qhat.engine.loop import Loop
from qhat.engine.prefill import BLOCK
from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.environments.recorded import Recorded
from qhat.environments.user_envs import spec_of
from qhat.recipes.config import TrainConfig
from qhat.runs import fed
from qhat.runs.run import Run, program_of
from qhat.runs.stop import StoppedError
from qhat.system.errors import UsageError

WINDOW = 16_384
SETTINGS: dict[str, Any] = {
    "hidden": (8,), "batch_size": 64, "eval_every": 400, "eval_episodes": 1, "save_every": 200,
    "training": f"logs:window={WINDOW}", "steps": 800,
}  # fmt: skip


def written(path: Path, rows: int = 40_000, length: int = 50, **changed: np.ndarray) -> str:
    """Write CartPole-shaped episodes; the reward of a row is its number."""
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(rows + 1, 4)).astype(np.float32)
    columns = {
        "observation": observation[:-1],
        "action": rng.integers(2, size=rows),
        "reward": np.arange(rows, dtype=np.float32),
        "next_observation": observation[1:],
        "terminated": np.arange(1, rows + 1) % length == 0,
        **changed,
    }
    np.savez(path, **columns)  # pyright: ignore[reportArgumentType]
    return str(path)


def plain(path: Path, rows: int = 40_000, length: int = 50, **changed: np.ndarray) -> str:
    """Write such episodes with rewards of a size that networks learn."""
    return written(path, rows, length, reward=np.ones(rows, np.float32), **changed)


def folder_of(source: str) -> str:
    """Unpack the arrays of a file, as unzip does."""
    folder = Path(source).with_suffix("")
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    return str(folder)


def test_pieces_have_the_rows_of_the_whole_in_order_and_end_with_episodes(tmp_path: Path) -> None:
    spec, source = spec_of("CartPole-v1"), written(tmp_path / "data.npz")
    whole = read(source, spec)
    for each in (source, folder_of(source)):
        parts = [piece.read() for piece in pieces_of(each, spec)]
        assert rows_in(each) == 40_000
        assert len(parts) > 3
        assert all(part.terminated[-1] for part in parts)
        again = joined(parts)
        for name in ("observation", "action", "reward", "successor", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    read_as_a_whole = read(folder_of(source), spec)
    np.testing.assert_array_equal(read_as_a_whole.observation, whole.observation)


def test_an_episode_longer_than_pieces_is_cut_as_truncated(tmp_path: Path) -> None:
    spec, source = spec_of("CartPole-v1"), written(tmp_path / "data.npz", length=39_000)
    parts = [piece.read() for piece in pieces_of(source, spec)]
    assert [len(part) for part in parts] == [2 * 8_192, 2 * 8_192, 40_000 - 4 * 8_192]
    assert [bool(part.truncated[-1]) for part in parts] == [True, True, True]
    assert sum(len(part) for part in parts) == 40_000
    # Nothing says that the recording broke off there: it did not.
    assert not any(part.breaks(source) for part in parts)


def within(folder: Path, **changed: Any) -> dict[str, Any]:
    return {**SETTINGS, "run_dir": folder, **changed}


def feeding(tmp_path: Path, source: str, seed: int = 0) -> tuple[Feed, Any, Any]:
    spec = spec_of("CartPole-v1")
    recipe = qhat.recipes.get("cql").scheduled(1_000)
    recipe = dataclasses.replace(recipe, hidden=(8,), replay_capacity=WINDOW, batch_size=64)
    program = program_of(recipe, spec, (), True, 0)
    loop = Loop(program, Recorded(spec))
    pieces = pieces_of(source, spec)
    data = [piece.read() for piece in pieces]
    feed = Feed(program, pieces, [(len(each), digest(each)) for each in data], seed)
    return feed, loop, loop.init(jax.random.split(jax.random.key(0), 1))


def stored(state: Any) -> np.ndarray:
    """Return the rewards, which are row numbers, of the steps in replay."""
    ring = state.seeds.ring
    return np.asarray(ring.reward[0])[np.asarray(ring.kind[0]) != NOTHING].astype(int)


def test_every_row_of_the_data_has_its_turn_in_each_pass(tmp_path: Path) -> None:
    rows = 40_000
    feed, _, state = feeding(tmp_path, written(tmp_path / "data.npz", rows))
    state = feed.fill(state)
    found, came = set(stored(state)), []
    assert len(found) > 0.8 * WINDOW
    assert feed.blocks == sum(-(-rows // BLOCK) for rows, _ in feed.marks)
    for turn in range(1, (feed.blocks - WINDOW // BLOCK) // TURN + 2):
        before = set(stored(state))
        assert feed.feed(state, turn * feed.every - 1) is state
        state = feed.feed(state, turn * feed.every)
        came.append(set(stored(state)) - before)
        found |= came[-1]
    # The first pass is over.
    assert found == set(range(rows))
    assert all(len(each) <= TURN * BLOCK for each in came)
    assert sum(map(len, came)) < rows - 0.6 * WINDOW
    assert feed.every == TURN * 8 * BLOCK // 64


def test_small_sources_fill_the_window_as_large_ones_do(tmp_path: Path) -> None:
    """More of them than a process may have files open: none is, but while it is read."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    spec, parts = spec_of("CartPole-v1"), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 256), most))
    try:
        for number in range(120):
            parts += pieces_of(written(tmp_path / f"{number}.npz", 200), spec)
        data = [part.read() for part in parts]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    recipe = dataclasses.replace(
        qhat.recipes.get("cql").scheduled(1_000), hidden=(8,), replay_capacity=WINDOW, batch_size=64
    )
    program = program_of(recipe, spec, (), True, 0)
    feed = Feed(program, parts, [(len(each), digest(each)) for each in data], 0)
    assert feed.blocks == 9 + 9 + 8  # 8,200 rows twice, and 7,600
    state = feed.fill(Loop(program, Recorded(spec)).init(jax.random.split(jax.random.key(0), 1)))
    assert len(stored(state)) > 0.8 * WINDOW


def test_the_floor_is_that_of_whole_episodes(tmp_path: Path) -> None:
    """Where a piece ends within an episode, only the piece does."""
    spec = spec_of("CartPole-v1")
    source = plain(tmp_path / "data.npz", 80_000, length=20_000)
    config = TrainConfig.of("CartPole-v1", "cql", demos=(source,), training=Logs(window=WINDOW))
    parts = fed.fed_by(config, spec, lambda _: None)[1]
    assert parts[0].returns().tolist() == read(source, spec).returns().tolist() == [20_000.0] * 4


def test_steps_in_replay_lead_where_the_data_say(tmp_path: Path) -> None:
    source = written(tmp_path / "data.npz")
    feed, _, state = feeding(tmp_path, source)
    state = feed.fill(state)
    for turn in range(1, 60):
        state = feed.feed(state, turn * feed.every)
    ring, whole = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.seeds.ring), np.load(source)
    starts = np.flatnonzero(ring.kind != NOTHING)
    newest = (int(ring.cursor[0]) - 1) % WINDOW
    starts = starts[starts != newest]
    number = ring.reward[starts].astype(int)
    np.testing.assert_array_equal(ring.observation[starts], whole["observation"][number])
    np.testing.assert_array_equal(ring.action[starts, 0], whole["action"][number])
    after = (starts + 1) % WINDOW
    follows = ring.kind[starts] == CONTINUES
    np.testing.assert_array_equal(ring.observation[after], whole["next_observation"][number])
    np.testing.assert_array_equal(ring.reward[after[follows]], number[follows] + 1)
    np.testing.assert_array_equal(~follows, whole["terminated"][number])


def test_the_order_is_the_seeds(tmp_path: Path) -> None:
    source = written(tmp_path / "data.npz")

    def first(seed: int) -> np.ndarray:
        feed, _, state = feeding(tmp_path, source, seed)
        return stored(feed.fill(state))

    np.testing.assert_array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))


def test_a_killed_run_resumes_with_the_rows_that_are_due(tmp_path: Path) -> None:
    """SIGKILL in the middle; the data are read again from where they were."""
    source = plain(tmp_path / "data.npz")
    words = [
        sys.executable, "-m", "qhat", "learn", source, "--env", "CartPole-v1", "--hidden", "8", "--steps",
        "3000", "--eval-every", "3000", "--eval-episodes", "1", "--save-every", "300", "--training",
        f"logs:window={WINDOW}", "--seeds", "2", "--run-dir",
    ]  # fmt: skip
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*words, str(whole)], check=True, capture_output=True, timeout=300)
    process = subprocess.Popen([*words, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not (folder / "last").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < Run.open(folder).summary()["step"] < 3_000
    resume = [sys.executable, "-m", "qhat", "train", "CartPole-v1", "--resume", "--run-dir", str(folder)]
    done = subprocess.run(resume, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Run.open(folder).weights_sha256() == Run.open(whole).weights_sha256()
    assert json.loads((folder / "config.json").read_text())["recipe"]["replay_capacity"] == WINDOW


def test_a_window_that_has_room_for_all_is_none(tmp_path: Path) -> None:
    source = plain(tmp_path / "data.npz", 2_000)
    run = qhat.learn(source, "CartPole-v1", **within(tmp_path / "run"))
    assert run.program.recipe.training == Logs()
    assert run.program.recipe.replay_capacity == 2_000 + 40
    assert not (tmp_path / "run" / fed.NAME).exists()


def test_data_that_have_no_room_get_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = plain(tmp_path / "data.npz")
    monkeypatch.setattr(fed, "available", lambda: 40_000 * 100)
    with pytest.warns(UserWarning, match=r"\(40,000 rows\) have no room in memory for 1 seed"):
        run = qhat.learn(source, "CartPole-v1", **within(tmp_path / "a", training="logs"))
    assert run.program.recipe.training == Logs(window=WINDOW)
    assert run.program.recipe.replay_capacity == WINDOW
    assert sum(json.loads((tmp_path / "a" / fed.NAME).read_text())["rows"]) == 40_000


def refused(source: str, folder: Path, sentence: str, **settings: Any) -> None:
    with pytest.raises(UsageError, match=sentence):
        qhat.learn(source, "CartPole-v1", **within(folder, **settings))
    assert not folder.exists()


def test_data_are_refused_before_anything_is_learned(tmp_path: Path) -> None:
    path, folder = tmp_path / "data.npz", tmp_path / "run"
    source = plain(path)
    arrays = dict(np.load(source))
    bad = arrays["observation"].copy()
    bad[39_999, 2] = np.nan
    refused(plain(tmp_path / "nan.npz", observation=bad), folder, "row 39999 of observation is")
    refused(plain(tmp_path / "short.npz", action=np.zeros(39_000, int)), folder, "39,000 and 40,000 rows")
    never = np.zeros(40_000, bool)
    refused(plain(tmp_path / "never.npz", terminated=never), folder, "no end of an episode")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "damaged.npz").write_bytes(whole)
    refused(str(tmp_path / "damaged.npz"), folder, "are damaged")
    unpacked = Path(folder_of(plain(tmp_path / "cut.npz")))
    cut = unpacked / "next_observation.npy"
    cut.write_bytes(cut.read_bytes()[:-10])
    refused(str(unpacked), folder, r"next_observation\.npy' holds objects or is damaged")
    refused(source, folder, "window of 100 rows; expected 16,384 or more", training="logs:window=100")


def test_a_run_does_not_resume_with_other_data(tmp_path: Path) -> None:
    source, folder = plain(tmp_path / "data.npz"), tmp_path / "run"
    qhat.learn(source, "CartPole-v1", **within(folder))
    again: dict[str, Any] = {"run_dir": folder, "resume": True, "steps": 1_600}
    plain(tmp_path / "data.npz", 30_000)
    with pytest.raises(UsageError, match="changed: they have 4 pieces, and had 5"):
        qhat.train("CartPole-v1", **again)
    with pytest.raises(UsageError, match=r"training logs:window=16384 and not logs:window=20000"):
        qhat.train("CartPole-v1", **again, training="logs:window=20000")
    (tmp_path / "data.npz").unlink()
    with pytest.raises(UsageError, match=r"are not there.* The run began in '.*', and its data are named"):
        qhat.train("CartPole-v1", **again)
    plain(tmp_path / "data.npz", action=np.ones(40_000, int))
    with pytest.raises(StoppedError, match="changed while they were learned from"):
        qhat.train("CartPole-v1", **again)
    # What was learned until then is saved.
    assert Run.open(folder).summary()["step"] == 1_024
    plain(tmp_path / "data.npz")
    for text in (
        "[",
        "[0]",
        '{"rows": 3}',
        '{"rows": [1], "digests": []}',
        '{"rows": [0], "digests": [0]}',
    ):
        (folder / fed.NAME).write_text(text)
        with pytest.raises(UsageError, match=r"pieces\.json"):
            qhat.train("CartPole-v1", **again)


def test_compressed_data_are_read_as_a_whole(tmp_path: Path) -> None:
    source = plain(tmp_path / "data.npz")
    np.savez_compressed(tmp_path / "small.npz", **dict(np.load(source)))
    shas = []
    for number, path in enumerate((source, str(tmp_path / "small.npz"))):
        run = qhat.learn(path, "CartPole-v1", **within(tmp_path / str(number), steps=600))
        shas.append(run.weights_sha256())
    assert shas[0] == shas[1]


def test_types_that_are_no_numbers_are_sentences(tmp_path: Path) -> None:
    spec = spec_of("CartPole-v1")
    for value in (np.zeros(200, [("a", "f4")]), np.array(["x"] * 200), np.zeros((200, 2))):
        source = plain(tmp_path / "data.npz", 200, terminated=value)
        with pytest.raises(UsageError, match="terminated is"):
            [piece.read() for piece in pieces_of(source, spec)]
    folder = Path(folder_of(plain(tmp_path / "other.npz", 200)))
    np.save(folder / "reward.npy", np.float32(1.0))
    with pytest.raises(UsageError, match="arrays of 0 and 200 rows"):
        pieces_of(str(folder), spec)
    assert rows_in(str(folder)) == 1


def test_a_folder_is_believed_no_more_than_an_archive(tmp_path: Path) -> None:
    """Neither objects are loaded, nor sizes taken that the file does not have."""
    folder = Path(folder_of(plain(tmp_path / "data.npz", 200)))
    spec, path = spec_of("CartPole-v1"), folder / "reward.npy"
    assert len(read(str(folder), spec)) == 200
    np.save(path, np.array([{"a": 1}] * 200), allow_pickle=True)
    with pytest.raises(UsageError, match=r"reward\.npy' holds objects or is damaged"):
        read(str(folder), spec)
    path.write_bytes(b"\x93NUMPY\x07\x00nothing")
    with pytest.raises(UsageError, match=r"reward\.npy' holds objects or is damaged"):
        rows_in(str(folder))
    np.save(path, np.zeros(0))
    with pytest.raises(UsageError, match="arrays of 0 and 200 rows"):
        pieces_of(str(folder), spec)
    (folder / "action.npy").unlink()
    with pytest.raises(UsageError, match="have no array 'action'"):
        read(str(folder), spec)
