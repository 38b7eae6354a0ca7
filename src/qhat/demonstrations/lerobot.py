"""LeRobot's datasets: `meta/info.json`, and rows in Parquet files below `data`.

Version 2 has a file for each episode (`data/chunk-000/episode_000000.parquet`), version 3 many episodes in
one (`data/chunk-000/file-000.parquet`). A row is what was observed, the action, and what came of it:

    observation.*     numbers that were observed; pictures and videos are left out
    action
    next.reward
    next.done         the episode ended in this step; `next.terminated` if there is one
    next.truncated    by a time limit or an operator; maybe
    next.success      maybe; an end, where there is no `next.done`
    timestamp         seconds since the episode's start
    episode_index, frame_index, index

No row has the observation after it: that is the next row's. The last row of an episode has none. Where the
task ended there, nothing counts after it, and the row stays. Otherwise the row is left out, and the one
before it is truncated.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhat.system.errors import UsageError, near_miss, require
from qhat.system.files import quote
from qhat.system.machine import install_command, installed

LEROBOT = "lerobot:"
INFO = Path("meta", "info.json")
LARGEST_INFO = 10_000_000
VERSIONS = ("v2.", "v3.")
NUMBERS = {
    "bool", *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
OBSERVED, ACTION, REWARD = "observation", "action", "next.reward"
TERMINATED, DONE, TRUNCATED, SUCCESS = "next.terminated", "next.done", "next.truncated", "next.success"
PLACES = ("episode_index", "frame_index", "index", "timestamp")
"""Where each row is: columns of every dataset."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset whose description and files were looked at."""

    source: str
    sizes: Mapping[str, int]
    """How many numbers each column has that is read."""
    observed: tuple[str, ...]
    """Columns that make the observation, in order."""
    files: tuple[Path, ...]
    counts: tuple[int, ...]
    """Rows of each file."""
    numbers: int
    """How many numbers the files have in these columns."""


def names_dataset(word: str) -> bool:
    """Whether a word names a dataset of LeRobot's: by its prefix, or as a folder that is one."""
    return word.startswith(LEROBOT) or (bool(word) and (_split(word)[0] / INFO).is_file())


def opened(source: str, rewards: bool = True) -> Dataset:
    """Look at a dataset's description, and at the end of every file.

    Args:
        rewards: whether it needs them.

    Raises:
        UsageError: it is no dataset, lacks a column or a file, or a file is damaged.
    """
    require(
        installed("pyarrow"),
        f"Demonstrations '{source}' need pyarrow, which is not installed; type:"
        f" {install_command('pyarrow')}",
    )
    folder, wanted = _split(source)
    info = _info(source, folder)
    sizes = _sizes(source, info["features"])
    observed = _observed(source, info["features"], sizes, wanted)
    for name in (ACTION, *PLACES):
        require(
            name in sizes,
            f"Demonstrations '{source}' have no numbers '{name}'; expected LeRobot's column of this name."
            f"{near_miss(name, sizes)}",
        )
    require(
        REWARD in sizes or not rewards,
        f"Demonstrations '{source}' have no column '{REWARD}', so only imitation can learn from them:"
        f" qhat learn {source} --recipe bc. For any other recipe, write a reward for each row into the"
        " dataset.",
    )
    read = {name: sizes[name] for name in (*observed, ACTION, *PLACES)}
    for name in (REWARD, TERMINATED, DONE, TRUNCATED, SUCCESS):
        if name in sizes:
            read[name] = sizes[name]
    files = tuple(sorted((folder / "data").glob("chunk-*/*.parquet")))
    require(
        bool(files),
        f"Demonstrations '{source}' have no file data/chunk-*/*.parquet; expected the whole dataset (git"
        " lfs pull, if it came by git).",
    )
    footers = [_footer(source, path, read) for path in files]
    counts = tuple(rows for rows, _ in footers)
    rows = sum(counts)
    total = info.get("total_frames")
    require(
        total == rows,
        f"Demonstrations '{source}' have {rows:,} rows in {len(files):,} files, and {INFO} says"
        f" {quote(total)} (total_frames); expected all of them: a file is missing, or a recording was not"
        " finished. Nothing was stored.",
    )
    return Dataset(source, read, observed, files, counts, sum(numbers for _, numbers in footers))


def columns_of(source: str, rewards: bool = True) -> dict[str, np.ndarray]:
    """Read the columns of an .npz file from a dataset.

    Args:
        rewards: whether it needs them; without, a missing reward is 0.
    """
    from qhat.system.host_memory import require_memory

    dataset = opened(source, rewards)
    # Each is in memory as Parquet has it, as an array, and joined.
    require_memory(
        24 * dataset.numbers, f"Reading demonstrations '{source}'", "expected fewer episodes in one"
    )
    return transitions_of(dataset, dataset.files)


def transitions_of(dataset: Dataset, files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read the columns of an .npz file from some of a dataset's files, which have whole episodes."""
    parts = [_read(dataset, path) for path in files]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in dataset.sizes}
    order = np.lexsort((columns["frame_index"][:, 0], columns["episode_index"][:, 0]))
    ordered = {name: column[order] for name, column in columns.items()}
    return _transitions(dataset.source, ordered, dataset.observed)


def _split(source: str) -> tuple[Path, tuple[str, ...]]:
    """Return the folder, and the columns that make the observation, if the word names them."""
    text = source.removeprefix(LEROBOT)
    before, at, after = text.rpartition("@")
    if at and not (Path(text) / INFO).is_file():
        return Path(before), tuple(name.strip() for name in after.split(","))
    return Path(text), ()


def _info(source: str, folder: Path) -> dict[str, Any]:
    path = folder / INFO
    require(
        path.is_file(),
        f"Demonstrations '{source}' are no LeRobot dataset: there is no '{path}'; expected its folder.",
    )
    try:
        require(path.stat().st_size <= LARGEST_INFO, f"'{path}' is larger than {LARGEST_INFO:,} bytes.")
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' cannot be read: {quote(str(error))}; expected JSON.") from None
    require(
        isinstance(info, dict) and isinstance(info.get("features"), dict),
        f"'{path}' has no features; expected what LeRobot writes: the type and shape of each column.",
    )
    version = str(info.get("codebase_version"))
    require(
        version.startswith(VERSIONS),
        f"'{path}' has codebase_version {quote(version)}; expected v2.0, v2.1 or v3.0. LeRobot converts"
        " older datasets.",
    )
    return info


def _sizes(source: str, features: Mapping[str, Any]) -> dict[str, int]:
    """Return how many numbers a row has in each column of numbers."""
    sizes = {}
    for name, feature in features.items():
        about = feature if isinstance(feature, dict) else {}
        kind, shape = about.get("dtype"), about.get("shape")
        whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
        if kind in NUMBERS and isinstance(shape, list) and whole:
            sizes[name] = math.prod(shape)
        elif kind in NUMBERS:
            raise UsageError(
                f"Demonstrations '{source}': feature {quote(name)} has the shape {quote(shape)}; expected a"
                " list of sizes."
            )
    return sizes


def _observed(
    source: str, features: Mapping[str, Any], sizes: Mapping[str, int], wanted: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns of the observation: those that are wanted, or all in the features' order."""
    there = [name for name in sizes if name == OBSERVED or name.startswith(f"{OBSERVED}.")]
    for name in wanted:
        require(
            name in there,
            f"Demonstrations '{source}': '{name}' is no column of numbers that were observed; expected"
            f" {', '.join(there) or 'one, and there is none'}.{near_miss(name, there)}",
        )
    others = [name for name in features if name.startswith(OBSERVED) and name not in there]
    require(
        bool(there),
        f"Demonstrations '{source}' have no observation of numbers, only"
        f" {', '.join(others) or 'other columns'}; expected observation.state or another: its pictures"
        " and videos are not read. Decode them into an .npz file (docs/demonstrations.md).",
    )
    return tuple(wanted or there)


def _footer(source: str, path: Path, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Return a file's rows, and how many numbers its columns have."""
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            about, names = file.metadata, file.schema_arrow.names
    except Exception as error:
        raise _damaged(source, path, error) from None
    for name in sizes:
        require(
            name in names,
            f"Demonstrations '{source}': '{path}' has no column '{name}', which {INFO} names; expected it"
            f" in every file.{near_miss(name, names)}",
        )
    numbers = 0
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            top = column.path_in_schema
            if any(top == name or top.startswith(f"{name}.") for name in sizes):
                numbers += column.num_values
    return about.num_rows, numbers


def _read(dataset: Dataset, path: Path) -> dict[str, np.ndarray]:
    """Read the columns of one file, each `[T, N]`."""
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=list(dataset.sizes))
    except Exception as error:
        raise _damaged(dataset.source, path, error) from None
    found = {}
    for name, size in dataset.sizes.items():
        value = _flat(table.column(name))
        if value is None or value.size != table.num_rows * size:
            raise UsageError(
                f"Demonstrations '{dataset.source}': '{path}' has {table.column(name).type} in column"
                f" '{name}'; expected {size} number{'s' * (size != 1)} in every row, as {INFO} says."
            )
        found[name] = value.reshape(table.num_rows, size)
    return found


def _flat(column: Any) -> np.ndarray | None:
    """Return all numbers of a column, of lists too; `None` where it has none, or rows of several sizes."""
    compute, values = importlib.import_module("pyarrow.compute"), column.combine_chunks()
    while True:
        if hasattr(values, "storage"):
            values = values.storage
        elif hasattr(values, "value_lengths") or hasattr(values.type, "list_size"):
            lengths = compute.min_max(compute.list_value_length(values))
            if values.null_count or lengths["min"] != lengths["max"]:
                return None
            values = values.flatten()
        else:
            break
    found = values.to_numpy(zero_copy_only=False)
    return found if found.dtype.kind in "biuf" else None


def _transitions(
    source: str, columns: Mapping[str, np.ndarray], observed: Sequence[str]
) -> dict[str, np.ndarray]:
    """Make transitions of rows that are in the order of their episodes."""
    episode, frame, index = (columns[name][:, 0] for name in ("episode_index", "frame_index", "index"))
    rows = len(episode)
    last = np.append(episode[1:] != episode[:-1], True)[:rows]
    starts = np.append(True, last[:-1])[:rows]
    good = np.where(starts, frame == 0, np.append(True, frame[1:] == frame[:-1] + 1)[:rows])
    if not good.all():
        row = int(np.argmin(good))
        raise UsageError(
            f"Demonstrations '{source}': episode {episode[row]} has frame {frame[row]}"
            f" {'first' if starts[row] else f'after frame {frame[row - 1]}'}; expected frames 0, 1, 2, … of"
            " every episode. Nothing was stored."
        )
    observation = np.concatenate([columns[name] for name in observed], axis=1)
    terminated, truncated = _ends(columns, rows)
    within = np.flatnonzero(~last)
    after = observation.copy()
    after[within] = observation[within + 1]
    lost = last & ~terminated
    truncated[within] |= lost[within + 1] & ~terminated[within]
    require(
        not lost.all(),
        f"Demonstrations '{source}' hold no transition; expected episodes of two rows or more.",
    )
    found = {
        "observation": observation,
        "action": columns[ACTION],
        "reward": columns[REWARD][:, 0] if REWARD in columns else np.zeros(rows, np.float32),
        "next_observation": after,
        "terminated": terminated,
        "truncated": truncated,
        "time": columns["timestamp"][:, 0],
        "row": index,
    }
    return {name: column[~lost] for name, column in found.items()}


def _ends(columns: Mapping[str, np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the task ended, and where the episode was cut."""
    flags = {
        name: columns[name][:, 0] != 0
        for name in (TERMINATED, DONE, TRUNCATED, SUCCESS) if name in columns
    }  # fmt: skip
    truncated = flags.get(TRUNCATED, np.zeros(rows, bool))
    named = next((name for name in (TERMINATED, DONE, SUCCESS) if name in flags), None)
    terminated = np.zeros(rows, bool) if named is None else flags[named]
    if named == DONE:
        # It says of both kinds of ends that there was one.
        terminated = terminated & ~truncated
    return terminated.copy(), truncated & ~terminated


def _damaged(source: str, path: Path, error: Exception) -> UsageError:
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return UsageError(
        f"Demonstrations '{source}': '{path}' is damaged ({quote(why)});"
        " expected a whole Parquet file: fetch it again (git lfs pull, if it came by git). Nothing was"
        " stored."
    )
