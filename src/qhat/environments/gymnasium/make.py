"""Environments of Gymnasium's registry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gymnasium.vector import VectorEnv

from qhat.environments.catalogue import Entry
from qhat.environments.envpool.atari import stack_of
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.probe import probed
from qhat.environments.gymnasium.registry import make_batch
from qhat.environments.make_args import MakeArgs
from qhat.environments.reference import make_reference
from qhat.environments.spaces import episode_seeds
from qhat.environments.wrappers import require_unwrapped
from qhat.system.errors import require, setting


def make(entry: Entry, args: MakeArgs) -> GymnasiumEnvironment:
    """Make copies of one environment, or one vector environment for all of them."""
    if entry.batch:
        return _batch(entry, args)
    build = functools.partial(make_reference, entry.name, args.options, tuple(args.wrap))
    task = (args.num_envs, args.seeds, args.since, entry.reference, args.vector, args.seconds)
    more = {"stack": _stack(build), "bins": args.bins, "restarts": args.restarts, "log": args.log}
    return GymnasiumEnvironment.of(entry.id, build, *task, **more)


def _batch(entry: Entry, args: MakeArgs) -> GymnasiumEnvironment:
    """Make one vector environment for all seeds."""
    require_unwrapped(entry.id, args.wrap)
    require(
        args.vector == "sync",
        f"{setting('vector')} is {args.vector}, and '{entry.id}' steps all of its copies itself;"
        " expected sync.",
    )
    count = args.num_envs * len(args.seeds)
    return of_vector(entry.id, make_batch(entry.name, count, args.options), args)


def of_vector(env_id: str, envs: VectorEnv, args: MakeArgs) -> GymnasiumEnvironment:
    """Share one vector environment among all seeds, and see what it does at episodes' ends."""
    each = (episode_seeds(int(seed), args.since, args.num_envs) for seed in args.seeds)
    numbers = [number for seeds in each for number in seeds]
    more = {"seconds": args.seconds, "bins": args.bins, "log": args.log}
    return probed(GymnasiumEnvironment(env_id, envs, numbers, len(args.seeds), **more))


def _stack(build: Callable[[], Any]) -> int:
    made = build()
    made.close()
    return stack_of(made)
