"""What Gymnasium expects of `reset` and `step`, and sentences for environments that give something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from qhat.system.errors import QhatError, UsageError, described, require
from qhat.system.files import quote

LIBRARIES = (str(Path(str(gymnasium.__file__)).parent), str(Path(__file__).parent.parent))
"""Folders of code that calls environments, and is none."""
STEP = (
    "expected observation, reward, terminated, truncated, info (the old gym's done is `terminated`,"
    " with `truncated` False)"
)
RESET = (
    "expected `def reset(self, *, seed=None, options=None)`, which begins with `super().reset(seed=seed)`"
    " and returns observation, info"
)


class NoFinalError(QhatError):
    """An episode ended, and its last observation was not given beside the next one's first."""


@runtime_checkable
class Watcher(Protocol):
    """Sees what a vector environment gives, before it is interpreted."""

    def began(self, observed: Any, who: np.ndarray | None) -> None:
        """A reset brought `observed`: of the copies `who`, or of all."""

    def stepped(self, observed: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        """A step brought all this."""


class MisbehavedError(RuntimeError):
    """An environment did something that its spaces say it does not; the text begins with a verb."""


def require_environment(made: Any, name: str) -> None:
    """Raise `UsageError` for what is no environment of Gymnasium's, or does not say its spaces."""
    require(isinstance(made, gymnasium.Env), f"Environment '{name}' is {_no_environment(made)}")
    for part in ("observation_space", "action_space"):
        space = getattr(made, part, None)
        require(
            isinstance(space, gymnasium.Space),
            f"Environment '{name}' has the {part} {_quote(space)}; expected one of gymnasium.spaces, such"
            " as Box(-1.0, 1.0, (4,)) or Discrete(2).",
        )


def _no_environment(made: Any) -> str:
    """Say what was made in place of an environment, and what to write."""
    kind = type(made).__name__
    if made is None:
        return "None; expected an environment: does the function that makes it return it?"
    if isinstance(made, type):
        return f"the class {made.__name__}; expected an environment: {made.__name__}()."
    if isinstance(made, str):
        return f"the text {quote(made)}; expected an environment: gymnasium.make({quote(made)})."
    if isinstance(made, tuple | list):
        return f"a {kind} of {len(made)}; expected one environment alone."
    if isinstance(made, gymnasium.vector.VectorEnv):
        return f"the vector environment {kind}; expected a single one, or it itself, without a function."
    # Its class is not imported here, as that takes JAX.
    if hasattr(made, "snapshots") and hasattr(made, "num_envs"):
        return f"{kind}, an environment of qhat's; expected it itself, without a function that makes it."
    if hasattr(made, "action_space") or (hasattr(made, "reset") and hasattr(made, "step")):
        return f"a {kind}; expected a subclass of gymnasium.Env: write `class {kind}(gymnasium.Env)`."
    return f"{quote(made)}; expected an environment, such as gymnasium.make('CartPole-v1') returns."


def is_of_caller(error: Exception) -> bool:
    """Whether none of the environment's own code was running: its caller did not take what it gave."""
    trace = error.__traceback__
    if not isinstance(error, TypeError | ValueError | AssertionError | AttributeError):
        return False
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(LIBRARIES):
            return False
        trace = trace.tb_next
    return True


def reset(env: gymnasium.Env, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Reset an environment. Raises `MisbehavedError` where it does not do as Gymnasium expects."""
    try:
        given = env.reset(**options)
    except Exception as error:
        if is_of_caller(error):
            raise MisbehavedError(
                f"has a reset that Gymnasium cannot use ({described(error)}); {RESET}"
            ) from error
        raise
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], dict):
        raise MisbehavedError(f"has a reset that returns {_said(given, 2)}; {RESET}")
    return given


def step(env: gymnasium.Env, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    """Step an environment. Raises `MisbehavedError` where it does not do as Gymnasium expects."""
    try:
        given = env.step(action)
    except Exception as error:
        if is_of_caller(error):
            raise MisbehavedError(
                f"has a step that Gymnasium cannot use ({described(error)}); {STEP}"
            ) from error
        raise
    if not isinstance(given, tuple) or len(given) != 5 or not isinstance(given[4], dict):
        raise MisbehavedError(f"has a step that returns {_said(given, 5)}; {STEP}")
    observation, reward, terminated, truncated, info = given
    return observation, _number(reward), _flag(terminated), _flag(truncated), info


def _said(given: Any, count: int) -> str:
    """Say what came in place of a tuple."""
    if isinstance(given, tuple) and len(given) == count:
        return f"the info {type(given[-1]).__name__}, where a dictionary is expected"
    return f"{len(given)} values" if isinstance(given, tuple) else f"one {type(given).__name__}"


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _number(reward: Any) -> Any:
    """Check a reward, which is left as it is."""
    if isinstance(reward, float):
        return reward
    if np.ndim(reward):
        several = np.size(reward) > 1
        raise MisbehavedError(
            f"gave a reward of shape {np.shape(reward)}, where one number is expected"
            + " (of several objectives a weighted sum, in a wrapper)" * several
        )
    if np.asarray(reward).dtype.kind not in "biuf":
        raise MisbehavedError(f"gave the reward {reward!r}, where one number is expected")
    return reward


def _flag(value: Any) -> bool:
    """Read `terminated` or `truncated`."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if np.ndim(value) or np.asarray(value).dtype.kind not in "biuf":
        raise MisbehavedError(
            f"gave {value!r} for terminated or truncated, where True or False is expected"
        )
    return bool(value)


def mode_of(envs: VectorEnv, env_id: str) -> AutoresetMode:
    """Return the autoreset mode that a vector environment says it has. Raises `UsageError`."""
    declared = envs.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(declared)
    except ValueError:
        names = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
        raise UsageError(
            f"Vector environment '{env_id}' has metadata['autoreset_mode'] {declared!r}; expected one of"
            f" {names}: what it does after an episode's end decides what can be learned from."
        ) from None
