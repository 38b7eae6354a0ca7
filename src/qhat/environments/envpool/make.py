"""EnvPool's tasks: compiled into the loop where they can be, on the host loop else."""

from __future__ import annotations

import warnings

from qhat.environments.base import Environment
from qhat.environments.catalogue import Entry
from qhat.environments.envpool.compiled import EnvPoolEnvironment, NotCompiledError
from qhat.environments.envpool.hosted import EnvPoolHost
from qhat.environments.envpool.task import PoolTask
from qhat.environments.make_args import MakeArgs
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import require_unwrapped
from qhat.system.devices import on_cpu


def make(entry: Entry, args: MakeArgs) -> Environment | EnvPoolHost:
    """Make a pool. The option `host` asks for the host loop; the others are EnvPool's own of the task.

    Warns:
        RuntimeWarning: the task has no compiled step here.
    """
    more = {"options": args.options, "bins": args.bins, "log": args.log}
    # EnvPool's compiled step is the processor's: beside a GPU it is stepped in Python.
    if not PoolTask.of(entry, args.options).host and on_cpu():
        try:
            made = EnvPoolEnvironment(entry, args.num_envs, args.seeds, args.devices, args.since, **more)
            return wrapped(made, args.wrap)
        except NotCompiledError as error:
            warnings.warn(
                f"{error.sentence} It is stepped in Python instead.", RuntimeWarning, stacklevel=2
            )
    hosted = EnvPoolHost(entry, args.num_envs, args.seeds, args.since, **more)
    require_unwrapped(hosted.spec.id, args.wrap)
    return hosted
