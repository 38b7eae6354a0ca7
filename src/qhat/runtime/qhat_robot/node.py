"""The ROS 2 node: subscribes to messages and publishes commands. The decisions are in other files."""

# rclpy and the messages come with ROS 2.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from .control import Control, Orders, Output, warnings_of
from .fields import fields_of_class, message_class
from .frames import Goals
from .qhat_runtime import Policy
from .safety import safety
from .task import Task, UnusableError, goal_of

NAME = __package__ or "qhat_robot"
POLICY = Path(__file__).parent / "policy"
MAP = Path(__file__).parent / "map.yaml"
WATCH = 0.05
"""Seconds between two checks: a late sensor stops the robot after its timeout and at most this time."""
SETTLE = 1.0
"""Seconds for which a robot that was stopped gets the stop; afterwards other nodes may drive it."""
PLAIN = ("foxy", "galactic", "humble", "iron")
"""Distributions of ROS 2 whose robots take Twist; the robots of later ones take TwistStamped."""
TWISTS = ("geometry_msgs/Twist", "geometry_msgs/TwistStamped")


class Drive(Node):
    """Runs the policy."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._control, settings = self._read_control()
        self._stamped = _as_word(settings["stamped"])
        self._base_frame = settings["base_frame"]
        if self._stamped not in ("auto", "true", "false", "map"):
            raise UnusableError(f"parameter stamped is '{self._stamped}'; expected auto, true or false.")
        self._said, self._moving = "", False
        # Simulated time may stand still or run slowly; a robot's system clock may jump. The attribute
        # `_clock` is rclpy's: the clock of stamps.
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._watch_clock = self.get_clock() if simulated else Clock(clock_type=ClockType.STEADY_TIME)
        self._busy_since = -math.inf
        self._out = [self._publisher(one) for one in self._control.outputs]
        for one in self._control.inputs:
            receive = functools.partial(self._on_message, one.name)
            self.create_subscription(message_class(one.type), one.topic, receive, _quality(one.latched))
        self._goals = Goals(self, self._control)
        if self._control.goal_topic is not None:
            self.create_subscription(PoseStamped, self._control.goal_topic, self._on_goal, 1)
            self.create_service(Trigger, "~/cancel", self._on_stop)
            self._busy_since = self._now()
            goal = goal_of(settings["goal"])
            if goal is not None:
                self._goals.take("", *goal, self._now())
        else:
            self.create_service(Trigger, "~/start", self._on_start)
            self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_timer(1.0 / settings["rate"], self._drive, clock=self._watch_clock)
        self.create_timer(WATCH, self._watch, clock=self._watch_clock)
        for words in (*warnings_of(settings["rate"], self._control.seconds), *self._control.warnings):
            self.get_logger().warning(words)

    def stop(self) -> None:
        """Publish what makes the robot stand."""
        self._publish(self._control.standing())
        self._moving = False

    def leave(self) -> None:
        """Make the robot stand before the node ends, unless others drive it."""
        if self._moving or not self._control.is_idle or self._now() - self._busy_since <= SETTLE:
            self.stop()

    def _read_control(self) -> tuple[Control, dict[str, Any]]:
        """Return the decisions of this package, and the parameters."""
        if MAP.exists():
            from .facts import Facts
            from .mapped import MappedControl
            from .mapping import RobotMap

            about = Policy.load(POLICY).about
            facts = Facts.of(about)
            plan = RobotMap.read(MAP.read_text(encoding="utf-8"), facts, fields_of_class)
            more = {"start": False} if plan.goal is None else {"goal": ""}
            settings = self._read_parameters(
                {"rate": plan.rate, "stamped": "map", "base_frame": "base_link", **more}
            )
            if not (math.isfinite(settings["rate"]) and settings["rate"] > 0):
                raise UnusableError(f"parameter rate is {settings['rate']}; expected more than 0.")
            policy = Policy.load(POLICY, beyond=plan.beyond)
            return MappedControl(plan, facts, policy, safety, settings.get("start", False)), settings
        from .turtlebot3 import TurtleBot3, parameters_of

        task = Task.read(POLICY / "task.json")
        settings = self._read_parameters(parameters_of(task))
        return TurtleBot3(task, Policy.load(POLICY), settings, safety), settings

    def _read_parameters(self, defaults: dict[str, Any]) -> dict[str, Any]:
        for name, default in defaults.items():
            # `stamped: true` in a file is a bool, and `auto` a text.
            self.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=name == "stamped"))
        return {name: self.get_parameter(name).value for name in defaults}

    def _publisher(self, output: Output) -> tuple[Output, str, Any]:
        kind = output.type
        if kind in TWISTS:
            word = output.stamped if self._stamped == "map" else self._stamped
            kind = TWISTS[is_stamped(word, os.environ.get("ROS_DISTRO", ""))]
        return output, kind, self.create_publisher(message_class(kind), output.topic, 10)

    def _on_message(self, name: str, message: Any) -> None:
        self._control.see(name, message, self._now(), self._delay(message))

    def _delay(self, message: Any) -> float | None:
        """Return how old the stamp of a message is."""
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        if stamp is None or (stamp.sec, stamp.nanosec) == (0, 0):
            return None
        return self.get_clock().now().nanoseconds * 1e-9 - (stamp.sec + 1e-9 * stamp.nanosec)

    def _on_goal(self, message: Any) -> None:
        place = message.pose.position
        self._goals.take(message.header.frame_id, place.x, place.y, self._now())

    def _on_start(self, request: Any, response: Any) -> Any:
        """Let the policy act."""
        response.success, response.message = True, self._control.start()
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        """Stop; the robot gets the stop before the service call returns."""
        self._goals.forget()
        response.success = self._control.cancel()
        nothing = "there is no goal to cancel" if self._control.goal_topic else "it has not been started"
        response.message = self._control.why if response.success else nothing
        if response.success:
            self.stop()
            self._say()
        return response

    def _drive(self) -> None:
        """Take one action of the policy; called every period."""
        self._goals.update(self._now())
        orders = self._control.decide(self._now())
        if orders is None:
            self._stand()
        else:
            self._publish(orders)
            self._moving = True
        self._say()

    def _watch(self) -> None:
        """Stop the robot if there is no reason to move; called more often than `_drive`."""
        self._goals.update(self._now())
        if not self._control.is_idle:
            self._busy_since = self._now()
        if not self._control.watch(self._now()) and self._moving:
            self._stand()
            self._say()

    def _stand(self) -> None:
        idle = self._control.is_idle and self._now() - self._busy_since > SETTLE
        if self._moving or not idle:
            self.stop()

    def _publish(self, orders: Orders) -> None:
        for (output, kind, publisher), writes in zip(self._out, orders):  # noqa: B905 - Python 3.9
            if writes is None:
                continue
            message = message_class(kind)()
            header = getattr(message, "header", None)
            if header is not None and output.stamp:
                header.stamp = self.get_clock().now().to_msg()
                header.frame_id = output.frame or (self._base_frame if kind in TWISTS else "")
            inner = message.twist if kind == TWISTS[1] and output.type == TWISTS[0] else message
            if kind == TWISTS[0] and output.type == TWISTS[1]:
                # The map's paths begin with `twist`.
                inner = _Under(twist=message)
            for path, value in writes:
                path.write(inner, value)
            publisher.publish(message)

    def _say(self) -> None:
        """Log why the robot stands or drives, each time that it changes."""
        words = self._control.why
        kind = words.split(" (", maxsplit=1)[0]
        if kind != self._said:
            self._said = kind
            quiet = words.startswith(("waiting", "goal reached", "goal cancelled", "stopped"))
            quiet = quiet or words == "driving"
            does = words.startswith(("goal", "turning", "driving"))
            logger = self.get_logger()
            (logger.info if quiet else logger.warning)(words if quiet or does else f"standing: {words}")

    def _now(self) -> float:
        return self._watch_clock.now().nanoseconds * 1e-9


class _Under:
    """A Twist where a TwistStamped has it."""

    def __init__(self, twist: Any):
        self.twist = twist

    def get_fields_and_field_types(self) -> dict[str, str]:
        return {"twist": "geometry_msgs/Twist"}


def is_stamped(word: str, distribution: str) -> bool:
    """Return whether a velocity is published as TwistStamped.

    Args:
        word: true, false or auto.
        distribution: of ROS 2; without a name, Twist.
    """
    if word != "auto":
        return word == "true"
    return bool(distribution) and distribution.lower() not in PLAIN


def _as_word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quality(latched: bool) -> QoSProfile:
    """Return the quality of a subscription: the newest message, from reliable and other publishers."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE if latched else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def main(words: list[str] | None = None) -> None:
    """Drive until a signal arrives. However the node ends, the robot is stopped first."""
    # rclpy's handlers would end the context at once, before the stop can be published.
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    signalled: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signalled.append(number))
    node = None
    try:
        node = Drive()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not signalled and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)
    except UnusableError as fault:
        sys.exit(f"{NAME}: {fault}")
    finally:
        if node is not None:
            if rclpy.ok():
                node.leave()
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()


if __name__ == "__main__":
    main()
