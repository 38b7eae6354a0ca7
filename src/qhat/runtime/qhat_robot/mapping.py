"""The map of a robot (YAML): from topics to the observation, and from actions to messages.

`qhat export --ros2-map` checks it with the message types of definitions.txt, and the node with the types
that are installed. Its keys are described in docs/ros2.md of qhat.
"""

from __future__ import annotations

import dataclasses
import keyword
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from .commands import CHECKED, Command
from .facts import Facts
from .fields import Fields
from .messages import fields_of
from .section import Section, shown
from .sources import READING_KEYS, Reading, Topic
from .task import UnusableError

KEYS = ("package", "rate", "timeout", "beyond", "topics", "observation", "goal", "commands", "log")
"""`log` is for reading recordings (docs/demonstrations.md); the node has no use for it."""
GOAL_KEYS = ("odometry", "topic", "tolerance")
TIMEOUT = 0.5
"""Largest age of a message in seconds, if neither the map nor the policy has one."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Numbers of the observation, and where they come from."""

    places: np.ndarray
    reading: Reading


@dataclasses.dataclass(frozen=True)
class Goal:
    """Where the robot drives to."""

    odometry: str
    """Name of the topic with the robot's pose."""
    topic: str
    tolerance: float


@dataclasses.dataclass(frozen=True)
class RobotMap:
    """A map that was checked against a policy."""

    package: str
    rate: float
    timeout: float
    beyond: str
    topics: Mapping[str, Topic]
    entries: tuple[Entry, ...]
    goal: Goal | None
    commands: tuple[Command, ...]

    @staticmethod
    def read(text: str, facts: Facts, fields: Fields = fields_of) -> RobotMap:
        """Read a file's text for a policy. Raises `UnusableError` with the key and what was expected."""
        section = Section(load_yaml(text), "", KEYS)
        timeout = section.number("timeout", facts.timeout or TIMEOUT, 0.0, above=True)
        rate = section.number("rate", 1 / facts.period if facts.period else None, 0.0, above=True)
        if rate is None:
            raise UnusableError(
                "the map has no rate, and the environment declares none; expected actions per second."
            )
        topics = _topics(section, timeout, fields)
        goal = _goal(section, topics)
        entries = _entries(section, topics, facts, goal is not None, fields)
        commands = tuple(
            Command.read(row, index, topics, facts, goal is not None, fields)
            for index, row in enumerate(section.rows("commands"))
        )
        _require_every_factor(commands, facts)
        return RobotMap(
            _package(section, facts), rate, timeout,
            section.word("beyond", ("refuse", "clip", "ignore"), "refuse"), topics, entries, goal, commands,
        )  # fmt: skip

    def readings(self) -> list[Reading]:
        """Return everything that is read of the topics."""
        found = [one.reading for one in self.entries] + [r for one in self.commands for r in one.readings()]
        return [reading for reading in found if reading.is_topic]

    def types(self) -> list[str]:
        """Return every message type, each one time."""
        found = [one.type for one in self.topics.values()] + [one.type for one in self.commands]
        return sorted(set(found))

    def unchecked(self) -> list[str]:
        """Return the types that only the robot can check."""
        return [one for one in self.types() if one.partition("/")[0] not in CHECKED]


def load_yaml(text: str) -> Any:
    """Read YAML without tags. Raises `UnusableError`; a key that occurs two times is one too."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a second key of the same name, which YAML would let win."""

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        earlier: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in earlier:
                raise UnusableError(
                    f"the map has '{key.value}' two times, the second in line {key.start_mark.line + 1};"
                    " expected every key one time."
                )
            earlier.add(key.value)
        loader.flatten_mapping(node)
        pairs = [(loader.construct_object(key), value) for key, value in node.value]
        return {key: loader.construct_object(value, deep=True) for key, value in pairs}

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UnusableError(f"the map is no YAML ({where}{problem}); expected keys and values.") from None


def _topics(section: Section, timeout: float, fields: Fields) -> dict[str, Topic]:
    given = section.get("topics", {})
    if not isinstance(given, Mapping):
        raise UnusableError(
            f"topics is {shown(given)}; expected a name for each topic, with its topic and type:"
            " {joints: {topic: joint_states, type: sensor_msgs/JointState}}."
        )
    topics = {name: Topic.read(name, value, timeout) for name, value in given.items()}
    for topic in topics.values():
        fields(topic.type)
    return topics


def _goal(section: Section, topics: Mapping[str, Topic]) -> Goal | None:
    if "goal" not in section:
        return None
    inner = Section(section.get("goal"), "goal", GOAL_KEYS)
    odometry = inner.get("odometry")
    if odometry not in topics or topics[odometry].type != "nav_msgs/Odometry":
        names = [name for name, one in topics.items() if one.type == "nav_msgs/Odometry"]
        raise UnusableError(
            f"goal.odometry is {shown(odometry)}; expected the name of a topic of type nav_msgs/Odometry"
            f"{': ' + ', '.join(names) if names else ', and topics has none'}."
        )
    return Goal(
        odometry, inner.topic("topic", "goal_pose"), inner.number("tolerance", 0.2, 0.0, above=True)
    )


def _entries(
    section: Section, topics: Mapping[str, Topic], facts: Facts, has_goal: bool, fields: Fields
) -> tuple[Entry, ...]:
    found, filled = [], np.full(facts.size, -1)
    for index, row in enumerate(section.rows("observation")):
        inner = Section(row, f"observation[{index}]", ("to", *READING_KEYS))
        places = inner.read("to", facts.places)
        again = places[filled[places] >= 0]
        if len(again) or len(set(places.tolist())) != len(places):
            place = int(again[0]) if len(again) else int(places[0])
            first = filled[place] if len(again) else index
            raise UnusableError(
                f"{inner.name('to')} fills {facts.name_of(place)}, which observation[{first}] fills;"
                " expected every number one time."
            )
        filled[places] = index
        slot = next(
            (one for one in facts.slots if one.first == places[0] and one.size == len(places)), None
        )
        whole = slot.shape if slot is not None and len(slot.shape) in (2, 3) else None
        found.append(
            Entry(places, Reading.read(inner, topics, facts, len(places), has_goal, fields, whole))
        )
    empty = np.flatnonzero(filled < 0)
    if len(empty):
        names = ", ".join(facts.name_of(int(place)) for place in empty[:5]) + (
            ", …" if len(empty) > 5 else ""
        )
        raise UnusableError(
            f"observation fills {facts.size - len(empty)} of {facts.size} numbers; expected also {names}"
            " ({to: …, value: 0.0} is a constant)."
        )
    return tuple(found)


def _require_every_factor(commands: tuple[Command, ...], facts: Facts) -> None:
    unused = set(range(len(facts.choices))) - {factor for one in commands for factor in one.factors()}
    if unused:
        at = min(unused)
        name = f"{at} ({facts.factor_names[at]})" if facts.factor_names else str(at)
        raise UnusableError(
            f"commands use {len(facts.choices) - len(unused)} of the action's {len(facts.choices)} numbers;"
            f" expected also number {name}."
        )


def _package(section: Section, facts: Facts) -> str:
    name = section.text("package", None)
    if name is None:
        env = facts.environment.rpartition(":")[2].rpartition("/")[2].rpartition("-v")
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", env[0] or env[2]).lower()
        return "qhat_" + re.sub(r"_+", "_", re.sub(r"[^a-z0-9]", "_", plain)).strip("_")
    if not re.fullmatch(r"[a-z](_?[a-z0-9])+", name):
        raise UnusableError(
            f"package is '{name}'; expected lower-case letters, digits and _, as in my_arm."
        )
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name in (*CHECKED, "rclpy", "tf2_ros"):
        raise UnusableError(
            f"package is '{name}', which Python or ROS uses; expected another name, as my_arm."
        )
    return name
