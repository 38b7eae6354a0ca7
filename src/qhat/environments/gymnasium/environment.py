"""Adapter for Gymnasium: any environment of the field, on the host loop."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from qhat.axes.actions import BINS, Actions
from qhat.environments import success
from qhat.environments.base import Spec, Timestep
from qhat.environments.gymnasium.api import MisbehavedError, NoFinalError, Watcher, mode_of
from qhat.environments.gymnasium.legal import LegalReader, merged
from qhat.environments.gymnasium.processes import LostError
from qhat.environments.gymnasium.restarts import Restarts
from qhat.environments.gymnasium.workers import Steps, guard, of_copies, vectorise
from qhat.environments.host import HostEnvironment
from qhat.environments.info import InfoReader
from qhat.environments.observations import Observations, inexact_of
from qhat.environments.spaces import contained, episode_seeds
from qhat.system.errors import QhatError, UsageError, described, require, setting, warn

SECONDS, PATIENCE = 60.0, 2.0
"""How long a step may take, and being closed after a step that took longer."""


class GymnasiumEnvironment(HostEnvironment):
    """S·E copies of a Gymnasium environment, in a vector environment of any autoreset mode."""

    def __init__(
        self,
        env_id: str,
        envs: VectorEnv,
        numbers: Sequence[int],
        seeds: int = 1,
        reference: str | None = None,
        seconds: float = SECONDS,
        stack: int = 1,
        bins: Sequence[int] = BINS,
        restarts: int = 0,
        renumbered: Callable[[int], list[int]] | None = None,
        mode: AutoresetMode | None = None,
        log: Sequence[str] = (),
    ):
        """Take over a vector environment.

        Args:
            numbers: what each copy's episodes are seeded with.
            seeds: how many seeds share the copies, as many for each, in order.
            reference: id that scores are measured in.
            seconds: how long a step may take.
            stack: frames that an observation is made of.
            bins: commands of every joint, or one number for all, where actions are continuous.
            restarts: how often lost processes are restarted.
            renumbered: what `numbers` are after so many restarts; the same ones unless given.
            mode: what it does at an episode's end, where its metadata does not say.
            log: names of values of `info` that timesteps have.

        Raises:
            UsageError: its copies cannot be shared evenly, or its spaces are not for a Q-function.
        """
        copies = envs.num_envs
        require(
            copies == len(numbers) and copies % seeds == 0,
            f"Environment '{env_id}' has {copies} copies; expected {len(numbers)}, as many for each of"
            f" {seeds} seed(s).",
        )
        self.num_envs, self.seeds, self._numbers = copies // seeds, seeds, list(numbers)
        self._mode = mode or mode_of(envs, env_id)
        envs = guard(envs, env_id)
        self.envs = envs
        self._watcher: Watcher | None = None
        self._observations = Observations.of(envs.single_observation_space, env_id)
        self.action_space = envs.single_action_space
        self._actions = Actions.of(self.action_space, f"Environment '{env_id}'", bins)
        self._steps, self._ended = 0, np.zeros(copies, bool)
        self._reached = self._ended.copy()
        self._id, self._seconds = env_id, seconds
        # Processes of their own are watched where their answers are waited for.
        self.is_async = isinstance(envs, AsyncVectorEnv)
        self.seconds = None if self.is_async else seconds
        self._stepping = Steps(envs, seconds)
        self._reader = LegalReader(self._actions, env_id)
        self.logs, self._info = tuple(log), InfoReader(log, copies, env_id)
        self._restarts, self._renumbered = Restarts(restarts), renumbered or (lambda _: self._numbers)
        self._legal: np.ndarray | None = None
        self._first: np.ndarray | None = self._reset(notes=True)
        source = of_copies(envs, "mask_source") if self._reader.masked else None
        self._reader.where = source.where if source else self._reader.where
        self.spec = Spec(
            id=env_id,
            backend="gym",
            shape=self._observations.shape,
            dtype=self._observations.dtype,
            actions=self._actions,
            reference=reference,
            masked=self._legal is not None,
            stack=stack,
            layout=self._observations,
        )

    @property
    def masks_at(self) -> str:
        """Where it says which actions are legal; empty where it does not."""
        return self._reader.where if self.spec.masked else ""

    @staticmethod
    def of(
        env_id: str,
        build: Callable[[], gymnasium.Env],
        num_envs: int,
        seeds: Sequence[int] = (0,),
        since: int = 0,
        reference: str | None = None,
        vector: str = "sync",
        seconds: float = SECONDS,
        stack: int = 1,
        bins: Sequence[int] = BINS,
        restarts: int = 0,
        log: Sequence[str] = (),
    ) -> GymnasiumEnvironment:
        """Make `num_envs` copies for each of `seeds`, stepped as `vector` of `workers.VECTORS` says."""

        def numbers(done: int = 0) -> list[int]:
            return [each for seed in seeds for each in episode_seeds(int(seed), since, num_envs, done)]

        envs = vectorise(build, len(numbers()), vector, env_id)
        task = (reference, seconds, stack, bins, restarts, numbers)
        return GymnasiumEnvironment(env_id, envs, numbers(), len(seeds), *task, log=log)

    def start(self) -> np.ndarray:
        first = self._reset() if self._first is None else self._first
        self._first = None
        return self._share(first)

    def watch(self, watcher: Watcher | None) -> None:
        """Show `watcher` from now on what is given, before it is interpreted; steps are counted anew."""
        self._watcher, self._steps = watcher, 0

    def begin(self, numbers: Sequence[int] | None = None) -> np.ndarray:
        """Begin new episodes everywhere; return the observations `[S, E, ...]`.

        Args:
            numbers: what the copies are seeded with; those that it was made with unless given.
        """
        self._first = None
        return self._share(self._reset(numbers=numbers))

    def legal(self) -> np.ndarray | None:
        return None if self._legal is None else self._share(self._legal)

    def send(self, action: np.ndarray) -> None:
        self._begin(self._actions.to_env(action.reshape(-1, action.shape[-1])))

    def send_env_action(self, action: np.ndarray) -> None:
        self._begin(contained(action, self.action_space))

    def _begin(self, action: np.ndarray) -> None:
        self._action = action
        self._steps += 1
        self._stepping.begin(action)

    def receive(self) -> Timestep:
        step = self.receive_rows()
        return Timestep(*(None if part is None else self._share(part) for part in step))

    def receive_rows(self) -> Timestep:
        """Do as `receive`; leaves `[S·E, ...]`, the observation and the successor one array where equal."""
        try:
            observed, reward, terminated, truncated, info = self._stepping.finish()
        except LostError as error:
            return self._recover(error)
        except Exception as error:
            self._fail(error)
        if self._watcher is not None:
            self._watcher.stepped(observed, reward, terminated, truncated, info)
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        # A next-step autoreset: this row is a reset, whatever its flags and reward say.
        real = ~self._ended if self._mode is AutoresetMode.NEXT_STEP else np.ones_like(terminated)
        ended = (terminated | truncated) & real
        observation = self._observations.read(observed)
        successor, legal_successor = observation, self._masks(info, terminated & real)
        legal = legal_successor
        succeeded, self._reached = success.read(info, self._reached, real, ended)
        resets = ended if self._mode is AutoresetMode.SAME_STEP else None
        logged = self._info.read(info, resets) if self.logs else None
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            successor = self._last(observation, ended, info)
            legal, legal_successor = self._last_masks(info, ended, terminated)
        elif self._mode is AutoresetMode.DISABLED and ended.any():
            observation, info = self._begin_again(ended)
            legal = merged(ended, self._masks(info, ~ended), legal_successor)
        self._ended, self._legal = ended, legal
        return Timestep(
            observation=observation,
            successor=successor,
            reward=np.asarray(reward, np.float32),
            terminated=terminated & real,
            truncated=truncated & ~terminated & real,
            real=real,
            legal=legal,
            legal_successor=legal_successor,
            success=succeeded,
            info=logged,
        )

    def log_notes(self) -> list[str]:
        return self._info.notes()

    def close(self) -> None:
        self._stepping.close()

    def _recover(self, error: LostError) -> Timestep:
        """Restart every copy; return a step in which nothing happened and every open episode broke off."""
        began, reason = time.monotonic(), self._said(error)
        while True:
            if not (self._stepping.can_begin_again and self._restarts.take()):
                self._fail(error)
            self._numbers = self._renumbered(self._restarts.done)
            try:
                first = self._reset(self._stepping.begin_again)
                break
            except LostError as another:
                error = another
        warnings.warn(
            f"Environment '{self._id}' {reason}; its processes were restarted in"
            f" {time.monotonic() - began:.2f} s ({self._restarts}). Their open episodes were given up.",
            RuntimeWarning,
            stacklevel=2,
        )
        no, legal = np.zeros(len(first), bool), self._legal
        reward, lost = no.astype(np.float32), ~no
        logged = self._info.nothing() if self.logs else None
        return Timestep(first, reward, no, no, first, no, legal, legal, broken=lost, info=logged)

    def _reset(
        self,
        begin: Callable[[list[int]], Any] | None = None,
        numbers: Sequence[int] | None = None,
        notes: bool = False,
    ) -> np.ndarray:
        """Begin everywhere, and say, where `notes` are wanted, what is odd about the first observations."""
        try:
            observed, info = (begin or self._stepping.reset)(list(numbers or self._numbers))
        except LostError as error:
            if begin is not None:
                raise
            self._fail(error)
        except Exception as error:
            self._fail(error)
        for note in inexact_of(self._observations, observed, self._id) if notes else ():
            warn(note, stacklevel=2)
        self._ended[:], self._reached = False, np.zeros_like(self._ended)
        self._legal = self._reader.first(info, len(self._numbers))
        if self.logs and notes:
            self._info.require_numbers(info)
        if self._watcher is not None:
            self._watcher.began(observed, None)
        return self._observations.read(observed)

    def _begin_again(self, ended: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset those that ended, where the vector environment leaves it to its user."""
        try:
            observed, info = self._stepping.envs.reset(options={"reset_mask": ended.copy()})
        except Exception as error:
            self._fail(error)
        if self._watcher is not None:
            self._watcher.began(observed, ended)
        return self._observations.read(observed), info

    def _last(self, observation: np.ndarray, ended: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The true successors: where an episode ended, its last observation."""
        if not (ended <= info.get("_final_obs", np.zeros_like(ended))).all():
            raise NoFinalError(
                f"Environment '{self._id}' ended an episode at step {self._steps:,} of the run without"
                " info['final_obs']; expected the episode's last observation there, as its autoreset mode"
                " 'same step' promises. Nothing can be learned from the first one of the next episode."
            )
        successor = observation.copy()
        for index in np.flatnonzero(ended):
            successor[index] = self._observations.read_one(info["final_obs"][index])
        return successor

    def _masks(self, info: dict[str, Any], free: np.ndarray) -> np.ndarray | None:
        return self._reader.read(info, free, self._steps)

    def _last_masks(
        self, info: dict[str, Any], ended: np.ndarray, terminated: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Masks of the next observations and of the successors, after a reset in the same step."""
        legal = self._masks(info, np.zeros_like(ended))
        final = info.get("final_info", {})
        return legal, merged(ended, self._masks(final, terminated | ~ended), legal)

    def give_up(self, error: Exception) -> NoReturn:
        # What hangs in a step may hang in being closed.
        closing = threading.Thread(target=self._close_quietly, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        raise self._error_of(error) from error

    def _fail(self, error: Exception) -> NoReturn:
        self._close_quietly()
        raise self._error_of(error) from error

    def _close_quietly(self) -> None:
        """Close what failed already, so that the first error is the one reported."""
        with contextlib.suppress(Exception):
            self.close()

    def _error_of(self, error: Exception) -> QhatError:
        action = f"; action {self._action.tolist()}" if self._steps else ""
        after = ""
        if isinstance(error, LostError) and self._restarts.most:
            after = f" It was restarted {self._restarts.most:,} times before ({setting('env_restarts')})."
        if isinstance(error, MisbehavedError) and "; expected" not in str(error):
            after = f" Correct its {'step' if self._steps else 'reset'}, or its spaces."
        kind = UsageError if isinstance(error, MisbehavedError) else QhatError
        return kind(f"Environment '{self._id}' {self._said(error)}{action}.{after}")

    def _said(self, error: Exception) -> str:
        where = f"step {self._steps:,} of the run"
        if isinstance(error, TimeoutError) or (isinstance(error, LostError) and error.hangs):
            return f"did not come back from {where} within {self._seconds:g} s"
        if isinstance(error, LostError | MisbehavedError):
            return f"{error}, at {where}"
        return f"raised at {where} ({described(error)})"

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """`[S·E, ...] → [S, E, ...]`."""
        return rows.reshape(self.seeds, self.num_envs, *rows.shape[1:])
