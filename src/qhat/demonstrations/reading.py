"""What a source of transitions holds, checked row by row against the environment it is for."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from qhat.axes.actions import Actions
from qhat.demonstrations.sources import MINARI, columns_of, require_readable
from qhat.environments.base import Spec
from qhat.environments.observations import Observations
from qhat.system.errors import UsageError, near_miss, require
from qhat.system.files import quote

Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """T transitions as replay takes them."""

    observation: np.ndarray
    """`[T, ...]`"""
    action: np.ndarray
    """`[T, F]`, choices."""
    reward: np.ndarray
    successor: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    """True also where the recording breaks off."""
    legal: np.ndarray | None = None
    """`[T, F, C]`"""
    legal_next: np.ndarray | None = None
    probability: np.ndarray | None = None
    """`[T]`, of each action by those who recorded it, where it was logged."""
    broken: np.ndarray | None = None
    """True where the recording breaks off and neither `terminated` nor `truncated` says so."""
    marked: np.ndarray | None = None
    """True where `terminated` or `truncated` says that an episode ends."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def episodes(self) -> int:
        """Number of episodes, whole or broken off."""
        ended = self.terminated | self.truncated
        return int(ended.sum()) + int(len(ended) > 0 and not ended[-1])

    def returns(self) -> np.ndarray:
        """Return the sums of rewards of the episodes with a marked end, in the environment's units."""
        ended = self.terminated | self.truncated
        ends = np.flatnonzero(ended)
        if not len(ends) or self.marked is None:
            return np.zeros(0)
        begins = np.append(0, ends[:-1] + 1)
        sums = np.add.reduceat(self.reward[: ends[-1] + 1].astype(np.float64), begins)
        return sums[self.marked[ends]]

    def breaks(self, source: str) -> str | None:
        """Say where the recording breaks off, if it does: no n-step return goes over these rows."""
        rows = np.flatnonzero(self.broken) if self.broken is not None else np.zeros(0, int)
        if not len(rows):
            return None
        return (
            f"Demonstrations '{source}' break off after {len(rows):,} of {len(self):,} rows, the first"
            f" row {rows[0]}: next_observation is not what the next row observed, and neither terminated"
            " nor truncated is set. Each counts as truncated: n-step returns end there. If a sensor was"
            " read twice, write what the next row observed as next_observation."
        )


def read(source: str, spec: Spec, rewards: bool = True) -> Demonstrations:
    """Read one source for an environment.

    Args:
        source: path of an `.npz` file, or another word of sources.py.
        rewards: whether it needs them; without, a missing reward is 0.

    Raises:
        UsageError: no such source, or rows that do not fit the environment; the row is named.
    """
    require_readable(source, rewards)
    if source.startswith(MINARI):
        return joined(of_minari(source, lambda dataset: list(episodes_of(dataset, source, spec))))
    return checked(source, columns_of(source, rewards, spec), spec)


def joined(parts: Sequence[Demonstrations]) -> Demonstrations:
    """Return several one after the other."""
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(Demonstrations):
        each = [getattr(part, field.name) for part in parts]
        columns[field.name] = None if any(one is None for one in each) else np.concatenate(each)
    return Demonstrations(**columns)


def checked(source: str, columns: Mapping[str, np.ndarray], spec: Spec) -> Demonstrations:
    """Check every row, and turn it into what replay takes.

    Raises:
        UsageError: a row does not fit the environment; its column and its number are named.
    """
    count = len(np.atleast_1d(columns["reward"]))
    reader = _Reader(f"Demonstrations '{source}'", count, columns.get("row"), columns.get("time"))
    require(reader.rows > 0, f"{reader.source} hold no transition; expected one or more.")
    observation, after = (
        reader.observations(columns[name], name, spec) for name in ("observation", "next_observation")
    )
    terminated = reader.flags(columns["terminated"], "terminated")
    truncated = np.zeros_like(terminated)
    if "truncated" in columns:
        truncated = reader.flags(columns["truncated"], "truncated")
    broken = np.append(~_each(after[:-1] == observation[1:]), True)
    action = reader.actions(columns["action"], spec.actions)
    legal, after_legal = (reader.masks(columns.get(name), name, spec) for name in ("mask", "next_mask"))
    if legal is not None:
        chosen = np.take_along_axis(legal, action[..., None], axis=2)
        reader.require_rows(_each(chosen), "action", action, "one that its own mask allows")
    return Demonstrations(
        observation,
        action,
        reader.numbers(columns["reward"], "reward", ()).astype(np.float32),
        after,
        terminated,
        (truncated | broken) & ~terminated,
        legal,
        after_legal,
        reader.probabilities(columns.get("probability")),
        np.append(broken[:-1], False) & ~terminated & ~truncated,
        terminated | truncated,
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads the columns of one source; its errors name the column and the row."""

    source: str
    rows: int
    places: np.ndarray | None = None
    """Of the rows, `[T]`, in what they were made from; `None` where that is this."""
    times: np.ndarray | None = None
    """Of the rows, `[T]`, in seconds."""

    def require_rows(self, good: np.ndarray, name: str, values: np.ndarray, expected: str) -> None:
        """Raise `UsageError` for the first row that is not `good` `[T]`."""
        if not good.all():
            row = int(np.argmin(good))
            place = row if self.places is None else self.places[row]
            known = self.times is not None and self.times.shape == good.shape
            at = f" (at {self.times[row]:.3f} s)" if known and self.times is not None else ""
            raise UsageError(
                f"{self.source}: row {place}{at} of {name} is {np.asarray(values)[row].tolist()}; expected"
                f" {expected}. Nothing was stored."
            )

    def numbers(self, column: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Check a column of finite numbers `[T, *shape]`."""
        value = np.asarray(column)
        require(
            value.dtype.kind in "biuf" and value.shape == (self.rows, *shape),
            f"{self.source}: {name} is {value.dtype} {value.shape}; expected numbers of"
            f" shape {(self.rows, *shape)}.",
        )
        with np.errstate(over="ignore"):
            finite = np.isfinite(value.astype(np.float32))
        self.require_rows(_each(finite), name, value, "finite numbers")
        return value

    def observations(self, column: np.ndarray, name: str, spec: Spec) -> np.ndarray:
        """Check observations, and give them the environment's type."""
        value = self.numbers(column, name, spec.shape)
        converted = value.astype(spec.dtype)
        if np.dtype(spec.dtype).kind in "iub":
            words = f"values that a {spec.dtype} can hold"
            self.require_rows(_each(converted == value), name, value, words)
        if spec.layout is not None and spec.layout.is_packed:
            finite = np.isfinite(spec.layout.floats(converted))
            self.require_rows(_each(finite), name, value, "finite numbers within the bytes")
        return converted

    def flags(self, column: np.ndarray, name: str) -> np.ndarray:
        """Check a column of yes and no."""
        value = self.numbers(column, name, ())
        self.require_rows((value == 0) | (value == 1), name, value, "true or false")
        return value.astype(bool)

    def probabilities(self, column: np.ndarray | None) -> np.ndarray | None:
        """Check the probabilities of the recorded actions, if there are any."""
        if column is None:
            return None
        value = self.numbers(column, "probability", ()).astype(np.float64)
        self.require_rows((value > 0) & (value <= 1), "probability", value, "a number above 0, at most 1")
        return value

    def actions(self, column: np.ndarray, actions: Actions) -> np.ndarray:
        """Return choices `[T, F]` of the environment's own actions: the nearest ones, of commands."""
        flat = actions.flat(column, (self.rows,))
        value = self.numbers(column if flat is None else flat, "action", (actions.factors,))
        self.require_rows(_each(actions.holds(value)), "action", value, actions.expected)
        return actions.nearest(value).astype(np.int32)

    def masks(self, column: np.ndarray | None, name: str, spec: Spec) -> np.ndarray | None:
        """Return `[T, F, C]`, all legal where none was recorded; `None` where the task masks nothing."""
        if not spec.masked:
            require(column is None, f"{self.source} have {name}, and '{spec.id}' masks no actions.")
            return None
        every = np.broadcast_to(np.asarray(spec.actions.all_legal), (self.rows, *_both(spec.actions)))
        if column is None:
            return every
        value = self.numbers(column, name, (sum(spec.actions.choices),)).astype(bool)
        legal = np.zeros(every.shape, bool)
        ends = np.cumsum((0, *spec.actions.choices))
        for factor, count in enumerate(spec.actions.choices):
            legal[:, factor, :count] = value[:, ends[factor] : ends[factor + 1]]
        if name == "mask":
            self.require_rows(_each(np.any(legal, axis=2)), name, value, "a legal action")
        # Nothing is chosen after a terminal state, where many environments give an empty mask.
        return np.where(legal.any(axis=2, keepdims=True), legal, every)


def _each(good: np.ndarray) -> np.ndarray:
    """Whether everything is good in each row of `[T, ...]`."""
    return np.logical_and.reduce(good.reshape(len(good), math.prod(good.shape[1:])), axis=1)


def _both(actions: Actions) -> tuple[int, int]:
    return actions.factors, actions.width


def raw(source: str) -> dict[str, np.ndarray]:
    """Return the columns of one source as they are, unchecked; observations of a dataset as vectors.

    Raises:
        UsageError: no such source, or one that is damaged.
    """
    require_readable(source, rewards=False)
    if not source.startswith(MINARI):
        return columns_of(source, rewards=False)

    def columns(dataset: Any) -> list[dict[str, np.ndarray]]:
        return list(_columns(dataset, Observations.of(dataset.observation_space, source)))

    parts = of_minari(source, columns)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def of_minari(source: str, read_parts: Callable[[Any], list[Part]], whole: bool = True) -> list[Part]:
    """Read a dataset of Minari's that is on this machine.

    Args:
        read_parts: returns what a dataset holds, by episode.
        whole: whether it reads all episodes, which then have to fit in memory.
    """
    minari, name = importlib.import_module("minari"), source.removeprefix(MINARI)
    found = minari.list_local_datasets()
    known = sorted(found)
    if name not in known:
        listing = f"there are {', '.join(known)}" if known else "there are none"
        raise UsageError(
            f"Minari has no dataset '{name}' on this machine ({listing}).{near_miss(name, known)}"
            f" To fetch it: minari download {name}"
        )
    # Where a dataset does not name its spaces, Minari would make the environment that it names: whatever
    # function of whatever module, with arguments of the dataset's.
    spaces = [found[name].get(space) for space in ("observation_space", "action_space")]
    require(
        all(isinstance(space, str) for space in spaces),
        f"Demonstrations '{source}' do not name their spaces; expected a dataset that does: nothing is run"
        " to find them.",
    )
    try:
        dataset = minari.load_dataset(name)
        if whole:
            _require_memory(Path(dataset.spec.data_path), source)
        parts = read_parts(dataset)
    except UsageError:
        raise
    except Exception as error:
        # Minari and h5py check little of what they read.
        raise UsageError(
            f"Demonstrations '{source}' cannot be read: {type(error).__name__}: {quote(str(error))}."
        ) from None
    require(bool(parts), f"Demonstrations '{source}' hold no transition; expected one or more.")
    return parts


def episodes_of(
    dataset: Any, source: str, spec: Spec, numbers: Sequence[int] | None = None
) -> Iterator[Demonstrations]:
    """Yield the episodes of a dataset of Minari's: all, or those of these numbers, from 0."""
    observations = Observations.of(dataset.observation_space, source)
    start = np.ravel(getattr(dataset.action_space, "start", spec.actions.start))
    require(
        np.array_equal(start, spec.actions.start),
        f"Demonstrations '{source}' have actions {dataset.action_space}; expected {spec.actions.expected},"
        f" as '{spec.id}' takes them.",
    )
    every = range(len(dataset.episode_indices)) if numbers is None else numbers
    for number, columns in zip(every, _columns(dataset, observations, numbers), strict=True):
        yield checked(f"{source}, episode {number}", columns, spec)


def _columns(
    dataset: Any, observations: Observations, numbers: Sequence[int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the columns of each episode."""
    wanted = None if numbers is None else [dataset.episode_indices[number] for number in numbers]
    for episode in dataset.iterate_episodes(wanted):
        observed = observations.read(episode.observations)
        yield {
            "observation": observed[:-1],
            "next_observation": observed[1:],
            "action": episode.actions,
            "reward": episode.rewards,
            "terminated": episode.terminations,
            "truncated": episode.truncations,
        }


def _require_memory(folder: Path, source: str) -> None:
    """Raise `UsageError` where the arrays of a dataset's HDF5 files do not fit in memory."""
    from qhat.system.host_memory import require_memory

    sizes: list[int] = []
    for path in folder.glob("*.hdf5"):
        with importlib.import_module("h5py").File(path, "r") as file:
            # A file of a few bytes can claim arrays of any size.
            file.visititems(lambda _, item: sizes.append(int(getattr(item, "nbytes", 0))))
    require_memory(2 * sum(sizes), f"Reading demonstrations '{source}'", "expected fewer episodes in one")
