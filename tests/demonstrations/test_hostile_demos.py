"""Demonstrations made to break a reader.

Protects users who train on a stranger's log: against archives that unpack to more than the memory, and
datasets that name a function to call.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from qhat.axes.actions import Actions
from qhat.demonstrations.reading import read
from qhat.environments.base import Spec
from qhat.system.errors import UsageError

SPEC = Spec("it", "own", (2,), "float32", Actions((3,)))
HUGE = 10**9


class Trap:
    """Sets `sprung` when it is unpickled."""

    sprung = False

    def __reduce__(self) -> tuple:
        return setattr, (Trap, "sprung", True)


def rows() -> dict[str, np.ndarray]:
    pairs = {name: np.zeros((3, 2), np.float32) for name in ("observation", "next_observation")}
    return pairs | {name: np.zeros(3) for name in ("action", "reward", "terminated")}


def array(shape: tuple[int, ...], descr: str = "<f4", body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An .npy file that claims a shape and a type."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body


def archive(changed: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as made:
        for name, value in rows().items():
            array_file = io.BytesIO()
            np.save(array_file, value)
            made.writestr(f"{name}.npy", changed.get(name, array_file.getvalue()))
    return file.getvalue()


def claiming(size: int) -> bytes:
    """An archive whose directory says that its first array unpacks to `size` bytes."""
    raw = bytearray(archive({}))
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = struct.pack("<I", size)
    return bytes(raw)


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([value, value, value], object), allow_pickle=True)
    return file.getvalue()


ZEROS = 30 * 2**20
HARMS: dict[str, Callable[[], bytes]] = {
    "an object": lambda: archive({"reward": pickled(Trap())}),
    "a pickle for an array": lambda: archive({"reward": pickle.dumps(Trap())}),
    "a shape of 10^9": lambda: archive({"observation": array((HUGE, 2))}),
    "a shape that overflows": lambda: archive({"observation": array((2**40, 2**40))}),
    "a shape below 0": lambda: archive({"observation": array((-3, -2), body=bytes(24))}),
    "a shape of words": lambda: archive({"observation": array(("3", "2"))}),  # pyright: ignore
    "rows of nothing": lambda: archive({"reward": array((HUGE,), "<U0")}),
    "a type that there is not": lambda: archive({"reward": array((3,), "<x9")}),
    "a structure": lambda: archive({"reward": array((3,), "f4,f4", bytes(24))}),
    "a header that is code": lambda: archive({"reward": b"\x93NUMPY\1\0\x10\0__import__('os')"}),
    "a header that is nested deep": lambda: archive({"reward": b"\x93NUMPY\1\0\xff\x20" + b"(" * 8_447}),
    "an array cut short": lambda: archive({"reward": array((3,), "<f8", bytes(20))}),
    "an array too long": lambda: archive({"reward": array((3,), "<f8", bytes(28))}),
    "a size of 4 GB": lambda: claiming(2**32 - 2),
    "a packing that NumPy has not": lambda: archive({}, zipfile.ZIP_LZMA),
    "zeros in a bomb": lambda: archive({"reward": array((ZEROS // 8,), "<f8", bytes(ZEROS))}),
    "an .npy file": lambda: array((HUGE,)),
    "an archive cut short": lambda: archive({})[:-30],
    "nothing": bytes,
}


@pytest.fixture
def small() -> Iterator[None]:
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15 * 2**20


@pytest.mark.parametrize("harm", HARMS)
def test_archives(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    path = tmp_path / "log.npz"
    path.write_bytes(HARMS[harm]())
    if harm == "zeros in a bomb":
        # As on a machine that has less than it unpacks to.
        monkeypatch.setattr("qhat.system.host_memory.psutil.virtual_memory", _little)
    request.getfixturevalue("small")
    with pytest.raises(UsageError) as refused:
        read(str(path), SPEC)
    assert str(path) in str(refused.value)
    assert not Trap.sprung
    assert [path.name for path in tmp_path.iterdir()] == ["log.npz"]


def _little() -> Any:
    return type("Memory", (), {"available": ZEROS})


def test_an_archive_that_is_whole_is_read(tmp_path: Path):
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (tmp_path / "log.npz").write_bytes(archive({}, how))
        assert len(read(str(tmp_path / "log.npz"), SPEC)) == 3


SPACES = {
    "observation_space": '{"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0], "high": [1, 1]}',
    "action_space": '{"type": "Discrete", "n": 3, "start": 0}',
}
"""As Minari writes them."""


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
@pytest.mark.filterwarnings("ignore:.*")
def test_a_dataset_calls_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str):
    """Minari makes the environment that a dataset without spaces names, whatever it is."""
    minari: Any = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "its" / "trap-v0" / "data").mkdir(parents=True)
    spec = EnvSpec("Trap-v0", "os:mkdir", kwargs={"path": str(tmp_path / "sprung")}).to_json()
    metadata = {
        "dataset_id": "its/trap-v0",
        "minari_version": "0.5.3",
        "env_spec": spec,
        "data_format": "hdf5",
    }
    metadata |= {name: value for name, value in SPACES.items() if name != space}
    (tmp_path / "its" / "trap-v0" / "data" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UsageError, match="do not name their spaces"):
        read("minari:its/trap-v0", SPEC)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(TypeError, match="must inherit"):
        minari.load_dataset("its/trap-v0")
    assert (tmp_path / "sprung").exists(), "Minari itself is safe by now: the check can go"


def test_a_dataset_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "its" / "trap-v0" / "data").mkdir(parents=True)
    metadata = {"dataset_id": "its/trap-v0", "minari_version": "0.5.3", **SPACES, "action_space": "{}"}
    (tmp_path / "its" / "trap-v0" / "data" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UsageError, match="cannot be read: KeyError"):
        read("minari:its/trap-v0", SPEC)


def test_a_dataset_that_claims_more_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("minari")
    h5py: Any = pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (data := tmp_path / "its" / "bomb-v0" / "data").mkdir(parents=True)
    metadata = {"dataset_id": "its/bomb-v0", "minari_version": "0.5.3", "data_format": "hdf5",
            "total_episodes": 1, "total_steps": 1, **SPACES}  # fmt: skip
    (data / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group.create_dataset("observations", (10**12, 2), "f4", chunks=(1_024, 2))
    assert (data / "main_data.hdf5").stat().st_size < 10_000
    with pytest.raises(UsageError, match="GiB are free on this machine; expected fewer episodes"):
        read("minari:its/bomb-v0", SPEC)
