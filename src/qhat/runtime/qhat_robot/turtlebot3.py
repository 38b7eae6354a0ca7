"""The TurtleBot3: the driver behind the interface of the node, with its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .body import body_of
from .control import Control, Input, Orders, Output, Settings
from .driver import Driver
from .fields import FieldPath
from .scan import Look, ScanReader
from .task import STOP, Command, Pose, Task, UnusableError

AHEAD, TURN = FieldPath.read("linear.x"), FieldPath.read("angular.z")


def parameters_of(task: Task) -> dict[str, Any]:
    """Return the node's parameters with their defaults."""
    return {
        "scan_topic": "scan", "odom_topic": "odom", "cmd_vel_topic": "cmd_vel", "goal_topic": "goal_pose",
        "stamped": "auto", "base_frame": "base_link", "rate": 1.0 / task.seconds, "sensor_timeout": 0.5,
        "goal": "", "goal_tolerance": task.reached, "robot": "burger", "robot_radius": 0.0,
        "stop_distance": 0.0, "give_up": 30.0, "scan_yaw": 0.0, "zero_is_far": False,
    }  # fmt: skip


def require_sound(settings: Settings) -> None:
    """Raise `UnusableError` for parameters that have no meaning."""
    for name in ("rate", "sensor_timeout", "goal_tolerance", "give_up"):
        if not (math.isfinite(settings[name]) and settings[name] > 0):
            raise UnusableError(f"parameter {name} is {settings[name]}; expected more than 0.")
    for name in ("scan_yaw", "stop_distance"):
        if not math.isfinite(settings[name]):
            raise UnusableError(f"parameter {name} is {settings[name]}; expected a finite number.")


class TurtleBot3(Control):
    """Drives to goals, and stops before obstacles."""

    def __init__(
        self,
        task: Task,
        policy: Any,
        settings: Settings,
        safety: Callable[[Command, Look, Pose], Command],
    ):
        require_sound(settings)
        body = body_of(settings["robot"], settings["robot_radius"])
        self.driver = Driver(
            task,
            policy,
            ScanReader(task, settings["scan_yaw"], settings["zero_is_far"]),
            timeout=settings["sensor_timeout"],
            tolerance=settings["goal_tolerance"],
            stop_distance=settings["stop_distance"],
            safety=safety,
            body=body,
            give_up=settings["give_up"],
        )
        self.seconds, self.frame = task.seconds, ""
        self.goal_topic = settings["goal_topic"]
        self.inputs = [
            Input("scan", settings["scan_topic"], "sensor_msgs/LaserScan"),
            Input("odometry", settings["odom_topic"], "nav_msgs/Odometry"),
        ]
        self.outputs = [Output(settings["cmd_vel_topic"], "geometry_msgs/Twist", "auto")]
        distance, needed = self.driver.stop_distance, body.stop_distance(task.speed)
        if distance < needed:
            self.warnings = [
                f"stop_distance is {distance:g} m; a {body.name} at {task.speed:g} m/s needs {needed:g} m,"
                " and may touch obstacles. 0.0 sets the distance that it needs."
            ]

    @property
    def goal(self) -> tuple[float, float] | None:
        return self.driver.goal

    @property
    def why(self) -> str:
        return self.driver.why

    def see(self, name: str, message: Any, now: float, delay: float | None) -> None:
        if name == "scan":
            self.driver.see_scan(message, now)
        else:
            self.frame = message.header.frame_id
            self.driver.see_odometry(message, now)

    def decide(self, now: float) -> Orders | None:
        command = self.driver.decide(now)
        return None if command == STOP else _orders(command)

    def watch(self, now: float) -> bool:
        return self.driver.watch(now)

    def standing(self) -> Orders:
        return _orders(STOP)

    @property
    def is_idle(self) -> bool:
        return self.driver.goal is None

    def set_goal(self, x: float, y: float) -> None:
        self.driver.set_goal(x, y)

    def move_goal(self, x: float, y: float) -> None:
        self.driver.move_goal(x, y)

    def start(self) -> str:
        return f"it starts with a goal on {self.goal_topic}"

    def cancel(self) -> bool:
        return self.driver.cancel()


def _orders(command: Command) -> Orders:
    return [[(AHEAD, command.linear), (TURN, command.angular)]]
