"""Decides by a map: gathers the observation from the topics, asks the policy, and fills the commands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .control import Control, Input, Orders, Output
from .facts import Facts
from .mapping import RobotMap
from .sources import Reading
from .task import UnusableError, pose_of, wrap


@dataclasses.dataclass
class _State:
    """The newest numbers of one reading."""

    time: float = -math.inf
    numbers: np.ndarray | None = None
    fault: str = ""
    """Why the newest message was not used."""
    stamp: Any = None
    """Of the message that the numbers are from; `None` if it has none."""


class MappedControl(Control):
    """Runs a policy by a map.

    Args:
        policy: `act(observation)` and `reset()`.
        safety: filter for every action.
        started: whether it acts without being started by the service.
    """

    def __init__(
        self,
        plan: RobotMap,
        facts: Facts,
        policy: Any,
        safety: Callable[[Any, Any], Any] = lambda action, observation: action,
        started: bool = False,
    ):
        self._plan, self._facts, self._policy, self._safety = plan, facts, policy, safety
        self.seconds = facts.period or 1 / plan.rate
        self.inputs = [
            Input(one.name, one.topic, one.type, one.qos == "latched") for one in plan.topics.values()
        ]
        self.outputs = [
            Output(one.topic, one.type, one.stamped, one.stamp, one.frame) for one in plan.commands
        ]
        self._goal: tuple[float, float] | None = None
        self.frame = ""
        self.goal_topic = None if plan.goal is None else plan.goal.topic
        self._started = started and plan.goal is None
        self._why = "waiting for a goal" if plan.goal is not None else "waiting for the service ~/start"
        self._states = {id(reading): _State() for reading in plan.readings()}
        self._by_topic = {name: [r for r in plan.readings() if r.source == name] for name in plan.topics}
        self._pose = _State()
        self._action: Any = None
        self._standing: Orders | None = None
        self._needed = [one.reading for one in plan.entries if one.reading.is_topic]
        self._needed += [
            share.add for one in plan.commands for share in one.shares if share.add is not None
        ]

    @property
    def why(self) -> str:
        return self._why

    @property
    def goal(self) -> tuple[float, float] | None:
        return self._goal

    def see(self, name: str, message: Any, now: float, delay: float | None) -> None:
        topic = self._plan.topics[name]
        late = topic.max_delay is not None and delay is not None and delay > topic.max_delay
        fault = f"its newest message was {delay:.2f} s old, limit {topic.max_delay:g} s" if late else ""
        for reading in self._by_topic[name]:
            self._update(self._states[id(reading)], reading.numbers, message, now, fault)
        if self._plan.goal is not None and name == self._plan.goal.odometry:
            self._update(self._pose, _pose, message, now, fault)
            self.frame = message.header.frame_id

    def _update(
        self, state: _State, read: Callable[[Any], np.ndarray], message: Any, now: float, fault: str
    ) -> None:
        """Take the numbers of a message. If messages that cannot be used last, the topic counts as late."""
        stamp = _stamp_of(message)
        if stamp is not None and stamp == state.stamp:
            # A driver that hangs may repeat the last message forever.
            return
        state.fault = fault
        if not fault:
            try:
                state.numbers, state.time, state.stamp = read(message), now, stamp
            except Exception as error:
                state.fault = _sentence(error)

    def decide(self, now: float) -> Orders | None:
        reason = self._unready(now)
        if reason is not None:
            self._stop(reason)
            return None
        try:
            observation = self._facts.observation(self._gathered(now))
            self._action = self._safety(self._policy.act(observation), observation)
            orders = [one.acting(self._action, self._facts, self._newest) for one in self._plan.commands]
        except Exception as error:
            self._stop(f"the policy gave no action: {_sentence(error)}")
            return None
        self._why, self._standing = "driving", None
        return orders

    def watch(self, now: float) -> bool:
        reason = self._unready(now)
        if reason is not None:
            self._stop(reason)
        return reason is None

    def standing(self) -> Orders:
        # Taken one time, as it may be where the joints are: a robot that is held may not sag step by step.
        if self._standing is None:
            try:
                self._standing = [one.standing(self._facts, self._newest) for one in self._plan.commands]
            except Exception as error:
                self._why = f"no message to stop the robot: {_sentence(error)}"
                return [None] * len(self._plan.commands)
        return self._standing

    @property
    def is_idle(self) -> bool:
        return not self._started and self._goal is None

    def set_goal(self, x: float, y: float) -> None:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise UnusableError(f"the goal is ({x}, {y}); expected finite numbers, in metres.")
        goal = (float(x), float(y))
        if goal != self._goal or self._standing is not None:
            # Some planners repeat the same goal, and the policy goes on in its episode.
            self._reset()
        self._goal, self._standing = goal, None

    def move_goal(self, x: float, y: float) -> None:
        if self._goal is not None and math.isfinite(x) and math.isfinite(y):
            self._goal = (float(x), float(y))

    def start(self) -> str:
        if self.goal_topic is not None:
            return f"it starts with a goal on {self.goal_topic}"
        if not self._started:
            # Since the last stop, the robot may have been moved.
            self._started, self._standing = True, None
            self._reset()
        return "started"

    def cancel(self) -> bool:
        had = not self.is_idle
        self._goal, self._started = None, False
        if had:
            self._stop("goal cancelled" if self.goal_topic is not None else "stopped by the service ~/stop")
        return had

    def restart(self) -> None:
        """Forget the last action: another episode begins."""
        self._reset()

    def _gathered(self, now: float) -> np.ndarray:
        """Return all numbers of the observation, `[size]`."""
        values = np.full(self._facts.size, np.nan)
        for entry in self._plan.entries:
            reading = entry.reading
            if reading.is_topic:
                state = self._states[id(reading)]
                numbers = state.numbers
                if numbers is None or self._is_late(reading, now):
                    numbers = np.full(len(entry.places), reading.default)
            elif reading.source == "goal":
                numbers = reading.finished(self._to_goal()[[int(one) for one in reading.value]])
            elif reading.source == "action":
                last = (
                    np.zeros(len(self._facts.choices)) if self._action is None else np.ravel(self._action)
                )
                numbers = reading.finished(last[[int(one) for one in reading.value]].astype(np.float64))
            else:
                numbers = reading.finished(np.array(reading.value))
            if len(numbers) != len(entry.places):
                raise UnusableError(
                    f"'{reading.text}' has {len(numbers)} numbers; expected {len(entry.places)}."
                )
            values[entry.places] = numbers
        return values

    def _to_goal(self) -> np.ndarray:
        """Return the angle, the distance, and the place of the goal, from the robot."""
        assert self._goal is not None
        assert self._pose.numbers is not None
        x, y, yaw = self._pose.numbers
        dx, dy = self._goal[0] - x, self._goal[1] - y
        bearing, distance = wrap(math.atan2(dy, dx) - yaw), math.hypot(dx, dy)
        return np.array([bearing, distance, distance * math.cos(bearing), distance * math.sin(bearing)])

    def _unready(self, now: float) -> str | None:
        """Return why the robot cannot act, or `None`. A reached goal is dropped."""
        if self.is_idle:
            quiet = ("goal ", "stopped ")
            start = "a goal" if self.goal_topic is not None else "the service ~/start"
            return self._why if self._why.startswith(quiet) else f"waiting for {start}"
        for reading in self._needed:
            if self._is_late(reading, now) and not reading.late:
                state, topic = self._states[id(reading)], self._plan.topics[reading.source]
                return _late(topic.topic, state.time, now, topic.max_age, state.fault)
        if self._plan.goal is None or self._goal is None:
            return None
        topic = self._plan.topics[self._plan.goal.odometry]
        if not now - self._pose.time <= topic.max_age:
            return _late(topic.topic, self._pose.time, now, topic.max_age, self._pose.fault)
        distance = float(self._to_goal()[1])
        if distance < self._plan.goal.tolerance:
            self._goal = None
            return f"goal reached ({distance:.2f} m away)"
        return None

    def _is_late(self, reading: Reading, now: float) -> bool:
        return not now - self._states[id(reading)].time <= self._plan.topics[reading.source].max_age

    def _newest(self, reading: Reading) -> np.ndarray | None:
        if not reading.is_topic:
            return reading.finished(np.array(reading.value))
        return self._states[id(reading)].numbers

    def _stop(self, reason: str) -> None:
        self._why = reason
        self._reset()

    def _reset(self) -> None:
        self._policy.reset()
        self._action = None


def _pose(message: Any) -> np.ndarray:
    pose = pose_of(message)
    return np.array([pose.x, pose.y, pose.yaw])


def _stamp_of(message: Any) -> tuple[int, int] | None:
    """Return the stamp of a message; `None` if it has none."""
    header = getattr(message, "header", None)
    if header is None or (header.stamp.sec, header.stamp.nanosec) == (0, 0):
        return None
    return header.stamp.sec, header.stamp.nanosec


def _late(topic: str, time: float, now: float, limit: float, fault: str) -> str:
    age = "none yet" if time == -math.inf else f"{now - time:.2f} s old"
    return f"{topic} is late ({age}, limit {limit:.2f} s){f': {fault}' if fault else ''}"


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
