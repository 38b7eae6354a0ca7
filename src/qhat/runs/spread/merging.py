"""Joins the checkpoints of groups along the axis of seeds, and cuts one into groups again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from qhat.runs import checkpoint, checkpoints
from qhat.runs.folder import RunFolder
from qhat.runs.manifest import read_about
from qhat.runs.spread.groups import BEFORE, FOLDER, STATE, Group, folder_of, write_division
from qhat.runs.spread.tables import cut_tables
from qhat.system.errors import UsageError
from qhat.system.files import write_text

SHARED = "clock/"
"""Leaves of a state that all seeds share; every other leaf has the axis of seeds first."""
PIECE = re.compile(r"replay-(\d+)-(\d+)\.safetensors")
EACH = ("best_score", "best_step", "halted")
"""Fields of a manifest with a value for each seed."""
Flat = dict[str, np.ndarray]


def merge(
    run: RunFolder, parts: Sequence[tuple[Group, RunFolder]], step: int | None, keep: int, by: str | None
) -> int:
    """Write the run's checkpoint from those of its groups; return its step.

    Args:
        step: of a checkpoint that every group has. None: the groups stopped at different steps; the
            checkpoint has the newest weights of each, and no state to continue from.
        keep: number of the newest checkpoints that stay.
        by: the setting that ends the run here.
    """
    folders = [each.last() if step is None else each.checkpoints / str(step) for _, each in parts]
    abouts = [read_about(folder) for folder in folders]
    at = min(about["step"] for about in abouts)
    about = {
        "step": at,
        "env": abouts[0]["env"],
        "recipe": abouts[0]["recipe"],
        **{name: [value for each in abouts for value in each[name]] for name in EACH},
        "stopped_by": by,
    }
    names = ("best", "weights") if step is None else ("state", "best", "weights")
    trees = {name: _joined([_read(folder, name) for folder in folders]) for name in names}
    same = {} if step is None else _pieces(folders, parts)
    checkpoints.save(run, at, trees, _weights(trees["best"]), about, keep, same)
    return at


def has_state(folder: Path) -> bool:
    """Whether training can continue from a checkpoint."""
    return (folder / STATE).exists()


def divide(run: RunFolder, groups: Sequence[Group]) -> None:
    """Give each group a run folder with its part of the run's last checkpoint, and of its tables.

    Raises:
        UsageError: the checkpoint has no state to continue from.
    """
    last = run.last()
    if not has_state(last):
        raise UsageError(f"'{last}' has weights alone, so the run cannot continue from it.")
    about, written = read_about(last), run.read_config()
    raw = json.loads(run.config.read_text(encoding="utf-8"))
    trees = {name: _read(last, name) for name in ("state", "best", "weights")}
    (run.path / FOLDER).mkdir(exist_ok=True)
    for group in groups:
        at = slice(group.first - written["seed"], group.first - written["seed"] + group.count)
        folder = folder_of(run.path, group)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(
            folder.config,
            json.dumps({**raw, "seed": group.first, "seeds": group.count}, indent=2) + "\n",
        )
        parts = {name: _cut(tree, at) for name, tree in trees.items()}
        mine = {**about, **{name: about[name][at] for name in EACH}}
        mine = {name: value for name, value in mine.items() if name not in ("format", "sha256")}
        same = {
            f"replay-{int(found[1]) - at.start}-{found[2]}": path
            for path, found in _found_pieces(last)
            if at.start <= int(found[1]) < at.stop
        }
        checkpoints.save(folder, about["step"], parts, _weights(parts["best"]), mine, 1, same)
    cut_tables(run, [(group, folder_of(run.path, group)) for group in groups], about["step"], BEFORE)
    # Last: without this file the division is made again.
    write_division(run.path, list(groups))


def _read(folder: Path, name: str) -> Flat:
    path = folder / f"{name}{checkpoint.SUFFIX}"
    try:
        return load_file(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from None


def _weights(best: Mapping[str, np.ndarray]) -> Flat:
    """Return the weights of a tree of best weights, without their scores and steps."""
    return {name.removeprefix("weights/"): leaf for name, leaf in best.items() if "/" in name}


def _joined(trees: Sequence[Flat]) -> Flat:
    return {
        name: leaf if name.startswith(SHARED) else np.concatenate([tree[name] for tree in trees])
        for name, leaf in trees[0].items()
    }


def _cut(tree: Mapping[str, np.ndarray], at: slice) -> dict[str, Any]:
    return {name: leaf if name.startswith(SHARED) else leaf[at] for name, leaf in tree.items()}


def _pieces(folders: Sequence[Path], parts: Sequence[tuple[Group, RunFolder]]) -> dict[str, Path]:
    """Return the files of replay of all groups, by their names in the run."""
    found, before = {}, 0
    for folder, (group, _) in zip(folders, parts, strict=True):
        for path, match in _found_pieces(folder):
            found[f"replay-{int(match[1]) + before}-{match[2]}"] = path
        before += group.count
    return found


def _found_pieces(folder: Path) -> Iterable[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.iterdir()):
        if (match := PIECE.fullmatch(path.name)) is not None:
            yield path, match
