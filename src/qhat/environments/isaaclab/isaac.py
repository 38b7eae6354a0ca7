"""Tasks of Isaac Lab, which need its installation and a GPU: docs/isaac-lab.md says what was run."""

from __future__ import annotations

from typing import Any

import gymnasium

from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.isaaclab.robots import RobotEnvironment, require_robots
from qhat.environments.make_args import MakeArgs
from qhat.environments.options import require_known
from qhat.environments.wrappers import require_unwrapped
from qhat.system.errors import UsageError, near_miss

OPTIONS = ("group", "reach", "device", "render_mode")


def make(entry: Entry, args: MakeArgs) -> RobotEnvironment:
    """Start Isaac Sim without a window, and make one simulation for all seeds.

    Raises:
        UsageError: there is no such task, group or option.
    """
    require_unwrapped(entry.id, args.wrap)
    require_known(args.options, OPTIONS, entry.id)
    # The application starts first: Isaac Lab's other modules are found within it.
    mode = args.options.get("render_mode")
    load("isaaclab.app", entry.id).AppLauncher(headless=True, enable_cameras=mode is not None)
    load("isaaclab_tasks", entry.id)
    if entry.name not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("Isaac-")]
        raise UsageError(
            f"Environment '{entry.id}' is not known to the installed Isaac Lab."
            + near_miss(entry.name, known)
        )
    parse: Any = load("isaaclab_tasks.utils", entry.id).parse_env_cfg
    device = args.options.get("device", "cuda:0")
    cfg = parse(entry.name, device=device, num_envs=args.num_envs * len(args.seeds))
    cfg.seed = int(args.seeds[0] + args.since) % 2**31
    made = gymnasium.make(entry.name, cfg=cfg, render_mode=mode)
    require_robots(made, entry.id)
    more = {"group": args.options.get("group"), "reach": args.options.get("reach", 1.0)}
    return RobotEnvironment(
        made, len(args.seeds), id=entry.id, backend=entry.backend, bins=args.bins, log=args.log, **more
    )
