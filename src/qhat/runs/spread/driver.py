"""Trains the seeds of a run on a cluster: one task for each group of seeds, one run folder for all."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qhat.cluster.connection import connected, pinned
from qhat.environments.user_envs import EnvLike, Source
from qhat.recipes.config import TrainConfig
from qhat.recipes.parts import kinds_of
from qhat.runs.callback import Callback
from qhat.runs.curves import has_reached
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.progress import Progress
from qhat.runs.run import Run
from qhat.runs.spread.board import Board
from qhat.runs.spread.crowd import Crowd
from qhat.runs.spread.groups import Group, divided, folder_of, read_division, write_division
from qhat.runs.spread.member import Member, Shipment
from qhat.runs.spread.merging import divide
from qhat.runs.spread.need import Need, parts_of, require_room
from qhat.runs.spread.travel import inputs_of, packed, require_movable, require_playable
from qhat.runs.spread.whole import Whole
from qhat.runs.stop import Stop
from qhat.runs.tracking import Tracking
from qhat.system import devices
from qhat.system.errors import UsageError, require, setting


def spread(
    env: str | EnvLike,
    source: Source,
    config: TrainConfig,
    judge: Any,
    show: Callable[[Progress], None],
    callback: Callback | None,
    stop: Stop,
    tracking: Tracking,
) -> Run:
    """Train on the cluster that the configuration names; see `qhat.train`.

    Args:
        source: of `env`.
        show: gets the progress of the whole.
    """
    assert config.cluster is not None
    require_movable(source, env, judge)
    if config.resume:
        _require_same(config)
        if (ended := _ended_before(config)) is not None:
            return ended
    stop.max_seconds = config.max_seconds
    with contextlib.ExitStack() as closing:
        # Before JAX has threads, which forks of Ray's would not have.
        nodes = closing.enter_context(connected(config.cluster))
        with contextlib.suppress(UsageError):
            # The driver merges and plays nothing: a GPU of its machine is left to tasks.
            devices.prepare(1, device="cpu")
        task, count = _tasks(config, source)
        shipped = packed(env, f"'{source.name}'"), packed(judge, "judge")
        need = require_playable(nodes, shipped[0], config, _process(config, source, look=True))
        able = _nodes(task)
        count = parts_of(need, config.seeds, count, able)
        folder = _folder(config)
        closing.enter_context(sole(folder.path))
        groups = _groups(folder, config, count)
        require_room(need, max(group.count for group in groups), able)
        closing.callback(tracking.finish)
        closing.callback(_remove_unused, folder, config)
        return _train(folder, config, groups, shipped, task, need, show, callback, stop, tracking, closing)


def _train(
    folder: RunFolder,
    config: TrainConfig,
    groups: Sequence[Group],
    shipped: tuple[Any, Any],
    task: Mapping[str, Any],
    need: Need,
    show: Callable[[Progress], None],
    callback: Callback | None,
    stop: Stop,
    tracking: Tracking,
    closing: contextlib.ExitStack,
) -> Run:
    import ray

    # On this node: the loss of another one must not end the run.
    here = pinned(ray.get_runtime_context().get_node_id())
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    closing.callback(ray.kill, board)
    moved, files = inputs_of(_begun(folder, config))
    shipment = Shipment(
        name=uuid.uuid4().hex[:12],
        env=shipped[0],
        judge=shipped[1],
        board=board,
        config=_of_group(moved),
        inputs={name: ray.put(data) for name, data in files.items()},
        waits=config.stop_at is not None or callback is not None,
        options=task,
        need=need,
    )
    members = [Member(group, folder_of(folder.path, group), shipment) for group in groups]
    whole = Whole(folder, config, members, tracking)
    crowd = Crowd(whole, members, board, config, show, callback, stop)
    closing.callback(crowd.cancel)
    return crowd.run()


def _of_group(config: TrainConfig) -> TrainConfig:
    """Return what every group trains with; what concerns all seeds is the driver's."""
    device = "cuda" if config.device == "cuda" else "cpu"
    return dataclasses.replace(
        config, cluster=None, threads=config.threads or 1, device=device, stop_at=None, max_seconds=None,
        keep=1, tensorboard=False, track=None, run_dir=None,
    )  # fmt: skip


def _tasks(config: TrainConfig, source: Source) -> tuple[dict[str, Any], int]:
    """Return Ray's options of a task, and how many of them the cluster can run now.

    Raises:
        UsageError: no node is large enough for one.
    """
    import ray

    cores = config.threads or 1
    options: dict[str, Any] = {"num_cpus": cores}
    name, each = "CPU", float(cores)
    if config.device == "cuda":
        options["num_gpus"] = 1
        name, each = "GPU", 1.0
    sizes = [resources.get(name, 0.0) for resources in _nodes({})]
    what = "GPU" if name == "GPU" else f"{cores} core{'s' * (cores > 1)}"
    fix = setting("device", "cpu") if name == "GPU" else f"fewer {setting('threads')}"
    require(
        max(sizes, default=0.0) >= each,
        f"No node of the cluster has {what} for tasks (the largest has {max(sizes, default=0.0):g});"
        f" expected {fix}.",
    )
    free = ray.available_resources().get(name, 0.0)
    count = int(free // each) or sum(int(size // each) for size in sizes)
    options |= {
        "num_returns": "streaming",
        "max_retries": 0,
        "scheduling_strategy": "SPREAD",
        "_generator_backpressure_num_objects": 32,
        **_process(config, source),
    }
    return options, count


def _nodes(task: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Return the resources of the nodes that are large enough for a task's cores and GPUs."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": task.get("num_cpus", 0), "GPU": task.get("num_gpus", 0)}
    return [each for each in alive if all(each.get(name, 0.0) >= size for name, size in asked.items())]


def _process(config: TrainConfig, source: Source, look: bool = False) -> dict[str, Any]:
    """Return Ray's option by which processes with equal settings of JAX are shared, and others are not."""
    words = [config.device, str(config.threads or 1), "python" if source.in_python() else "compiled"]
    if look and config.device == "cuda":
        words.append("look")
    return {"runtime_env": {"env_vars": {"QHAT_PROCESS": "-".join(words)}}}


def _folder(config: TrainConfig) -> RunFolder:
    from qhat.recipes.labels import folder_of as label_folder

    if config.resume:
        assert config.run_dir is not None
        return RunFolder.open(config.run_dir)
    return RunFolder.create(config.run_dir, config.env, label_folder(config.recipe_name))


def _remove_unused(folder: RunFolder, config: TrainConfig) -> None:
    """Leave no folder of a run that did not begin: nothing but its groups' is in it."""
    if not config.resume and not folder.config.exists():
        shutil.rmtree(folder.path, ignore_errors=True)


def _groups(folder: RunFolder, config: TrainConfig, count: int) -> list[Group]:
    """Return the groups: those that the run has already, or new ones."""
    groups = read_division(folder.path) if config.resume else []
    if groups:
        return groups
    groups = divided(config.seed, config.seeds, count)
    if config.resume:
        divide(folder, groups)
    else:
        write_division(folder.path, groups)
    return groups


def _begun(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    """Return the configuration with what groups without a checkpoint start from."""
    if not config.resume:
        return config
    from pathlib import Path

    written = folder.read_config()
    given = written.get("init_from")
    return dataclasses.replace(
        config,
        resume=False,
        init_from=Path(given) if isinstance(given, str) else None,
        demos=tuple(written.get("demos") or ()),
    )


def _require_same(config: TrainConfig) -> None:
    """Raise `UsageError` if a run to resume has other seeds."""
    assert config.run_dir is not None
    folder = RunFolder.open(config.run_dir)
    written = folder.read_config()
    for name in ("env", "seeds", "seed"):
        require(
            written.get(name) == getattr(config, name),
            f"Run '{folder.path}' was trained with {name} {written.get(name)} and not"
            f" {getattr(config, name)}; resuming keeps the run's settings, and only {setting('steps')} may"
            " change.",
        )
    if not read_division(folder.path):
        folder.last()


def _ended_before(config: TrainConfig) -> Run | None:
    """Return the run to resume if its score has ended it already."""
    if not config.resume or config.run_dir is None:
        return None
    with contextlib.suppress(UsageError):
        run = Run.open(config.run_dir, kinds_of(config.recipe))
        if not read_division(config.run_dir) and has_reached(config.run_dir, run.summary(), config.stop_at):
            return run
    return None
