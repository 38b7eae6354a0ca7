"""A run that learns from more recorded steps than memory has room for: replay is a window over them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhat.axes.axis import to_json
from qhat.axes.training import LEAST, Logs
from qhat.demonstrations.pieces import Piece, pieces_of, rows_in
from qhat.demonstrations.reading import Demonstrations, joined
from qhat.engine.feed import digest
from qhat.environments.base import Spec
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.system.errors import UsageError, require, warn
from qhat.system.files import read_json, write_text
from qhat.system.host_memory import available

NAME = "pieces.json"
"""File of a run folder: rows and digest of each piece of the data, where replay is a window over them."""
ROOM = 0.5
"""Share of the free memory that data may take without a window, and that a window takes."""
KEPT = ("reward", "terminated", "truncated", "broken", "marked")
"""Columns of all rows that are kept for what is said of the data as a whole."""


@dataclasses.dataclass(frozen=True)
class Fed:
    """Data that replay is a window over."""

    pieces: Sequence[Piece]
    marks: Sequence[tuple[int, int]]
    """Rows and digest of each piece."""


def windowed(config: TrainConfig, spec: Spec) -> TrainConfig:
    """Return the configuration, with a window over the data if they have no room in memory.

    Warns:
        UserWarning: a window was chosen.
    """
    training = config.recipe.training
    if not isinstance(training, Logs) or config.resume:
        return config
    counts = [rows_in(source, config.recipe.behaviour.rewarded) for source in config.demos]
    rows = sum(count or 0 for count in counts)
    window = training.window
    if not window:
        # Replay has an observation of each row for every seed; beside it they are read, checked and cut.
        each, room = (config.seeds / 2 + 3) * row_bytes(spec), ROOM * available()
        if rows * each <= room:
            return config
        # A power of two: the memory that is free now is not the same next time.
        window = max(LEAST, 2 ** int(math.log2(max(1.0, room / each))))
        warn(
            f"The data ({rows:,} rows) have no room in memory for {config.seeds} seed(s): replay has"
            f" {window:,} rows of them at a time, which are exchanged during training (training"
            f" logs:window={window}).",
            stacklevel=3,
        )
    whole = None not in counts and rows <= window
    training = dataclasses.replace(training, window=0 if whole else window)
    capacity = config.recipe.replay_capacity if whole else window
    recipe = dataclasses.replace(config.recipe, training=training, replay_capacity=capacity)
    return dataclasses.replace(config, recipe=recipe)


def row_bytes(spec: Spec) -> int:
    """Return the bytes of a recorded row: two observations, the action, the reward and what it led to."""
    masks = 2 * spec.actions.factors * spec.actions.width if spec.masked else 0
    return 2 * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize + 4 * spec.actions.factors + 7 + masks


def fed_by(
    config: TrainConfig, spec: Spec, show: Callable[[str], None]
) -> tuple[Fed | None, list[Demonstrations]]:
    """Read every piece of the data once, and check its rows: none is trained on before all of them were.

    Args:
        config: the result of `windowed`.
        show: called with what is done now.

    Returns:
        the data; `None` where replay has all of them. And the columns `KEPT` of each source, unless the run
        is resumed.
    """
    training = config.recipe.training
    if not isinstance(training, Logs) or not training.window:
        return None, []
    if config.resume:
        return _again(config, spec), []
    parts = [_pieces(config, source, spec) for source in config.demos]
    every, marks, outlines = sum(map(len, parts)), [], []
    for pieces in parts:
        outline = []
        for piece in pieces:
            show(f"reading the data, {len(marks) / every:.0%}")
            data = piece.read()
            marks.append((len(data), digest(data)))
            outline.append(_outline(piece, data))
        outlines.append(joined(outline))
    return Fed([piece for pieces in parts for piece in pieces], marks), outlines


def _again(config: TrainConfig, spec: Spec) -> Fed | None:
    """Return the data of a run that is resumed; `None` where its settings are others, which is refused."""
    assert config.run_dir is not None
    folder = RunFolder.open(config.run_dir)
    written = folder.read_config()
    if written.get("recipe", {}).get("training") != to_json(config.recipe.training):
        return None
    marks, began = _noted(folder)
    try:
        pieces = [piece for source in written.get("demos", []) for piece in _pieces(config, source, spec)]
    except UsageError as error:
        raise UsageError(
            f"{error} The run began in '{began}', and its data are named from there."
        ) from None
    require(
        len(marks) == len(pieces),
        f"The data of run '{folder.path}' changed: they have {len(pieces):,} pieces, and had"
        f" {len(marks):,}. Expected the data that it began with, where they were.",
    )
    return Fed(pieces, marks)


def _outline(piece: Piece, data: Demonstrations) -> Demonstrations:
    nothing = np.zeros((len(data), 0))
    kept: dict[str, Any] = {name: getattr(data, name) for name in KEPT}
    if piece.is_cut:
        # Only the piece ends here.
        kept["truncated"] = kept["truncated"].copy()
        kept["truncated"][-1] = False
    return Demonstrations(nothing, nothing, successor=nothing, **kept)


def _pieces(config: TrainConfig, source: str, spec: Spec) -> list[Piece]:
    return pieces_of(source, spec, config.recipe.behaviour.rewarded)


def note(folder: RunFolder, marks: Sequence[tuple[int, int]]) -> None:
    """Write the rows and the digest of each piece: the order of blocks, and what they have to be."""
    whole = {
        "folder": str(Path.cwd()),
        "rows": [rows for rows, _ in marks],
        "digests": [d for _, d in marks],
    }
    write_text(folder.path / NAME, json.dumps(whole) + "\n")


def _noted(folder: RunFolder) -> tuple[list[tuple[int, int]], str]:
    """Return what `note` wrote: the marks, and the folder in which the run began."""
    path = folder.path / NAME
    require(path.is_file(), f"'{path}' is missing; expected the rows of each piece of the data.")
    whole = read_json(path)
    rows, digests = (whole.get(name) if isinstance(whole, dict) else None for name in ("rows", "digests"))
    good = _whole_numbers(rows, 1) and _whole_numbers(digests, 0)
    if rows is None or digests is None or not good or len(rows) != len(digests):
        raise UsageError(
            f"'{path}' is damaged; expected the rows and the digest of each piece of the data."
        )
    return list(zip(rows, digests, strict=True)), str(whole.get("folder"))


def _whole_numbers(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= least for each in value)
