"""How an action of the policy becomes messages, and what is published while the robot has to stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .facts import Facts
from .fields import FieldPath, Fields, Selection
from .messages import NUMBERS, TIMES, TUPLES, element, is_array, near, read_type
from .section import Section, as_number, blaming, is_finite, shown
from .sources import READING_KEYS, Reading, Topic
from .task import UnusableError

COMMAND_KEYS = ("topic", "type", "stamped", "stamp", "frame", "actions", "fields", "set", "stop")
FIELD_KEYS = ("field", "action", "values", "scale", "offset", "clip", "add")
TWIST, STAMPED = "geometry_msgs/Twist", "geometry_msgs/TwistStamped"
TRAJECTORY = "trajectory_msgs/JointTrajectory"
STILL: Mapping[str, Any] = {
    f"{part}.{axis}": 0.0 for part in ("linear", "angular") for axis in ("x", "y", "z")
}
"""A velocity of zero."""
Values = Callable[[Reading], "np.ndarray | None"]
"""Returns the newest numbers of a reading; `None` if there are none."""
Writes = list[tuple[FieldPath, Any]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one field of a message gets: a constant, or numbers that were read."""

    path: FieldPath
    value: Any
    reading: Reading | None = None


@dataclasses.dataclass(frozen=True)
class Share:
    """What one field gets of the action."""

    path: FieldPath
    factors: tuple[int, ...]
    values: tuple[float, ...] | None
    """The number of every choice, in place of the action's own number."""
    scale: float
    offset: float
    clip: tuple[float, float] | None
    add: Reading | None

    def of(self, action: np.ndarray, starts: tuple[int, ...], now: Values) -> np.ndarray:
        """Return the field's numbers. Raises `UnusableError` if what it adds to is not known."""
        chosen = action[list(self.factors)].astype(np.float64)
        if self.values is not None:
            places = chosen - np.array([starts[factor] for factor in self.factors])
            chosen = np.array([self.values[int(place)] for place in places])
        result = chosen * self.scale + self.offset
        if self.add is not None:
            base = now(self.add)
            if base is None:
                raise UnusableError(
                    f"'{self.add.text}' of {self.add.source} is not known yet; expected a message."
                )
            result = result + base
        return result if self.clip is None else np.clip(result, *self.clip)


@dataclasses.dataclass(frozen=True)
class Command:
    """The messages for one topic."""

    topic: str
    type: str
    stamped: str
    """For Twist and TwistStamped: `true`, `false`, or `auto`, by the distribution of ROS."""
    stamp: bool
    frame: str
    table: tuple[tuple[Setting, ...], ...]
    """What every action sets, if the actions are discrete."""
    shares: tuple[Share, ...]
    constants: tuple[Setting, ...]
    stop: tuple[Setting, ...] | None
    """`None`: nothing is published; the robot has to stop by itself."""
    stops_with_safe_action: bool = False

    def readings(self) -> list[Reading]:
        """Return what it reads of messages."""
        settings = [*self.constants, *(self.stop or ()), *(one for row in self.table for one in row)]
        return [one.reading for one in settings if one.reading is not None] + [
            share.add for share in self.shares if share.add is not None
        ]

    def acting(self, action: Any, facts: Facts, now: Values) -> Writes:
        """Return what is written for an action. Raises `UnusableError` for one that is none."""
        numbers = np.ravel(np.asarray(action, np.float64))
        if numbers.size != len(facts.choices) or not np.isfinite(numbers).all():
            raise UnusableError(f"the action is {action}; expected {len(facts.choices)} finite numbers.")
        if facts.kind != "joints":
            places = numbers - np.array(facts.starts)
            if (places % 1 != 0).any() or (places < 0).any() or (places >= np.array(facts.choices)).any():
                raise UnusableError(f"the action is {action}; expected one of the policy's.")
        writes = [(one.path, one.value) for one in self.constants if one.reading is None]
        if self.table:
            writes += _written(self.table[int(numbers[0]) - facts.starts[0]], now)
        writes += [(one.path, one.of(numbers, facts.starts, now)) for one in self.shares]
        for path, value in writes:
            if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                raise UnusableError(f"'{path.text}' would be {value.tolist()}; expected finite numbers.")
        return writes

    def standing(self, facts: Facts, now: Values) -> Writes | None:
        """Return what is written while the robot stands; `None`: nothing is published."""
        if self.stops_with_safe_action:
            return self.acting(facts.safe_action, facts, now)
        if self.stop is None or any(one.reading and now(one.reading) is None for one in self.stop):
            return None
        constants = [(one.path, one.value) for one in self.constants if one.reading is None]
        return [*constants, *_written(self.stop, now)]

    @property
    def unknown(self) -> bool:
        """Whether the export could not check its fields."""
        return self.type.partition("/")[0] not in CHECKED

    @staticmethod
    def read(
        value: Any, index: int, topics: Mapping[str, Topic], facts: Facts, has_goal: bool, fields: Fields
    ) -> Command:
        """Read an entry of `commands`. Raises `UnusableError`."""
        section = Section(value, f"commands[{index}]", COMMAND_KEYS)
        kind = section.read("type", read_type)
        twist = kind in (TWIST, STAMPED)
        stamped = section.word("stamped", ("auto", "true", "false"), "true" if kind == STAMPED else "false")
        if "stamped" in section and kind != TWIST:
            raise UnusableError(f"{section.name('stamped')} is for the type {TWIST} only.")
        reader = _Fields(kind, topics, facts, has_goal, fields)
        with_table, with_shares = "actions" in section, "fields" in section
        if with_table and facts.kind != "discrete":
            raise UnusableError(
                f"{section.name('actions')} is for a Discrete action space, and this policy's actions are"
                f" {len(facts.choices)} numbers; expected fields."
            )
        if not with_table and not with_shares:
            raise UnusableError(
                f"{section.where} has neither actions nor fields; expected actions (a list with the"
                " fields of every discrete action) or fields (that get numbers of the action)."
            )
        table = _table(section, facts, reader) if with_table else ()
        rows = section.rows("fields") if with_shares else []
        shares = tuple(reader.share(row, f"{section.where}.fields[{at}]") for at, row in enumerate(rows))
        constants = reader.settings(section.get("set", {}), section.name("set"))
        given = section.get("stop", dict(STILL) if twist else None)
        stop, safe = _stop(section, given, reader, facts, twist)
        return Command(
            section.topic("topic"), kind, stamped, section.flag("stamp", kind != TRAJECTORY),
            section.text("frame", ""), table, shares, constants, stop, safe,
        )  # fmt: skip

    def factors(self) -> set[int]:
        """Return the numbers of the action that it uses."""
        return {0} if self.table else {factor for share in self.shares for factor in share.factors}


CHECKED = ("builtin_interfaces", "std_msgs", "geometry_msgs", "nav_msgs", "sensor_msgs", "trajectory_msgs")
"""Packages whose messages are in definitions.txt."""


def _written(settings: tuple[Setting, ...], now: Values) -> Writes:
    return [(one.path, one.value if one.reading is None else now(one.reading)) for one in settings]


def _table(section: Section, facts: Facts, reader: _Fields) -> tuple[tuple[Setting, ...], ...]:
    """Read one row per action: a list in the order of the actions, or by number or label."""
    name, given, count = section.name("actions"), section.get("actions"), facts.choices[0]
    first = facts.starts[0]
    wanted = f"{count} entries, one for each action" + (
        f": {', '.join(facts.labels)}" if facts.labels else ""
    )
    if isinstance(given, Mapping):
        known = {
            **{str(first + at): at for at in range(count)},
            **{n: at for at, n in enumerate(facts.labels)},
        }
        for key in given:
            if str(key) not in known:
                raise UnusableError(f"{name}.{key} is no action; expected {wanted}.{near(str(key), known)}")
        rows = {known[str(key)]: (f"{name}.{key}", row) for key, row in given.items()}
    elif isinstance(given, list):
        rows = {at: (f"{name}[{at}]", row) for at, row in enumerate(given)}
    else:
        rows = {}
    if len(rows) != count or max(rows) != count - 1:
        raise UnusableError(f"{name} has {len(rows)} entries; expected {wanted}.")
    return tuple(reader.settings(rows[at][1], rows[at][0]) for at in range(count))


def _stop(
    section: Section, given: Any, reader: _Fields, facts: Facts, twist: bool
) -> tuple[tuple[Setting, ...] | None, bool]:
    name = section.name("stop")
    if given == "nothing":
        return None, False
    if given == "safe_action":
        if facts.safe_action is None:
            raise UnusableError(
                f"{name} is 'safe_action', and the policy has none; give the export its safe action."
            )
        return None, True
    if not isinstance(given, Mapping) or not given:
        said = "missing" if given is None else shown(given)
        raise UnusableError(
            f"{name} is {said}; expected the fields of the message that stops the robot ({{data: [0.0]}}),"
            " 'safe_action', or 'nothing' if the robot stops by itself when no message comes."
        )
    return reader.settings(given, name), False


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Reads the fields of one message type."""

    kind: str
    topics: Mapping[str, Topic]
    facts: Facts
    has_goal: bool
    fields: Fields

    def path(self, text: Any) -> tuple[FieldPath, str | None]:
        """Read the path of a field that can be written, and its type."""
        path = FieldPath.read(text)
        if any(isinstance(step, Selection) and step.count is None for step in path.steps):
            raise UnusableError(
                f"is '{path.text}'; expected an end, as in [0:6], or no [ ] for the whole array."
            )
        if any(isinstance(step, Selection) and step.names for step in path.steps):
            raise UnusableError(
                f"is '{path.text}'; expected places, as in [0]: a new message has no names."
            )
        return path, path.leaf(self.kind, self.fields)

    def settings(self, given: Any, where: str) -> tuple[Setting, ...]:
        """Read fields and the values that they get."""
        if not isinstance(given, Mapping):
            raise UnusableError(
                f"{where} is {shown(given)}; expected fields and their values, {{linear.x: 0.2}}."
            )
        found = []
        for key, value in given.items():
            with blaming(where):
                path, leaf = self.path(key)
            name = f"{where}.{path.text}"
            if isinstance(value, Mapping):
                section = Section(value, name, READING_KEYS)
                reading = Reading.read(
                    section, self.topics, self.facts, path.count(leaf), self.has_goal, self.fields
                )
                found.append(Setting(path, None, reading))
            else:
                found.append(Setting(path, _constant(name, value, path, leaf)))
        return tuple(found)

    def share(self, row: Any, where: str) -> Share:
        """Read an entry of `fields`."""
        section = Section(row, where, FIELD_KEYS)
        path, leaf = section.read("field", self.path)
        inner = _number_type(section.name("field"), path, leaf)
        factors = section.read("action", self.facts.factors, None)
        factors = list(range(len(self.facts.choices))) if factors is None else factors
        wanted = path.count(leaf)
        if wanted is not None and inner is not None and wanted != len(factors):
            raise UnusableError(
                f"{where} gives {len(factors)} numbers of the action to '{path.text}', which has {wanted};"
                " expected as many (action: …)."
            )
        add = section.get("add", None)
        if add is not None:
            inside = Section(add, section.name("add"), READING_KEYS)
            add = Reading.read(inside, self.topics, self.facts, len(factors), self.has_goal, self.fields)
        return Share(
            path, tuple(factors), self._values(section, factors), section.number("scale", 1.0),
            section.number("offset", 0.0), section.pair("clip"), add,
        )  # fmt: skip

    def _values(self, section: Section, factors: list[int]) -> tuple[float, ...] | None:
        given = section.get("values", None)
        counts = {self.facts.choices[factor] for factor in factors}
        if given is None:
            return None
        numbers = [as_number(one) for one in given if is_finite(one)] if isinstance(given, list) else []
        if self.facts.kind == "joints" or None in numbers or {len(numbers)} != counts:
            wanted = "no values: the actions are numbers already"
            if self.facts.kind != "joints":
                wanted = f"{' or '.join(map(str, sorted(counts)))} numbers, one for each choice"
            raise UnusableError(f"{section.name('values')} is {shown(given)}; expected {wanted}.")
        return tuple(float(one) for one in numbers if one is not None)


def _number_type(name: str, path: FieldPath, leaf: str | None) -> str | None:
    inner = element(leaf) if leaf is not None and is_array(leaf) else leaf
    if inner is not None and inner not in (*NUMBERS, *TUPLES, *TIMES):
        raise UnusableError(
            f"{name} is '{path.text}', which is a {leaf}; expected a field that is a number."
        )
    return inner


def _constant(name: str, value: Any, path: FieldPath, leaf: str | None) -> Any:
    """Check a constant against the type of its field."""
    listed = isinstance(value, list)
    entries = value if listed else [value]
    inner = element(leaf) if leaf is not None and is_array(leaf) else leaf
    if inner == "string":
        good, wanted = all(isinstance(one, str) for one in entries), "a text"
    elif inner is None:
        good, wanted = (
            all(isinstance(one, (str, bool)) or is_finite(one) for one in entries),
            "a finite number or a text",
        )
    else:
        _number_type(name, path, leaf)
        # `true` is a number here: fields of type bool take it.
        good, wanted = (
            all(isinstance(one, bool) or is_finite(one) for one in entries),
            "a finite number",
        )
        value = [float(one) for one in entries] if good and listed else float(value) if good else value
    count = path.count(leaf)
    many = leaf is None or is_array(leaf) or inner in TUPLES or (count or 2) > 1
    if not good or (listed and not many) or (listed and count is not None and len(entries) != count):
        several = (
            f"a list of {count}"
            if many and count not in (None, 1)
            else f"{wanted} or a list"
            if many
            else wanted
        )
        raise UnusableError(f"{name} is {shown(value)}; expected {several}.")
    return value
