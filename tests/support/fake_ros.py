"""The parts of rclpy and of the messages that the exported node uses; tests move the time.

What a test cannot know from here: whether ROS 2 itself behaves like this. Names and arguments are those of
rclpy in Humble and later.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ros_messages import known, message_type

EPOCH = 1_000_000.0
"""The system's time when the steady clock was 0: they are different clocks."""
RCLPY = {
    "_allow_undeclared_parameters", "_clients", "_clock", "_context", "_default_callback_group",
    "_descriptors", "_guards",
    "_logger", "_parameter_overrides", "_parameters", "_publishers", "_rate_group", "_services",
    "_subscriptions", "_time_source", "_timers", "clients", "context", "executor", "guards", "handle",
    "publishers", "services", "subscriptions", "timers", "waitables",
}  # fmt: skip
"""Attributes of rclpy's Node, which a node may not replace."""


class Message:
    """A message with some fields; parts of it are messages too."""

    def __init__(self, **fields: Any):
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no field '{name}'")


def LaserScan(ranges: Any, stamp: float, **other: Any) -> Any:  # noqa: N802 - as the message's constructor
    """A scan all around, as a LDS-01's driver publishes it."""
    step = 2 * math.pi / len(ranges)
    scan = message_type("sensor_msgs/LaserScan")(
        ranges=[float(one) for one in ranges],
        angle_increment=step,
        angle_max=(len(ranges) - 1) * step,
        range_min=0.12,
        range_max=3.5,
        **other,
    )
    scan.header.stamp = _stamp(stamp)
    return scan


def Odometry(x: float, y: float, yaw: float, stamp: float, frame: str = "odom") -> Any:  # noqa: N802
    """A pose on the floor."""
    odometry = message_type("nav_msgs/Odometry")()
    pose = odometry.pose.pose
    pose.position.x, pose.position.y = float(x), float(y)
    pose.orientation.z, pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    odometry.header.stamp, odometry.header.frame_id = _stamp(stamp), frame
    return odometry


def PoseStamped(x: float, y: float, frame: str) -> Any:  # noqa: N802
    """A goal."""
    goal = message_type("geometry_msgs/PoseStamped")()
    goal.pose.position.x, goal.pose.position.y, goal.header.frame_id = x, y, frame
    return goal


class Trigger:
    """The service of std_srvs: an empty request; success and a message as response."""

    class Request(Message):
        pass

    class Response(Message):
        def __init__(self):
            super().__init__(success=False, message="")


def _stamp(seconds: float) -> Any:
    return message_type("builtin_interfaces/Time")(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


class Ros:
    """The middleware, the clock and the log of one test."""

    def __init__(self, parameters: Mapping[str, Any], tf: Any = None):
        self.parameters, self.tf = dict(parameters), tf
        self.now, self.running = 0.0, False
        self.subscriptions: dict[str, tuple[type, Callable[[Any], None]]] = {}
        self.qualities: dict[str, Any] = {}
        self.services: dict[str, tuple[type, Callable[[Any, Any], Any]]] = {}
        self.timers: list[tuple[float, Callable[[], None], Any]] = []
        self.sent: dict[str, list[tuple[float, Any]]] = {}
        self.said: list[tuple[str, str]] = []
        self.spinning: Callable[[], None] = lambda: None

    def send(self, topic: str, message: Any) -> None:
        kind, receive = self.subscriptions[topic]
        assert type(message) is kind, topic
        receive(message)

    def call(self, service: str) -> Any:
        """Call a service with an empty request."""
        kind, serve = self.services[service]
        answer = serve(kind.Request(), kind.Response())
        assert type(answer) is kind.Response, service
        return answer

    def pass_time(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time pass, and the timers with it; messages come every tenth of a second."""
        for _ in range(round(seconds * 100)):
            before, self.now = self.now, round(self.now + 0.01, 6)
            if int(self.now * 10 + 1e-6) > int(before * 10 + 1e-6):
                meanwhile()
            for period, call, _ in self.timers:
                if int(self.now / period + 1e-6) > int(before / period + 1e-6):
                    call()

    def velocities(self, topic: str) -> list[tuple[float, float, float]]:
        """Return the time, the speed ahead and the turning rate of every velocity."""
        twists = [(when, getattr(sent, "twist", sent)) for when, sent in self.sent[topic]]
        return [(when, twist.linear.x, twist.angular.z) for when, twist in twists]


def install(ros: Ros, monkeypatch: Any) -> None:
    """Make `import rclpy` find this fake."""
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    parts: dict[str, dict[str, Any]] = {
        "rclpy": {"init": _init(ros), "ok": lambda: ros.running, "shutdown": lambda: _set(ros, False)},
        "rclpy.clock": {"Clock": _clock(ros), "ClockType": Message(STEADY_TIME="steady")},
        "rclpy.executors": {"SingleThreadedExecutor": _executor(ros)},
        "rclpy.node": {"Node": _node(ros)},
        "rclpy.qos": {
            "QoSProfile": Message,
            "HistoryPolicy": Message(KEEP_LAST="keep last"),
            "ReliabilityPolicy": Message(RELIABLE="reliable", BEST_EFFORT="best effort"),
            "DurabilityPolicy": Message(VOLATILE="volatile", TRANSIENT_LOCAL="transient local"),
        },
        "rcl_interfaces.msg": {"ParameterDescriptor": Message},
        "rclpy.signals": {"SignalHandlerOptions": Message(NO="no")},
        "rclpy.time": {"Time": Message},
        "std_srvs.srv": {"Trigger": Trigger},
    }
    if ros.tf is not None:
        parts["tf2_ros"] = {
            "Buffer": lambda: ros.tf,
            "TransformListener": lambda buffer, node: Message(),
            "TransformException": LookupError,
        }  # fmt: skip
    for name in sorted({part for whole in parts for part in (whole.partition(".")[0], whole)}):
        module = types.ModuleType(name)
        module.__dict__.update(parts.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    for name in known():
        package, _, kind = name.partition("/")
        for part in (package, f"{package}.msg"):
            if part not in sys.modules or not isinstance(sys.modules[part], types.ModuleType):
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        monkeypatch.setattr(sys.modules[f"{package}.msg"], kind, message_type(name), raising=False)


def imported(package: Path, monkeypatch: Any, name: str = "qhat_turtlebot3") -> Any:
    """Import the node of a package in a folder, or of an installed one."""
    monkeypatch.syspath_prepend(str(package))
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    return importlib.import_module(f"{name}.node")


def _set(ros: Ros, running: bool) -> None:
    assert ros.running != running, "begun, or ended, twice"
    ros.running = running


def _init(ros: Ros) -> Callable[..., None]:
    def init(*, args: Any, signal_handler_options: Any) -> None:
        assert signal_handler_options == "no", "rclpy's handlers end the context before the robot stands"
        _set(ros, True)

    return init


def _clock(ros: Ros) -> type:
    class Clock:
        def __init__(self, *, clock_type: str = "ros"):
            self.kind = clock_type

        def now(self) -> Any:
            now = ros.now + (EPOCH if self.kind == "ros" else 0.0)
            return Message(nanoseconds=round(now * 1e9), to_msg=lambda: _stamp(now))

    return Clock


def _executor(ros: Ros) -> type:
    class SingleThreadedExecutor:
        def add_node(self, node: Any) -> None:
            self.node = node

        def spin_once(self, *, timeout_sec: float) -> None:
            ros.spinning()

    return SingleThreadedExecutor


def _node(ros: Ros) -> type:
    clock = _clock(ros)

    class Node:
        def __init__(self, name: str):
            assert ros.running, "rclpy.init() comes first"
            self.name, self._parameters = name, {"use_sim_time": False}
            self._parameters.update({k: v for k, v in ros.parameters.items() if k == "use_sim_time"})
            self._clock = clock()

        def __setattr__(self, name: str, value: Any) -> None:
            assert name not in RCLPY or not hasattr(self, name), f"{name} belongs to rclpy's Node"
            object.__setattr__(self, name, value)

        def declare_parameter(self, name: str, value: Any, descriptor: Any) -> None:
            given = ros.parameters.get(name, value)
            assert descriptor.dynamic_typing or type(given) is type(value), f"{name} is {given!r}"
            self._parameters[name] = given

        def get_parameter(self, name: str) -> Any:
            return Message(value=self._parameters[name])

        def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
            ros.subscriptions[topic], ros.qualities[topic] = (kind, callback), qos

        def create_service(self, kind: type, name: str, callback: Any) -> None:
            # A private name: below the node's.
            ros.services[name.replace("~", f"/{self.name}")] = (kind, callback)

        def create_publisher(self, kind: type, topic: str, qos: int) -> Any:
            sent = ros.sent.setdefault(topic, [])

            def publish(message: Any) -> None:
                assert ros.running, "nothing can be published any more"
                assert type(message) is kind
                sent.append((ros.now, message))

            return Message(publish=publish)

        def create_timer(self, period: float, callback: Any, *, clock: Any) -> None:
            ros.timers.append((period, callback, clock))

        def get_clock(self) -> Any:
            return self._clock

        def get_logger(self) -> Any:
            def saying(level: str) -> Callable[[str], None]:
                return lambda words: ros.said.append((level, words))

            return Message(**{level: saying(level) for level in ("info", "warning", "error")})

        def destroy_node(self) -> None:
            ros.timers.clear()

    return Node
