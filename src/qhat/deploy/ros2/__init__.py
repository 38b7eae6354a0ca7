"""`qhat export RUN --ros2`: an ament_python package that runs an exported policy on a robot.

The package has the files of the folder `package` beside this file and of `runtime/qhat_robot`, the policy,
and those of one of two folders: `turtlebot3`, or `robot` for any robot with a map (`--ros2-map`,
docs/ros2.md).
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
from qhat.runtime.qhat_robot.commands import STAMPED, TWIST
from qhat.runtime.qhat_robot.facts import Facts
from qhat.runtime.qhat_robot.mapping import RobotMap, load_yaml
from qhat.runtime.qhat_robot.task import UnusableError
from qhat.system import machine
from qhat.system.errors import UsageError, require, spelled
from qhat.system.files import read_json

NAME = "qhat_turtlebot3"
MODULE = "qhat_robot"
"""The folder of the package's Python files, which is below `runtime` in this repository."""
ROBOTS = ("TurtleBot3-v0", "qhat/TurtleBot3-v0")
"""Environments of the robot: the compiled one, and Gymnasium's name for it."""
POLICY = ("policy.json", "weights.safetensors")
"""Files that the runner reads."""
LICENSE = "Apache-2.0"
TEXTS = (".xml", ".py", ".yaml", ".cfg", ".md", ".txt")
LARGEST_MAP = 1_000_000
"""Bytes of the largest map that is read."""
BOTH = {"__init__.py", "node.py", "control.py", "frames.py", "task.py", "fields.py", "messages.py",
        "definitions.txt", "scan.py"}  # fmt: skip
"""Python files of both packages; the others of the folder belong to one of them."""
TURTLEBOT3 = {"turtlebot3.py", "logic.py", "driver.py", "body.py", "recovery.py", "surroundings.py"}


@dataclasses.dataclass(frozen=True)
class Ros2(ExportTarget):
    """A ROS 2 package that drives a TurtleBot3, or with a map any robot."""

    name: ClassVar[str] = "ros2"

    map: Path | str | None = None
    """File that says how topics become the observation, and actions messages (docs/ros2.md)."""

    def require(self, config: Mapping[str, Any]) -> None:
        if self.map is None:
            require_robot(config["env"])
        else:
            read_map(self.map)

    def check(self, about: Mapping[str, Any]) -> None:
        if self.map is not None:
            plan_of(read_map(self.map), about, self.map)

    def write(self, folder: Path) -> Path:
        return write_package(folder, None if self.map is None else Path(self.map))

    def next_step(self, path: Path) -> str:
        return f"cp -r {path} ~/ros2_ws/src/    (then {path}/README.md)"


def require_robot(env_id: str) -> None:
    """Raise `UsageError` for a policy of another environment than the mobile robot's."""
    if env_id.rpartition(":")[2] not in ROBOTS:
        how = spelled("targets=[qhat.deploy.ros2.Ros2('MAP.yaml')]", "--ros2-map MAP.yaml")
        raise UsageError(
            f"{spelled('The target ros2', '--ros2')} writes the node of a TurtleBot3, and this run's"
            f" environment is '{env_id}'; expected a map of your robot, {how}"
            " (docs/ros2.md), or a run of TurtleBot3-v0."
        )


def read_map(path: Path | str) -> str:
    """Read a map's text. Raises `UsageError` if there is no such file, or if it is no YAML."""
    path = Path(path)
    machine.require_installed("yaml", "A map needs", "pyyaml")
    require(path.is_file(), f"The map '{path}' is no file; expected a YAML file, as in docs/ros2.md.")
    try:
        require(
            path.stat().st_size <= LARGEST_MAP, f"The map '{path}' is larger than {LARGEST_MAP:,} bytes."
        )
        text = path.read_text(encoding="utf-8")
        load_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The map '{path}' cannot be read: {error}.") from None
    except UnusableError as error:
        raise UsageError(f"{path}: {error}") from None
    return text


def plan_of(text: str, about: Mapping[str, Any], path: Path | str = "map") -> RobotMap:
    """Check a map against a policy.json. Raises `UsageError` with the key and what was expected."""
    require(
        not about["actions"]["masked"],
        f"The environment '{about['environment']['id']}' has masks of legal actions, and a map cannot say"
        " which actions are legal; expected an environment without masks.",
    )
    try:
        return RobotMap.read(text, Facts.of(about))
    except UnusableError as error:
        raise UsageError(f"{path}: {error}") from None


def write_package(folder: Path, map_file: Path | None = None) -> Path:
    """Write the ROS 2 package into an exported folder, below `ros2`.

    Args:
        folder: result of `qhat export`, with policy.json, weights.safetensors and qhat_runtime.py.
        map_file: map of the robot; without one, the package is the TurtleBot3's.

    Returns:
        the package's folder.

    Raises:
        UsageError: the policy is for another environment, or the map is wrong.
    """
    about = read_json(folder / "policy.json")
    text = None if map_file is None else read_map(map_file)
    if text is None:
        require_robot(about["environment"]["id"])
        name, overlay, words = NAME, "turtlebot3", _words_of_turtlebot3(about)
    else:
        plan = plan_of(text, about, map_file or "map")
        name, overlay, words = plan.package, "robot", _words_of_map(plan, about)
    target = folder / "ros2" / name
    module = target / name
    if target.exists():
        shutil.rmtree(target)
    home = resources.files(__name__)
    words |= {"PACKAGE": name, "VERSION": ".".join(re.findall(r"\d+", __version__)[:3]), "LICENSE": LICENSE}
    for part in ("package", overlay):
        _copy(home / part, target, words, name, overlay == "turtlebot3")
    _copy(resources.files("qhat.runtime") / MODULE, module, words, name, overlay == "turtlebot3")
    (target / "resource").mkdir()
    (target / "resource" / name).touch()
    (module / "policy").mkdir()
    for file in POLICY:
        shutil.copyfile(folder / file, module / "policy" / file)
    shutil.copyfile(folder / "qhat_runtime.py", module / "qhat_runtime.py")
    if text is None:
        task = json.dumps(task_of(about), indent=2)
        (module / "policy" / "task.json").write_text(task + "\n", encoding="utf-8")
    else:
        (module / "map.yaml").write_text(text, encoding="utf-8")
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


def _words_of_turtlebot3(about: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that replace `@NAME@` in the package's texts."""
    from qhat.runtime.qhat_robot.body import ROBOTS as BODIES

    task, source = task_of(about), about["source"]
    return {
        "DESCRIPTION": "drives a TurtleBot3 to a goal: /scan and /odom in, /cmd_vel out",
        "DEPENDS": _depends(["sensor_msgs", "nav_msgs", "geometry_msgs", "tf2_ros"]),
        **_argument(None),
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


def _words_of_map(plan: RobotMap, about: Mapping[str, Any]) -> dict[str, str]:
    source = about["source"]
    packages = {kind.partition("/")[0] for kind in plan.types()} | {"geometry_msgs"}
    if plan.goal is not None:
        packages.add("tf2_ros")
    ages = {one.name: f"at most {one.max_age:g} s old" for one in plan.topics.values()}
    rows = [
        f"| `{one.topic}` | {one.type} | in, {ages[one.name].replace('at most inf s old', 'of any age')} |"
        for one in plan.topics.values()
    ]
    if plan.goal is not None:
        rows.append(f"| `{plan.goal.topic}` | geometry_msgs/PoseStamped | in |")
    for command in plan.commands:
        kind = (
            command.type if command.stamped != "auto" or command.type != TWIST else f"{TWIST} or {STAMPED}"
        )
        rows.append(f"| `{command.topic}` | {kind} | out |")
    return {
        "DESCRIPTION": f"runs the policy of {re.sub('[^A-Za-z0-9_:./ -]', '', about['environment']['id'])}",
        "DEPENDS": _depends(sorted(packages)),
        **_argument(plan),
        "RATE": str(float(f"{plan.rate:.6g}")),
        "ENVIRONMENT": str(about["environment"]["id"]),
        "RUN": str(source["run"]),
        "RECIPE": str(source["recipe"]),
        "TOPICS": "\n".join(rows),
        "UNCHECKED": _unchecked(plan.unchecked()),
    }


def _unchecked(types: list[str]) -> str:
    if not types:
        return ""
    names = ", ".join(types)
    return f"\nThe export does not know the fields of {names}: the node checks them when it starts.\n"


def _argument(plan: RobotMap | None) -> dict[str, str]:
    """Return the words about how the robot begins: with a goal, or with a service."""
    if plan is None or plan.goal is not None:
        topic = "" if plan is None or plan.goal is None else plan.goal.topic
        return {
            "TRIGGER": "goal",
            "DEFAULT": "",
            "MEANING": "goal in metres, in the odometry's frame: '1.0, 0.5'; empty: wait for the topic",
            "SERVICE": "cancel",
            "BEGIN": f'a goal: `goal:="1.0, 0.5"`, or a message on `{topic}`',
            "TRIGGERPARAMETER": 'goal: ""                    # a place such as "1.0, 0.5"',
        }
    return {
        "TRIGGER": "start",
        "DEFAULT": "false",
        "MEANING": "true: act without the service ~/start",
        "SERVICE": "stop",
        "BEGIN": f"`ros2 service call /{plan.package}/start std_srvs/srv/Trigger`, or with `start:=true`",
        "TRIGGERPARAMETER": "start: false                # true: act without the service ~/start",
    }


def _depends(packages: list[str]) -> str:
    return "\n".join(f"  <exec_depend>{one}</exec_depend>" for one in packages)


def _copy(source: Traversable, target: Path, words: Mapping[str, str], name: str, turtlebot3: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for part in source.iterdir():
        if part.is_dir():
            if part.name != "__pycache__":
                inner = name if part.name == MODULE else part.name
                _copy(part, target / inner, words, name, turtlebot3)
        elif part.name.endswith(TEXTS) and _belongs(source.name, part.name, turtlebot3):
            text = part.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(f"@{word}@", value)
            (target / part.name).write_text(text, encoding="utf-8")


def _belongs(folder: str, file: str, turtlebot3: bool) -> bool:
    """Return whether a file is part of the package that is written."""
    if folder != MODULE or file in BOTH or file == "safety.py":
        return True
    return (file in TURTLEBOT3) == turtlebot3
