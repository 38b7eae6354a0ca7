"""The ROS 2 node: subscribes to messages and publishes velocities. Decisions are in logic.py."""

# rclpy and the messages come with ROS 2.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import LaserScan
from std_srvs.srv import Trigger

from .logic import STOP, Command, Driver, Look, Pose, ScanReader, Task, UnusableError, body_of, goal_of
from .qhat_runtime import Policy

POLICY = Path(__file__).parent / "policy"
WATCH = 0.05
"""Seconds between two checks: a late sensor stops the robot after its timeout and at most this time."""
SETTLE = 1.0
"""Seconds of zero velocity sent to a robot without a goal; afterwards other nodes may drive it."""


def safety(command: Command, look: Look, pose: Pose) -> Command:
    """Filter a velocity command before it is published: put your own filter here."""
    return command


class Drive(Node):
    """Drives to a goal in the frame of the odometry."""

    def __init__(self) -> None:
        super().__init__("qhat_turtlebot3")
        task = Task.read(POLICY / "task.json")
        settings = self._read_parameters(task)
        body = body_of(settings["robot"], settings["robot_radius"])
        self._driver = Driver(
            task,
            Policy.load(POLICY),
            ScanReader(task, settings["scan_yaw"], settings["zero_is_far"]),
            timeout=settings["sensor_timeout"],
            tolerance=settings["goal_tolerance"],
            stop_distance=settings["stop_distance"],
            safety=safety,
            body=body,
            give_up=settings["give_up"],
        )
        self._stamped, self._frame = settings["stamped"], ""
        self._said, self._moving = "", False
        # Simulated time may stand still or run slowly; a robot's system clock may jump.
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._clock = self.get_clock() if simulated else Clock(clock_type=ClockType.STEADY_TIME)
        self._goal_since = self._now()
        kind = TwistStamped if self._stamped else Twist
        self._wheels = self.create_publisher(kind, settings["cmd_vel_topic"], 10)
        self.create_subscription(LaserScan, settings["scan_topic"], self._on_scan, qos_profile_sensor_data)
        self.create_subscription(
            Odometry, settings["odom_topic"], self._on_odometry, qos_profile_sensor_data
        )
        self.create_subscription(PoseStamped, settings["goal_topic"], self._on_goal, 1)
        self.create_service(Trigger, "~/cancel", self._on_cancel)
        self.create_timer(1.0 / settings["rate"], self._drive, clock=self._clock)
        self.create_timer(WATCH, self._watch, clock=self._clock)
        goal = goal_of(settings["goal"])
        if goal is not None:
            self._driver.set_goal(*goal)
        trained = 1.0 / task.seconds
        if abs(settings["rate"] - trained) > 0.01 * trained:
            self.get_logger().warning(
                f"rate is {settings['rate']:g} Hz; the policy was trained at {trained:g} Hz only."
            )
        distance, needed = self._driver.stop_distance, body.stop_distance(task.speed)
        if distance < needed:
            self.get_logger().warning(
                f"stop_distance is {distance:g} m; a {body.name} at {task.speed:g} m/s needs {needed:g} m,"
                " and may touch obstacles. 0.0 sets the distance that it needs."
            )

    def stop(self) -> None:
        """Publish a velocity of zero."""
        self._publish(STOP)
        self._moving = False

    def _read_parameters(self, task: Task) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "scan_topic": "scan", "odom_topic": "odom", "cmd_vel_topic": "cmd_vel",
            "goal_topic": "goal_pose", "stamped": False, "rate": 1.0 / task.seconds, "sensor_timeout": 0.5,
            "goal": "", "goal_tolerance": task.reached, "robot": "burger", "robot_radius": 0.0,
            "stop_distance": 0.0, "give_up": 30.0, "scan_yaw": 0.0, "zero_is_far": False,
        }  # fmt: skip
        settings = {}
        for name, default in defaults.items():
            self.declare_parameter(name, default)
            settings[name] = self.get_parameter(name).value
        for name in ("rate", "sensor_timeout", "goal_tolerance", "give_up"):
            if not (math.isfinite(settings[name]) and settings[name] > 0):
                raise UnusableError(f"parameter {name} is {settings[name]}; expected more than 0.")
        for name in ("scan_yaw", "stop_distance"):
            if not math.isfinite(settings[name]):
                raise UnusableError(f"parameter {name} is {settings[name]}; expected a finite number.")
        return settings

    def _on_scan(self, message: Any) -> None:
        self._driver.see_scan(message, self._now())

    def _on_odometry(self, message: Any) -> None:
        self._frame = message.header.frame_id
        self._driver.see_odometry(message, self._now())

    def _on_goal(self, message: Any) -> None:
        frame, place = message.header.frame_id, message.pose.position
        if frame and self._frame and frame != self._frame:
            self.get_logger().error(
                f"the goal is in frame '{frame}' and the odometry in '{self._frame}'; expected the"
                " odometry's (RViz: Global Options, Fixed Frame). The goal is ignored."
            )
            return
        try:
            self._driver.set_goal(place.x, place.y)
        except UnusableError as fault:
            self.get_logger().error(f"{fault} The goal is ignored.")

    def _on_cancel(self, request: Any, response: Any) -> Any:
        """Drop the goal; the robot stops before the service call returns."""
        response.success = self._driver.cancel()
        response.message = self._driver.why if response.success else "there is no goal to cancel"
        if response.success:
            self.stop()
            self._say()
        return response

    def _drive(self) -> None:
        """Take one action of the policy; called every period."""
        command = self._driver.decide(self._now())
        if command != STOP:
            self._publish(command)
            self._moving = True
        else:
            self._stand()
        self._say()

    def _watch(self) -> None:
        """Stop the robot if there is no reason to move; called more often than `_drive`."""
        if self._driver.goal is not None:
            self._goal_since = self._now()
        if not self._driver.watch(self._now()) and self._moving:
            self._stand()
            self._say()

    def _stand(self) -> None:
        idle = self._driver.goal is None and self._now() - self._goal_since > SETTLE
        if self._moving or not idle:
            self.stop()

    def _publish(self, command: Command) -> None:
        message = TwistStamped() if self._stamped else Twist()
        if self._stamped:
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = "base_link"
        twist = message.twist if self._stamped else message
        twist.linear.x, twist.angular.z = command.linear, command.angular
        self._wheels.publish(message)

    def _say(self) -> None:
        """Log why the robot stands or drives, each time that it changes."""
        words = self._driver.why
        kind = words.split(" (", maxsplit=1)[0]
        if kind != self._said:
            self._said = kind
            quiet = words.startswith(("waiting", "goal reached", "goal cancelled")) or words == "driving"
            does = words.startswith(("goal", "turning", "driving"))
            logger = self.get_logger()
            (logger.info if quiet else logger.warning)(words if quiet or does else f"standing: {words}")

    def _now(self) -> float:
        return self._clock.now().nanoseconds * 1e-9


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
        sys.exit(f"qhat_turtlebot3: {fault}")
    finally:
        if node is not None:
            if rclpy.ok():
                node.stop()
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()


if __name__ == "__main__":
    main()
