"""A run that learns from more recorded steps than memory has room for: replay is a window over them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qhat.axes.training import LEAST, Logs
from qhat.demonstrations.pieces import Piece, pieces_of, rows_in
from qhat.demonstrations.reading import Demonstrations, joined
from qhat.environments.base import Spec
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.system.errors import require, warn
from qhat.system.files import read_json, write_text
from qhat.system.host_memory import available

NAME = "pieces.json"
"""File of a run folder: the rows of each piece of the data, where replay is a window over them."""
ROOM = 0.5
"""Share of the free memory that data may take without a window, and that a window takes."""
KEPT = ("reward", "terminated", "truncated", "broken", "marked")
"""Columns of all rows that are kept for what is said of the data as a whole."""


@dataclasses.dataclass(frozen=True)
class Fed:
    """Data that replay is a window over."""

    pieces: Sequence[Piece]
    rows: Sequence[int]
    """Of each piece."""


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
        # Each seed has a copy in its replay; beside it they are read, checked and cut into blocks.
        each, room = (config.seeds + 3) * row_bytes(spec), ROOM * available()
        if rows * each <= room:
            return config
        window = max(LEAST, int(room / each))
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
        assert config.run_dir is not None
        folder = RunFolder.open(config.run_dir)
        pieces = _pieces(config, folder.read_config().get("demos", []), spec)
        return Fed(pieces, _noted(folder, pieces)), []
    pieces, rows = _pieces(config, config.demos, spec), []
    found: dict[str, list[Demonstrations]] = {}
    for index, piece in enumerate(pieces):
        show(f"reading the data, {index / len(pieces):.0%}")
        data = piece.read()
        rows.append(len(data))
        nothing = np.zeros((len(data), 0))
        kept: dict[str, Any] = {name: getattr(data, name) for name in KEPT}
        part = Demonstrations(nothing, nothing, successor=nothing, **kept)
        found.setdefault(piece.source, []).append(part)
    return Fed(pieces, rows), [joined(parts) for parts in found.values()]


def _pieces(config: TrainConfig, sources: Sequence[str], spec: Spec) -> list[Piece]:
    rewards = config.recipe.behaviour.rewarded
    return [piece for source in sources for piece in pieces_of(source, spec, rewards)]


def note(folder: RunFolder, rows: Sequence[int]) -> None:
    """Write the rows of each piece, from which the order of blocks follows."""
    write_text(folder.path / NAME, json.dumps(list(rows)) + "\n")


def _noted(folder: RunFolder, pieces: Sequence[Piece]) -> list[int]:
    """Return the rows of each piece, of a run that is resumed. Raises `UsageError` if the data changed."""
    path = folder.path / NAME
    require(path.is_file(), f"'{path}' is missing; expected the rows of each piece of the data.")
    rows = read_json(path)
    good = isinstance(rows, list) and all(type(each) is int and each > 0 for each in rows)
    require(good, f"'{path}' is damaged; expected a list of the rows of each piece of the data.")
    require(
        len(rows) == len(pieces),
        f"The data of run '{folder.path}' changed: they have {len(pieces):,} pieces, and had {len(rows):,}."
        " Expected the data that it began with, where they were.",
    )
    return rows
