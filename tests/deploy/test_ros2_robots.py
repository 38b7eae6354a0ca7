"""The ROS 2 packages of other robots than the TurtleBot3: exported with a map, and run with a fake rclpy.

Protects against a node that moves a robot before it is started, that does not stop it, or that publishes
what rclpy or the robot refuses. ROS 2 is not here: tests/support/fake_ros.py.
"""

from __future__ import annotations

import configparser
import json
import math
import py_compile
import re
import signal
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exported import exported_cartpole
from fake_ros import EPOCH, LaserScan, Odometry, PoseStamped, Ros, imported, install
from qhat.cli.main import main
from qhat.deploy.ros2 import Ros2, write_package
from ros_maps import MAPS, POLICIES, Scripted
from ros_messages import cdr, message_type
from signalled import signalled


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    folder = tmp_path_factory.mktemp("cartpole") / "export"
    shutil.copytree(exported_cartpole()[1], folder)
    return write_package(folder, MAPS / "cartpole.yaml")


def written(name: str, tmp_path: Path, text: str | None = None) -> Path:
    """The package of a policy that has no weights."""
    about = {
        **POLICIES[name], "source": {"run": "runs/my", "recipe": "dqn"}, "qhat": "0",
    }  # fmt: skip
    (tmp_path / "policy.json").write_text(json.dumps(about))
    for file in ("weights.safetensors", "qhat_runtime.py"):
        (tmp_path / file).write_text("class Policy: ...\n")
    path = tmp_path / "map.yaml"
    path.write_text(text or (MAPS / f"{name}.yaml").read_text())
    return write_package(tmp_path, path)


class Running:
    """A node of a package, and its world."""

    def __init__(
        self, package: Path, monkeypatch: pytest.MonkeyPatch, policy: Any = None, tf: Any = None,
        distribution: str = "", **parameters: Any,
    ):  # fmt: skip
        self.ros = Ros(parameters, tf)
        install(self.ros, monkeypatch)
        monkeypatch.setenv("ROS_DISTRO", distribution)
        self.module = imported(package, monkeypatch, package.name)
        if policy is not None:
            policy.about = json.loads((package / package.name / "policy" / "policy.json").read_text())
            fake = types.SimpleNamespace(load=lambda folder, beyond="refuse": policy)
            monkeypatch.setattr(self.module, "Policy", fake)
        self.module.rclpy.init(args=None, signal_handler_options="no")
        self.node = self.module.Drive()

    def sent(self, topic: str) -> list[Any]:
        return [message for _, message in self.ros.sent[topic]]


def joints(ros: Ros, position: Any = (0.0, 0.0), velocity: Any = (0.0, 0.0)) -> Any:
    """What joint_state_broadcaster publishes: the joints in an order of its own, stamped."""
    message = message_type("sensor_msgs/JointState")(
        name=["cart_to_pole", "slider_to_cart"],
        position=[float(one) for one in position],
        velocity=[float(one) for one in velocity],
        effort=[math.nan, math.nan],
    )
    message.header.stamp.sec, message.header.stamp.nanosec = int(ros.now), round(ros.now % 1 * 1e9)
    return message


COMMANDS = "effort_controller/commands"


def test_the_cart_pole_moves_as_the_policy_says(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    run, _ = exported_cartpole()
    robot = Running(cartpole, monkeypatch)
    policy, rng = run.policy(), np.random.default_rng(0)
    ros, compared = robot.ros, []
    ros.call("/qhat_cartpole/start")
    for _ in range(60):
        cart, pole, speed, turn = rng.uniform(-0.2, 0.2, 4)
        ros.pass_time(0.02, lambda: None)
        ros.send("joint_states", joints(ros, (pole, cart), (turn, speed)))
        ros.pass_time(0.02, lambda: None)
        observation = np.array([cart, speed, pole, turn], np.float32)
        q = policy.q_values(observation)
        if abs(q[0] - q[1]) > 1e-3:
            compared.append(
                robot.sent(COMMANDS)[-1].data.tolist() == [[-10.0], [10.0]][policy(observation)]
            )
    assert len(compared) > 40
    assert all(compared)
    assert len(cdr(robot.sent(COMMANDS)[-1])) == 28, "as on the wire: 4 + 4 + 4, 4 and padding, 8"


def test_it_moves_only_when_started_and_stops(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Running(cartpole, monkeypatch)
    ros = robot.ros
    see = lambda: ros.send("joint_states", joints(ros))  # noqa: E731

    def drive(seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            see()
            ros.pass_time(0.02)

    drive(2.0)
    assert robot.sent(COMMANDS) == [], "others may drive"
    assert ros.call("/qhat_cartpole/stop").success is False
    assert ros.call("/qhat_cartpole/start").message == "started"
    drive(0.5)
    assert abs(robot.sent(COMMANDS)[-1].data[0]) == 10.0
    answer = ros.call("/qhat_cartpole/stop")
    assert (answer.success, answer.message) == (True, "stopped by the service ~/stop")
    assert robot.sent(COMMANDS)[-1].data.tolist() == [0.0]
    stopped = len(robot.sent(COMMANDS))
    drive(3.0)
    after = robot.ros.sent[COMMANDS][stopped:]
    assert all(message.data.tolist() == [0.0] for _, message in after)
    assert after[-1][0] - after[0][0] < 1.2, "a second later it is silent"
    robot.node.leave()
    assert len(robot.ros.sent[COMMANDS]) == stopped + len(after), "it is no longer the driver"


def test_a_late_topic_stops_it(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Running(cartpole, monkeypatch, start=True)
    ros = robot.ros
    for _ in range(20):
        ros.send("joint_states", joints(ros))
        ros.pass_time(0.02)
    assert abs(robot.sent(COMMANDS)[-1].data[0]) == 10.0
    last = ros.now - 0.02
    ros.pass_time(0.5)
    stop = next(
        when for when, message in ros.sent[COMMANDS] if when > last + 0.021 and message.data[0] == 0.0
    )
    assert stop - last <= 0.06 + 0.05 + 0.011
    assert ("warning", "standing: joint_states is late") in [(a, b.split(" (")[0]) for a, b in ros.said]
    ros.send("joint_states", joints(ros))
    ros.pass_time(0.03)
    assert abs(robot.sent(COMMANDS)[-1].data[0]) == 10.0, "it goes on"


SIGNALLED = """
import json, os, signal, sys
from pathlib import Path
import pytest
from test_ros2_robots import COMMANDS, Ros, imported, install, joints

package, number = Path(sys.argv[1]), int(sys.argv[2])
with pytest.MonkeyPatch.context() as monkeypatch:
    ros = Ros({"start": True})
    install(ros, monkeypatch)
    module = imported(package, monkeypatch, package.name)
    sent = []

    def spin():
        if ros.now > 0.5 and not sent:
            sent.append(ros.now)
            os.kill(os.getpid(), number)
        ros.send("joint_states", joints(ros))
        ros.pass_time(0.02)

    ros.spinning = spin
    module.main()
    print(json.dumps([ros.running, [each.data.tolist() for _, each in ros.sent[COMMANDS]]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_first(number: int, cartpole: Path):
    running, sent = signalled("deploy", SIGNALLED, cartpole, number)
    assert [10.0] in sent or [-10.0] in sent
    assert sent[-1] == [0.0]
    assert not running


def test_a_filter_and_a_policy_that_fails(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Running(cartpole, monkeypatch, start=True)
    ros = robot.ros
    for result in (1, 0):
        monkeypatch.setattr(
            robot.node._control, "_safety", lambda action, observation, result=result: result
        )
        ros.send("joint_states", joints(ros))
        ros.pass_time(0.03)
        assert robot.sent(COMMANDS)[-1].data.tolist() == [[-10.0], [10.0]][result]

    def broken(observation: Any) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr(robot.node._control._policy, "act", broken)
    ros.send("joint_states", joints(ros))
    ros.pass_time(0.03)
    assert robot.sent(COMMANDS)[-1].data.tolist() == [0.0]
    assert ros.said[-1][1] == "standing: the policy gave no action: RuntimeError: broken"


def test_beyond_the_bounds_of_training_it_stands(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Running(cartpole, monkeypatch, start=True)
    ros = robot.ros
    ros.send("joint_states", joints(ros, (1e6, 0.0)))
    ros.pass_time(0.03)
    assert robot.sent(COMMANDS)[-1].data.tolist() == [0.0]
    assert "pole_angle" in ros.said[-1][1]


def test_the_package_is_one(cartpole: Path, tmp_path: Path):
    for package in (cartpole, written("jackal", tmp_path)):
        manifest = ElementTree.parse(package / "package.xml").getroot()
        assert manifest.findtext("name") == package.name
        depends = {one.text for one in manifest.findall("exec_depend")}
        assert {"rclpy", "python3-yaml", "python3-numpy", "geometry_msgs", "std_srvs"} <= depends
        assert ("tf2_ros" in depends) == (package != cartpole)
        assert "std_msgs" in depends or package != cartpole
        settings = configparser.ConfigParser()
        settings.read(package / "setup.cfg")
        assert settings["install"]["install_scripts"] == f"$base/lib/{package.name}"
        for path in package.rglob("*.py"):
            py_compile.compile(str(path), cfile=str(tmp_path / "out.pyc"), doraise=True)
        for path in package.rglob("*"):
            if path.suffix in (".xml", ".py", ".md", ".yaml", ".cfg"):
                text = path.read_text(encoding="utf-8")
                assert re.findall("@[A-Z]+@", text) == [], path
                assert "turtlebot3" not in text.replace(
                    "from .turtlebot3 import TurtleBot3", ""
                ).lower() or (path.suffix == ".py"), path
        module = package / package.name
        assert not {"body.py", "driver.py", "turtlebot3.py"} & {path.name for path in module.iterdir()}


@pytest.mark.parametrize("trigger", ["start", "goal"])
def test_parameters_of_the_file_are_the_nodes_defaults(
    trigger: str, cartpole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import yaml

    package = cartpole if trigger == "start" else written("jackal", tmp_path)
    robot = Running(package, monkeypatch, None if trigger == "start" else Scripted(0))
    (key, values), *_ = yaml.safe_load((package / "config" / "params.yaml").read_text()).items()
    assert key == "/**", "in any namespace"
    ours = {name: value for name, value in robot.node._parameters.items() if name != "use_sim_time"}
    assert values["ros__parameters"] == ours
    assert trigger in ours
    assert {name: type(value) for name, value in ours.items()} == {
        name: type(value) for name, value in values["ros__parameters"].items()
    }, "ROS refuses a whole number for a parameter that is none"


@pytest.mark.parametrize(
    ("distribution", "stamped", "kind"),
    [
        ("humble", "map", "Twist"), ("iron", "map", "Twist"), ("jazzy", "map", "TwistStamped"),
        ("kilted", "map", "TwistStamped"), ("rolling", "map", "TwistStamped"), ("", "map", "Twist"),
        ("jazzy", "false", "Twist"), ("humble", "true", "TwistStamped"), ("humble", True, "TwistStamped"),
        ("jazzy", False, "Twist"), ("jazzy", "auto", "TwistStamped"),
    ],
)  # fmt: skip
def test_velocities_are_stamped_where_robots_want_it(
    distribution: str, stamped: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = written("jackal", tmp_path)
    robot = Running(package, monkeypatch, Scripted(0), None, distribution, stamped=stamped, goal="3.0, 0.0")
    drive(robot.ros)
    message = robot.sent("cmd_vel")[-1]
    assert type(message).__name__ == kind
    twist = message.twist if kind == "TwistStamped" else message
    assert (twist.linear.x, twist.angular.z) == (0.4, 0.8)
    if kind == "TwistStamped":
        assert message.header.frame_id == "base_link"
        stamp = message.header.stamp
        assert stamp.sec + stamp.nanosec * 1e-9 - EPOCH == pytest.approx(1.0, abs=0.3)
    cdr(message)


def test_a_map_that_says_twiststamped_is_served_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (MAPS / "create3.yaml").read_text().replace("geometry_msgs/Twist", "geometry_msgs/TwistStamped")
    text = text.replace("linear.x", "twist.linear.x").replace("angular.z", "twist.angular.z")
    text = text.replace("irobot_create_msgs/IrIntensityVector", "std_msgs/Float32MultiArray")
    text = text.replace('"readings[0:7].value"', '"data[0:7]"')
    package = written("create3", tmp_path, text + "    stop: {twist.linear.x: 0.0}\n")
    for word, kind in (("map", "TwistStamped"), ("false", "Twist")):
        robot = Running(package, monkeypatch, Scripted(np.array([1, 0])), stamped=word, start=True)
        robot.ros.send("ir_intensity", message_type("std_msgs/Float32MultiArray")(data=[0.5] * 8))
        imu = message_type("sensor_msgs/Imu")()
        imu.orientation.w = 1.0
        robot.ros.send("imu", imu)
        robot.ros.pass_time(0.12)
        message = robot.sent("cmd_vel")[-1]
        assert type(message).__name__ == kind
        twist = message.twist if kind == "TwistStamped" else message
        assert (twist.linear.x, twist.angular.z) == (0.2, -1.0)


def drive(ros: Ros, seconds: float = 1.0, pose: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    def see() -> None:
        ros.send("sensors/lidar2d_0/scan", LaserScan([2.0] * 720, ros.now))
        ros.send("platform/odom/filtered", Odometry(*pose, ros.now))

    ros.pass_time(seconds, see)


class Tf:
    """A buffer of tf2 with one transform."""

    def __init__(self, shift: tuple[float, float] | None = None, yaw: float = 0.0):
        self.shift, self.yaw, self.asked = shift, yaw, []

    def lookup_transform(self, target: str, source: str, time: Any) -> Any:
        self.asked.append((target, source))
        if self.shift is None:
            raise LookupError('"map" passed to lookupTransform argument source_frame does not exist. ')
        found = message_type("geometry_msgs/TransformStamped")()
        found.transform.translation.x, found.transform.translation.y = self.shift
        found.transform.rotation.z, found.transform.rotation.w = (
            math.sin(self.yaw / 2),
            math.cos(self.yaw / 2),
        )
        return found


def test_a_goal_in_map_is_transformed_and_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tf = Tf((1.0, 2.0), math.pi / 2)
    robot = Running(written("jackal", tmp_path), monkeypatch, Scripted(2), tf)
    drive(robot.ros)
    assert not tf.asked, "tf costs time: it is asked only where it is needed"
    robot.ros.send("goal_pose", PoseStamped(3.0, 0.0, "map"))
    assert robot.node._control.goal == pytest.approx((1.0, 5.0))
    tf.shift = (1.5, 2.0)
    drive(robot.ros, 0.5)
    assert robot.node._control.goal == pytest.approx((1.5, 5.0)), "the localisation corrected itself"
    assert set(tf.asked) == {("odom", "map")}
    tf.shift = None
    drive(robot.ros, 0.5)
    assert robot.node._control.goal == pytest.approx((1.5, 5.0)), "the last transform holds"
    assert robot.sent("cmd_vel")[-1].linear.x == 0.4
    robot.ros.send("goal_pose", PoseStamped(2.0, 0.0, "odom"))
    drive(robot.ros, 0.3)
    assert robot.node._control.goal == (2.0, 0.0)
    assert not [words for level, words in robot.ros.said if level == "error"]


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_transform_a_goal_is_refused(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    robot = Running(written("jackal", tmp_path), monkeypatch, Scripted(2), Tf() if installed else None)
    drive(robot.ros)
    robot.ros.send("goal_pose", PoseStamped(3.0, 0.0, "map"))
    drive(robot.ros, 2.5)
    assert robot.node._control.goal is None
    (words,) = [words for level, words in robot.ros.said if level == "error"]
    assert words.startswith("the goal is in frame 'map' and the odometry in 'odom', and tf")
    assert words.endswith("The goal is ignored.")
    assert ("tf has no transform between them" in words) == installed
    assert ("tf2_ros is not installed" in words) == (not installed)


def test_a_transform_may_arrive_after_the_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tf = Tf()
    robot = Running(written("jackal", tmp_path), monkeypatch, Scripted(2), tf)
    drive(robot.ros)
    robot.ros.send("goal_pose", PoseStamped(3.0, 0.0, "map"))
    drive(robot.ros, 0.5)
    tf.shift = (0.0, 1.0)
    drive(robot.ros, 0.5)
    assert robot.node._control.goal == pytest.approx((3.0, 1.0))
    assert robot.ros.call("/qhat_jackal/cancel").success
    assert robot.node._control.goal is None


def test_subscriptions_take_reliable_and_other_publishers(
    cartpole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    robot = Running(cartpole, monkeypatch)
    (quality,) = [robot.ros.qualities[name] for name in ("joint_states",)]
    assert (quality.reliability, quality.durability, quality.depth) == ("best effort", "volatile", 1)
    text = (MAPS / "cartpole.yaml").read_text().replace("JointState}", "JointState, qos: latched}")
    robot = Running(written("cartpole", tmp_path, text), monkeypatch, Scripted(0))
    quality = robot.ros.qualities["joint_states"]
    assert (quality.reliability, quality.durability) == ("reliable", "transient local")


def test_an_edited_map_and_a_missing_type_are_a_sentence(
    cartpole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = written("create3", tmp_path)
    with pytest.raises(
        ValueError, match=r"irobot_create_msgs/IrIntensityVector is not installed; expected it"
    ):
        Running(package, monkeypatch, Scripted(0))
    (package / package.name / "map.yaml").write_text("topics: 3\n")
    with pytest.raises(ValueError, match="topics is 3; expected a name for each topic"):
        Running(package, monkeypatch, Scripted(0))


def test_the_launch_file(cartpole: Path, monkeypatch: pytest.MonkeyPatch):
    """With stand-ins for launch and launch_ros: which arguments reach the node, and how."""
    values: dict[str, str] = {}

    def record(**fields: Any) -> Any:
        return types.SimpleNamespace(**fields)

    modules = {
        "launch": {"LaunchDescription": list},
        "launch.actions": {
            "DeclareLaunchArgument": lambda name, default_value, description: (name, default_value),
            "OpaqueFunction": record,
        },
        "launch.substitutions": {
            "LaunchConfiguration": lambda name: record(perform=lambda context: values[name])
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": record},
        "launch_ros.parameter_descriptions": {
            "ParameterValue": lambda value, value_type: value_type(value)
        },
    }
    for name, fields in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(fields)
        monkeypatch.setitem(sys.modules, name, module)
    text = (cartpole / "launch" / "drive.launch.py").read_text()
    scope: dict[str, Any] = {"__file__": str(cartpole / "launch" / "drive.launch.py")}
    exec(compile(text, "drive.launch.py", "exec"), scope)
    *declared, function = scope["generate_launch_description"]()
    values.update(dict(declared))
    assert set(values) == {"params_file", "start", "namespace", "stamped", "use_sim_time"}
    (node,) = function.function(None)
    assert node.parameters == [str(cartpole / "config" / "params.yaml")], "the file's values hold"
    assert (node.package, node.executable, node.namespace) == ("qhat_cartpole", "drive", "")
    values.update(start="true", stamped="true", namespace="robot1", use_sim_time="True")
    (node,) = function.function(None)
    assert node.parameters[1] == {"start": True, "stamped": "true", "use_sim_time": True}
    assert node.namespace == "robot1"
    assert ("/tf", "tf") in node.remappings


def test_the_command_line_refuses_a_wrong_map_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run, _ = exported_cartpole()
    path = tmp_path / "robot.yaml"
    for text, says in (
        (None, "is no file; expected a YAML file, as in docs/ros2.md."),
        ("topics: [", "the map is no YAML (line 1"),
        (
            (MAPS / "cartpole.yaml").read_text().replace("pole_angle", "pole_angel"),
            "Did you mean 'pole_angle'?",
        ),
    ):
        if text is not None:
            path.write_text(text)
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as ended:
            main(["export", str(run.folder.path), "--ros2-map", str(path), "--out", str(out)])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert says in said
        assert not out.exists()


def test_the_command_line_writes_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, _ = exported_cartpole()
    out = tmp_path / "out"
    map_file = str(MAPS / "cartpole.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run.folder.path), "--ros2-map", map_file, "--out", str(out), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["ros2"] == str(out / "ros2" / "qhat_cartpole")
    assert (out / "ros2" / "qhat_cartpole" / "qhat_cartpole" / "map.yaml").read_text() == (
        MAPS / "cartpole.yaml"
    ).read_text()
    assert Ros2(MAPS / "cartpole.yaml").name == "ros2"
