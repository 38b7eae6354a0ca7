"""Tasks of mjlab: Isaac Lab's API on MuJoCo Warp."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.isaaclab.robots import RobotEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.off_screen import prefer_off_screen
from qhat.environments.options import require_known
from qhat.environments.wrappers import require_unwrapped
from qhat.system.errors import UsageError, near_miss

OPTIONS = ("group", "reach", "play", "device", "render_mode")


def make(entry: Entry, args: MakeArgs) -> RobotEnvironment:
    """Make one simulation for all seeds.

    Raises:
        UsageError: there is no such task, group or option.
    """
    require_unwrapped(entry.id, args.wrap)
    require_known(args.options, OPTIONS, entry.id)
    options: Mapping[str, Any] = args.options
    prefer_off_screen()
    with _quiet():
        env_type = load("mjlab.envs", entry.id).ManagerBasedRlEnv
        registry = load("mjlab.tasks.registry", entry.id)
        load("mjlab.tasks", entry.id)
        _require_task(registry.list_tasks(), entry.name)
        cfg = registry.load_env_cfg(entry.name, play=bool(options.get("play", False)))
        cfg.scene.num_envs = args.num_envs * len(args.seeds)
        cfg.auto_reset = False
        # NumPy's and PyTorch's seeds are 32 bits.
        cfg.seed = int(args.seeds[0] + args.since) % 2**31
        device = options.get("device") or _device(load("torch", entry.id))
        made = env_type(cfg, device=device, render_mode=options.get("render_mode"))
        return RobotEnvironment(
            made,
            len(args.seeds),
            id=entry.id,
            backend=entry.backend,
            group=options.get("group"),
            reach=options.get("reach", 1.0),
            bins=args.bins,
            log=args.log,
        )


def _require_task(known: list[str], name: str) -> None:
    if name not in known:
        raise UsageError(
            f"Environment 'mjlab:{name}' is not known to the installed mjlab; it has {', '.join(known)}."
            + near_miss(name, known)
        )


def _device(torch: Any) -> str:
    return "cuda:0" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tables that mjlab prints, and what Warp says of its kernels, out of the terminal."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warp: Any = load("warp", "mjlab")
        yield
        # Not what Warp says of the kernels that it loads.
        warp.config.log_level = warp.LOG_WARNING
