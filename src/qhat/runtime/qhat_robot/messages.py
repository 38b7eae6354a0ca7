"""ROS message types without ROS: names, and the fields of the common messages (definitions.txt).

The export checks a map with them. Types of other packages are checked on the robot, when the node starts.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from .task import UnusableError

NUMBERS = {
    "bool", "byte", "char", "octet", "float32", "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
"""Primitive types that are numbers."""
TUPLES: Mapping[str, tuple[str, ...]] = {
    "geometry_msgs/Vector3": ("x", "y", "z"),
    "geometry_msgs/Point": ("x", "y", "z"),
    "geometry_msgs/Point32": ("x", "y", "z"),
    "geometry_msgs/Quaternion": ("x", "y", "z", "w"),
}
"""Messages that count as numbers, in this order."""
TIMES = ("builtin_interfaces/Duration", "builtin_interfaces/Time")
"""Messages that count as one number: seconds."""
NAMES = ("name", "joint_names", "interface_names", "names")
"""Fields that name the entries of the arrays beside them, as `name` of a JointState."""


@functools.cache
def definitions() -> dict[str, dict[str, str]]:
    """Return the fields of every known message: a type by the field's name."""
    text = (Path(__file__).parent / "definitions.txt").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines())
    return {name: dict(field.split(":", 1) for field in fields) for name, *fields in rows}


def near(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for a word close to a known one, otherwise an empty string."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""


def read_type(text: object) -> str:
    """Return a message type as `package/Name`. Raises `UnusableError`."""
    if not isinstance(text, str) or not re.fullmatch(r"[a-z]\w*/(msg/)?[A-Z]\w*", text):
        raise UnusableError(f"is {text!r}; expected a message type such as sensor_msgs/JointState.")
    name, known = text.replace("/msg/", "/"), definitions()
    package = name.partition("/")[0]
    packages = {one.partition("/")[0] for one in known}
    others = [one for one in known if package in packages and one.startswith(f"{package}/")]
    if name not in known and (package in packages or near(package, packages)):
        miss = near(name, others or known)
        if others or miss:
            raise UnusableError(f"is '{text}', which is no message of ROS 2; expected one.{miss}")
    return name


def fields_of(kind: str) -> dict[str, str] | None:
    """Return the fields of a message type; `None` if it is not known here."""
    return definitions().get(kind)


def of_rclpy(kind: str) -> str:
    """Return a type in the spelling of definitions.txt from rclpy's: `sequence<double>` is `float64[]`."""
    sequence = re.fullmatch(r"sequence<(.+?)(?:, (\d+))?>", kind)
    if sequence:
        return f"{of_rclpy(sequence[1])}[{f'<={sequence[2]}' if sequence[2] else ''}]"
    array = re.fullmatch(r"(.+)\[(\d+)\]", kind)
    if array:
        return f"{of_rclpy(array[1])}[{array[2]}]"
    spelled = {"double": "float64", "float": "float32", "boolean": "bool"}
    return spelled.get(kind, kind.replace("/msg/", "/").partition("<")[0])


def is_array(kind: str) -> bool:
    return kind.endswith("]")


def element(kind: str) -> str:
    """Return the type of an array's entries."""
    return kind.rpartition("[")[0]
