"""Makes copies of Gymnasium's environments where there may be no JAX: on the nodes of a cluster."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium

from qhat.environments.catalogue import find
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.make import make
from qhat.environments.make_args import MakeArgs
from qhat.environments.reference import wrapped_up
from qhat.system.errors import UsageError

BuildOnNode = Callable[[MakeArgs], GymnasiumEnvironment]


def by_id(env_id: str, args: MakeArgs) -> GymnasiumEnvironment:
    """Make what an id of Gymnasium's means."""
    return make(find(env_id, args.options), args)


def by_function(name: str, build: Callable[[], gymnasium.Env], args: MakeArgs) -> GymnasiumEnvironment:
    """Make what a caller's function makes."""
    wrapped = functools.partial(wrapped_up, build, tuple(args.wrap))
    copies = (args.num_envs, args.seeds, args.since, None, args.vector, args.seconds)
    more = {"bins": args.bins, "restarts": args.restarts, "log": args.log}
    return GymnasiumEnvironment.of(name, wrapped, *copies, **more)


def require_no_arguments(build: Callable[..., Any], name: str) -> None:
    """Raise `UsageError` for a function that needs arguments to make an environment."""
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):
        # A callable of C does not say what it takes.
        return
    try:
        signature.bind()
    except TypeError:
        raise UsageError(
            f"The function '{name}' takes {signature}; expected one that makes an environment without"
            " arguments, such as functools.partial fills them in."
        ) from None
