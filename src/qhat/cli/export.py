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
from qhat.cli.parts import with_parts
from qhat.deploy import require_installed
from qhat.deploy.ros2 import Ros2
from qhat.deploy.target import ExportTarget
from qhat.deploy.targets import TARGETS
from qhat.environments.catalogue import require_made_by_id
from qhat.evaluation.statistics.text import score_text
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Export:
    """Export a run's policy to a folder that runs without JAX, with a proof that it is the same policy.

    Writes policy.onnx, weights.safetensors, policy.json, a runner that needs only NumPy, the parity proof
    and the time per decision.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    out: Path | None = None
    """Output folder. Default: export in the run folder. An older export there is replaced."""
    checkpoint: str = "best"
    """Weights to export: best, last, or the step of a kept checkpoint (see --keep)."""
    seed_index: int | None = None
    """Index of the seed, from 0. Default: the best seed."""
    name: str | None = None
    """Name of the policy. Default: from the environment and the recipe."""
    safe_action: tuple[float, ...] | None = None
    """Action that the runner returns when an observation is invalid: one of the environment's actions."""
    timeout: float | None = None
    """Maximum age of an observation in seconds; the runner does not act on older ones."""
    control_period: float | None = None
    """Seconds between two decisions. Default: the environment's."""
    observations: int = 10_000
    """Smallest number of observations on which the exported policy is compared with the trained one."""
    ros2: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write a ROS 2 package, ros2/qhat_turtlebot3, that drives a TurtleBot3 (docs/ros2.md)."""
    ros2_map: Path | None = None
    """Also write a ROS 2 package for your own robot: a YAML file with the topics of the observation and the
    messages of the actions (docs/ros2.md)."""
    web: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write web.html, a page in which the policy drives CartPole or a TurtleBot3 (docs/web.md)."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    cpp: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write cpp, a C++ program of one file that runs policy.onnx with onnxruntime (docs/export.md)."""
    learner: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write qhat_learner.py, which continues to learn with NumPy alone; of --training stream."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, export, print the proof."""
    words, parts = with_parts(words)
    args = read(Export, words, "export")
    for flag, value in (("--timeout", args.timeout), ("--control-period", args.control_period)):
        require(value is None or 0 < value < math.inf, f"{flag} is {value}; expected seconds, more than 0.")
    require(args.observations >= 1, f"--observations is {args.observations}; expected 1 or more.")
    require_installed()
    folder = RunFolder.open(args.run)
    folder.last()
    folder.checkpoint(args.checkpoint)
    config = folder.read_config()
    require_made_by_id(config["env"], f"it again in Python: qhat.export('{args.run}', env=...)")
    targets: list[ExportTarget] = [target for target in TARGETS if getattr(args, target.name)]
    if args.ros2_map is not None:
        targets = [*(one for one in targets if one.name != Ros2.name), Ros2(args.ros2_map)]
    for target in targets:
        target.require(config)

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.deploy.export import export
        from qhat.runs.run import Run

        made = export(
            Run.open(args.run, parts), args.out, checkpoint=args.checkpoint,
            seed_index=args.seed_index, name=args.name,
            safe_action=args.safe_action, timeout=args.timeout, control_period=args.control_period,
            observations=args.observations, targets=targets, progress=status.update,
        )  # fmt: skip
    if args.json:
        print(json.dumps(made.to_json()))
        return 0
    proof, replayed = made.parity["onnxruntime"], made.parity["episodes"]
    ties = f" except {proof['near_ties']:,} near-ties" if proof["near_ties"] else ""
    print(f"{made.path}")
    print(
        f"  proof      {proof['observations']:,} observations of {made.parity['environment']}:"
        f" Q-values match within {proof['worst']:.1g}·max(1, |Q|); all actions equal{ties}"
    )
    print(
        f"  replayed   {replayed['played']} episodes with onnxruntime: mean return"
        f" {score_text(replayed['mean_return'])}, the same actions"
    )
    for name in ("numpy", "onnxruntime"):
        latency = made.latency[name]
        tail = f"p99 {latency['p99_us']:.1f}, max {latency['max_us']:,.0f} µs"
        print(f"  {name:<12}per decision: median {latency['p50_us']:.1f}, {tail}")
    sizes = ", ".join(f"{name} {size / 1000:.1f} kB" for name, size in made.files.items() if size > 1000)
    print(f"  files      {sizes}")
    print("\nnext:")
    for target in targets:
        print(f"  {target.next_step(made.targets[target.name])}")
    print(f"  less {made.path}/README.md")
    return 0
