"""From a bag and a map to transitions: the ticks of the node, found again in what was recorded.

The node acts at a rate, on the newest message of every topic. Here a tick is a command: the next one is
the command nearest to one period later, within half a period; where none came, the tick is one period
later, and the last command stands, if the next one came within the map's `timeout`. At each tick the
observation is gathered by the node's code (`MappedControl`), so that late messages mean here what they mean
there.

A step is from one tick to the next. Its reward is the newest in this time, and it ends the episode where a
message in this time says so.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qhat.demonstrations.bags import Bag, Received, Series
from qhat.demonstrations.commanded import Commanded
from qhat.demonstrations.logged import Log
from qhat.runtime.qhat_robot.facts import Facts
from qhat.runtime.qhat_robot.mapped import MappedControl
from qhat.runtime.qhat_robot.mapping import RobotMap
from qhat.runtime.qhat_robot.sources import Reading
from qhat.runtime.qhat_robot.task import UnusableError
from qhat.system.errors import UsageError, require

LOOSE = 1.5
"""Periods that a step may take."""


@dataclasses.dataclass
class Tick:
    """A moment at which the node would have acted."""

    time: float
    action: np.ndarray | None
    """`[F]`, the environment's; `None` where the robot was not commanded."""
    new: bool
    """Whether a command was recorded at this moment, and not only the last one stands."""
    before: Any = None
    """The observation that the action is for; `None` if the node would have had none."""
    after: Any = None
    """The observation as the successor of the last step."""


class Recorded:
    """A policy that acts as was recorded."""

    def __init__(self) -> None:
        self.action: np.ndarray | None = None
        self.observed: Any = None

    def act(self, observation: Any) -> Any:
        self.observed = observation
        if self.action is None:
            raise UnusableError("nothing was commanded.")
        return self.action

    def reset(self) -> None:
        """Do nothing: a recording has no state."""


@dataclasses.dataclass(frozen=True)
class Driven:
    """Reads one bag by one map."""

    bag: Bag
    plan: RobotMap
    facts: Facts
    log: Log

    def steps(self, rewards: bool) -> dict[str, list[Any]]:
        """Return the columns of an .npz file as lists; observations are the environment's.

        Raises:
            UsageError: the bag does not fit the map, or holds no step.
        """
        commands, flags, rewarded = self._listened(rewards)
        ticks = self._ticks(commands)
        why = self._gather(ticks, flags)
        steps = self._steps(ticks, flags, rewarded)
        require(
            bool(steps["action"]),
            f"Demonstrations '{self.bag.source}' hold no transition: {why}; expected commands and"
            " observations at the same time.",
        )
        return steps

    def _error(self, time: float, topic: str, what: object) -> UsageError:
        return UsageError(
            f"Demonstrations '{self.bag.source}': the message on {topic} at {time:.3f} s cannot be used:"
            f" {what} Nothing was stored."
        )

    def _topics(self, readings: Sequence[Reading]) -> dict[str, list[Reading]]:
        """Return the readings by the bag's topic."""
        found: dict[str, list[Reading]] = {}
        for reading in readings:
            if reading.is_topic:
                topic = (self.log.topics if reading.source in self.log.topics else self.plan.topics)[
                    reading.source
                ]
                name = self._checked(topic.topic, topic.type, f"topics.{reading.source}.topic")
                found.setdefault(name, []).append(reading)
        return found

    def _checked(self, topic: str, kind: str, where: str) -> str:
        name = self.bag.topic(topic, where)
        there = self.bag.channels[name].type
        require(
            there == kind,
            f"Demonstrations '{self.bag.source}': {name} has the type {there} in the bag, and the map says"
            f" {kind}; expected the same.",
        )
        self.bag.require_decodable(name)
        return name

    def _listened(
        self, rewards: bool
    ) -> tuple[list[Series], dict[str, Series], Callable[[float, float], float]]:
        """Read what was commanded, what ended episodes, and the rewards."""
        inverted = [Commanded.of(one, self.facts, self.log.nearest) for one in self.plan.commands]
        by_topic: dict[str, list[int]] = {}
        for at, one in enumerate(inverted):
            name = self.bag.topic(one.command.topic, f"commands[{at}].topic")
            there = self.bag.channels[name].type
            require(
                one.fits(there),
                f"Demonstrations '{self.bag.source}': {name} has the type {there} in the bag, and the map"
                f" says {one.command.type}; expected the same.",
            )
            self.bag.require_decodable(name)
            by_topic.setdefault(name, []).append(at)
        reward = self.log.reward if rewards else None
        added = [share.add for one in self.plan.commands for share in one.shares if share.add is not None]
        ends = {"terminated": self.log.terminated, "truncated": self.log.truncated}
        given = [one for one in (reward, *ends.values()) if one is not None]
        readings = self._topics([*added, *given])
        known: dict[int, Series] = {id(one): Series() for one in (*added, *given)}
        commands = [Series() for _ in inverted]

        def newest(reading: Reading) -> np.ndarray | None:
            if not reading.is_topic:
                return reading.finished(np.array(reading.value))
            values = known[id(reading)].values
            return values[-1] if values else None

        for one in self.bag.messages([*{*by_topic, *readings}]):
            for reading in readings.get(one.topic, ()):
                _take(known[id(reading)], reading, one, self._error)
            for at in by_topic.get(one.topic, ()):
                try:
                    commands[at].add(one.time, inverted[at].read(one.message, one.type, newest))
                except (UnusableError, AttributeError) as error:
                    raise self._error(one.time, one.topic, error) from None
        for series, one in zip(commands, self.plan.commands, strict=True):
            require(
                bool(series.times),
                f"Demonstrations '{self.bag.source}' have no message on {one.topic}; expected the commands"
                " that the robot got.",
            )
        flags = {
            name: known[id(reading)] for name, reading in ends.items() if reading is not None
        }  # fmt: skip

        def rewarded(after: float, until: float) -> float:
            if reward is None:
                return 0.0
            if not reward.is_topic:
                return float(reward.finished(np.array(reward.value))[0])
            values = known[id(reward)].within(after, until)
            if not values and reward.default is None:
                raise UsageError(
                    f"Demonstrations '{self.bag.source}' have no reward from {after:.3f} to {until:.3f} s;"
                    " expected a message in every step, or a default of log.reward."
                )
            return float(values[-1][0]) if values else float(reward.default or 0.0)

        return commands, flags, rewarded

    def _ticks(self, commands: Sequence[Series]) -> list[Tick]:
        """Find the node's ticks in the commands; each is followed by one, which may be without action."""
        times, period = np.asarray(commands[0].times), 1 / self.plan.rate
        stands = max(self.plan.timeout, LOOSE * period)
        ticks, time = [], float(times[0])
        while True:
            new = bool(np.isin(time, times))
            tick = Tick(time, self._action(commands, time, stands, period), new)
            ticks.append(tick)
            low = int(np.searchsorted(times, time + 0.5 * period))
            high = int(np.searchsorted(times, time + LOOSE * period, side="right"))
            if high > low:
                time = float(times[low + np.abs(times[low:high] - time - period).argmin()])
            elif tick.action is not None:
                time += period
            elif high < len(times):
                time = float(times[high])
            else:
                return ticks

    def _action(
        self, commands: Sequence[Series], time: float, stands: float, period: float
    ) -> np.ndarray | None:
        """Return what was commanded at a tick."""
        numbers: dict[int, float] = {}
        for at, series in enumerate(commands):
            # The other commands of a tick follow the first.
            until = time if at == 0 else time + 0.5 * period
            newest = series.newest(until)
            if newest is None or not series.within(time - stands, until):
                return None
            if at == 0 and not series.stood(time, stands):
                return None
            numbers |= newest
        return np.array([numbers[factor] for factor in range(len(self.facts.choices))])

    def _gather(self, ticks: list[Tick], flags: Mapping[str, Series]) -> str:
        """Fill in what was observed at each tick; return why nothing was, the last time."""
        policy, why = Recorded(), "nothing was commanded"
        control = MappedControl(self.plan, self.facts, policy, started=True)
        topics = self._topics(self.plan.readings())
        names = {topic: {one.source for one in readings} for topic, readings in topics.items()}
        goals = ""
        if self.plan.goal is not None:
            odometry = self.plan.topics[self.plan.goal.odometry]
            name = self._checked(odometry.topic, odometry.type, "goal.odometry")
            names.setdefault(name, set()).add(odometry.name)
            goals = self._checked(self.plan.goal.topic, "geometry_msgs/PoseStamped", "goal.topic")
        done, latest = 0, -np.inf
        for one in itertools.chain(self.bag.messages([*{*names, *([goals] if goals else [])}]), (None,)):
            while done < len(ticks) and (one is None or ticks[done].time < one.time):
                # Where the recording ends, nobody observed what the last action led to.
                if one is not None or not done or latest > ticks[done - 1].time:
                    why = self._observe(control, policy, ticks, done, flags) or why
                done += 1
            if one is None:
                break
            latest = one.time
            for name in names.get(one.topic, ()):
                control.see(name, one.message, one.time, _delay(one, self.bag.start))
            if one.topic == goals:
                self._set_goal(control, one)
        return why

    def _observe(
        self,
        control: MappedControl,
        policy: Recorded,
        ticks: list[Tick],
        at: int,
        flags: Mapping[str, Series],
    ) -> str:
        """Decide as the node would have; return why it could not."""
        tick, last = ticks[at], ticks[at - 1].time if at else -np.inf
        policy.action, policy.observed = tick.action, None
        control.decide(tick.time)
        tick.before = tick.after = policy.observed
        if any(any(series.within(last, tick.time)) for series in flags.values()):
            policy.observed = None
            control.restart()
            control.decide(tick.time)
            tick.before = policy.observed
        return control.why if tick.before is None else ""

    def _set_goal(self, control: MappedControl, one: Received) -> None:
        frame, place = one.message.header.frame_id, one.message.pose.position
        if frame not in ("", control.frame):
            raise self._error(
                one.time, one.topic,
                f"it is in the frame '{frame}', and the odometry in '{control.frame}'; expected the same: a"
                " recording is read without tf.",
            )  # fmt: skip
        try:
            control.set_goal(place.x, place.y)
        except UnusableError as error:
            raise self._error(one.time, one.topic, error) from None

    def _steps(
        self, ticks: Sequence[Tick], flags: Mapping[str, Series], rewarded: Callable[[float, float], float]
    ) -> dict[str, list[Any]]:
        steps: dict[str, list[Any]] = {
            name: [] for name in ("observation", "action", "reward", "next_observation", "terminated",
                                  "truncated", "time")
        }  # fmt: skip
        levels = {name: series for name, series in flags.items() if not all(series.values)}
        over = False
        for at, (tick, following) in enumerate(itertools.pairwise(ticks)):
            started = any(any(one.within(tick.time, following.time)) for one in flags.values())
            # The next episode begins with a command, and not while the end of the last one is said.
            said = started or any(one.newest(tick.time) for one in levels.values())
            over = over and (said or not tick.new)
            if over or tick.action is None or tick.before is None:
                continue
            until = following.time
            if following.action is None:
                # What ends an episode also ends the commands, and may be recorded after them.
                more = ticks[at + 2].time if at + 2 < len(ticks) else np.inf
                until = min(more, until + max(self.plan.timeout, LOOSE / self.plan.rate))
            ends = {name: any(one.within(tick.time, until)) for name, one in flags.items()}
            over = any(ends.values())
            after, terminated = following.after, ends.get("terminated", False)
            if after is None and not terminated:
                continue
            steps["observation"].append(tick.before)
            steps["action"].append(tick.action)
            steps["reward"].append(rewarded(tick.time, following.time))
            steps["next_observation"].append(tick.before if after is None else after)
            steps["terminated"].append(terminated)
            steps["truncated"].append(ends.get("truncated", False) and not terminated)
            steps["time"].append(tick.time)
        return steps


def _take(
    series: Series, reading: Reading, one: Received, error_of: Callable[[float, str, object], UsageError]
) -> None:
    try:
        numbers = reading.numbers(one.message)
    except (UnusableError, AttributeError) as error:
        raise error_of(one.time, one.topic, error) from None
    is_flag = reading.where in ("log.terminated", "log.truncated")
    series.add(one.time, bool(numbers[0]) if is_flag else numbers)


def _delay(one: Received, start: int) -> float | None:
    """Return how old the stamp of a message was when it was recorded."""
    stamp = getattr(getattr(one.message, "header", None), "stamp", None)
    if stamp is None or (stamp.sec, stamp.nanosec) == (0, 0):
        return None
    return one.time + 1e-9 * start - (stamp.sec + 1e-9 * stamp.nanosec)
