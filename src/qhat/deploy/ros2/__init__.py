"""`qhat export RUN --ros2`: an ament_python package that drives a TurtleBot3 with an exported policy.

The package is the folder `package` beside this file, with the policy inserted. Its README describes it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar

from qhat._version import __version__
from qhat.deploy.target import ExportTarget
from qhat.system.errors import UsageError
from qhat.system.files import read_json

NAME = "qhat_turtlebot3"
ROBOTS = ("TurtleBot3-v0", "qhat/TurtleBot3-v0")
"""Environments of the robot: the compiled one, and Gymnasium's name for it."""
POLICY = ("policy.json", "weights.safetensors")
"""Files that the runner reads."""
LICENSE = "Apache-2.0"
TEXTS = (".xml", ".py", ".yaml", ".cfg", ".md")


@dataclasses.dataclass(frozen=True)
class Ros2(ExportTarget):
    """A ROS 2 package that drives a TurtleBot3."""

    name: ClassVar[str] = "ros2"

    def require(self, config: Mapping[str, Any]) -> None:
        require_robot(config["env"])

    def write(self, folder: Path) -> Path:
        return write_package(folder)

    def next_step(self, path: Path) -> str:
        return f"cp -r {path} ~/ros2_ws/src/    (then {path}/README.md)"


def require_robot(env_id: str) -> None:
    """Raise `UsageError` for a policy of another environment than the mobile robot's."""
    if env_id.rpartition(":")[2] not in ROBOTS:
        raise UsageError(
            f"--ros2 writes the node of a TurtleBot3, and this run's environment is '{env_id}'; expected a"
            " run of TurtleBot3-v0: qhat train TurtleBot3-v0. You can write a node for any exported folder:"
            " qhat_runtime.py in it needs only NumPy."
        )


def write_package(folder: Path) -> Path:
    """Write the package `ros2/qhat_turtlebot3` into an exported folder.

    Args:
        folder: result of `qhat export`, with policy.json, weights.safetensors and qhat_runtime.py.

    Returns:
        the package's folder.

    Raises:
        UsageError: the policy is for another environment.
    """
    about = read_json(folder / "policy.json")
    require_robot(about["environment"]["id"])
    target = folder / "ros2" / NAME
    module = target / NAME
    _copy(resources.files(__name__) / "package", target, _words(about))
    (target / "resource").mkdir()
    (target / "resource" / NAME).touch()
    (module / "policy").mkdir()
    for name in POLICY:
        shutil.copyfile(folder / name, module / "policy" / name)
    shutil.copyfile(folder / "qhat_runtime.py", module / "qhat_runtime.py")
    text = json.dumps(task_of(about), indent=2)
    (module / "policy" / "task.json").write_text(text + "\n", encoding="utf-8")
    return target


def task_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about training that the node needs: the fields of its `Task`."""
    from qhat.environments.turtlebot3 import physics as turtlebot3

    environment = about["environment"]
    options = turtlebot3.TurtleBot3Options.of(environment["options"], environment["id"])
    return {
        "beams": turtlebot3.BEAMS,
        "nearest": turtlebot3.NEAREST,
        "farthest": turtlebot3.FARTHEST,
        "speed": turtlebot3.SPEED,
        "turns": list(turtlebot3.TURNS),
        "reached": turtlebot3.REACHED,
        "seconds": about["control_period"] or turtlebot3.SECONDS,
        "reach": options.arena * 2**0.5,
        "first": about["actions"]["start"][0],
    }


def _words(about: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that replace `@NAME@` in the package's texts."""
    from qhat.deploy.ros2.package.qhat_turtlebot3.body import ROBOTS as BODIES

    task, source = task_of(about), about["source"]
    return {
        "VERSION": ".".join(re.findall(r"\d+", __version__)[:3]),
        "LICENSE": LICENSE,
        "RATE": str(round(1 / task["seconds"], 3)),
        "REACHED": str(task["reached"]),
        "BURGER": f"{BODIES['burger'].stop_distance(task['speed']):.2f}",
        "WAFFLE": f"{BODIES['waffle'].stop_distance(task['speed']):.2f}",
        "SPEED": str(task["speed"]),
        "REACH": f"{task['reach']:.1f}",
        "ARENA": f"{task['reach'] / 2**0.5:g}",
        "BEAMS": str(task["beams"]),
        "SPACING": f"{360 / task['beams']:g}",
        "HALF": f"{180 / task['beams']:g}",
        "FARTHEST": str(task["farthest"]),
        "SECONDS": f"{task['seconds']:g}",
        "RUN": str(source["run"]),
        "RECIPE": str(source["recipe"]),
    }


def _copy(source: Traversable, target: Path, words: Mapping[str, str]) -> None:
    target.mkdir(parents=True)
    for part in source.iterdir():
        if part.is_dir():
            if part.name != "__pycache__":
                _copy(part, target / part.name, words)
        elif part.name.endswith(TEXTS):
            text = part.read_text(encoding="utf-8")
            for name, word in words.items():
                text = text.replace(f"@{name}@", word)
            (target / part.name).write_text(text, encoding="utf-8")
