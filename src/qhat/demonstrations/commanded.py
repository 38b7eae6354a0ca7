"""From the messages that commanded a robot back to the actions: the commands of a map, inverted."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Any

import numpy as np

from qhat.runtime.qhat_robot.commands import STAMPED, TWIST, Command, Setting, Share, Values
from qhat.runtime.qhat_robot.facts import Facts
from qhat.runtime.qhat_robot.fields import FieldPath
from qhat.runtime.qhat_robot.task import UnusableError

NEAR = 1e-5
"""How far a number in a message may be from the map's, of its size: messages have float32."""
LISTED = 12
"""Numbers that a sentence shows."""


@dataclasses.dataclass(frozen=True)
class Commanded:
    """Reads the messages of one command."""

    command: Command
    facts: Facts
    nearest: bool
    """Whether the nearest action is taken for a message that is none."""
    paths: tuple[FieldPath, ...] = ()
    """Fields that tell the actions of a table from each other."""
    table: np.ndarray | None = None
    """`[A, N]`: the numbers of the fields, by action."""
    stop: np.ndarray | None = None
    """`[N]`, of the message that makes the robot stand."""

    @staticmethod
    def of(command: Command, facts: Facts, nearest: bool) -> Commanded:
        """Read a command of a map. Raises `UnusableError` where its messages do not say the action."""
        if not command.table:
            for share in command.shares:
                if share.scale == 0:
                    raise UnusableError(
                        f"the field '{share.path.text}' of {command.topic} has scale 0, so a recording does"
                        " not say the action; expected another scale."
                    )
            return Commanded(command, facts, nearest)
        settings = [one for row in command.table for one in row]
        for one in settings:
            if one.reading is not None:
                raise UnusableError(
                    f"the field '{one.path.text}' of {command.topic} is read of another topic, so a"
                    " recording does not say the action; expected numbers."
                )
        widths = {one.path.text: np.size(one.value) for one in settings if _is_number(one)}
        paths = tuple({one.path.text: one.path for one in settings if _is_number(one)}.values())
        table = np.stack([_numbers(row, widths) for row in command.table])
        stands = command.stop
        known = stands is not None and all(one.reading is None for one in stands)
        stop = _numbers(stands, widths) if stands is not None and known else None
        if len(np.unique(table, axis=0)) < len(table):
            raise UnusableError(
                f"two actions of {command.topic} have the same fields, so a recording does not say which"
                " was taken; expected different ones."
            )
        return Commanded(command, facts, nearest, paths, table, stop)

    def fits(self, kind: str) -> bool:
        """Whether messages of a type can be read."""
        both = (TWIST, STAMPED)
        return kind == self.command.type or (kind in both and self.command.type in both)

    def read(self, message: Any, kind: str, newest: Values) -> dict[int, float] | None:
        """Return the numbers of the action that a message says; `None`: the robot was to stand.

        Args:
            newest: returns the newest numbers of what actions are added to.

        Raises:
            UnusableError: it is the message of no action.
        """
        inner = message
        if kind == STAMPED and self.command.type == TWIST:
            inner = message.twist
        elif kind == TWIST and self.command.type == STAMPED:
            inner = types.SimpleNamespace(twist=message)
        if self.table is None:
            return {
                factor: float(number)
                for share in self.command.shares
                for factor, number in zip(share.factors, self._shared(share, inner, newest), strict=True)
            }
        found = np.concatenate([path.numbers(inner) for path in self.paths])
        if found.shape != self.table.shape[1:]:
            raise UnusableError(
                f"{', '.join(path.text for path in self.paths)} have {found.size} numbers; expected"
                f" {self.table.shape[1]}."
            )
        away = np.abs(self.table - found).max(axis=1)
        best = int(away.argmin())
        if away[best] > _slack(found):
            if self.stop is not None and np.abs(self.stop - found).max() <= _slack(found):
                return None
            if not self.nearest:
                raise UnusableError(_of_no_action(self.paths, found))
            best = int(np.square(self.table - found).sum(axis=1).argmin())
        return {0: float(best + self.facts.starts[0])}

    def _shared(self, share: Share, message: Any, newest: Values) -> np.ndarray:
        """Return the numbers of the action that a field got."""
        found = share.path.numbers(message)
        if found.size != len(share.factors):
            raise UnusableError(
                f"'{share.path.text}' has {found.size} numbers; expected {len(share.factors)}."
            )
        if share.add is not None:
            base = newest(share.add)
            if base is None:
                raise UnusableError(f"'{share.add.text}' of {share.add.source} is not known yet.")
            found = found - base
        chosen = (found - share.offset) / share.scale
        if not np.isfinite(chosen).all():
            raise UnusableError(f"'{share.path.text}' is {found.tolist()}; expected finite numbers.")
        if self.facts.kind == "joints":
            return chosen
        starts = np.array([self.facts.starts[factor] for factor in share.factors])
        if share.values is None:
            choices, near = np.rint(chosen), np.rint(chosen)
        else:
            places = np.abs(np.array(share.values)[None] - chosen[:, None]).argmin(axis=1)
            choices, near = places + starts, np.array(share.values)[places]
        if not self.nearest and np.abs(near - chosen).max() * abs(share.scale) > _slack(found):
            raise UnusableError(_of_no_action((share.path,), found))
        return choices


def _of_no_action(paths: Sequence[FieldPath], found: np.ndarray) -> str:
    numbers = ", ".join(f"{number:g}" for number in found[:LISTED])
    several = ", …" if found.size > LISTED else ""
    return (
        f"{', '.join(path.text for path in paths)} are {numbers}{several}, which no action of the map sets;"
        " expected one of them, or 'nearest: true' under log, which takes the nearest."
    )


def _slack(numbers: np.ndarray) -> float:
    return NEAR * max(1.0, float(np.abs(numbers).max()))


def _is_number(setting: Setting) -> bool:
    return np.asarray(setting.value).dtype.kind in "biuf"


def _numbers(settings: Sequence[Setting], widths: dict[str, int]) -> np.ndarray:
    """Return the numbers of all fields, 0 where none is set, as in a new message."""
    given = {one.path.text: np.ravel(np.asarray(one.value)) for one in settings if _is_number(one)}
    parts = [given.get(text, np.zeros(width)) for text, width in widths.items()]
    if any(part.size != width for part, width in zip(parts, widths.values(), strict=True)):
        raise UnusableError("a field has arrays of several sizes; expected one size.")
    return np.concatenate(parts).astype(np.float64)
