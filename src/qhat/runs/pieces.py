"""Replay on disk, in pieces: a checkpoint writes only those that changed since the previous one.

A ring of a million transitions may take gigabytes, and training overwrites a few percent of it between two
checkpoints. The other pieces are hard-linked, so that every checkpoint is complete. Recorded steps that
stay beside replay are one more piece of each seed, which never changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from qhat.engine.state import TrainState
from qhat.runs import checkpoint

BYTES, MOST = 2**23, 64
"""Size of a piece, and the largest number of pieces of one seed's replay."""
ROWS = ("observation", "action", "reward", "kind", "legal")
"""Fields of the ring that have a row for each step."""
WEIGHTS = ("seeds/learner/online", "seeds/learner/target")
"""The parts of a state that must be finite."""


class Pieces:
    """Splits the replay of a run into pieces, and remembers which checkpoint has them."""

    def __init__(self, state: TrainState):
        """Choose the pieces for a state of arrays or shapes."""
        ring = state.seeds.ring
        # Only shapes: a reference to the state would double its memory.
        self._like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
        self._fields = [name for name in ROWS if getattr(ring, name) is not None]
        self._seeds, self._envs = ring.cursor.shape
        self._rows, self._stack = ring.rows, ring.stack
        leaves = [getattr(ring, name) for name in self._fields]
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // self._seeds
        count = max(1, min(MOST, size // BYTES, self._rows))
        self._bounds = np.linspace(0, self._rows, count + 1).astype(int).tolist()
        self._has_logged = ring.logged is not None
        self._place: Path | None = None

    def split(self, state: TrainState) -> tuple[TrainState, dict[str, Any], dict[str, Path]]:
        """Return the state without replay's rows, the pieces to write, and the folders of the others.

        Pieces without any step yet are in neither.
        """
        fresh, same = {}, {}
        filled = np.asarray(state.seeds.ring.filled).max(axis=1).tolist()
        for seed in range(self._seeds):
            changed = [*self._changed(state, seed), *([False] if self._has_logged else [])]
            for index, is_new in enumerate(changed):
                name = _name(seed, index)
                if not self._reached(filled[seed], index):
                    continue
                if (
                    self._place is not None
                    and not is_new
                    and (self._place / f"{name}.safetensors").exists()
                ):
                    same[name] = self._place
                else:
                    fresh[name] = self._piece(state, seed, index)
        return self._bare(state), fresh, same

    def saved(self, place: Path, state: TrainState) -> None:
        """Record that the checkpoint at `place` has this state's replay."""
        self._place = place
        self._iterations = int(state.clock.iterations)
        self._cursor = np.array(state.seeds.ring.cursor)

    def read(self, place: Path) -> TrainState:
        """Read a checkpoint's state. Raises `UsageError` as `checkpoint.read_tree` does."""
        rest = checkpoint.read_tree(place, "state", self._bare(self._like), finite=WEIGHTS)
        ring = self._like.seeds.ring
        # The values of `Ring.empty`: rows without a step are in no piece.
        leaves = [(name, getattr(ring, name)) for name in self._fields]
        whole = [np.full(leaf.shape, name == "legal", leaf.dtype) for name, leaf in leaves]
        beside = self._read_logged(place)
        filled = np.asarray(rest.seeds.ring.filled).max(axis=1).tolist()
        for seed in range(self._seeds):
            for index in range(len(self._bounds) - 1):
                if not self._reached(filled[seed], index):
                    continue
                first, last = self._bounds[index : index + 2]
                like = {
                    name: jax.ShapeDtypeStruct((self._envs, last - first, *all_.shape[2:]), all_.dtype)
                    for name, all_ in zip(self._fields, whole, strict=True)
                }
                piece = checkpoint.read_tree(place, _name(seed, index), like)
                for name, all_ in zip(self._fields, whole, strict=True):
                    self._by_env(all_[seed])[:, first:last] = piece[name]
        return eqx.tree_at(self._where, rest, whole + beside, is_leaf=lambda leaf: leaf is None)

    def _read_logged(self, place: Path) -> list[np.ndarray]:
        """Read the recorded steps of every seed."""
        if not self._has_logged:
            return []
        like = {
            name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
            for name, leaf in zip(self._fields, self._of_logged(self._like), strict=True)
        }
        last = len(self._bounds) - 1
        seeds = [checkpoint.read_tree(place, _name(seed, last), like) for seed in range(self._seeds)]
        return [np.stack([np.asarray(each[name]) for each in seeds]) for name in self._fields]

    def _of_logged(self, state: TrainState) -> list[Any]:
        return [getattr(state.seeds.ring.logged, name) for name in self._fields]

    def _reached(self, filled: int, index: int) -> bool:
        """Whether any step has written to a piece; that of recorded steps is never empty."""
        if index == len(self._bounds) - 1:
            return True
        return bool(filled + self._stack >= self._bounds[index])

    def _changed(self, state: TrainState, seed: int) -> np.ndarray:
        """Return which pieces of a seed may differ from those of the last checkpoint."""
        if self._place is None:
            return np.ones(len(self._bounds) - 1, bool)
        longest = self._stack + 1
        turns = int(state.clock.iterations) - self._iterations
        touched = np.zeros(self._rows + 1, int)
        cursor = np.asarray(state.seeds.ring.cursor)
        for before, now in zip(self._cursor[seed], cursor[seed], strict=True):
            # A step may change the row before it, and writes its successor one row (or stack) ahead.
            length = (now - before) % self._rows + 2 + longest
            if (turns + 1) * longest + 2 + longest >= self._rows:
                length = self._rows
            first = (before - 1) % self._rows
            for start, end in ((first, first + length), (0, first + length - self._rows)):
                if end > start:
                    touched[start] += 1
                    touched[min(end, self._rows)] -= 1
        is_touched = np.cumsum(touched[:-1]) > 0
        return np.array([part.any() for part in np.split(is_touched, self._bounds[1:-1])])

    def _piece(self, state: TrainState, seed: int, index: int) -> dict[str, np.ndarray]:
        if index == len(self._bounds) - 1:
            logged = zip(self._fields, self._of_logged(state), strict=True)
            return {name: _of_seed(leaf, seed) for name, leaf in logged}
        first, last = self._bounds[index : index + 2]
        ring = state.seeds.ring
        return {
            name: self._by_env(_of_seed(getattr(ring, name), seed))[:, first:last] for name in self._fields
        }

    def _by_env(self, rows: np.ndarray) -> np.ndarray:
        """View `[N, ...]` as `[E, rows, ...]`."""
        return rows.reshape(self._envs, self._rows, *rows.shape[1:])

    def _where(self, state: TrainState) -> list[Any]:
        whole = [getattr(state.seeds.ring, name) for name in self._fields]
        return whole + (self._of_logged(state) if self._has_logged else [])

    def _bare(self, state: TrainState) -> TrainState:
        return eqx.tree_at(self._where, state, replace_fn=lambda _: None)


def _name(seed: int, index: int) -> str:
    return f"replay-{seed}-{index}"


def _of_seed(leaf: Any, seed: int) -> np.ndarray:
    """Return one seed's rows without a copy, on whichever device they are."""
    for shard in leaf.addressable_shards:
        first = shard.index[0].start or 0
        if first <= seed < first + shard.data.shape[0]:
            return np.asarray(shard.data)[seed - first]
    raise IndexError(f"seed {seed} is on no device of this process")
