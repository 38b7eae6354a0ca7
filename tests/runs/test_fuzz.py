"""Any file is loaded or refused with a sentence: no other exception, no wait.

Protects the readers of headers, manifests, configurations, tables and archives, with bytes and JSON that
nobody thought of. 200 examples of each in every commit, 20,000 in full.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from full import FULL
from hostile import NAN, rehashed
from tiny import TINY
from qhat import recipes
from qhat.agent.saved import read_saved
from qhat.axes.actions import Actions
from qhat.demonstrations.reading import read
from qhat.engine.learner import Learner
from qhat.environments.base import Spec
from qhat.recipes.config import TrainConfig
from qhat.runs import checkpoint
from qhat.runs.folder import RunFolder
from qhat.runs.run import Run, spec_to_json
from qhat.runs.checkpoints import save
from qhat.system.errors import UsageError
from qhat.system.files import parse_json

SMALL = dataclasses.replace(TINY, hidden=(4,), num_envs=1, replay_capacity=200)
SPEC = Spec("CartPole-v1", "gymnax", (4,), "float32", Actions((2,)), "CartPole-v1")
TREE = {"w": np.ones((3, 2), np.float32), "b": np.array([True, False]), "n": {"count": np.int32(7)}}
fuzz = settings(
    max_examples=20_000 if FULL else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run folder of a training run, a checkpoint of small tensors, and demonstrations."""
    place = tmp_path_factory.mktemp("fuzz")
    folder = RunFolder.create(place / "run", "CartPole-v1", "qhat")
    config = TrainConfig("CartPole-v1", recipe=SMALL)
    folder.describe({**config.to_json(), "spec": spec_to_json(SPEC)})
    folder.start_tables()
    keys = jax.random.split(jax.random.key(0), 2)
    weights = jax.jit(jax.vmap(Learner.of(SMALL, (4,), Actions((2,))).init_parameters))(keys)
    about = {"step": 40, "env": "CartPole-v1", "recipe": SMALL.to_json(), "best_score": [1.5, None],
             "best_step": [20, 40], "halted": [False, False]}  # fmt: skip
    save(folder, 40, {"weights": weights}, weights, about)
    for name in ("tree", "whole"):
        checkpoint.write(place / name, {"weights": TREE}, {})
    Run.open(place / "run").weights()
    return place


def edited(raw: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Flip, insert, overwrite, drop and repeat parts of valid data."""
    data = bytearray(raw)
    for kind, where, content in edits:
        at, size = int(where * len(data)), max(len(content), 1)
        if kind == "flip" and data:
            at = min(at, len(data) - 1)
            data[at] ^= content[0] if content else 1
        elif kind == "insert":
            data[at:at] = content
        elif kind == "overwrite":
            data[at : at + size] = content
        elif kind == "drop":
            del data[at : at + size**2]
        elif kind == "repeat":
            data[at:at] = data[at : at + size**2]
        elif kind == "cut":
            del data[at:]
    return bytes(data)


WORDS = st.sampled_from([b'"', b"{", b"}", b"[", b"]", b":", b",", b"-", b"9" * 25, b"1e999",
                         b"NaN", b"null",
                         b"\\ud800", b"\xff", b"\0", b'"F32"', b'"shape"', b"F64", b"0" * 9])  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "overwrite", "drop", "repeat", "cut"]),
        st.floats(0, 1),
        st.binary(max_size=12) | WORDS,
    ),
    max_size=6,
)
BYTES = st.binary(max_size=200)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**9, 2**31, 2**63, 2**64, 1e308, -1, 0, "..", "/etc/passwd", "name", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(["set", "drop", "add", "swap"]), JSONS),
                   min_size=1, max_size=3)  # fmt: skip


def changed(data: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """Set, drop, add and swap values anywhere within a JSON value."""
    data = copy.deepcopy(data)
    for number, kind, value in changes:
        spots = list(_spots(data))
        holder, key = spots[number % len(spots)]
        if kind == "set":
            holder[key] = value
        elif kind == "drop":
            del holder[key]
        elif kind == "add" and isinstance(holder, dict):
            holder[f"{key}_"] = value
        elif kind == "add":
            holder.append(value)
        else:
            other, there = spots[(number // 7) % len(spots)]
            holder[key] = copy.deepcopy(other[there])
        if not data:
            break
    return data


def _spots(data: Any) -> Any:
    for key in data if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _spots(data[key])


def survives(use: Callable[[], Any]) -> Any:
    """Return the loaded value; `None` if it was refused with a sentence of reasonable length."""
    try:
        return use()
    except UsageError as error:
        sentence = str(error)
    assert 20 < len(sentence) < 3_000
    return None


def load_tensors(place: Path, raw: bytes) -> None:
    folder = place / "tree"
    (folder / "weights.safetensors").write_bytes(raw)
    rehashed(folder)
    found = survives(lambda: checkpoint.read_tree(folder, "weights", TREE, finite=[""]))
    if found is not None:
        for leaf, whole in zip(jax.tree.leaves(found), jax.tree.leaves(TREE), strict=True):
            assert (leaf.shape, leaf.dtype) == (whole.shape, whole.dtype)
            assert leaf.dtype != np.float32 or np.isfinite(leaf).all()


@pytest.fixture(scope="module")
def tensors(place: Path) -> bytes:
    return (place / "whole" / "weights.safetensors").read_bytes()


@fuzz
@given(BYTES)
@example(b"\x02\0\0\0\0\0\0\0{}")
def test_tensors_of_any_bytes(place: Path, raw: bytes):
    load_tensors(place, raw)


@fuzz
@given(EDITS)
def test_tensors_that_were_whole(place: Path, tensors: bytes, edits: list):
    load_tensors(place, edited(tensors, edits))


@fuzz
@given(CHANGES)
def test_headers_that_were_whole(place: Path, tensors: bytes, changes: list):
    length = int.from_bytes(tensors[:8], "little")
    header = json.dumps(changed(json.loads(tensors[8 : 8 + length]), changes)).encode()
    load_tensors(place, len(header).to_bytes(8, "little") + header + tensors[8 + length :])


@fuzz
@given(BYTES | EDITS | CHANGES | JSONS)
@pytest.mark.parametrize("name", ["best/manifest.json", "config.json"])
def test_what_a_run_says(place: Path, name: str, given: Any):
    path = place / "run" / name
    whole = path.read_bytes()
    path.write_bytes(_text(whole, given))
    try:
        weights = survives(lambda: Run.open(place / "run").weights("best"))
        assert weights is None or jax.tree.leaves(weights)[0].shape[0] == 2
    finally:
        path.write_bytes(whole)


@fuzz
@given(BYTES | EDITS | CHANGES | JSONS)
def test_what_an_agent_says(given: Any):
    about = {"recipe": SMALL.to_json(), "observation": {"shape": [4], "dtype": "float32"},
             "masked": False, "actions": Actions((2,)).to_json(), "steps": 1, "updates": 0,
             "acts": 3, "open": True}  # fmt: skip
    text = _text(json.dumps(about).encode(), given).decode(errors="replace")

    def load() -> Any:
        manifest = parse_json(text, Path("it"))
        return read_saved(manifest, ()) if isinstance(manifest, dict) else None

    survives(load)


def _text(whole: bytes, given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if isinstance(given, list) and given and isinstance(given[0], tuple):
        changed_bytes = edited(whole, given) if isinstance(given[0][0], str) else None
        return json.dumps(changed(json.loads(whole), given)).encode() if changed_bytes is None else changed_bytes
    return json.dumps(given).encode()


@fuzz
@given(BYTES | EDITS)
@pytest.mark.parametrize("name", ["metrics.csv", "last"])
def test_tables(place: Path, name: str, given: Any):
    path = place / "run" / name
    whole = path.read_bytes()
    path.write_bytes(_text(whole, given))
    folder = RunFolder(place / "run")
    try:
        survives(lambda: folder.rewind(20) if name == "metrics.csv" else folder.last())
    finally:
        path.write_bytes(whole)


@fuzz
@given(BYTES | EDITS)
@example([("overwrite", 0.999, NAN)])
def test_demonstrations(place: Path, given: Any):
    file = io.BytesIO()
    rows: Any = {name: np.zeros((3, 4), np.float32) for name in ("observation", "next_observation")}
    np.savez_compressed(
        file, **rows, action=np.zeros(3, int), reward=np.zeros(3), terminated=np.zeros(3, bool)
    )
    path = place / "demos.npz"
    path.write_bytes(_text(file.getvalue(), given))
    survives(lambda: read(str(path), SPEC))
