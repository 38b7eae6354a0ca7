"""Ids of one's own environments in JAX: `jax:my_module:MyEnv`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from qhat.environments.base import Environment
from qhat.environments.catalogue import Entry
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import BACKEND, JaxEnvironment, failure
from qhat.environments.make_args import MakeArgs
from qhat.environments.spaces import describe
from qhat.environments.wrapped import wrapped
from qhat.system.errors import UsageError, near_miss


def entry_of(name: str, options: Mapping[str, Any]) -> Entry:
    """Return the entry of `my_module:MyEnv`. Raises `UsageError` if there is no such class."""
    batch = JaxBatch(_made(name, options), 1, id=f"{BACKEND}:{name}")
    shown = f"{batch.spec.shape} {batch.spec.dtype}"
    single = batch.single
    actions = single.action_space
    said = f"{actions} discrete" if isinstance(actions, int) else describe(actions)
    return Entry(name, shown, said, None, BACKEND, limit=batch.spec.limit)


def make(entry: Entry, args: MakeArgs) -> Environment:
    """Make copies of the class that an id names."""
    single = _made(entry.name, args.options)
    more = {"bins": args.bins, "options": args.options, "log": args.log}
    batch = JaxBatch(single, args.num_envs, id=entry.id, **more)
    return wrapped(batch, args.wrap)


def _made(name: str, options: Mapping[str, Any]) -> JaxEnvironment:
    module, _, kind = name.partition(":")
    env_id = f"{BACKEND}:{name}"
    if not kind:
        raise UsageError(f"Environment '{env_id}' names no class; expected {BACKEND}:my_module:MyEnv.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Environment '{env_id}': module '{error.name}' is not found; expected one in this folder, on"
            " PYTHONPATH, or installed."
        ) from None
    except Exception as error:
        raise UsageError(f"Environment '{env_id}' cannot be imported ({failure(error)}).") from error
    kinds = {
        known: value
        for known, value in vars(found).items()
        if inspect.isclass(value) and issubclass(value, JaxEnvironment) and not inspect.isabstract(value)
    }
    if kind not in kinds:
        raise UsageError(
            f"Environment '{env_id}': module '{module}' has no environment '{kind}'; its subclasses of"
            f" qhat.JaxEnvironment are: {', '.join(kinds) or 'none'}.{near_miss(kind, kinds)}"
        )
    try:
        return kinds[kind](**options)
    except Exception as error:
        how = f" with {dict(options)}" if options else ""
        raise UsageError(f"Environment '{env_id}' cannot be made{how} ({failure(error)}).") from error
