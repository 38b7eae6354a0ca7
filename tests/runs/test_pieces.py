"""Replay that is saved in pieces: a linked piece equals the piece that would have been written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from full import FULL
from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.sampler import Prioritised
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay.ring import Ring
from qhat.engine.state import TrainState
from qhat.runs import checkpoint, pieces
from qhat.system.errors import UsageError
from scripted import ScriptedCompiled

ROWS, SEEDS = 120, 2


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return looped(monkeypatch, 3)


def looped(monkeypatch: pytest.MonkeyPatch, copies: int) -> Loop:
    monkeypatch.setattr(pieces, "BYTES", 100)
    recipe = replace(
        recipes.get("nstep_dqn"), hidden=(4,), num_envs=copies, replay_capacity=copies * ROWS, batch_size=8,
        learning_starts=16, replay_ratio=0.1, sampler=Prioritised(),
    )  # fmt: skip
    environment = ScriptedCompiled(copies, next_step=copies == 3)
    program = Program.of(recipe, (3,), "float32", environment.spec.actions)
    return Loop(program, environment)


def save(kept: pieces.Pieces, place: Path, state: TrainState) -> tuple[int, int]:
    """Write as a run does; return the number of written pieces, and the number of all pieces."""
    rest, fresh, same = kept.split(state)
    checkpoint.write(place, {"state": rest, **fresh}, {}, same)
    kept.saved(place, state)
    return len(fresh), len(fresh) + len(same)


def require_equal(one: Any, other: Any) -> None:
    words = [checkpoint.flatten(tree) for tree in (one, other)]
    assert words[0].keys() == words[1].keys()
    for name, value in words[0].items():
        np.testing.assert_array_equal(value, words[1][name], err_msg=name)


@pytest.mark.parametrize("copies", [1, 3])
def test_what_is_read_is_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: int):
    """Round the ring several times, with calls of 0 to 150 iterations between two checkpoints."""
    loop = looped(monkeypatch, copies)
    state = loop.init(jax.vmap(jax.random.key)(np.arange(SEEDS)))
    run, kept, rng = loop.compile(150), pieces.Pieces(state), np.random.default_rng(copies)
    shapes = jax.eval_shape(loop.init, jax.vmap(jax.random.key)(np.arange(SEEDS)))
    written = []
    counts = rng.permutation(np.tile([0, 1, 2, 5, 9, 20, 60, 150], 25 if FULL else 2))
    for number, count in enumerate(counts.tolist()):
        if count:
            state, _ = run(state, count)
        if number % 7 == 6:
            # New episodes, as after a resume: replay is cut, and goes on a row later.
            state = loop.restart(state, jax.vmap(jax.random.key)(np.arange(number, number + SEEDS)))
        place = tmp_path / str(number)
        fresh, all_ = save(kept, place, state)
        written.append((count, fresh / all_))
        require_equal(pieces.Pieces(shapes).read(place), state)
        # A later process knows of the last checkpoint what it read from it.
        if number % 5 == 4:
            kept = pieces.Pieces(shapes)
            kept.saved(place, state)
    few = [share for count, share in written[1:] if count <= 2]
    assert max(few) < 0.35, written
    assert {share for count, share in written if count == 150} == {1.0}


def test_what_no_step_has_reached_is_not_written(loop: Loop, tmp_path: Path):
    state = loop.init(jax.vmap(jax.random.key)(np.arange(SEEDS)))
    shapes = jax.eval_shape(lambda: state)
    run, kept, sizes = loop.compile(150), pieces.Pieces(state), []
    for number, count in enumerate((0, 20, 20, 100)):
        state, _ = run(state, count)
        _, all_ = save(kept, tmp_path / str(number), state)
        sizes.append(all_)
        require_equal(pieces.Pieces(shapes).read(tmp_path / str(number)), state)
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == len(kept._bounds[1:]) * SEEDS
    assert sizes[0] <= 2 * SEEDS


def test_an_older_checkpoint_may_go(loop: Loop, tmp_path: Path):
    state = loop.init(jax.vmap(jax.random.key)(np.arange(SEEDS)))
    run, kept = loop.compile(150), pieces.Pieces(state)
    state, _ = run(state, 150)
    save(kept, tmp_path / "old", state)
    shapes = jax.eval_shape(lambda: state)
    state, _ = run(state, 3)
    fresh, all_ = save(kept, tmp_path / "new", state)
    assert 0 < fresh < all_
    linked = [path for path in (tmp_path / "new").iterdir() if path.stat().st_nlink == 2]
    assert len(linked) == all_ - fresh
    checkpoint.remove(tmp_path / "old")
    require_equal(pieces.Pieces(shapes).read(tmp_path / "new"), state)
    # What is gone is written again.
    checkpoint.remove(tmp_path / "new")
    assert save(kept, tmp_path / "newest", state) == (all_, all_)


def test_a_piece_that_is_missing_or_of_another_place_is_refused(loop: Loop, tmp_path: Path):
    state = loop.init(jax.vmap(jax.random.key)(np.arange(SEEDS)))
    state, _ = loop.compile(150)(state, 100)
    kept, place = pieces.Pieces(state), tmp_path / "whole"
    save(kept, place, state)
    one, other = place / "replay-0-0.safetensors", place / "replay-1-0.safetensors"
    for damage in ("exchanged", "missing"):
        if damage == "exchanged":
            theirs = other.read_bytes()
            other.write_bytes(one.read_bytes())
            one.write_bytes(theirs)
        else:
            one.unlink()
        with pytest.raises(UsageError, match="replay-0-0"):
            pieces.Pieces(state).read(place)


def test_where_files_have_one_name_they_are_copied(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError("no such thing here")

    monkeypatch.setattr("os.link", refuse)
    state = loop.init(jax.vmap(jax.random.key)(np.arange(SEEDS)))
    run, kept = loop.compile(150), pieces.Pieces(state)
    state, _ = run(state, 150)
    save(kept, tmp_path / "old", state)
    shapes = jax.eval_shape(lambda: state)
    state, _ = run(state, 3)
    fresh, all_ = save(kept, tmp_path / "new", state)
    assert fresh < all_
    require_equal(pieces.Pieces(shapes).read(tmp_path / "new"), state)


def test_ranges_of_returns_have_the_name_of_older_files():
    """Older checkpoints name them `seen`; the field is `outlook`."""
    ring = Ring.empty(1, 8, (2,), np.float32, Actions((3,)), watch=0.9)
    names = set(checkpoint.flatten({"ring": ring, "outlook": np.zeros(1)}))
    ranges = {f"ring/seen/{name}" for name in ("trace", "returns", "rewards")}
    assert {name for name in names if "seen" in name or "outlook" in name} == {"outlook", *ranges}
