"""What the node runs: the interface of the decisions, which know nothing of ROS."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .fields import FieldPath

Orders = Sequence["list[tuple[FieldPath, Any]] | None"]
"""For every output: the fields and their values, or `None`: nothing is published."""


@dataclasses.dataclass(frozen=True)
class Input:
    """A topic that the node reads."""

    name: str
    topic: str
    type: str
    latched: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """A topic that the node publishes."""

    topic: str
    type: str
    stamped: str = "false"
    """Of a Twist, whether it is published as TwistStamped: true, false, or auto, by the distribution."""
    stamp: bool = True
    """Whether a header gets the time."""
    frame: str = ""
    """The header's frame; empty: the parameter base_frame for a velocity, else none."""


class Control(abc.ABC):
    """Decides what the robot does. Every `now` is of one clock, which never jumps."""

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    seconds: float
    """Between two actions in training."""
    warnings: Sequence[str] = ()
    """What the user should know before the robot moves."""
    goal_topic: str | None
    """`None` if the policy drives to no goal: then it starts and stops by services."""
    frame: str
    """The frame of the odometry; empty before its first message."""

    @property
    @abc.abstractmethod
    def why(self) -> str:
        """What the robot does, or why it stands."""

    @property
    @abc.abstractmethod
    def goal(self) -> tuple[float, float] | None:
        """The goal, in the frame of the odometry."""

    @abc.abstractmethod
    def see(self, name: str, message: Any, now: float, delay: float | None) -> None:
        """Process the message of an input. Never raises.

        Args:
            delay: age of the message's stamp; `None` if it has none.
        """

    @abc.abstractmethod
    def decide(self, now: float) -> Orders | None:
        """Take one action of the policy; `None`: the robot has to stand."""

    @abc.abstractmethod
    def watch(self, now: float) -> bool:
        """Return whether the robot may continue, between two decisions."""

    @abc.abstractmethod
    def standing(self) -> Orders:
        """Return what is published while the robot stands."""

    @property
    @abc.abstractmethod
    def is_idle(self) -> bool:
        """Whether the robot has nothing to do: no goal, or not started."""

    @abc.abstractmethod
    def set_goal(self, x: float, y: float) -> None:
        """Set the goal, in the frame of the odometry. Raises `UnusableError`."""

    @abc.abstractmethod
    def move_goal(self, x: float, y: float) -> None:
        """Correct the place of the goal: its frame has moved against the odometry's."""

    @abc.abstractmethod
    def start(self) -> str:
        """Begin to act, if there is no goal to wait for. Return what happens then."""

    @abc.abstractmethod
    def cancel(self) -> bool:
        """Drop the goal, or stop; return whether there was anything to stop."""


def warnings_of(rate: float, seconds: float) -> list[str]:
    """Return a sentence if the node's rate is not the training's."""
    trained = 1.0 / seconds
    if abs(rate - trained) <= 0.01 * trained:
        return []
    return [f"rate is {rate:g} Hz; the policy was trained at {trained:g} Hz only."]


Settings = Mapping[str, Any]
"""Values of the node's parameters, by their names."""
