"""`qhat export RUN`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from qhat.cli.parsing import read
from qhat.deploy import require_installed
from qhat.deploy.ros2 import require_robot, write_package
from qhat.deploy.web import require_drawable, write_page
from qhat.environments.catalogue import require_made_by_id
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run's policy to a folder that runs without JAX, proven to be the same policy.

    policy.onnx, weights.safetensors, policy.json, a runner that needs NumPy alone, the proof and the time
    that a decision takes.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    out: Path | None = None
    """Folder to write; none is export in the run folder. An older export there is replaced."""
    checkpoint: str = "best"
    """Which weights: best, last, or the step of a checkpoint that is there (--keep)."""
    seed_index: int | None = None
    """Whose policy, from 0; none is the seed with the best evaluation of its own."""
    name: str | None = None
    """Of the policy; none is the environment's and the recipe's."""
    safe_action: tuple[float, ...] | None = None
    """What the runner returns where it cannot trust what it sees: one of the environment's own actions."""
    timeout: float | None = None
    """Seconds after which the runner finds an observation too old to act on."""
    control_period: float | None = None
    """Seconds between two decisions; none is the environment's own."""
    ros2: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write a ROS 2 package beside it, ros2/qhat_turtlebot3, that drives a TurtleBot3 (docs/ros2.md)."""
    web: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write a page beside it, web.html, in which CartPole or a TurtleBot3 is driven (docs/web.md)."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, export, say what was proven."""
    told = read(Export, words, "export")
    for flag, value in (("--timeout", told.timeout), ("--control-period", told.control_period)):
        require(value is None or 0 < value < math.inf, f"{flag} is {value}; expected seconds, more than 0.")
    require_installed()
    folder = RunFolder.open(told.run)
    folder.last()
    folder.checkpoint(told.checkpoint)
    config = folder.read_config()
    require_made_by_id(config["env"], f"it again in Python: qhat.export('{told.run}', env=...)")
    if told.ros2:
        require_robot(config["env"])
    if told.web:
        require_drawable(config["env"], config["env_kwargs"], config["wrap"])

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.deploy.export import export

        made = export(
            told.run, told.out, which=told.checkpoint, seed_index=told.seed_index, name=told.name,
            safe_action=told.safe_action, timeout=told.timeout, control_period=told.control_period,
            progress=status.update,
        )  # fmt: skip
        package = write_package(made.path) if told.ros2 else None
        page = write_page(made.path) if told.web else None
    if told.json:
        beside = {"ros2": package, "web": page}
        paths = {name: str(path) for name, path in beside.items() if path is not None}
        print(json.dumps({**made.to_json(), **paths}))
        return 0
    proof, alone = made.parity["onnxruntime"], made.parity["episodes"]
    print(f"{made.path}")
    print(
        f"  proof      {proof['observations']:,} observations of {made.parity['environment']}:"
        f" values within {proof['worst']:.1g}·max(1, |Q|), no other action (near-ties,"
        f" where one may be: {proof['near_ties']:,})"
    )
    print(
        f"  alone      {alone['played']} episodes by onnxruntime: mean return"
        f" {alone['mean_return']:.1f}, the same actions"
    )
    for name in ("numpy", "onnxruntime"):
        own = made.latency[name]
        spans = f"p99 {own['p99_us']:.1f}, {own['max_us']:.0f} at most"
        print(f"  {name:<12}{own['p50_us']:.1f} µs a decision, {spans}")
    sizes = ", ".join(f"{name} {size / 1000:.1f} kB" for name, size in made.files.items() if size > 1000)
    print(f"  files      {sizes}")
    print("\nnext:")
    if package is not None:
        print(f"  cp -r {package} ~/ros2_ws/src/    (then {package}/README.md)")
    if page is not None:
        print(f"  open {page} in a browser")
    print(f"  less {made.path}/README.md")
    return 0
