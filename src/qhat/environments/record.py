"""A vector environment under random actions: everything that it gave, and what is odd about it at once."""

from __future__ import annotations

import math
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from qhat.environments.spaces import given_entries
from qhat.environments.starts import narrow
from qhat.errors import UsageError
from qhat.observations import Observations

STARTS = 32
"""Fresh starts that ends are compared with, of all copies together."""


class Record:
    """What was given, turn by turn."""

    def __init__(self, envs: VectorEnv):
        self.envs, self.copies, self.name = envs, envs.num_envs, name_of(envs)
        self.declared = declared_by(envs)
        self.faults: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.finals: dict[tuple[int, int], np.ndarray] = {}
        """Last observations that came beside ends, by turn and copy."""
        self.refusal, self.stepping = "", 0.0
        """What a step after an end raised; seconds within steps."""
        self._space = envs.single_observation_space
        self._observations = Observations.of(self._space, self.name)
        self._rows: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._rewards: list[np.ndarray] = []

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
        self.envs.action_space.seed(0)
        began, seen = time.perf_counter(), []
        for number in range(max(2, math.ceil(STARTS / self.copies))):
            seen.append(self._read(self.envs.reset(seed=number * self.copies)[0]))
            if number and time.perf_counter() - began > seconds:
                break
        self.starts = np.concatenate(seen)
        self._ended = np.zeros(self.copies, bool)

    def step(self) -> None:
        """Take one step of every copy, and note it."""
        action, began = self.envs.action_space.sample(), time.perf_counter()
        try:
            observation, reward, terminated, truncated, info = self.envs.step(action)
        except Exception as error:
            if self.declared is AutoresetMode.DISABLED or not self._ended.any():
                raise
            self.refusal = f"{type(error).__name__}: {error}".rstrip(": ")
            return
        self.stepping += time.perf_counter() - began
        reward, terminated, truncated = self._checked(reward, terminated, truncated)
        self._ended = terminated | truncated
        for copy in np.flatnonzero(self._ended).tolist():
            if (final := _final(info, copy)) is not None:
                whole = self._observations.read_one(final)
                self.finals[self.turns, copy] = narrow(self._observations.flat(whole[None]))[0]
        self._rows.append(self._read(observation))
        self._ends.append(self._ended)
        self._rewards.append(reward)
        if self.declared is AutoresetMode.DISABLED and self._ended.any():
            self._reset_ended()

    def _reset_ended(self) -> None:
        """Begin the next episodes as whoever turns autoreset off has to."""
        observation, _ = self.envs.reset(options={"reset_mask": self._ended.copy()})
        others = ~self._ended
        if not np.array_equal(self._read(observation)[others], self._rows[-1][others]):
            self.faults["mask"] = (
                f"'{self.name}' says that autoreset is off, and a reset with a reset_mask touches other"
                " copies than the mask's; expected theirs alone. Make the copies with"
                " gymnasium.vector.SyncVectorEnv."
            )

    def _read(self, observation: Any) -> np.ndarray:
        """Look at a batch of observations; return it narrowed, `[N, D]`."""
        for entry in given_entries(self._space, self.name):
            space, value = self._space, observation
            for key in entry.path:
                space, value = space[key], value[key]  # pyright: ignore[reportIndexIssue]
            self._look_at(np.asarray(value), space, entry.label)
        return narrow(self._observations.flat(observation))

    def _look_at(self, value: np.ndarray, space: gymnasium.Space, where: str) -> None:
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
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            self.faults[f"nan {where}"] = f"{what} that are not finite; expected numbers. Mend its step."
        elif isinstance(space, gymnasium.spaces.Box):
            beyond = np.maximum(value - space.high, space.low - value)
            if beyond.max(initial=-np.inf) > 1e-6:
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
    """Its time limit in steps, where it says one."""
    return next((spec.max_episode_steps for spec in _specs(envs) if spec.max_episode_steps), None)


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
