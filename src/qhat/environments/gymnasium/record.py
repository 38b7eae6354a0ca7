"""A Gymnasium environment under random actions: everything that it gave, and what is odd about it at once.

It is stepped by the adapter that training steps it by, so that both read, check and refuse the same.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from qhat.environments import limits
from qhat.environments.gymnasium.api import MisbehavedError, NoFinalError
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.starts import narrow
from qhat.environments.observations import Observations
from qhat.environments.spaces import given_entries
from qhat.system.errors import QhatError, UsageError

STARTS = 32
"""Fresh starts that ends are compared with, of all copies together."""


@dataclasses.dataclass
class Entry:
    """One array within the observations, over all that was given of it."""

    name: str
    """Its path within a dictionary; empty for the whole observation."""
    shape: tuple[int, ...]
    dtype: str
    low: float = math.inf
    high: float = -math.inf

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def add(self, value: np.ndarray) -> None:
        """Look at more of it."""
        if value.size:
            self.low = min(self.low, float(value.min()))
            self.high = max(self.high, float(value.max()))


class Record:
    """What was given, turn by turn."""

    def __init__(self, made: GymnasiumEnvironment):
        self.made, self.envs, self.name = made, made.envs, made.spec.id
        self.copies, self.declared = self.envs.num_envs, declared_by(self.envs)
        self.faults: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.finals: dict[tuple[int, int], np.ndarray] = {}
        """Last observations that came beside ends, by turn and copy."""
        self.refusal, self.stepping = "", 0.0
        """What a step after an end raised; seconds within steps."""
        self._space = self.envs.single_observation_space
        self._observations = Observations.of(self._space, self.name)
        self._given = given_entries(self._space, self.name)
        self.entries = [
            Entry(".".join(map(str, each.path)), each.shape, each.dtype) for each in self._given
        ]
        self._rows: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._rewards: list[np.ndarray] = []
        self._ended = np.zeros(self.copies, bool)
        self._draw = np.random.default_rng(0)

    @property
    def standardises(self) -> bool:
        """Whether the bounds of its space have training standardise what it shows."""
        return self._observations.standardises

    @property
    def turns(self) -> int:
        """Steps of every copy so far."""
        return len(self._rows)

    @property
    def rows(self) -> np.ndarray:
        """Observations `[T, N, D]`, narrowed."""
        return np.array(self._rows)

    @property
    def ends(self) -> np.ndarray:
        """Whether it ended an episode, `[T, N]`."""
        return np.array(self._ends, bool).reshape(-1, self.copies)

    @property
    def rewards(self) -> np.ndarray:
        """`[T, N]`"""
        return np.array(self._rewards).reshape(-1, self.copies)

    def learn_starts(self, seconds: float) -> None:
        """See what fresh episodes look like."""
        began, self._first_observations = time.perf_counter(), []
        self.made.watch(self)
        for number in range(max(2, math.ceil(STARTS / self.copies))):
            self.made.begin([number * self.copies + copy for copy in range(self.copies)])
            if number and time.perf_counter() - began > seconds:
                break
        self.starts = np.concatenate(self._first_observations)

    def step(self) -> None:
        """Take one step of every copy, and note it."""
        action, after_end, self._looking = self._action(), self._ended.any(), 0.0
        began = time.perf_counter()
        try:
            self.made.send(action)
            self.made.receive()
        except NoFinalError:
            # Noted with the turn's ends, and judged with all of them.
            return
        except QhatError as error:
            cause = error.__cause__
            odd = self.declared is not AutoresetMode.DISABLED and after_end
            if cause is None or isinstance(cause, MisbehavedError) or not odd:
                raise
            self.refusal = f"{type(cause).__name__}: {cause}".rstrip(": ")
        finally:
            self.stepping += time.perf_counter() - began - self._looking

    def began(self, observed: Any, who: np.ndarray | None) -> None:
        rows = self._read(observed)
        if who is None:
            self._first_observations.append(rows)
            self._ended = np.zeros(self.copies, bool)
        elif not np.array_equal(rows[~who], self._rows[-1][~who]):
            self.faults["mask"] = (
                f"'{self.name}' says that autoreset is off, and a reset with a reset_mask touches other"
                " copies than the mask's; expected theirs alone. Make the copies with"
                " gymnasium.vector.SyncVectorEnv."
            )

    def stepped(self, observed: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        began = time.perf_counter()
        reward, terminated, truncated = self._checked(reward, terminated, truncated)
        self._ended = terminated | truncated
        for copy in np.flatnonzero(self._ended).tolist():
            if (final := _final(info, copy)) is not None:
                whole = self._observations.read_one(final)
                self.finals[self.turns, copy] = narrow(self._observations.flat(whole[None]))[0]
        self._rows.append(self._read(observed))
        self._ends.append(self._ended)
        self._rewards.append(reward)
        self._looking = time.perf_counter() - began

    def _action(self) -> np.ndarray:
        """Draw legal choices `[S, E, F]`."""
        choices, legal = np.asarray(self.made.spec.actions.choices), self.made.legal()
        lead = (self.made.seeds, self.made.num_envs)
        if legal is None:
            return self._draw.integers(0, choices, (*lead, len(choices)))
        return np.where(legal, self._draw.random(legal.shape), -1.0).argmax(-1)

    def _read(self, observation: Any) -> np.ndarray:
        """Look at a batch of observations; return it narrowed, `[N, D]`."""
        for given, entry in zip(self._given, self.entries, strict=True):
            space, value = self._space, observation
            for key in given.path:
                space, value = space[key], value[key]  # pyright: ignore[reportIndexIssue]
            self._look_at(np.asarray(value), space, entry)
        return narrow(self._observations.flat(observation))

    def _look_at(self, value: np.ndarray, space: gymnasium.Space, entry: Entry) -> None:
        where = entry.name
        what = f"'{self.name}' gives observations" + (f" ({where})" if where else "")
        shape = (self.copies, *(space.shape or ()))
        if value.shape != shape:
            raise UsageError(
                f"{what} of shape {value.shape} for {self.copies} copies; expected {shape}, as its"
                " observation_space says. Correct the space or the observation."
            )
        if value.dtype != space.dtype:
            self.warnings[f"dtype {where}"] = (
                f"{what} of {value.dtype} and declares {space.dtype}; they are read as declared."
            )
        if value.dtype.kind not in "biuf":
            return
        # Whole numbers wrap where their bounds are subtracted, and bool has no minus.
        number = value.astype(np.float64)
        if not np.isfinite(number).all():
            self.faults[f"nan {where}"] = f"{what} that are not finite; expected numbers. Mend its step."
            return
        entry.add(number)
        if isinstance(space, gymnasium.spaces.Box):
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            if np.maximum(number - high, low - number).max(initial=-math.inf) > 1e-6:
                self.warnings[f"bounds {where}"] = f"{what} beyond the bounds that its space declares."

    def _checked(self, reward: Any, terminated: Any, truncated: Any) -> tuple[np.ndarray, ...]:
        """Look at what comes beside a batch of observations."""
        values = [np.asarray(value) for value in (reward, terminated, truncated)]
        for value, name in zip(values, ("rewards", "terminated", "truncated"), strict=True):
            if value.shape != (self.copies,):
                raise UsageError(
                    f"'{self.name}' gives {name} of shape {value.shape}; expected one per copy,"
                    f" ({self.copies},)."
                )
            if value.dtype.kind not in "biuf":
                raise UsageError(f"'{self.name}' gives {name} of type {value.dtype}; expected numbers.")
            if value.dtype.kind not in ("f" if name == "rewards" else "b"):
                self.warnings[f"dtype {name}"] = f"'{self.name}' gives {name} of dtype {value.dtype}."
        numbers = values[0].astype(np.float64)
        if not np.isfinite(numbers).all():
            self.faults["nan reward"] = (
                f"'{self.name}' gives rewards that are not finite; expected numbers. Mend its step."
            )
        return numbers, values[1].astype(bool), values[2].astype(bool)


def declared_by(envs: VectorEnv) -> AutoresetMode | None:
    """The autoreset mode that its metadata names."""
    try:
        return AutoresetMode((envs.metadata or {}).get("autoreset_mode"))
    except ValueError:
        return None


def name_of(envs: VectorEnv) -> str:
    """Its id, or its class's name."""
    return next((spec.id for spec in _specs(envs)), type(envs).__name__)


def limit_of(envs: VectorEnv) -> int | None:
    """Its time limit in steps, where it or a copy in this process says one, as a run reads it."""
    by_copies = (limits.declared_by(copy) for copy in getattr(envs, "envs", ()))
    said = (spec.max_episode_steps for spec in _specs(envs))
    return next((limit for limit in (*by_copies, *said) if limit), None)


def _specs(envs: VectorEnv) -> list[Any]:
    """What it says of itself and its copies."""
    specs = [envs.spec]
    if hasattr(envs, "get_attr"):
        try:
            specs += envs.get_attr("spec")  # pyright: ignore[reportAttributeAccessIssue]
        except Exception:
            # Whatever its copies raise: then they say nothing.
            specs = [envs.spec]
    return [spec for spec in specs if spec is not None]


def _final(info: dict[str, Any], copy: int) -> Any:
    """The last observation that came beside an end, or `None`."""
    mask = info.get("_final_obs")
    if "final_obs" not in info or (mask is not None and not mask[copy]):
        return None
    return _of_copy(info["final_obs"], copy)


def _of_copy(value: Any, copy: int) -> Any:
    """One copy's part of a batch; masks (`_key` beside `key`) are none."""
    if isinstance(value, dict):
        keys = [key for key in value if key[:1] != "_" or key[1:] not in value]
        return {key: _of_copy(value[key], copy) for key in keys}
    return value[copy]
