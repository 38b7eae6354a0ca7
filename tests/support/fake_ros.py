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

MODULES = (
    "rclpy", "rclpy.clock", "rclpy.executors", "rclpy.node", "rclpy.qos", "rclpy.signals", "sensor_msgs",
    "sensor_msgs.msg", "nav_msgs", "nav_msgs.msg", "geometry_msgs", "geometry_msgs.msg", "std_srvs",
    "std_srvs.srv",
)  # fmt: skip


class Message:
    """A message with some fields; parts of it are messages too."""

    def __init__(self, **fields: Any):
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no field '{name}'")


def _header() -> Message:
    return Message(stamp=Message(sec=0, nanosec=0), frame_id="")


class Twist(Message):
    def __init__(self):
        super().__init__(linear=Message(x=0.0, y=0.0, z=0.0), angular=Message(x=0.0, y=0.0, z=0.0))


class TwistStamped(Message):
    def __init__(self):
        super().__init__(header=_header(), twist=Twist())


class PoseStamped(Message):
    def __init__(self, x: float, y: float, frame: str):
        place = Message(position=Message(x=x, y=y, z=0.0))
        super().__init__(header=_header(), pose=place)
        self.header.frame_id = frame


class LaserScan(Message):
    def __init__(self, ranges: Any, stamp: float):
        step = 2 * math.pi / len(ranges)
        super().__init__(
            header=_header(),
            ranges=ranges,
            angle_min=0.0,
            angle_increment=step,
            range_min=0.12,
            range_max=3.5,
        )
        self.header.stamp = _stamp(stamp)


class Odometry(Message):
    def __init__(self, x: float, y: float, yaw: float, stamp: float, frame: str = "odom"):
        turn = Message(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))
        pose = Message(position=Message(x=x, y=y, z=0.0), orientation=turn)
        super().__init__(header=_header(), pose=Message(pose=pose))
        self.header.stamp, self.header.frame_id = _stamp(stamp), frame


class Trigger:
    """The service of std_srvs: an empty request; success and a message as response."""

    class Request(Message):
        pass

    class Response(Message):
        def __init__(self):
            super().__init__(success=False, message="")


def _stamp(seconds: float) -> Message:
    return Message(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))


class Ros:
    """The middleware, the clock and the log of one test."""

    def __init__(self, parameters: Mapping[str, Any]):
        self.parameters = dict(parameters)
        self.now, self.running = 0.0, False
        self.subscriptions: dict[str, tuple[type, Callable[[Any], None]]] = {}
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
    parts: dict[str, dict[str, Any]] = {
        "rclpy": {"init": _init(ros), "ok": lambda: ros.running, "shutdown": lambda: _set(ros, False)},
        "rclpy.clock": {"Clock": _clock(ros), "ClockType": Message(STEADY_TIME="steady")},
        "rclpy.executors": {"SingleThreadedExecutor": _executor(ros)},
        "rclpy.node": {"Node": _node(ros)},
        "rclpy.qos": {"qos_profile_sensor_data": "sensor data"},
        "rclpy.signals": {"SignalHandlerOptions": Message(NO="no")},
        "sensor_msgs.msg": {"LaserScan": LaserScan},
        "nav_msgs.msg": {"Odometry": Odometry},
        "std_srvs.srv": {"Trigger": Trigger},
        "geometry_msgs.msg": {"PoseStamped": PoseStamped, "Twist": Twist, "TwistStamped": TwistStamped},
    }
    for name in MODULES:
        module = types.ModuleType(name)
        module.__dict__.update(parts.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)


def imported(package: Path, monkeypatch: Any) -> Any:
    """Import the node of a package in a folder, or of an installed one."""
    monkeypatch.syspath_prepend(str(package))
    for name in [name for name in sys.modules if name.partition(".")[0] == "qhat_turtlebot3"]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("qhat_turtlebot3.node")


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
            stamp = _stamp(ros.now)
            return Message(nanoseconds=round(ros.now * 1e9), to_msg=lambda: stamp)

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
            self._parameters |= {k: v for k, v in ros.parameters.items() if k == "use_sim_time"}

        def declare_parameter(self, name: str, value: Any) -> None:
            given = ros.parameters.get(name, value)
            assert type(given) is type(value), f"{name} is {given!r}"
            self._parameters[name] = given

        def get_parameter(self, name: str) -> Any:
            return Message(value=self._parameters[name])

        def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
            ros.subscriptions[topic] = (kind, callback)

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
            return clock()

        def get_logger(self) -> Any:
            def saying(level: str) -> Callable[[str], None]:
                return lambda words: ros.said.append((level, words))

            return Message(**{level: saying(level) for level in ("info", "warning", "error")})

        def destroy_node(self) -> None:
            ros.timers.clear()

    return Node
