"""LeRobot's datasets of both layouts, as `qhat learn`, `--demos` and `qhat doctor` read them.

Protects against rows that are joined across episodes, a last row that gets a successor which nobody
observed, time limits that count as the end of the task, and datasets of which a part is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhat.axes.actions import Actions
from qhat.cli import main
from qhat.demonstrations import lerobot, pieces
from qhat.demonstrations.reading import joined, raw, read
from qhat.demonstrations.sources import is_data, require_readable
from qhat.environments.base import Spec
from qhat.runs.run import Run
from qhat.system.errors import UsageError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no dataset of LeRobot's is read")
parquet = pytest.importorskip("pyarrow.parquet")

SPEC = Spec("it", "own", (4,), "float32", Actions((2,)))
LENGTHS = (5, 7, 4)
"""Rows of three episodes: the first and the last end in their last step, the second is cut."""


LEARN = (
    "--env", "CartPole-v1", "--steps", "60", "--batch-size", "16", "--eval-every", "60", "--eval-episodes",
    "1", "--hidden", "8",
)  # fmt: skip


def exit_of(*words: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    return ended.value.code


def rows(lengths: tuple[int, ...] = LENGTHS) -> dict[str, np.ndarray]:
    """Columns of every row, as LeRobot names them."""
    rng, count = np.random.default_rng(0), sum(lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    last = np.append(episode[1:] != episode[:-1], True)
    return {
        "observation.state": rng.normal(size=(count, 3)).astype(np.float32),
        "observation.environment_state": rng.normal(size=count).astype(np.float32),
        "action": rng.integers(2, size=count),
        "next.reward": rng.normal(size=count).astype(np.float32),
        "next.done": last & (episode != 1),
        "timestamp": (frame / 10).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(count),
        "task_index": np.zeros(count, np.int64),
    }


def table(columns: dict[str, np.ndarray]) -> Any:
    """Arrow's table: numbers, and lists of a fixed size, as LeRobot writes them."""
    made = {}
    for name, value in columns.items():
        made[name] = pa.array(value.ravel())
        if value.ndim > 1:
            made[name] = pa.FixedSizeListArray.from_arrays(made[name], value.shape[1])
    return pa.table(made)


def dataset(folder: Path, version: str = "v3.0", columns: dict[str, np.ndarray] | None = None) -> Path:
    """Write a dataset: of version 2 a file for each episode, of version 3 two files."""
    columns = rows() if columns is None else columns
    episode = columns["episode_index"]
    features = {
        name: {"dtype": str(value.dtype), "shape": list(value.shape[1:]) or [1], "names": None}
        for name, value in columns.items()
    }
    features["observation.images.top"] = {"dtype": "video", "shape": [48, 64, 3], "names": None}
    info = {
        "codebase_version": version, "fps": 10, "total_episodes": len(set(episode.tolist())),
        "total_frames": len(episode), "chunks_size": 1000, "features": features,
    }  # fmt: skip
    groups = [episode == one for one in sorted(set(episode.tolist()))]
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    if version == "v3.0":
        groups = [np.logical_or.reduce(groups[:2]), np.logical_or.reduce(groups[2:] or [episode < 0])]
        about = {"episode_index": np.arange(3), "length": np.array(LENGTHS)}
        (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
        parquet.write_table(table(about), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    for number, group in enumerate(groups):
        name = f"file-{number:03d}" if version == "v3.0" else f"episode_{number:06d}"
        part = {key: value[group] for key, value in columns.items()}
        parquet.write_table(table(part), folder / "data" / "chunk-000" / f"{name}.parquet")
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_transitions_are_those_of_the_rows(version: str, tmp_path: Path) -> None:
    given, folder = rows(), dataset(tmp_path / "set", version)
    observed = np.column_stack([given["observation.state"], given["observation.environment_state"]])
    # The second episode's last row, 11, has no successor.
    kept = np.delete(np.arange(16), 11)
    for source in (str(folder), f"lerobot:{folder}"):
        assert is_data(source)
        found = read(source, SPEC)
        np.testing.assert_array_equal(found.observation, observed[kept])
        np.testing.assert_array_equal(found.action[:, 0], given["action"][kept])
        np.testing.assert_array_equal(found.reward, given["next.reward"][kept])
        assert np.flatnonzero(found.terminated).tolist() == [4, 14]
        assert np.flatnonzero(found.truncated).tolist() == [10]
        inner = np.delete(np.arange(15), [4, 14])
        np.testing.assert_array_equal(found.successor[inner], observed[kept[inner] + 1])
        assert found.breaks(source) is None


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_files_are_read_one_after_the_other(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(dataset(tmp_path / "set", version))
    monkeypatch.setattr(pieces, "PIECE", 1)
    parts, whole = [piece.read() for piece in pieces.pieces_of(source, SPEC)], read(source, SPEC)
    assert len(parts) == (3 if version == "v2.1" else 2)
    assert pieces.rows_in(source) == 16
    for name in ("observation", "action", "reward", "successor", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(joined(parts), name), getattr(whole, name))


def test_columns_that_are_named_make_the_observation(tmp_path: Path) -> None:
    folder, given = dataset(tmp_path / "set"), rows()
    source = f"{folder}@observation.environment_state, observation.state"
    found = raw(source)["observation"]
    np.testing.assert_array_equal(found[:5, 1:], given["observation.state"][:5])
    np.testing.assert_array_equal(found[:5, 0], given["observation.environment_state"][:5])
    with pytest.raises(UsageError, match=r"is no column.*Did you mean 'observation.state'"):
        read(f"{folder}@observation.stat", SPEC)


def test_a_time_limit_is_not_the_end_of_the_task(tmp_path: Path) -> None:
    given = rows()
    given["next.truncated"] = given["next.done"] & (given["episode_index"] == 0)
    found = read(str(dataset(tmp_path / "both", columns=given)), SPEC)
    assert len(found) == 14
    assert np.flatnonzero(found.terminated).tolist() == [13]
    assert np.flatnonzero(found.truncated).tolist() == [3, 9]
    given["next.terminated"] = given.pop("next.done") & (given["episode_index"] == 2)
    again = read(str(dataset(tmp_path / "named", columns=given)), SPEC)
    np.testing.assert_array_equal(again.terminated, found.terminated)


def test_lists_of_every_kind_are_read(tmp_path: Path) -> None:
    folder, given = dataset(tmp_path / "set"), rows()
    path = folder / "data" / "chunk-000" / "file-000.parquet"
    there = parquet.read_table(path)
    at = there.column_names.index("observation.state")
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16())):
        changed = there.set_column(at, "observation.state", there.column(at).cast(kind))
        parquet.write_table(changed, path)
        found = raw(str(folder))["observation"]
        np.testing.assert_allclose(found[:5, :3], given["observation.state"][:5], atol=2e-3)


def test_only_imitation_learns_without_rewards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = rows((40, 40, 40))
    del given["next.reward"], given["next.done"]
    source = str(dataset(tmp_path / "set", columns=given))
    words = ["learn", source, *LEARN]
    assert exit_of(*words, "--run-dir", str(tmp_path / "cql")) == 2
    error = capsys.readouterr().err
    assert "have no column 'next.reward'" in error
    assert "--recipe bc" in error
    assert not (tmp_path / "cql").exists()
    assert exit_of(*words, "--recipe", "bc", "--run-dir", str(tmp_path / "bc")) == 0
    capsys.readouterr()
    assert exit_of("doctor", source, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["truncated"]) == (117, 3)
    assert any("every reward is 0" in trouble["found"] for trouble in found["troubles"])


def test_doctor_finds_gaps_in_time(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = rows()
    given["timestamp"][2:5] += 4.0
    assert exit_of("doctor", f"lerobot:{dataset(tmp_path / 'set', columns=given)}") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "3: 2 terminated, 1 truncated, 0 not marked" in out
    assert "1 gaps are longer than 3 times the usual 0.1 s, the first is after row 1" in out


def test_learning_reads_the_same_as_from_arrays(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", columns=rows((60, 60, 60)))
    arrays: dict[str, Any] = raw(str(folder))
    np.savez(tmp_path / "same.npz", **arrays)
    weights = []
    for number, source in enumerate((str(folder), str(tmp_path / "same.npz"))):
        words = ["learn", source, *LEARN, "--run-dir", str(tmp_path / str(number))]
        assert exit_of(*words) == 0
        weights.append(Run.open(tmp_path / str(number)).weights_sha256("last"))
    assert weights[0] == weights[1]


def changed(folder: Path, **info: Any) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | info))


def only_pictures(folder: Path) -> None:
    features = json.loads((folder / "meta" / "info.json").read_text())["features"]
    kept = {name: value for name, value in features.items() if name[:6] != "observ" or "images" in name}
    changed(folder, features=kept)


def cut(folder: Path) -> None:
    path = folder / "data" / "chunk-000" / "file-001.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def garbled(folder: Path) -> None:
    path = folder / "data" / "chunk-000" / "file-000.parquet"
    data = bytearray(path.read_bytes())
    data[4:600] = bytes(596)
    path.write_bytes(data)


def pointer(folder: Path) -> None:
    (folder / "data" / "chunk-000" / "file-000.parquet").write_text(
        "version https://git-lfs.github.com/spec"
    )


def rewritten(**columns: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "data" / "chunk-000" / "file-000.parquet"
        there = parquet.read_table(path)
        for name, make in columns.items():
            at = there.column_names.index(name)
            there = there.set_column(at, name, make(there.column(at)))
        parquet.write_table(there, path)

    return write


def poisoned(value: float) -> Callable[[Any], Any]:
    return lambda column: pa.array([value if at == 3 else 0.0 for at in range(len(column))])


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no info": (lambda f: (f / "meta" / "info.json").unlink(), "no LeRobot dataset: there is no"),
    "no json": (lambda f: (f / "meta" / "info.json").write_text("{"), "cannot be read.*expected JSON"),
    "a list": (lambda f: (f / "meta" / "info.json").write_text("[]"), "has no features"),
    "old": (lambda f: changed(f, codebase_version="v1.6"), "'v1.6'; expected v2.0, v2.1 or v3"),
    "a shape": (
        lambda f: changed(f, features={"action": {"dtype": "int8", "shape": "x"}}), "has the shape 'x'",
    ),
    "pictures": (only_pictures, "only observation.images.top; expected observation.state"),
    "no files": (lambda f: [p.unlink() for p in f.glob("data/*/*")], "have no file data/chunk"),
    "a file less": (
        lambda f: (f / "data" / "chunk-000" / "file-001.parquet").unlink(), "have 12 rows in 1 files.*16",
    ),
    "cut": (cut, "file-001.parquet' is damaged.*fetch it again"),
    "garbled": (garbled, "file-000.parquet' is damaged"),
    "a pointer": (pointer, "file-000.parquet' is damaged.*git lfs pull"),
    "a text": (
        rewritten(action=lambda c: pa.array(["x"] * len(c))), "has string in column 'action'",
    ),
    "ragged": (
        rewritten(**{"observation.state": lambda c: pa.array([[0.0] * (2 + n % 3) for n in range(12)])}),
        "in column 'observation.state'; expected 3 numbers in every row",
    ),
    "empty rows": (
        rewritten(**{"observation.state": lambda c: pa.array([None, *c.to_pylist()[1:]])}),
        "in column 'observation.state'; expected 3 numbers in every row",
    ),
    "NaN": (
        rewritten(**{"next.reward": poisoned(np.nan)}), "row 3 .at 0.300 s. of reward is nan; expected",
    ),
    "another action": (rewritten(action=poisoned(2.0)), r"row 3 .* of action is \[2.0\]; expected"),
    "a frame less": (
        rewritten(frame_index=lambda c: pa.array([0, 1, 3, 4, 5, *range(7)])), "has frame 3 after frame 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGED)
def test_what_is_damaged_is_refused_in_one_sentence(how: str, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set")
    damage, sentence = DAMAGED[how]
    damage(folder)
    with pytest.raises(UsageError, match=sentence) as error:
        read(f"lerobot:{folder}", SPEC)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_rows_are_named_by_their_index(tmp_path: Path) -> None:
    """One row is left out before it, and the sentence counts as the files do."""
    given = rows()
    given["action"][14] = 5
    with pytest.raises(UsageError, match=r"row 14 .* of action is \[5\]"):
        read(str(dataset(tmp_path / "set", columns=given)), SPEC)


def test_another_space_is_refused(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set")
    small = Spec("it", "own", (3,), "float32", Actions((2,)))
    with pytest.raises(UsageError, match=r"observation is float32 \(15, 4\); expected.*\(15, 3\)"):
        read(str(folder), small)
    assert len(read(f"{folder}@observation.state", small)) == 15


def test_without_pyarrow_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot, "installed", lambda module: module != "pyarrow")
    with pytest.raises(UsageError, match=r"need pyarrow, which is not.*pip install .*demos"):
        require_readable(str(dataset(tmp_path / "set")))


def test_commands_of_joints_are_nearest_bins(tmp_path: Path) -> None:
    given = rows()
    given["action"] = np.random.default_rng(1).uniform(-1, 1, (16, 2)).astype(np.float32)
    arm = Spec("arm", "own", (4,), "float32", Actions.binned([-1.0, -1.0], [1.0, 1.0], (3, 3), "arm"))
    found = read(str(dataset(tmp_path / "set", columns=given)), arm)
    kept = np.delete(np.arange(16), 11)
    np.testing.assert_array_equal(found.action, np.rint(given["action"][kept]).astype(int) + 1)
