"""The section `log` of a robot's map: what a recording has that the node does not need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qhat.demonstrations import bags
from qhat.environments.base import Spec
from qhat.environments.named import known_names, metadata_of
from qhat.runtime.qhat_robot.facts import Facts, Slot
from qhat.runtime.qhat_robot.mapping import RobotMap, load_yaml
from qhat.runtime.qhat_robot.messages import fields_of
from qhat.runtime.qhat_robot.section import Section, shown
from qhat.runtime.qhat_robot.sources import READING_KEYS, Reading, Topic
from qhat.runtime.qhat_robot.task import UnusableError
from qhat.system.errors import UsageError, require

LOG_KEYS = ("environment", "topics", "reward", "terminated", "truncated", "nearest", "observation_names",
            "action_names", "action_labels")  # fmt: skip
OBSERVED = ("observation", "next_observation")
LARGEST = 1_000_000
"""Bytes of the largest map that is read."""
FORGOTTEN = "recorded"
"""Stands for a safe action, which a recording has no use for."""


@dataclasses.dataclass(frozen=True)
class Log:
    """Where rewards and the ends of episodes come from."""

    topics: Mapping[str, Topic]
    reward: Reading | None
    terminated: Reading
    truncated: Reading | None
    nearest: bool

    @staticmethod
    def read(section: Section, topics: Mapping[str, Topic], facts: Facts, rewards: bool) -> Log:
        """Read the section. Raises `UnusableError` with the key and what was expected."""
        given = section.get("topics", {})
        if not isinstance(given, Mapping):
            raise UnusableError(f"log.topics is {shown(given)}; expected names, as under topics.")
        for name in given:
            if name in topics:
                raise UnusableError(f"log.topics.{name} is under topics too; expected another name.")
        more = {name: Topic.read(name, value, 1.0) for name, value in given.items()}
        every = {**topics, **more}

        def reading(key: str) -> Reading:
            if key not in section:
                hint = {
                    "reward": "{from: TOPIC, field: data}; {value: -1.0} is the same in every step",
                    "terminated": "{from: TOPIC, field: data}; {value: 0} where the task never ends",
                }
                raise UnusableError(
                    f"the map has no log.{key}, which recordings need; expected {hint[key]}."
                )
            inner = Section(section.get(key), f"log.{key}", READING_KEYS)
            if inner.get("from", "") in ("goal", "action"):
                raise UnusableError(f"log.{key}.from is '{inner.get('from')}'; expected a topic.")
            found = Reading.read(inner, every, facts, 1, False, fields_of)
            if key != "reward" and any(found.value):
                raise UnusableError(f"log.{key}.value is {found.value[0]:g}; expected 0, or a topic.")
            return found

        return Log(
            more,
            reading("reward") if rewards else None,
            reading("terminated"),
            reading("truncated") if "truncated" in section else None,
            section.flag("nearest", False),
        )


def read_text(source: str) -> tuple[Path, str]:
    """Read the map of a bag. Raises `UsageError` if the word names none, or there is no such file."""
    _, path = bags.split(source)
    if path is None:
        raise UsageError(
            f"Demonstrations '{source}' are a bag of ROS 2, and nothing says what its topics mean; expected"
            f" {source}@MAP.yaml, the map of the robot (docs/demonstrations.md)."
        )
    require(path.is_file(), f"The map '{path}' is no file; expected a YAML file, as in docs/ros2.md.")
    try:
        size = path.stat().st_size
        require(size <= LARGEST, f"The map '{path}' is larger than {LARGEST:,} bytes.")
        return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The map '{path}' cannot be read: {error}.") from None


def section_of(text: str) -> Section:
    """Return a map's section `log`. Raises `UnusableError`."""
    given = load_yaml(text)
    found = given.get("log") if isinstance(given, Mapping) else None
    if found is None:
        raise UnusableError(
            "the map has no log, which says where the rewards and the ends of episodes are recorded;"
            " expected log: {reward: …, terminated: …}."
        )
    return Section(found, "log", LOG_KEYS)


def environment_of(source: str) -> str | None:
    """Return the environment that a bag's map names."""
    path, text = read_text(source)
    try:
        return section_of(text).text("environment", None)
    except UnusableError as error:
        raise UsageError(f"{path}: {error}") from None


def read_map(source: str, spec: Spec, rewards: bool) -> tuple[RobotMap, Facts, Log]:
    """Read a bag's map for an environment. Raises `UsageError` with the key and what was expected."""
    require(
        not spec.masked and spec.stack == 1 and (spec.layout is None or not spec.layout.frames),
        f"'{spec.id}' has masks of legal actions or stacked frames, which a map cannot say; expected an"
        " environment without.",
    )
    path, text = read_text(source)
    try:
        section = section_of(text)
        facts = _facts(spec, section)
        plan = RobotMap.read(text, facts)
        return plan, facts, Log.read(section, plan.topics, facts, rewards)
    except UnusableError as error:
        raise UsageError(f"{path}: {error}") from None


def _facts(spec: Spec, section: Section) -> Facts:
    """Return the interface of a policy for an environment, as its export would say it."""
    actions, metadata = spec.actions, metadata_of(spec.id)
    slots = (Slot("", (), spec.shape, spec.dtype, 0),)
    layout = spec.layout
    if layout is not None and not (layout.is_one and not layout.entries[0].choices):
        shapes = [() if one.choices else one.shape for one in layout.entries]
        firsts = np.cumsum([0, *map(math.prod, shapes)]).tolist()
        kinds = ["int64" if one.choices else one.dtype for one in layout.entries]
        slots = tuple(
            Slot(one.label, one.path, shape, kind, first)
            for one, shape, kind, first in zip(layout.entries, shapes, kinds, firsts, strict=False)
        )
    size = sum(slot.size for slot in slots)
    known = known_names(spec.id)
    kind = "joints" if actions.commands is not None else "multi_discrete" if actions.vector else "discrete"
    discrete = kind == "discrete"
    names = _texts(section, metadata, "observation_names", size, [one.split(" ")[0] for one in known[0]])
    labels = _texts(section, metadata, "action_labels", actions.width, known[1]) if discrete else ()
    period = metadata.get("control_period")
    return Facts(
        slots,
        names if not slots[0].path else (),
        kind,
        tuple(actions.choices),
        tuple(actions.start),
        _texts(section, metadata, "action_names", actions.factors, ()),
        labels,
        FORGOTTEN,
        period if isinstance(period, int | float) and period > 0 else None,
        None,
        spec.id,
    )


def _texts(
    section: Section, metadata: Mapping[str, Any], key: str, count: int, known: Any
) -> tuple[str, ...]:
    """Return names: of the map, of the environment's class, or of its documentation."""
    given = section.get(key, None)
    texts = isinstance(given, list) and all(isinstance(one, str) for one in given)
    if given is not None and (not texts or len(given) != count):
        raise UnusableError(f"log.{key} is {shown(given)}; expected a list of {count} texts.")
    for names in (given, metadata.get(key), known):
        if isinstance(names, list | tuple) and len(names) == count and all(map(str, names)):
            return tuple(map(str, names))
    return ()


def columns_of(source: str, spec: Spec | None, rewards: bool) -> dict[str, np.ndarray]:
    """Read the columns of an .npz file from a bag.

    Args:
        spec: of the environment; `None` is the one that the map names.
        rewards: whether it needs them.
    """
    from qhat.demonstrations.driven import Driven

    bag = bags.opened(source)
    spec = _spec(source) if spec is None else spec
    plan, facts, log = read_map(source, spec, rewards)
    try:
        steps = Driven(bag, plan, facts, log).steps(rewards)
    except UnusableError as error:
        raise UsageError(f"{bags.split(source)[1]}: {error}") from None
    columns: dict[str, Any] = {
        name: np.asarray(values) for name, values in steps.items() if name not in OBSERVED
    }
    for name in OBSERVED:
        value = _stacked(steps[name])
        columns[name] = value if spec.layout is None else spec.layout.read(value)
    return columns


def _stacked(values: list[Any]) -> Any:
    """Make one batch of observations: an array, or a dictionary of arrays."""
    if isinstance(values[0], dict):
        return {key: _stacked([value[key] for value in values]) for key in values[0]}
    return np.stack(values)


def _spec(source: str) -> Spec:
    from qhat.environments.make import make_any

    name = environment_of(source)
    if name is None:
        raise UsageError(
            f"{bags.split(source)[1]}: the map has no log.environment; expected the id of the environment"
            " that the robot's policy is for, as in qhat learn --env."
        )
    made = make_any(name, 1)
    made.close()
    return made.spec
