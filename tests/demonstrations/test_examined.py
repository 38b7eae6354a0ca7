"""`qhat doctor DATA`: each thing that spoils recorded steps is found, at its row, with a fix that works.

Protects against data that look right and are not: a time limit marked as the task's end, an end without a
mark, the next episode's first observation as a successor.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import qhat
from qhat.cli import main
from qhat.demonstrations.examined import Contents, examine
from qhat.demonstrations.reading import raw

Columns = dict[str, np.ndarray]


def cartpole(episodes: int = 12, seed: int = 0) -> Columns:
    """Return what random actions do in Gymnasium's CartPole."""
    env, rows = gymnasium.make("CartPole-v1"), []
    env.action_space.seed(seed)
    for episode in range(episodes):
        now, over = env.reset(seed=seed + episode)[0], False
        while not over:
            action = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(action)
            rows.append((now, action, reward, after, terminated, truncated))
            now, over = after, terminated or truncated
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    return {name: np.asarray(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


SOUND = cartpole()
ENDS = np.flatnonzero(SOUND["terminated"])


def changed(**changes: Callable[[np.ndarray], Any]) -> Columns:
    """Return the sound columns, some of them changed in place."""
    columns = {name: column.copy() for name, column in SOUND.items()}
    for name, change in changes.items():
        change(columns[name])
    return columns


def put(where: Any, value: Any) -> Callable[[np.ndarray], None]:
    return lambda column: column.__setitem__(where, value)


def found(columns: Columns) -> str:
    return " | ".join(trouble.found for trouble in examine("data.npz", columns).troubles)


def test_sound_data_have_no_trouble() -> None:
    contents = examine("data.npz", SOUND)
    assert contents.troubles == ()
    assert contents.usable
    assert (contents.episodes, contents.terminated, contents.unmarked) == (12, 12, 0)
    lengths = np.diff(np.append(-1, ENDS))
    assert contents.lengths == (lengths.min(), int(np.median(lengths)), lengths.max())
    assert contents.returns == pytest.approx((lengths.min(), lengths.mean(), lengths.max()))
    assert dict(contents.shares)["1"] == pytest.approx(SOUND["action"].mean())


def next_first() -> Columns:
    columns = changed()
    rows = ENDS[:-1]
    columns["next_observation"][rows] = columns["observation"][rows + 1]
    return columns


def with_time(change: Callable[[np.ndarray], None]) -> Columns:
    time = np.arange(len(SOUND["reward"])) * 0.05
    change(time)
    return {**SOUND, "time": time}


def capped() -> Columns:
    """Five episodes of 20 steps, each marked as terminated."""
    columns = {name: column[:100].copy() for name, column in SOUND.items()}
    columns["next_observation"][:-1] = columns["observation"][1:] + 0.0
    columns["terminated"][:] = False
    columns["terminated"][19::20] = True
    columns["next_observation"][19::20] += 0.5
    return columns


def unpaid() -> Columns:
    return {**changed(terminated=put(slice(None), False)), "truncated": SOUND["terminated"]}


TROUBLES: dict[str, Callable[[], Columns]] = {
    "1 rows of observation are not finite, the first is row 7": (
        lambda: changed(observation=put((7, 1), np.nan))
    ),
    "1 rows of reward are not finite, the first is row 3": lambda: changed(reward=put(3, np.inf)),
    "no row is terminated or truncated, and the recording breaks off 12 times": (
        lambda: changed(terminated=put(slice(None), False))
    ),
    f"breaks off after 1 rows that are neither terminated nor truncated, the first is row {ENDS[2]}": (
        lambda: changed(terminated=put(ENDS[2], False))
    ),
    "all 5 terminated episodes have 20 steps, as a time limit gives": capped,
    "11 of 12 ends have the next episode's first observation as next_observation": (next_first),
    "time does not move on in row 5": lambda: with_time(put(5, 0.2)),
    "1 gaps are longer than 3 times the usual 0.05 s, the first is after row 8": (
        lambda: with_time(lambda time: time.__setitem__(slice(9, None), time[9:] + 1))
    ),
    "every reward is 1 and nothing terminates": unpaid,
    "and a network learns best from 0.01 to 10,000": lambda: {**SOUND, "reward": SOUND["reward"] * 1e-6},
    "actions 1 were never taken": lambda: {**SOUND, "action": SOUND["action"] * 2},
}


@pytest.mark.parametrize("sentence", TROUBLES)
def test_trouble_is_found_at_its_row(sentence: str) -> None:
    assert sentence in found(TROUBLES[sentence]())


def test_repeated_rows_are_found() -> None:
    columns = {name: np.insert(column, 4, column[3], axis=0) for name, column in SOUND.items()}
    assert "1 rows repeat the row before them, the first is row 4" in found(columns)


def test_a_robot_that_stands_still_is_found() -> None:
    columns = changed()
    columns["observation"][:60] = columns["next_observation"][:59] = 0.5
    assert "next_observation is observation: nothing changed" in found(columns)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_step_or_two_are_examined(rows: int) -> None:
    contents = examine("data.npz", {name: column[:rows] for name, column in SOUND.items()})
    assert (contents.rows, contents.episodes, contents.unmarked) == (rows, 1, 1)


def test_commands_have_a_range_and_no_choices() -> None:
    rng = np.random.default_rng(0)
    contents = examine("data.npz", {**SOUND, "action": rng.uniform(-1, 1, (len(SOUND["reward"]), 2))})
    assert contents.action.startswith("2 commands: -")
    assert contents.shares == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"action": SOUND["action"][:-1]}, "expected one row for each step in all of them"),
        ({"reward": np.array("text")}, "expected one row for each step"),
        ({"next_observation": SOUND["observation"][:, :2]}, "next_observation .*; expected the same"),
        ({"action": SOUND["action"].astype(str)}, "expected numbers"),
    ],
)
def test_what_is_no_data_is_refused(change: Columns, sentence: str) -> None:
    with pytest.raises(qhat.UsageError, match=sentence):
        examine("data.npz", {**SOUND, **change})


def printed_by(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main.main(words)
    printed = capsys.readouterr()
    return int(done.value.code or 0), printed.out, printed.err


def test_the_command_prints_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "car.npz")
    sound: Any = SOUND
    np.savez(path, **sound)
    status, out, _ = printed_by(["doctor", path], capsys)
    assert status == 0
    assert "12: 12 terminated, 0 truncated, 0 not marked" in out
    assert f"qhat learn {path} --env ENV" in out
    status, out, _ = printed_by(["doctor", path, "--json"], capsys)
    assert json.loads(out)["rows"] == len(SOUND["reward"])


def test_data_that_cannot_be_learned_from_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "car.npz")
    lost: Any = changed(observation=put((7, 1), np.nan))
    np.savez(path, **lost)
    status, out, err = printed_by(["doctor", path], capsys)
    assert status == 2
    assert "fix: good = np.isfinite(observation)" in out
    assert "cannot be learned from: 1 rows of observation are not finite" in err
    status, _, err = printed_by(["doctor", path, "--wrap", "reward_clip"], capsys)
    assert (status, "--wrap has no meaning for data" in err) == (2, True)
    status, _, err = printed_by(["doctor", str(tmp_path / "none.npz")], capsys)
    assert (status, "are not there" in err) == (2, True)


@pytest.mark.filterwarnings("ignore:.* is set to None", "ignore:Implicitly cleaning up:ResourceWarning")
def test_a_dataset_of_minaris_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari", reason="minari is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("CartPole-v1"))
    for seed in range(4):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    env.create_dataset("cartpole/random-v0")
    env.close()
    del env
    # Minari leaves its temporary folder to the collector: here, not in some other test.
    gc.collect()
    contents: Contents = examine("it", raw("minari:cartpole/random-v0"))
    assert (contents.terminated, contents.unmarked, contents.usable) == (4, 0, True)
    assert contents.observation == "(4,) float32"
