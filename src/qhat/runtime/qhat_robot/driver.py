"""Chooses the velocity: the policy's action, unless a sensor is late or an obstacle is too near."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .body import ROBOTS, Body, Guard
from .recovery import Recovery
from .scan import Look, ScanReader, observation_of
from .surroundings import Surroundings
from .task import STOP, Command, Pose, Task, UnusableError, pose_of, wrap

WAIT = 0.5
"""Seconds for which the robot stands if an obstacle beside it approaches by itself."""
LONGER = 5.0
"""The same, if that obstacle is in the circle in which the robot turns."""
PROGRESS = 0.1
"""The robot is not stuck if it comes nearer to the goal than ever before by this many metres."""


class Driver:
    """Decides the velocity from the newest messages. Every `now` is of one clock, which never jumps.

    Args:
        policy: `act(observation)` returns the number of an action, from 0; `reset()` clears its frames
            or its memory.
        timeout: largest age of the newest usable scan and of the newest odometry.
        tolerance: distance at which a goal is reached.
        stop_distance: distance from the lidar at which an obstacle straight ahead stops the robot; 0 or
            `None` is the distance that it needs at its speed; a negative number never stops it.
        safety: filter for every velocity; its result is checked too.
        body: the robot's outline.
        give_up: seconds without progress after a near-stop, after which the goal is given up.
    """

    def __init__(
        self,
        task: Task,
        policy: Any,
        scans: ScanReader,
        timeout: float = 0.5,
        tolerance: float | None = None,
        stop_distance: float | None = None,
        safety: Callable[[Command, Look, Pose], Command] = lambda command, look, pose: command,
        body: Body = ROBOTS["burger"],
        give_up: float = 30.0,
    ):
        self.task, self.timeout, self.give_up = task, timeout, give_up
        self.tolerance = task.reached if tolerance is None else tolerance
        self.stop_distance = stop_distance or body.stop_distance(task.speed)
        self.goal: tuple[float, float] | None = None
        self.why = "waiting for a goal"
        """What the robot does, or why it stands."""
        self._policy, self._scans, self._safety = policy, scans, safety
        self._guard = Guard(body, self.stop_distance, task.speed) if self.stop_distance > 0.0 else None
        self._around = Surroundings(body)
        self._scan: tuple[float, Look] | None = None
        self._pose: tuple[float, Pose] | None = None
        self._stamps: dict[str, Any] = {}
        self._faults: dict[str, Any] = {}
        self._command, self._recovery = STOP, None
        self._best, self._stuck_since = math.inf, None

    _recovery: Recovery | None
    _stuck_since: float | None

    def set_goal(self, x: float, y: float) -> None:
        """Set the goal. Raises `UnusableError` for numbers that are not a position."""
        if not (math.isfinite(x) and math.isfinite(y)):
            raise UnusableError(f"the goal is ({x}, {y}); expected finite numbers, in metres.")
        goal = (float(x), float(y))
        if goal != self.goal:
            # Some planners repeat the same goal; that is no progress.
            self._best, self._stuck_since = math.inf, None
            self._policy.reset()
        self.goal = goal

    def move_goal(self, x: float, y: float) -> None:
        """Correct the place of the goal, which is fixed in a frame that moves against the odometry's."""
        if self.goal is not None and math.isfinite(x) and math.isfinite(y):
            self.goal = (float(x), float(y))

    def cancel(self, reason: str = "goal cancelled") -> bool:
        """Drop the goal; return whether there was one."""
        had = self.goal is not None
        self.goal, self._command, self._recovery = None, STOP, None
        if had:
            self.why = reason
            self._policy.reset()
        return had

    def see_scan(self, message: Any, now: float) -> None:
        """Process a LaserScan."""
        if self._is_new("scan", message):
            try:
                look = self._scans.read(message)
                self._scan = (now, look)
                self._around.see(look, now)
                self._faults.pop("scan", None)
            except UnusableError as fault:
                # An unusable scan is ignored; if none is usable for long, the scan counts as late.
                self._faults["scan"] = str(fault)

    def see_odometry(self, message: Any, now: float) -> None:
        """Process an Odometry."""
        if self._is_new("odometry", message):
            try:
                self._pose = (now, pose_of(message))
                self._around.see_pose(self._pose[1], now)
                self._faults.pop("odometry", None)
            except UnusableError as fault:
                self._faults["odometry"] = str(fault)

    def must_stop(self, now: float) -> str | None:
        """Return why the robot must stop, or `None`. A reached goal is dropped."""
        return self._unready(now) or self._too_near(self._command, now)

    def watch(self, now: float) -> bool:
        """Return whether the robot may continue, between two decisions."""
        reason = self._unready(now)
        if reason is None:
            reason = self._too_near(self._command, now)
            if reason is not None:
                self._recover(reason, now)
        if reason is not None:
            self._stop(reason)
        return reason is None

    def decide(self, now: float) -> Command:
        """Return the velocity now; zero if anything raises."""
        reason = self._unready(now)
        if reason is not None or self._scan is None or self._pose is None or self.goal is None:
            self._recovery = None
            return self._stop(reason or self.why)
        look, pose = self._scan[1], self._pose[1]
        try:
            if self._is_stuck(pose, now):
                why = self._recovery.reason if self._recovery is not None else self.why
                self.cancel(f"goal given up (not nearer to it in {self.give_up:g} s: {why})")
                return STOP
            command = self._way_out(pose, now)
            if command is None:
                command = self._choose(observation_of(look, pose, self.goal, self.task))
                self.why = "driving"
            command = self._safety(command, look, pose)
            if not (math.isfinite(command.linear) and math.isfinite(command.angular)):
                raise UnusableError(f"the command is {command}; expected finite numbers.")
            near = self._too_near(command, now)
            if near is not None:
                self._recover(near, now)
                return self._stop(near)
        except Exception as error:
            return self._stop(f"the policy gave no action: {error}")
        self._command = command
        return command

    def _choose(self, observation: np.ndarray) -> Command:
        action = int(self._policy.act(observation))
        first, turns = self.task.first, self.task.turns
        if not first <= action < first + len(turns):
            raise UnusableError(f"action {action}; expected {first} to {first + len(turns) - 1}.")
        return Command(self.task.speed, turns[action - first])

    def _stop(self, reason: str) -> Command:
        self.why, self._command = reason, STOP
        self._policy.reset()
        return STOP

    def _unready(self, now: float) -> str | None:
        """Return why the robot cannot drive at any velocity."""
        if self.goal is None:
            return self.why if self.why.startswith("goal ") else "waiting for a goal"
        if self._scan is None or now - self._scan[0] > self.timeout:
            return self._late("scan", self._scan, now)
        if self._pose is None or now - self._pose[0] > self.timeout:
            return self._late("odometry", self._pose, now)
        pose = self._pose[1]
        distance = math.hypot(self.goal[0] - pose.x, self.goal[1] - pose.y)
        if distance < self.tolerance:
            reason = f"goal reached ({distance:.2f} m away)"
            self.cancel(reason)
            return reason
        return None

    def _too_near(self, command: Command, now: float) -> str | None:
        """Return a sentence about the obstacle to which a velocity comes too near, or `None`."""
        if self._guard is None or command == STOP:
            return None
        places, unknown = self._around.around()
        if now - self._around.approached < (LONGER if self._guard.is_crowded(places) else WAIT):
            return "something is too near (it comes nearer by itself)"
        worst = self._guard.refuses(places, command)
        if worst is None:
            return None
        x, y = places[worst] - np.array([self._guard.body.lidar, 0.0])
        angle = math.degrees(math.atan2(y, x))
        where = (
            "straight ahead"
            if abs(angle) < 1
            else f"{abs(angle):.0f}° to the {'left' if angle > 0 else 'right'}"
        )
        if unknown[worst]:
            return (
                f"something is too near (no measurement {where}, and nothing beside it shows that the way"
                " is free; where the lidar says 0.0 for 'nothing seen', set zero_is_far)"
            )
        limit = f"stop_distance {self.stop_distance:g} m"
        return f"something is too near ({math.hypot(x, y):.2f} m from the lidar, {where}; {limit})"

    def _recover(self, reason: str, now: float) -> None:
        """Start to look for a way out; a recovery that runs already continues from a stand."""
        if self._guard is not None and self._recovery is None:
            self._recovery = Recovery(self._guard, self.task.speed, reason, now)
        if self._stuck_since is None:
            self._stuck_since = now

    def _way_out(self, pose: Pose, now: float) -> Command | None:
        if self._recovery is None or self.goal is None:
            return None
        toward = wrap(math.atan2(self.goal[1] - pose.y, self.goal[0] - pose.x) - pose.yaw)
        step = self._recovery.step(self._around.around()[0], pose, toward, now)
        if step is None:
            self._recovery = None
            return None
        does, command = step
        self.why = f"{does}: {self._recovery.reason}" if does != "standing" else self._recovery.reason
        return command

    def _is_stuck(self, pose: Pose, now: float) -> bool:
        if self.goal is None:
            return False
        distance = math.hypot(self.goal[0] - pose.x, self.goal[1] - pose.y)
        if distance < self._best - PROGRESS:
            self._best, self._stuck_since = distance, None
        return self._stuck_since is not None and now - self._stuck_since > self.give_up

    def _late(self, name: str, newest: tuple[float, Any] | None, now: float) -> str:
        age = "none yet" if newest is None else f"{now - newest[0]:.2f} s old"
        fault = f": {self._faults[name]}" if name in self._faults else ""
        return f"the {name} is late ({age}, limit {self.timeout:.2f} s){fault}"

    def _is_new(self, name: str, message: Any) -> bool:
        """Return whether a message is new; a driver that hangs may repeat the last one forever."""
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        repeated = stamp != (0, 0) and self._stamps.get(name) == stamp
        self._stamps[name] = stamp
        return not repeated
