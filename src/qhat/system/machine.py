"""This machine and this installation: processor, versions, optional libraries."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from qhat.system.errors import UsageError

PACKAGES = ("qhat", "jax", "jaxlib", "numpy", "optax", "equinox", "gymnax", "gymnasium")
"""Packages whose versions are recorded with a run."""
EXTRAS = {
    "envpool": "robots", "ale_py": "atari", "minatar": "atari", "Box2D": "robots", "mujoco": "robots",
    "shimmy": "dm-control", "av": "video", "minari": "demos", "pyarrow": "demos",
    "mcap": "demos", "mcap_ros2": "demos", "onnx": "export", "onnxruntime": "export",
    "yaml": "export", "optuna": "tune", "tensorboardX": "tensorboard", "ray": "ray",
    "mujoco_playground": "playground", "brax": "brax", "jumanji": "jumanji", "navix": "navix",
    "craftax": "craftax", "pgx": "pgx", "mjlab": "mjlab", "torch": "mjlab", "warp": "mjlab",
    "isaaclab": "isaaclab", "isaaclab_tasks": "isaaclab", "omni": "isaaclab",
}  # fmt: skip
"""The extra of qhat that installs each optional module; Isaac Lab has an installation of its own."""


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def install_command(module: str) -> str:
    """Return the command that installs an optional module."""
    return install_extra(EXTRAS[module])


def install_extra(extra: str) -> str:
    """Return the command that installs an extra, from where qhat itself was installed."""
    if extra == "isaaclab":
        return "./isaaclab.sh -p -m pip install qhat    # in the folder of Isaac Lab: docs/isaac-lab.md"
    # Its MuJoCo is not that of dm_control.
    pip = "python3 -m venv .venv-mjlab && .venv-mjlab/bin/pip" if extra == "mjlab" else "pip"
    return f"{pip} install -e '.[{extra}]'" if from_checkout() else f"{pip} install 'qhat[{extra}]'"


@functools.cache
def from_checkout() -> bool:
    """Whether qhat runs from a checkout of its repository: then no registry needs to have this version."""
    try:
        written = importlib.metadata.distribution("qhat").read_text("direct_url.json")
        about = json.loads(written or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return True
    return bool(isinstance(about, dict) and about.get("dir_info", {}).get("editable"))


def require_installed(module: str, user: str, name: str = "") -> None:
    """Raise `UsageError`, with the command that installs it, if an optional module is missing.

    Args:
        user: what needs the module, with its verb: `qhat tune needs`.
        name: the library's name, if it differs from the module's.
    """
    if not installed(module):
        raise UsageError(
            f"{user} {name or module}, which is not installed; type: {install_command(module)}"
        )


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {name: importlib.metadata.version(name) for name in packages}


def processor() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, UnicodeDecodeError):
        return platform.processor() or platform.machine()


def machine() -> str:
    """Describe this machine in one line."""
    import psutil

    memory = psutil.virtual_memory().total / 2**30
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"
