"""`JaxEnvironment`, the base class of one's own environment in JAX."""

from __future__ import annotations

import abc
import traceback
from typing import Any

from jaxtyping import Array

from qhat.environments.mirror import Mirror

BACKEND = "jax"


class JaxEnvironment(abc.ABC):
    """A single environment in JAX: `qhat.train(MyEnv())` compiles it into the training loop.

    Subclasses write two pure functions for one environment. qhat maps them over copies and seeds, starts a
    new episode where one ended, keeps the true successor, applies the time limit, and reads masks.
    """

    observation_space: Any
    """A Gymnasium space, or the shape of an array of float32."""
    action_space: Any
    """A Gymnasium space, or the number of actions."""
    limit: int = 0
    """Steps after which an episode is truncated; 0 is no time limit."""
    starts: int = 0
    """Starts that are ready at any time: each new episode begins from one of them, and one of them is drawn
    anew every `start_every` steps. 0 draws a start for each copy at each step, which is slow where `reset`
    is (physics, worlds)."""
    start_every: int = 1
    fps: float = 30.0
    """Steps per second at which a film looks as fast as it is."""
    mirror: Mirror | None = None
    """The task's mirror image, for `--mirror`."""
    may_diverge: bool = False
    """Whether observations or rewards can stop being finite, as those of physics: such a step is no
    transition, and the copy starts anew."""

    @abc.abstractmethod
    def reset(self, key: Array) -> tuple[Any, Any]:
        """Return the state of a new episode, any pytree of arrays, and its first observation."""

    @abc.abstractmethod
    def step(self, state: Any, action: Any, key: Array) -> tuple[Any, ...]:
        """Return the new state, the observation, the reward and whether the task ended (`terminated`).

        A dictionary of numbers may be the fifth value: `info`, of which a run logs what `log` names. Where
        it has `truncated`, a bool, the environment cuts its episodes itself. `is_success` counts at an
        episode's last step, `success` at any.

        Args:
            action: as the action space has it: a whole number for `Discrete`, an array for `Box`.
        """

    def action_mask(self, state: Any) -> Any:
        """Return which actions are legal, `[actions]` or `[factors, choices]`; `None` is all."""
        return None

    def draw(self, state: Any) -> Any:
        """Return a picture `[height, width, 3]` of a state, for films; called outside compiled programs."""
        raise NotImplementedError


def failure(error: BaseException) -> str:
    """Return what an error of the caller's code says, and where."""
    said = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {said}, at {place(error)}"


def place(error: BaseException) -> str:
    """Return the file and line of the caller's code that an error comes from."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
    ]
    last = frames[-1] if frames else None
    return f"{last.filename}:{last.lineno}" if last else "unknown line"
