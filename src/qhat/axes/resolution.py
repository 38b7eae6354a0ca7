"""The axis `resolution`: how many of a joint's commands are in use at a time, and what near ones share."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from qhat.axes.actions import WHOLE, Actions
from qhat.axes.axis import AxisValue, spell
from qhat.axes.cells import Cells, level_sizes
from qhat.system.errors import require, setting
from qhat.system.lazy import Array, Int, jnp


class Resolution(AxisValue):
    """Says which commands are in use, in levels; the commands of the last level are all."""

    axis: ClassVar[str] = "resolution"
    grows: ClassVar[bool] = False
    """Whether commands come into use later at all; an update without that does not look."""

    @property
    def rows(self) -> str:
        """Of what the rows of the last layer are: weights fit others that have the same."""
        return "commands"

    def scheduled(self, updates: int) -> Resolution:
        """Return the same for a run of so many gradient updates."""
        return self

    def require_fit(self, actions: Actions) -> None:
        """Raise `UsageError` if the actions have no such levels."""

    def cells(self, actions: Actions) -> Cells | None:
        """Return the cells that Q has a value for; `None` where it has one per choice of a factor."""
        return None

    def opened(self, choices: tuple[int, ...]) -> np.ndarray:
        """Return which commands are in use, of joints with so many: `[levels, F, C]`, true or false."""
        return (np.arange(max(choices)) < np.asarray(choices)[:, None])[None]

    def level(self, updates: Int[Array, ""], levels: int) -> Int[Array, ""]:
        """Return the level after `updates` gradient updates in all: 0 to `levels` − 1."""
        return jnp.zeros_like(updates)


@dataclasses.dataclass(frozen=True)
class Full(Resolution):
    """All commands are in use from the start."""

    name: ClassVar[str] = "full"


@dataclasses.dataclass(frozen=True)
class CoarseToFine(Resolution):
    """All commands are in use, and those that are near each other share values, in two levels or more.

    The range of a joint is cut into `parts`, each of these again, and so on, as by coarse-to-fine
    Q-networks (Seo et al. 2024, arXiv:2407.07787, §3). There, each level has a critic that chooses within
    the part that the level before chose. Here Q_f(s, a_f) is the mean of one value per level, that of the
    cell in which a command lies: the greedy command is the best of all, and what is learned of a command
    tells of its neighbours.
    """

    name: ClassVar[str] = "coarse_to_fine"

    parts: int = 3
    """Parts into which a cell is cut: 3 has cells of a third, a ninth, … of a joint's range."""

    def validate(self) -> None:
        good = 2 <= self.parts <= 1_000
        require(good, f"coarse_to_fine:parts is {self.parts}; expected 2 to 1,000 parts.")

    @property
    def rows(self) -> str:
        return f"{self.parts} parts"

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.joints.name != "pairs",
            f"{setting('resolution', 'coarse_to_fine')} has values of parts of single joints' ranges, and"
            f" {setting('joints', 'pairs')} of joint actions; expected {setting('joints', 'together')}.",
        )

    def require_fit(self, actions: Actions) -> None:
        _require_order(self, actions)
        good = [self.parts**level for level in range(2, 5)]
        few = [str(count) for count in good if count == good[0] or count < 1_000]
        wrong = next((count for count in actions.choices if not level_sizes(count, self.parts)), None)
        wrong = actions.choices[0] if wrong is None and max(actions.choices) == self.parts else wrong
        more = "."
        if np.dtype(actions.dtype).kind in WHOLE:
            more = f", and joints with as many whole numbers, or {setting('resolution', 'full')}."
        require(
            wrong is None,
            f"{setting('resolution', spell(self))} cuts a range into {self.parts} parts, each of these into"
            f" as many, and so on, and a joint has {wrong} commands; expected {setting('bins')} of"
            f" {listed(few)}{more}",
        )

    def cells(self, actions: Actions) -> Cells:
        return Cells(actions.choices, self.parts)


@dataclasses.dataclass(frozen=True)
class Growing(Resolution):
    """Joints begin with few commands; then, level by level, one more comes between any two of them.

    Growing Q-networks (Seyde et al. 2024, arXiv:2404.04253, §4). A new command begins with the mean of its
    neighbours' values. Coarse commands explore far; fine ones, later, are precise.
    """

    name: ClassVar[str] = "growing"
    grows: ClassVar[bool] = True

    start: int = 2
    """Commands of a joint in the first level, evenly spaced from its least to its largest."""
    share: float = 0.5
    """Share of the run's updates after which all commands are in use; levels before are equally long."""
    last: int | None = None
    """Gradient update after which all are in use; none: by `share`."""

    def validate(self) -> None:
        require(self.start >= 2, f"growing:start is {self.start}; expected 2 or more commands.")
        require(0 < self.share <= 1, f"growing:share is {self.share}; expected a share above 0, at most 1.")
        require(
            self.last is None or self.last >= 1,
            f"growing:last is {self.last}; expected an update, 1 or more, or none.",
        )

    def validate_within(self, recipe: Any) -> None:
        require(
            not recipe.head.init_support(),
            f"{setting('resolution', 'growing')} needs outputs that are values, and those of"
            f" {setting('head', recipe.head.name)} are probabilities; expected"
            f" {setting('head', 'expected')} or {setting('head', 'quantile')}.",
        )
        keeps = f"{setting('resolution', 'growing')} keeps some commands out of use, and"
        require(
            recipe.explore.name != "pink",
            f"{keeps} {setting('explore', 'pink')} moves to those nearby; expected"
            f" {setting('explore', 'epsilon')}.",
        )
        require(
            recipe.merge.name != "dueling",
            f"{keeps} {setting('merge', 'dueling')} subtracts the mean over all; expected"
            f" {setting('merge', 'plain')}.",
        )
        require(
            recipe.policy.name != "expected_sarsa",
            f"{keeps} {setting('policy', 'expected_sarsa')} backs all up; expected"
            f" {setting('policy', 'double')}.",
        )
        require(
            recipe.joints.name != "pairs",
            f"{setting('resolution', 'growing')} adds commands of single joints, and"
            f" {setting('joints', 'pairs')} has values of joint actions; expected"
            f" {setting('joints', 'together')}.",
        )

    def scheduled(self, updates: int) -> Growing:
        if self.last is not None:
            return self
        return dataclasses.replace(self, last=max(1, round(self.share * updates)))

    def require_fit(self, actions: Actions) -> None:
        grow, first = setting("resolution", spell(dataclasses.replace(self, last=None))), self.start
        _require_order(dataclasses.replace(self, last=None), actions)
        good = [2**level * (first - 1) + 1 for level in range(1, 6)]
        wrong = next((count for count in actions.choices if _levels(count, first) < 2), None)
        require(
            wrong is None,
            f"{grow} halves the distance between {first} commands, and a joint has {wrong}; expected"
            f" {setting('bins')} of {listed(list(map(str, good)))}.",
        )

    def opened(self, choices: tuple[int, ...]) -> np.ndarray:
        levels = max(_levels(count, self.start) for count in choices)
        table = np.zeros((levels, len(choices), max(choices)), bool)
        for level in range(levels):
            for joint, count in enumerate(choices):
                halvings = max(0, _levels(count, self.start) - 1 - level)
                table[level, joint, : count : 2**halvings] = True
        return table

    def level(self, updates: Int[Array, ""], levels: int) -> Int[Array, ""]:
        assert self.last is not None, "a resolution that follows the run is `scheduled` first"
        done = jnp.minimum(updates, self.last) / self.last
        return jnp.floor(done * (levels - 1)).astype(jnp.int32)


def between(opened: np.ndarray) -> np.ndarray:
    """Return how the rows of a level come from those of another: `[levels, levels, F, C, C]`, from and to.

    Args:
        opened: which commands are in use, `[levels, F, C]`.

    Returns:
        for a command that comes into use, equal shares of its neighbours in use; for others, itself.
    """
    levels, F, C = opened.shape
    mixing = np.broadcast_to(np.eye(C, dtype=np.float32), (levels, levels, F, C, C)).copy()
    for level in range(levels - 1):
        step = mixing[level, level].copy()
        for joint, command in zip(*np.nonzero(opened[level + 1] & ~opened[level]), strict=True):
            old = np.flatnonzero(opened[level, joint])
            near = [*old[old < command][-1:], *old[old > command][:1]]
            step[joint, command] = 0.0
            step[joint, command, near] = 1.0 / len(near)
        mixing[: level + 1, level + 1] = step @ mixing[: level + 1, level]
    return mixing


@functools.cache
def _levels(count: int, start: int) -> int:
    """Number of levels from `start` commands to `count`; 0 if halving never comes to `count`."""
    levels, now = 1, start
    while now < count:
        levels, now = levels + 1, 2 * now - 1
    return levels if now == count else 0


def listed(choices: list[str]) -> str:
    """Write "3, 5 or 9"."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def _require_order(resolution: Resolution, actions: Actions) -> None:
    """Raise `UsageError` if choices are no commands, of which some are near each other."""
    require(
        actions.commands is not None,
        f"{setting('resolution', spell(resolution))} has no meaning for"
        f" {'×'.join(map(str, actions.choices))} choices without an order; expected joints with a range"
        f" that is cut into {setting('bins')}.",
    )


RESOLUTIONS: tuple[type[Resolution], ...] = (Full, Growing, CoarseToFine)
