"""Adapter for the API of Isaac Lab, which mjlab has too: a batch of robots as tensors on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qhat.axes.actions import BINS
from qhat.environments.base import Spec, Timestep
from qhat.environments.extras import load
from qhat.environments.host import HostEnvironment
from qhat.environments.info import InfoReader, names_in, require_known
from qhat.environments.isaaclab.terms import (
    actions_of,
    joints_of,
    layout_of,
    shown_of,
    terms_of,
)
from qhat.environments.robot_mirrors import mirror_of
from qhat.system.errors import QhatError, require, warn

HIDDEN = (
    "'{}' resets in the step in which an episode ends and hides its last observation: the last step of each"
    " episode that its time limit cuts is left out, since what follows is not known. A version with"
    " `auto_reset=False` (mjlab) or `compute_final_obs` (Isaac Lab) shows it."
)


class RobotEnvironment(HostEnvironment):
    """S·E robots of one simulation.

    Where the simulator lets its user reset (mjlab's `auto_reset=False`), or gives `extras["final_obs"]`,
    the true successor is known at every step.
    """

    def __init__(
        self,
        env: Any,
        seeds: int = 1,
        *,
        id: str = "",
        backend: str = "isaaclab",
        group: str | None = None,
        reach: float = 1.0,
        bins: Sequence[int] = BINS,
        log: Sequence[str] = (),
        seed: int | None = None,
    ):
        """Take over a simulation.

        Args:
            env: a `ManagerBasedRLEnv`, `DirectRLEnv`, or what has their API.
            seeds: how many seeds share the robots, as many for each, in order.
            group: groups of observations, joined by `+`; the policy's unless given.
            reach: largest raw action of a joint.
            bins: commands of every joint, or one number for all.
            log: names of values of `extras["log"]`, each `info.` and the name.
            seed: of the simulator's random numbers.

        Raises:
            UsageError: the robots cannot be shared evenly, or there is no such group or name.
        """
        self.env = getattr(env, "unwrapped", env)
        self._id = id or type(self.env).__name__
        copies = int(self.env.num_envs)
        require(
            copies % seeds == 0,
            f"Environment '{self._id}' has {copies} robots for {seeds} seeds; expected as many for each.",
        )
        self.num_envs, self.seeds, self._seed = copies // seeds, seeds, seed
        self._torch = load("torch", self._id)
        self._manual = hasattr(self.env.cfg, "auto_reset")
        if self._manual:
            self.env.cfg.auto_reset = False
        if hasattr(self.env.cfg, "compute_final_obs"):
            self.env.cfg.compute_final_obs = True
        shown, self._first_log = self._reset()
        self._groups = shown_of(shown, group, self._id)
        self._layout = layout_of(self.env, shown, self._groups)
        self.terms = terms_of(self.env, self._groups)
        actions = actions_of(self.env, bins, reach, self._id)
        self.joints, self.drives = joints_of(self.env)
        self.period = float(self.env.step_dt) if hasattr(self.env, "step_dt") else None
        self.logs = tuple(log)
        require_known(self.logs, names_in(self._first_log), self._id)
        self._info, self._warned = InfoReader(self.logs, copies, self._id), False
        self._goal = next((name for name in self._first_log if "success" in name.lower()), None)
        self._first: np.ndarray | None = self._read(shown)
        self._observation = self._first
        # A limit that the task sees as its end has no value beyond it.
        self._finite = bool(getattr(self.env.cfg, "is_finite_horizon", False))
        self.spec = Spec(
            id=self._id,
            backend=backend,
            shape=self._layout.shape,
            dtype=self._layout.dtype,
            actions=actions,
            limit=int(self.env.max_episode_length),
            layout=self._layout,
            mirror=mirror_of(self.terms, self.joints, self.drives),
        )

    def start(self) -> np.ndarray:
        first = self._first
        if first is None or getattr(self.env, "interrupted", False):
            first = self._read(self._reset()[0])
        self._first, self._observation = None, first
        return self._share(first)

    def send(self, action: np.ndarray) -> None:
        self._answer: Any = None
        if getattr(self.env, "interrupted", False):
            return
        commands = self.spec.actions.to_env(action.reshape(-1, action.shape[-1]))
        tensor = self._torch.from_numpy(np.ascontiguousarray(commands, np.float32))
        self._answer = self.env.step(tensor.to(self.env.device))

    def receive(self) -> Timestep:
        if self._answer is None:
            return self._again()
        shown, reward, terminated, truncated, extras = self._answer
        # The simulator changes these in its next step, while they are learned from.
        reward, terminated, truncated = (
            np.array(_numbers(part), kind)
            for part, kind in ((reward, np.float32), (terminated, bool), (truncated, bool))
        )
        if self._finite:
            terminated |= truncated
        truncated &= ~terminated
        successor = self._read(shown)
        steps_log, real = dict(extras.get("log", {})), np.ones(len(reward), bool)
        ended = terminated | truncated
        broken = ~np.isfinite(successor).reshape(len(successor), -1).all(axis=1) | ~np.isfinite(reward)
        observation, resets_log = successor, {}
        if self._manual:
            again = ended | broken
            if again.any():
                observation, resets_log = self._begun(successor, again)
        elif ended.any():
            resets_log, steps_log = steps_log, {}
            successor, real = self._final(successor, extras, ended, truncated)
        if broken.any():
            self._require_reset(broken & ~ended)
            parts = (observation, successor, reward, real)
            observation, successor, reward, real = _mended(*parts, broken)
        log = self._columns(steps_log, resets_log, ended)
        self._observation = observation
        step = Timestep(
            observation=observation,
            reward=reward,
            terminated=terminated & real,
            truncated=truncated & real,
            successor=successor,
            real=real,
            over=ended & ~broken,
            broken=broken,
            success=self._success(log, ended),
            info=self._info.read(log) if self.logs else None,
        )
        return Timestep(*(None if part is None else self._share(part) for part in step))

    def _again(self) -> Timestep:
        """Begin new episodes everywhere, in a step that is none: an evaluation has played in between."""
        first, no = self._read(self._reset()[0]), np.zeros(self.seeds * self.num_envs, bool)
        self._observation = first
        step = Timestep(
            observation=first,
            reward=no.astype(np.float32),
            terminated=no,
            truncated=no,
            successor=first,
            real=no,
            over=no,
            broken=~no,
            success=self._success({}, no),
            info=self._info.read(self._columns({}, {}, no)) if self.logs else None,
        )
        return Timestep(*(None if part is None else self._share(part) for part in step))

    def log_notes(self) -> list[str]:
        return self._info.notes()

    @property
    def fps(self) -> float:
        """Steps per second of the robots' time."""
        return 1 / (self.period or 1 / 30)

    def draw(self) -> np.ndarray:
        """Return what the simulator shows; it was made with `render_mode="rgb_array"`."""
        return np.asarray(self.env.render())

    def close(self) -> None:
        self.env.close()

    def _reset(self) -> tuple[Mapping[str, Any], dict[str, Any]]:
        shown, extras = self.env.reset(seed=self._seed) if self._seed is not None else self.env.reset()
        return shown, dict(extras.get("log", {}))

    def _begun(self, successor: np.ndarray, again: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset robots; the rows of the others, which come with new noise, are not used."""
        ids = self._torch.from_numpy(np.flatnonzero(again)).to(self.env.device)
        shown, extras = self.env.reset(env_ids=ids)
        wide = again.reshape(-1, *[1] * (successor.ndim - 1))
        return np.where(wide, self._read(shown), successor), dict(extras.get("log", {}))

    def _final(
        self, shown: np.ndarray, extras: Mapping[str, Any], ended: np.ndarray, truncated: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return successors, and which rows are transitions, after a reset in the same step."""
        wide = ended.reshape(-1, *[1] * (shown.ndim - 1))
        final = extras.get("final_obs")
        if final is not None:
            rows = self._read(final)
            if len(rows) != len(shown):
                # Only those of the robots that ended.
                whole = shown.copy()
                whole[ended] = rows
                rows = whole
            return np.where(wide, rows, shown), np.ones(len(shown), bool)
        if not self._warned:
            self._warned = True
            warn(HIDDEN.format(self._id), stacklevel=2)
        # Nothing follows where the task ended: any observation will do.
        return np.where(wide, self._observation, shown), ~truncated

    def _require_reset(self, lost: np.ndarray) -> None:
        """Raise `QhatError` where physics failed in a simulation that resets by itself, and did not."""
        if self._manual or not lost.any():
            return
        raise QhatError(
            f"Environment '{self._id}' gave numbers that are not finite for {int(lost.sum()):,} of its"
            " robots and did not reset them; expected a termination term of the task that does."
        )

    def _columns(self, steps: Mapping[str, Any], resets: Mapping[str, Any], ended: np.ndarray) -> dict:
        """Return the log as columns: a step's values are of all robots, a reset's of those that ended."""
        columns: dict[str, Any] = {}
        for log, rows in ((steps, np.ones_like(ended)), (resets, ended)):
            for name, value in log.items():
                columns[name] = np.full(len(ended), float(_numbers(value)))
                columns[f"_{name}"] = rows
        return columns

    def _success(self, log: Mapping[str, Any], ended: np.ndarray) -> np.ndarray | None:
        """Say of as many of the robots that ended together as the log does that they succeeded.

        It gives their share, and not which they were.
        """
        if self._goal is None:
            return None
        shares, places = np.asarray(log.get(self._goal, np.full(len(ended), np.nan))), np.cumsum(ended)
        counted = np.where(np.isnan(shares), np.nan, places <= np.rint(shares * ended.sum()))
        return np.where(ended, counted, np.nan).astype(np.float32)

    def _read(self, shown: Mapping[str, Any]) -> np.ndarray:
        """Return the groups of an observation as one array `[N, …]`."""
        parts = {name: _tree(shown[name]) for name in self._groups}
        if len(parts) == 1:
            (only,) = parts.values()
            # Groups that the simulator joins are new tensors at every step; others may be its own state.
            return self._layout.read(only) if isinstance(only, dict) else np.array(only, np.float32)
        if all(not isinstance(part, dict) and part.ndim == 2 for part in parts.values()):
            return np.concatenate(list(parts.values()), axis=1, dtype=np.float32)
        return self._layout.read(parts)

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """`[S·E, ...] → [S, E, ...]`."""
        return rows.reshape(self.seeds, self.num_envs, *rows.shape[1:])


def _mended(
    observation: Any, successor: Any, reward: Any, real: Any, broken: np.ndarray
) -> tuple[Any, Any, Any, Any]:
    """Take numbers that are not finite out of rows that are no transitions."""
    wide = broken.reshape(-1, *[1] * (successor.ndim - 1))
    observation = np.where(wide & ~np.isfinite(observation), 0, observation)
    return observation, np.where(wide, observation, successor), np.where(broken, 0, reward), real & ~broken


def _tree(part: Any) -> Any:
    return {name: _tree(one) for name, one in part.items()} if isinstance(part, Mapping) else _numbers(part)


def _numbers(value: Any) -> Any:
    """Return a tensor as NumPy sees it: no copy where it is in this machine's memory, else one."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


API = ("num_envs", "device", "cfg", "max_episode_length", "step", "reset")


def is_robots(env: Any) -> bool:
    """Whether an object has Isaac Lab's API: a batch of robots on a device, with its configuration."""
    raw = getattr(env, "unwrapped", env)
    return not isinstance(env, type) and all(hasattr(raw, name) for name in API)


def require_robots(env: Any, env_id: str) -> None:
    """Raise `UsageError` for what has not Isaac Lab's API."""
    raw = getattr(env, "unwrapped", env)
    lacks = ", ".join(name for name in API if not hasattr(raw, name))
    kind = type(raw).__name__
    require(not lacks, f"Environment '{env_id}' is {kind}, which has no {lacks}; expected Isaac Lab's API.")
