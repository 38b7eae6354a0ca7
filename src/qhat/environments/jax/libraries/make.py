"""Environments of other libraries in JAX, each a `JaxEnvironment`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from qhat.environments.base import Environment
from qhat.environments.catalogue import Entry
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import JaxEnvironment, failure
from qhat.environments.make_args import MakeArgs
from qhat.environments.wrapped import wrapped
from qhat.system.errors import QhatError, UsageError


def make(entry: Entry, args: MakeArgs) -> Environment:
    """Make copies of a task of a library."""
    more = {"id": entry.id, "backend": entry.backend, "bins": args.bins, "options": args.options}
    batch = JaxBatch(single(entry, args.options), args.num_envs, log=args.log, **more)
    return wrapped(batch, args.wrap)


def single(entry: Entry, options: Mapping[str, Any]) -> JaxEnvironment:
    """Make one environment.

    Raises:
        UsageError: the library does not make it with these options.
    """
    module = importlib.import_module(f"qhat.environments.jax.libraries.{entry.backend}")
    kind = getattr(module, entry.backend.capitalize())
    try:
        return kind(entry.name, **options)
    except QhatError:
        raise
    except Exception as error:
        how = f" with {dict(options)}" if options else ""
        raise UsageError(f"Environment '{entry.id}' cannot be made{how} ({failure(error)}).") from error
