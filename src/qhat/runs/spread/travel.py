"""What a run takes along to other machines, and whether each node can make its environment."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qhat.cluster.connection import Node, pinned
from qhat.environments.make_args import MakeArgs
from qhat.environments.user_envs import ById, EnvLike, FromCompiled, FromJax, FromMaker, Source, source_of
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.runs.spread.need import Need, need_of
from qhat.runs.spread.task import ready_process
from qhat.system import devices
from qhat.system.errors import QhatError, UsageError, described, require, setting

ANSWERS = 300.0
"""Seconds that a node has to import JAX and to make an environment."""
MISSING = re.compile("No module named '([^']+)'")
WEIGHTS = ("config.json", "last", "best/*", "checkpoints/*/manifest.json")
"""Files of a run from which another one starts."""


def require_movable(source: Source, env: Any, judge: Any) -> None:
    """Raise `UsageError` for an environment that exists in this process alone."""
    movable = isinstance(source, ById | FromMaker | FromJax) or (
        isinstance(source, FromCompiled) and source.env.snapshots
    )
    require(
        movable,
        f"'{source.name}' exists in this process alone, and {setting('cluster')} makes environments on"
        " other machines; expected an id, or a function that makes one.",
    )
    good = judge is None or isinstance(judge, str) or (callable(judge) and not hasattr(judge, "step"))
    require(
        good,
        f"judge exists in this process alone, and {setting('cluster')} plays evaluations on other machines;"
        " expected an id, or a function that makes an environment.",
    )


def packed(what: Any, name: str) -> Any:
    """Return a reference to a value on the cluster; an id stays as it is.

    Raises:
        UsageError: it cannot be sent.
    """
    import ray

    if what is None or isinstance(what, str):
        return what
    try:
        return ray.put(what)
    except Exception as error:
        # Any error of the object's pickling.
        raise UsageError(
            f"{name} cannot be sent to other machines ({described(error).splitlines()[0]}); expected a"
            " function at the top level of a module, which makes everything inside."
        ) from None


def inputs_of(config: TrainConfig) -> tuple[TrainConfig, dict[str, bytes]]:
    """Return the configuration with names in place of paths, and the files of these names."""
    files: dict[str, bytes] = {}
    changed = config
    if config.init_from is not None:
        folder = RunFolder.open(config.init_from)
        for pattern in WEIGHTS:
            for path in folder.path.glob(pattern):
                files[f"start/{path.relative_to(folder.path).as_posix()}"] = path.read_bytes()
        changed = dataclasses.replace(changed, init_from=Path("start"))
    demos = []
    for index, given in enumerate(config.demos):
        path = Path(given)
        if path.is_file():
            files[f"demos/{index}{path.suffix}"] = path.read_bytes()
            given = f"demos/{index}{path.suffix}"
        demos.append(given)
    return dataclasses.replace(changed, demos=tuple(demos)), files


def require_playable(
    nodes: Sequence[Node], env: Any, config: TrainConfig, process: Mapping[str, Any]
) -> Need:
    """Make the environment on every node with a core for tasks.

    Args:
        env: an id, or a reference to what a caller gave in its place.
        process: Ray's options of the processes that will train.

    Returns:
        what is enough for a task on each of them.

    Raises:
        UsageError: a module is missing on a node, or the environment cannot be made there.
        QhatError: a node does not answer.
    """
    import ray
    from ray.exceptions import RayError

    asked = [node for node in nodes if node.cpus >= 1]
    require(bool(asked), "The cluster has no node with a core for tasks; expected at least one.")
    remote = ray.remote(made_on_node)
    # No core is taken: a node that is busy answers too.
    answers = [
        remote.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned(node.id), **process).remote(
            env, config
        )
        for node in asked
    ]
    whole = Need(0, 0)
    for node, answer in zip(asked, answers, strict=True):
        try:
            found = ray.get(answer, timeout=ANSWERS)
        except (RayError, TimeoutError) as error:
            # The module of a caller's function may be missing before anything can be asked.
            missing = MISSING.search(str(error))
            name = missing[1] if missing else ""
            require(not name, f"Node {node.name} cannot train in '{config.env}': {_lacks(name)}")
            why = " ".join(str(error).split())[:200]
            raise QhatError(
                f"Node {node.name} cannot say whether it can make '{config.env}': {why}"
            ) from None
        if isinstance(found, str):
            raise UsageError(f"Node {node.name} cannot train in '{config.env}': {found}")
        whole = whole.most(found)
    return whole


def made_on_node(env: str | EnvLike, config: TrainConfig) -> Need | str:
    """Make the environment here; return what training takes, or why not, as the end of a sentence."""
    ready_process()
    try:
        source = source_of(env, config.env_kwargs)
        # A GPU is for the task that trains.
        devices.prepare(1, source.in_python(), config.threads or 1, "cpu")
        source.look()
        seeds = range(config.seed, config.seed + 1)
        args = MakeArgs(
            config.recipe.num_envs, seeds, options=config.env_kwargs, wrap=config.wrap,
            bins=config.recipe.bins, log=config.log,
        )  # fmt: skip
        made = source.make(args)
        try:
            return need_of(made, config)
        finally:
            if source.closes:
                made.close()
    except ModuleNotFoundError as error:
        return _lacks(error.name)
    except QhatError as error:
        return error.sentence
    except Exception as error:
        return f"{described(error)}."


def _lacks(name: str | None) -> str:
    return f"it has no module '{name}'; expected the same packages on every node."
