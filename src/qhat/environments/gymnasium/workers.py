"""Copies of a Gymnasium environment: made, guarded, and stepped within a time limit."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from qhat.environments.gymnasium import api as gymnasium_api
from qhat.environments.gymnasium.api import MisbehavedError
from qhat.environments.gymnasium.main_guard import require_guard, sentence
from qhat.environments.gymnasium.mask_source import KEY, KEYS, MaskSource, mask_in_info
from qhat.environments.gymnasium.one_copy import OneCopy
from qhat.environments.gymnasium.processes import LostError, Processes, end, losing
from qhat.environments.spaces import given_entries
from qhat.system.errors import QhatError, UsageError, require, setting

VECTORS = ("sync", "async")
"""How copies are stepped: one after the other in this process, or each in a separate process."""


class Guarded(gymnasium.Wrapper):
    """An environment whose observations are what its space says, and are not written to later.

    Gymnasium's vector environments would pour an observation of another type into the array for them, and
    keep a last observation that the environment overwrites when it is reset.
    """

    def __init__(self, env: gymnasium.Env, name: str = ""):
        """Guard an environment; `name` is what errors call it."""
        gymnasium_api.require_environment(env, name or type(env).__name__)
        env = mask_in_info(env)
        super().__init__(env)
        name = name or (env.spec.id if env.spec else type(env.unwrapped).__name__)
        self._entries = given_entries(env.observation_space, name)
        self.reuses: bool = False
        """Whether an observation was written over the one before."""
        self._before: Any = None
        self.mask_source: MaskSource | None = None
        """Where masks are found; known from the first reset on."""
        if env.has_wrapper_attr("mask_source"):
            self.mask_source = env.get_wrapper_attr("mask_source")

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = gymnasium_api.reset(self.env, **options)
        self._before = None
        return self._checked(observation), self._masked(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = gymnasium_api.step(self.env, action)
        return self._checked(observation), reward, terminated, truncated, self._masked(info)

    def _masked(self, info: dict[str, Any]) -> dict[str, Any]:
        """Note where a mask is; a missing one may be written as None."""
        self.mask_source = self.mask_source or MaskSource.of_info(info)
        return {key: value for key, value in info.items() if value is not None or key not in KEYS}

    def _checked(self, observation: Any) -> Any:
        for entry in self._entries:
            value = observation
            for key in entry.path:
                value = value[key]
            value = np.asarray(value)
            if value.shape != entry.shape:
                raise MisbehavedError(
                    f"gave an observation{entry.where} of shape {value.shape}, where its space says"
                    f" {entry.shape}"
                )
            fits = value.dtype == entry.dtype or np.can_cast(value.dtype, entry.dtype, "same_kind")
            if not fits and not entry.choices:
                raise MisbehavedError(
                    f"gave an observation{entry.where} of type {value.dtype}, where its space says"
                    f" {entry.dtype}"
                )
            if entry.choices and not 0 <= int(value) - entry.start < entry.choices:
                raise MisbehavedError(
                    f"gave the observation{entry.where} {value}, where its space says {entry.start} to"
                    f" {entry.start + entry.choices - 1}"
                )
        # Many environments write over the arrays that they gave.
        plain = type(observation) is np.ndarray
        copied = observation.copy() if plain else copy.deepcopy(observation)
        if not self.reuses:
            self._compare(observation, copied)
        return copied

    def _compare(self, observation: Any, copied: Any) -> None:
        """See whether the array before was written over since; of several, the first one."""
        for key in self._entries[0].path:
            observation, copied = observation[key], copied[key]
        if isinstance(observation, np.ndarray) and observation.size:
            if self._before is not None:
                was, as_it_was = self._before
                same = np.may_share_memory(was, observation)
                self.reuses = same and not np.array_equal(was, as_it_was)
            self._before = observation, copied


def vectorise(build: Callable[[], gymnasium.Env], count: int, kind: str, name: str = "") -> VectorEnv:
    """Make `count` guarded copies, `kind` one of `VECTORS`.

    They are reset in the step that ends an episode: no row is lost, and the true last observation comes
    beside the first one.
    """
    if kind == "sync":
        made = [Guarded(build(), name) for _ in range(count)]
        if count == 1 and OneCopy.takes(made[0]):
            return OneCopy(made[0])
        again = [lambda env=env: env for env in made]
        return SyncVectorEnv(again, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    require_guard(name)
    try:
        return Processes(functools.partial(_made, build, os.getpid(), name), count)
    except LostError as error:
        if error.unguarded:
            raise UsageError(sentence(name)) from None
        raise QhatError(
            f"Environment '{name}': a process that should step it ended while it was made; in this process"
            f" ({setting('vector', 'sync')}) it would say why."
        ) from error


def _made(build: Callable[[], gymnasium.Env], owner: int, name: str) -> gymnasium.Env:
    """Make a guarded copy. Ctrl-C is for the process `owner`, which will save the run, alone."""
    # Gymnasium makes one there too, to see its spaces.
    if os.getpid() != owner:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return Guarded(build(), name)


def guard(envs: VectorEnv, name: str = "") -> VectorEnv:
    """Guard the environments of a caller's vector environment, where they are in this process.

    Returns:
        the vector environment to step: another one of the same copies where they show less than before.

    Raises:
        UsageError: its observations hold a mask, and its copies cannot be reached.
    """
    if isinstance(envs, SyncVectorEnv):
        guarded: Any = [env if isinstance(env, Guarded) else Guarded(env, name) for env in envs.envs]
        if guarded[0].observation_space == envs.single_observation_space:
            envs.envs = guarded
            return envs
        again = [lambda env=env: env for env in guarded]
        return SyncVectorEnv(again, copy=False, autoreset_mode=envs.autoreset_mode)
    source = MaskSource.of_spaces(envs.single_observation_space, envs.single_action_space)
    require(
        source is None,
        f"Vector environment '{name}' gives the legal actions in {source and source.where}; expected them"
        f" in info['{KEY}'] and not in the observation, or a function that makes a single copy.",
    )
    return envs


def of_copies(envs: VectorEnv, name: str) -> Any:
    """Return what the first of guarded copies says under `name`; `None` where none is guarded."""
    if isinstance(envs, SyncVectorEnv):
        return getattr(envs.envs[0], name, None) if isinstance(envs.envs[0], Guarded) else None
    return envs.get_attr(name)[0] if isinstance(envs, Processes) else None


class Steps:
    """Steps vector environments; one that takes too long is given up."""

    def __init__(self, envs: VectorEnv, seconds: float):
        self.envs, self._seconds = envs, seconds
        self._lost: LostError | None = None
        self._alarmed = _hears() and not isinstance(envs, AsyncVectorEnv)
        self._before = signal.signal(signal.SIGALRM, _ring) if self._alarmed else None

    def reset(self, numbers: list[int]) -> Any:
        """Begin new episodes, seeded with `numbers`; a batch that steps as one takes the first alone.

        Raises:
            LostError: a process ended, or hangs.
        """
        each = isinstance(self.envs.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        seed: Any = list(numbers) if each else numbers[0]
        if isinstance(self.envs, AsyncVectorEnv):
            with _quietly(), losing(self.envs):
                self.envs.reset_async(seed=seed)
                return self.envs.reset_wait(timeout=self._seconds)
        return self._timed(lambda: self.envs.reset(seed=seed))

    @property
    def can_begin_again(self) -> bool:
        """Whether lost processes can be replaced."""
        return isinstance(self.envs, Processes)

    def begin_again(self, numbers: list[int]) -> Any:
        """Do as `reset` in fresh processes, after a `LostError`."""
        assert isinstance(self.envs, Processes)
        if not self.envs.closed:
            end(self.envs)
        self.envs, self._lost = self.envs.again(self._seconds), None
        return self.reset(numbers)

    def begin(self, action: Any) -> None:
        """Begin a step, where the environments have processes of their own."""
        self._action = action
        if isinstance(self.envs, AsyncVectorEnv):
            try:
                with losing(self.envs):
                    self.envs.step_async(action)
            except LostError as error:
                self._lost = error

    def finish(self) -> Any:
        """Return what the step brought. Raises `TimeoutError`, `LostError`."""
        if self._lost is not None:
            raise self._lost
        if isinstance(self.envs, AsyncVectorEnv):
            with _quietly(), losing(self.envs):
                return self.envs.step_wait(timeout=self._seconds)
        return self._timed(lambda: self.envs.step(self._action))

    def _timed(self, act: Callable[[], Any]) -> Any:
        if not (self._alarmed and _hears()):
            return act()
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            return act()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        """End the environments, also those that hang or have failed."""
        if self._alarmed and _hears():
            signal.signal(signal.SIGALRM, self._before)
            self._alarmed = False
        if isinstance(self.envs, AsyncVectorEnv) and not self.envs.closed:
            end(self.envs)
        else:
            self.envs.close()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Gymnasium prints what workers raised; qhat says it in its own error."""
    with warnings.catch_warnings():
        # Gymnasium's logger makes warnings of what it logs.
        warnings.filterwarnings("ignore", message=r".*(ERROR|WARN): ", category=UserWarning)
        yield


def _hears() -> bool:
    """Whether signals reach this thread. Others are watched by the one that waits for them."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


def _ring(*_: Any) -> NoReturn:
    raise TimeoutError
