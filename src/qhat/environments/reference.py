"""Reference implementations that Gymnasium does not know by itself."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qhat.environments.extras import defer_plotting
from qhat.environments.wrappers import Wrapper, around
from qhat.system.machine import EXTRAS, installed

if TYPE_CHECKING:
    # Processes that step environments load this module, and need no JAX.
    from qhat.environments.base import Spec

MINATAR = "MinAtar/"


def lacks(reference: str | None) -> str | None:
    """The extra of qhat's that a reference needs and that is not installed, if one is missing."""
    missing = reference is not None and reference.startswith(MINATAR) and not installed("minatar")
    return EXTRAS["minatar"] if missing else None


def judge_name(reference: str | None, backend: str, env_id: str) -> str:
    """Name the environment that is scored: the reference, where its library is installed."""
    return f"Gymnasium's {reference}" if reference and not lacks(reference) else f"{backend}'s {env_id}"


def register(reference: str) -> None:
    """Let Gymnasium know a reference's id, where its package leaves that to the user."""
    import gymnasium

    if reference.startswith(MINATAR) and reference not in gymnasium.registry:
        defer_plotting()
        importlib.import_module("minatar.gym").register_envs()


def reference_builder(spec: Spec, options: Mapping[str, Any], wrap: Sequence[Wrapper]) -> Callable[[], Any]:
    """Return what makes the reference implementation of an environment, under the same conditions.

    Args:
        options: that the environment was made with. The reference takes them all by the same names.
        wrap: what stood around it.
    """
    reference, options = spec.reference or spec.id, dict(options)
    if reference.startswith(MINATAR):
        # The id says which actions there are, and the package knows no limit.
        options.pop("use_minimal_action_set", None)
        options["max_episode_steps"] = spec.limit
    return functools.partial(make_reference, reference, options, tuple(wrap))


def make_reference(
    name: str, options: Mapping[str, Any] | None = None, wrap: Sequence[Wrapper] = ()
) -> Any:
    """Make one of Gymnasium's environments by its id, wrapped."""
    from qhat.environments.envpool import atari

    register(name)
    with warnings.catch_warnings():
        # MinAtar's v0 is no older than its v1: it has all 6 actions.
        warnings.filterwarnings("ignore", message=".*MinAtar/.* is out of date")
        return around(atari.make(name, **(options or {})), wrap)


def wrapped_up(build: Callable[[], Any], wrap: Sequence[Wrapper]) -> Any:
    """Make an environment and its wrappers."""
    return around(build(), wrap)
