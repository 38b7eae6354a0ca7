"""The topics of a map, and how a message becomes numbers of the observation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from .facts import Facts
from .fields import FieldPath, Fields
from .messages import NUMBERS, TIMES, TUPLES, element, is_array, near, read_type
from .pictures import layout, picture
from .scan import Beams, ScanReader
from .section import Section, as_number, shown
from .task import UnusableError, wrap

QOS = ("sensor", "latched")
TOPIC_KEYS = ("topic", "type", "max_age", "max_delay", "qos")
SCAN_KEYS = (
    "count", "first_degrees", "span_degrees", "nearest", "farthest", "yaw_degrees", "zero_is_far", "pick",
)  # fmt: skip
READING_KEYS = ("from", "value", "field", "as", "scale", "offset", "clip", "default", "late", *SCAN_KEYS)
GOAL_FIELDS = ("bearing", "distance", "x", "y")
"""Of the goal, from the robot: its angle (left is positive), its distance, and its place ahead and left."""
FROM = ("goal", "action")
"""What an entry can come from beside the topics."""
VALUE = "value"
"""The source of a constant."""


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic that the node reads."""

    name: str
    topic: str
    type: str
    max_age: float
    """Seconds after which its newest message is too old; infinite: never."""
    max_delay: float | None
    """Largest age of a message's stamp when it arrives, on ROS's clock."""
    qos: str

    @staticmethod
    def read(name: str, value: Any, timeout: float) -> Topic:
        section = Section(value, f"topics.{name}", TOPIC_KEYS)
        if not isinstance(name, str) or name in (*FROM, VALUE):
            raise UnusableError(
                f"topics.{name} has a name that means something else; expected another name."
            )
        return Topic(
            name,
            section.topic("topic"),
            section.read("type", read_type),
            section.number("max_age", timeout, 0.0, above=True)
            if as_number(section.get("max_age", None)) != math.inf
            else math.inf,
            section.number("max_delay", None, 0.0, above=True),
            section.word("qos", QOS, "sensor"),
        )


def _angles(numbers: np.ndarray, index: int) -> np.ndarray:
    x, y, z, w = numbers.reshape(-1, 4).T
    if (np.abs(np.hypot(np.hypot(x, y), np.hypot(z, w)) - 1.0) > 0.01).any():
        raise UnusableError(f"has a quaternion {numbers.tolist()}; expected a length of 1.")
    if index == 0:
        return np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    if index == 1:
        return np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0))
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "roll": lambda x: _angles(x, 0), "pitch": lambda x: _angles(x, 1), "yaw": lambda x: _angles(x, 2),
        "sin": np.sin, "cos": np.cos, "abs": np.abs, "wrap": wrap, "degrees": np.degrees,
        "radians": np.radians, "norm": lambda x: np.sqrt(np.sum(x * x, keepdims=True)),
        "min": lambda x: np.min(x, keepdims=True), "max": lambda x: np.max(x, keepdims=True),
        "mean": lambda x: np.mean(x, keepdims=True), "sum": lambda x: np.sum(x, keepdims=True),
    }
)  # fmt: skip
"""By their names in `as`; they are applied in order."""
ANGLES, TO_ONE = ("roll", "pitch", "yaw"), ("norm", "min", "max", "mean", "sum")
WHOLE = {"image": "sensor_msgs/Image", "beams": "sensor_msgs/LaserScan"}
"""Values of `as` that read a whole message of this type."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Numbers from the messages of one topic, or from the goal, the last action or a constant."""

    where: str
    source: str
    paths: tuple[FieldPath, ...]
    functions: tuple[str, ...]
    scale: float
    offset: float
    clip: tuple[float, float] | None
    default: float | None
    """In place of a number that is missing or not finite."""
    late: bool
    """Whether the default is also used while the topic is late."""
    count: int | None
    """How many numbers; `None` if it depends on the message."""
    value: tuple[float, ...] = ()
    lidar: ScanReader | None = None
    shape: tuple[int, ...] = ()
    """Of a picture."""

    @property
    def is_topic(self) -> bool:
        return self.source not in (*FROM, VALUE)

    def numbers(self, message: Any) -> np.ndarray:
        """Return the numbers in a message. Raises `UnusableError`."""
        if self.lidar is not None:
            found = self.lidar.read(message).beams
        elif self.shape:
            found = picture(message, self.shape).ravel()
        else:
            gaps = self.default is not None
            found = np.concatenate([path.numbers(message, gaps) for path in self.paths])
        return self.finished(found)

    def finished(self, found: np.ndarray) -> np.ndarray:
        """Apply the functions, the scale, the offset, the bounds and the default."""
        if not found.size:
            raise UnusableError(f"'{self.text}' is empty; expected numbers.")
        for name in self.functions:
            found = FUNCTIONS[name](found)
        found = found * self.scale + self.offset
        if self.clip is not None:
            found = np.clip(found, *self.clip)
        good = np.isfinite(found)
        if not good.all():
            if self.default is None:
                at = int(np.flatnonzero(~good)[0])
                raise UnusableError(
                    f"'{self.text}' has {found[at]} at place {at}; expected a finite number (or a default)."
                )
            found = np.where(good, found, self.default)
        if self.count is not None and found.size != self.count:
            raise UnusableError(f"'{self.text}' has {found.size} numbers; expected {self.count}.")
        return found

    @property
    def text(self) -> str:
        return ", ".join(path.text for path in self.paths) or self.source

    @staticmethod
    def read(
        section: Section,
        topics: Mapping[str, Topic],
        facts: Facts,
        count: int | None,
        has_goal: bool,
        fields: Fields,
        shape: tuple[int, ...] | None = None,
    ) -> Reading:
        """Read the keys of an entry.

        Args:
            count: how many numbers are wanted, if that is known.
            shape: of the picture that is wanted, if there can be one.
        """
        where, known = section.where, (*topics, *FROM)
        source = VALUE if VALUE in section and "from" not in section else section.get("from")
        if source not in (*known, VALUE) or (source == VALUE and "from" in section):
            raise UnusableError(
                f"{section.name('from')} is {shown(source)}; expected a name under topics, or one of"
                f" {', '.join(FROM)}: {', '.join(known)}.{near(str(source), known)}"
            )
        if source == "goal" and not has_goal:
            raise UnusableError(f"{section.name('from')} is 'goal', and the map has no goal; expected one.")
        functions = section.get("as", ())
        functions = tuple(functions) if isinstance(functions, list) else (functions,) if functions else ()
        all_functions = (*FUNCTIONS, *WHOLE)
        for one in functions:
            if one not in all_functions:
                raise UnusableError(
                    f"{section.name('as')} is {shown(one)}; expected {', '.join(all_functions)}."
                    f"{near(str(one), all_functions)}"
                )
        default = section.number("default", None)
        late = section.word("late", ("stop", "default"), "stop") == "default"
        if late and default is None:
            raise UnusableError(
                f"{section.name('late')} is 'default', and there is none; expected a default."
            )
        shared = {
            "where": where, "source": source, "scale": section.number("scale", 1.0),
            "offset": section.number("offset", 0.0), "clip": section.pair("clip"), "default": default,
            "late": late,
        }  # fmt: skip
        if source in topics and functions and functions[0] in WHOLE:
            return _whole(section, functions, topics[source], count, shape, shared)
        for key in SCAN_KEYS:
            if key in section:
                raise UnusableError(f"{section.name(key)} is for 'as: beams' only.")
        paths, found, value = _numbers_of(section, source, topics, facts, fields)
        for one in functions:
            found = _count_after(section, one, found)
        if found is not None and count is not None and found != count:
            target = "observation" if where.startswith("observation") else "command"
            raise UnusableError(
                f"{where} gives {found} number{'s' * (found != 1)} of '{section.get('field', source)}' for"
                f" {count} of the {target}; expected as many."
            )
        return Reading(paths=paths, functions=functions, count=count, value=value, **shared)


def _numbers_of(
    section: Section, source: str, topics: Mapping[str, Topic], facts: Facts, fields: Fields
) -> tuple[tuple[FieldPath, ...], int | None, tuple[float, ...]]:
    """Return the paths, how many numbers they have, and the constant."""
    if source == VALUE:
        given = section.get(VALUE)
        numbers = [as_number(one) for one in (given if isinstance(given, list) else [given])]
        if not numbers or None in numbers:
            raise UnusableError(
                f"{section.name(VALUE)} is {shown(given)}; expected a number, or a list of them."
            )
        constant = tuple(float(one) for one in numbers if one is not None)
        return (), len(constant), constant
    if source == "action":
        which = section.read("field", facts.factors, None)
        which = list(range(len(facts.choices))) if which is None else which
        return (), len(which), tuple(map(float, which))
    given = section.get("field")
    texts = given if isinstance(given, list) else [given]
    if source == "goal":
        for one in texts:
            if one not in GOAL_FIELDS:
                raise UnusableError(
                    f"{section.name('field')} is {shown(one)}; expected {', '.join(GOAL_FIELDS)}."
                    f"{near(str(one), GOAL_FIELDS)}"
                )
        return (), len(texts), tuple(float(GOAL_FIELDS.index(one)) for one in texts)
    paths, total = [], 0
    for one in texts:
        path, counted = _checked(section, one, topics[source].type, fields)
        paths.append(path)
        total = None if total is None or counted is None else total + counted
    return tuple(paths), total, ()


def _checked(section: Section, text: Any, kind: str, fields: Fields) -> tuple[FieldPath, int | None]:
    """Read one path, which has to end in numbers."""

    def reader(value: Any) -> tuple[FieldPath, int | None]:
        path = FieldPath.read(value)
        leaf = path.leaf(kind, fields)
        inner = element(leaf) if leaf is not None and is_array(leaf) else leaf
        if inner is not None and inner not in (*NUMBERS, *TUPLES, *TIMES):
            below = fields(inner)
            more = f"one of its fields: {', '.join(below)}" if below else "a field that is a number"
            raise UnusableError(f"is '{path.text}', which is a {leaf}; expected {more}.")
        return path, path.count(leaf)

    return section.read("field", lambda _: reader(text))


def _count_after(section: Section, function: str, count: int | None) -> int | None:
    if function in ANGLES:
        if count is not None and count % 4:
            raise UnusableError(
                f"{section.name('as')} is '{function}', and '{section.get('field')}' has {count} numbers;"
                " expected a quaternion, as in orientation."
            )
        return None if count is None else count // 4
    if function in WHOLE:
        raise UnusableError(f"{section.name('as')} has '{function}' beside others; expected it first.")
    return 1 if function in TO_ONE else count


def _whole(
    section: Section,
    functions: tuple[str, ...],
    topic: Topic,
    count: int | None,
    shape: tuple[int, ...] | None,
    shared: Mapping[str, Any],
) -> Reading:
    """Read an entry that takes a whole message: an image, or the beams of a scan."""
    kind, rest = functions[0], functions[1:]
    if topic.type != WHOLE[kind]:
        raise UnusableError(
            f"{section.name('as')} is '{kind}', and {topic.name} has the type {topic.type}; expected"
            f" {WHOLE[kind]}."
        )
    if "field" in section or any(one in TO_ONE or one in ANGLES or one in WHOLE for one in rest):
        raise UnusableError(
            f"{section.where} has 'as: {kind}', which takes the whole message; expected no more."
        )
    if kind == "image":
        for key in SCAN_KEYS:
            if key in section:
                raise UnusableError(f"{section.name(key)} is for 'as: beams' only.")
        if shape is None:
            raise UnusableError(
                f"{section.where} is an image; expected a whole picture of the observation."
            )
        try:
            layout(shape)
        except UnusableError as error:
            raise UnusableError(f"{section.where} {error}") from None
        return Reading(paths=(), functions=rest, count=count, shape=shape, **shared)
    beams = section.number("count", count, 1.0)
    if beams is None or beams % 1 or (count is not None and beams != count):
        raise UnusableError(f"{section.name('count')} is {beams}; expected {count}, as many as it fills.")
    beams = int(beams)
    span = math.radians(section.number("span_degrees", 360.0))
    first = math.radians(section.number("first_degrees", 0.0))
    closed = abs(span) >= 2 * math.pi - 1e-9
    if span == 0.0 or abs(span) > 2 * math.pi + 1e-9:
        raise UnusableError(
            f"{section.name('span_degrees')} is {math.degrees(span):g}; expected up to 360, or down to -360"
            " if the training counts clockwise."
        )
    step = span / (beams if closed else max(beams - 1, 1))
    nearest, farthest = section.number("nearest", 0.0, 0.0), section.number("farthest", None)
    if farthest is None or farthest <= nearest:
        raise UnusableError(
            f"{section.where} has no farthest above nearest; expected the distance in metres that the"
            " training uses where nothing is seen."
        )
    reader = ScanReader(
        Beams(beams, nearest, farthest),
        math.radians(section.number("yaw_degrees", 0.0)),
        section.flag("zero_is_far", False),
        first + step * np.arange(beams),
        abs(step) / 2,
        section.word("pick", ("nearest", "smallest"), "nearest") == "smallest",
    )
    return Reading(paths=(), functions=rest, count=count, lidar=reader, **shared)
