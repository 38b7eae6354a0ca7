"""Tasks of Isaac Lab, which need its installation and a GPU: docs/isaac-lab.md says what was run."""

from __future__ import annotations

from typing import Any

import gymnasium

from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.isaaclab.robots import RobotEnvironment, require_robots
from qhat.environments.isaaclab.shared import Simulation
from qhat.environments.make_args import MakeArgs
from qhat.environments.options import require_known
from qhat.environments.wrappers import require_unwrapped
from qhat.system.errors import UsageError, near_miss, require

OPTIONS = ("group", "reach", "device", "render_mode")


def make(entry: Entry, args: MakeArgs) -> RobotEnvironment:
    """Start Isaac Sim without a window, and make one simulation for all seeds.

    Raises:
        UsageError: there is no such task, group or option.
    """
    require_unwrapped(entry.id, args.wrap)
    require_known(args.options, OPTIONS, entry.id)
    mode = args.options.get("render_mode")
    # The application starts first: Isaac Lab's other modules are found within it.
    _start(mode is not None)
    load("isaaclab_tasks", entry.id)
    if entry.name not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("Isaac-")]
        raise UsageError(
            f"Environment '{entry.id}' is not known to the installed Isaac Lab."
            + near_miss(entry.name, known)
        )
    copies = args.num_envs * len(args.seeds)
    require(
        not _live or entry.name in _live,
        f"Environment '{entry.id}' needs a second simulation beside {', '.join(_live)}, and Isaac Sim has"
        " one in a process; expected that one closed first, or another process.",
    )
    if not _live:
        _live[entry.name] = _simulation(entry, args, copies, mode)
    more = {"group": args.options.get("group"), "reach": args.options.get("reach", 1.0)}
    part = _live[entry.name].part(copies, entry.id)
    return RobotEnvironment(
        part, len(args.seeds), id=entry.id, backend=entry.backend, bins=args.bins, log=args.log, **more
    )


_live: dict[str, Simulation] = {}
"""The process's simulation by its task, where there is one: Isaac Sim has no second."""
_started: list[bool] = []
"""Whether Isaac Sim, once it is started, has cameras."""


def _simulation(entry: Entry, args: MakeArgs, copies: int, mode: str | None) -> Simulation:
    """Make the process's simulation; it is closed with its last part."""
    parse: Any = load("isaaclab_tasks.utils", entry.id).parse_env_cfg
    cfg = parse(entry.name, device=args.options.get("device", "cuda:0"), num_envs=copies)
    cfg.seed = int(args.seeds[0] + args.since) % 2**31
    # What a simulation before this one has left.
    load("omni.usd", entry.id).get_context().new_stage()
    made = gymnasium.make(entry.name, cfg=cfg, render_mode=mode)
    require_robots(made, entry.id)

    def close() -> None:
        _live.clear()
        made.close()

    return Simulation(made, close)


def _start(cameras: bool) -> None:
    """Start Isaac Sim, one time in a process."""
    if not _started:
        load("isaaclab.app", "isaaclab").AppLauncher(headless=True, enable_cameras=cameras)
        _started.append(cameras)
    require(
        _started[0] or not cameras,
        "Isaac Sim was started without cameras, and this process has no second one; expected films from"
        " another process: qhat play RUN.",
    )
