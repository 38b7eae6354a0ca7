"""The package of `qhat export --ros2`: it installs, and its node turns messages into velocities.

Protects against a robot that keeps driving when a sensor, policy or process fails. ROS 2 is not here:
rclpy is a fake (fake_ros.py); the node, its logic and the policy are the exported files.
"""

import configparser
import json
import py_compile
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from exported import exported_cartpole, exported_robot
from fake_ros import EPOCH, LaserScan, Odometry, PoseStamped, Ros, imported, install
from qhat.deploy.ros2 import NAME, require_robot, write_package
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.evaluation.deployed_policy import Policy
from qhat.system.errors import UsageError
from signalled import signalled

FREE = [2.0] * 360


@pytest.fixture(scope="module")
def package() -> Path:
    return exported_robot()[1] / "ros2" / NAME


def sensors(ros: Ros) -> None:
    ros.send("scan", LaserScan(FREE, ros.now))
    ros.send("odom", Odometry(0.0, 0.0, 0.0, ros.now))


class Robot:
    """A running node, and its world."""

    def __init__(self, package: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any):
        self.ros = Ros(parameters)
        install(self.ros, monkeypatch)
        self.module = imported(package, monkeypatch)
        self.module.rclpy.init(args=None, signal_handler_options="no")
        self.node = self.module.Drive()
        self.pose, self.ranges = (0.0, 0.0, 0.0), FREE

    def see(self) -> None:
        self.see_scan()
        self.see_odometry()

    def see_scan(self) -> None:
        self.ros.send("scan", LaserScan(self.ranges, self.ros.now))

    def see_odometry(self) -> None:
        self.ros.send("odom", Odometry(*self.pose, self.ros.now))

    def drive(self, seconds: float) -> list[tuple[float, float, float]]:
        """Let time pass with working sensors; return the velocities."""
        return self.wait(seconds, self.see)

    def wait(self, seconds: float, meanwhile: Any = lambda: None) -> list[tuple[float, float, float]]:
        before = len(self.ros.sent["cmd_vel"])
        self.ros.pass_time(seconds, meanwhile)
        return self.ros.velocities("cmd_vel")[before:]


@pytest.fixture
def robot(package: Path, monkeypatch: pytest.MonkeyPatch) -> Robot:
    return Robot(package, monkeypatch, goal="1.5, 0.0")


def test_the_package_is_one(package: Path, tmp_path: Path):
    manifest = ElementTree.parse(package / "package.xml").getroot()
    assert manifest.tag == "package"
    assert manifest.get("format") == "3"
    fields = {child.tag: (child.text or "").strip() for child in manifest}
    assert fields["name"] == NAME
    assert fields["version"].count(".") == 2
    assert fields["version"].replace(".", "").isdigit(), "ROS takes three whole numbers"
    assert fields["description"]
    assert fields["license"] == "Apache-2.0"
    assert manifest.find("maintainer[@email]") is not None
    assert {one.text for one in manifest.findall("exec_depend")} >= {
        "rclpy", "sensor_msgs", "nav_msgs", "geometry_msgs", "std_srvs", "python3-numpy", "launch_ros"
    }  # fmt: skip
    assert manifest.findtext("export/build_type") == "ament_python"
    settings = configparser.ConfigParser()
    settings.read(package / "setup.cfg")
    assert settings["install"]["install_scripts"] == f"$base/lib/{NAME}"
    assert (package / "resource" / NAME).read_bytes() == b""
    for path in package.rglob("*.py"):
        py_compile.compile(str(path), cfile=str(tmp_path / "out.pyc"), doraise=True)
    for path in package.rglob("*"):
        if path.suffix in (".xml", ".py", ".md", ".yaml", ".cfg"):
            assert re.findall("@[A-Z]+@", path.read_text(encoding="utf-8")) == [], path


def test_parameters_of_the_file_are_the_nodes_defaults(package: Path, robot: Robot):
    lines = (package / "config" / "params.yaml").read_text().splitlines()
    values = [line.partition("#")[0].strip() for line in lines if line.startswith("    ")]
    pairs = [value.split(": ") for value in values if value]
    declared = {name: value.strip() for name, value in pairs}
    ours = {
        name: value
        for name, value in robot.node._parameters.items()
        if name not in ("use_sim_time", "goal")
    }
    assert declared.keys() == ours.keys()
    for name, value in ours.items():
        want = str(value).lower() if isinstance(value, bool) else str(value)
        assert declared[name] == want, name
        # ROS refuses a whole number for a parameter that is none.
        assert isinstance(value, str | bool) or "." in declared[name], name


def test_it_installs_as_colcon_does_it(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip(
        "setuptools", reason="setuptools is not installed: the package's setup.py is not run"
    )
    base = tmp_path / "install"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "build",
         "--build-base", str(tmp_path / "build"), "install", "--prefix", str(base), "--record",
         str(tmp_path / "log"), "--single-version-externally-managed"],
        cwd=package, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (base / "lib" / NAME / "drive").is_file(), "where ros2 run looks for it"
    share = base / "share" / NAME
    assert (base / "share" / "ament_index" / "resource_index" / "packages" / NAME).is_file()
    for name in ("package.xml", "launch/drive.launch.py", "config/params.yaml"):
        assert (share / name).is_file()
    (module,) = base.rglob("node.py")
    for name in ("policy.json", "weights.safetensors", "task.json"):
        assert (module.parent / "policy" / name).read_bytes() == (
            package / NAME / "policy" / name
        ).read_bytes()
    robot = Robot(module.parent.parent, monkeypatch, goal="1.5, 0.0")
    assert robot.module.__file__ == str(module)
    assert robot.drive(1.0)[-1][1] == turtlebot3.SPEED
    assert not list(package.glob("*.egg-info"))
    assert not (package / "build").exists()


def test_velocities_are_the_trained_policys(package: Path, monkeypatch: pytest.MonkeyPatch):
    """A whole drive: the node is compared with the environment and the policy in JAX."""
    run, _ = exported_robot()
    policy: Policy = run.policy()
    env: Any = gymnasium.make("qhat/TurtleBot3-v0", obstacles=2).unwrapped
    robot = Robot(package, monkeypatch, stop_distance=-1.0, goal_tolerance=1e-6)
    observation, _ = env.reset(seed=4)
    compared = 0
    for _ in range(200):
        see(robot, env)
        q = np.sort(policy.q_values(observation))
        action = policy(observation)
        command = robot.wait(0.2)[-1]
        if q[-1] - q[-2] > 1e-3:
            assert command[1:] == (turtlebot3.SPEED, turtlebot3.TURNS[action])
            compared += 1
        observation, _, ended, cut, _ = env.step(action)
        if ended or cut:
            observation, _ = env.reset()
    assert compared > 150
    assert len({turn for _, _, turn in robot.ros.velocities("cmd_vel")}) > 1, "it turns"


def see(robot: Robot, env: Any) -> None:
    """Send a goal, a scan and odometry for the place of the environment's robot."""
    state = env._robot
    beams = np.asarray(turtlebot3.lidar(state, env._options))
    ranges = np.repeat(beams, 15)
    ranges = np.where(ranges > 3.5, np.inf, np.where(ranges < 0.12, -np.inf, ranges)).tolist()
    x, y = np.asarray(state.place, float).tolist()
    robot.pose = (x, y, float(state.facing))
    robot.ranges = ranges
    robot.see()
    goal = np.asarray(state.goal, float).tolist()
    robot.ros.send("goal_pose", PoseStamped(*goal, frame="odom"))


def test_without_a_goal_it_stands_and_is_quiet_after_a_second(
    package: Path, monkeypatch: pytest.MonkeyPatch
):
    robot = Robot(package, monkeypatch)
    commands = robot.drive(3.0)
    assert commands
    assert all((linear, angular) == (0.0, 0.0) for _, linear, angular in commands)
    assert max(when for when, _, _ in commands) <= 1.2, "others may drive"
    robot.ros.send("goal_pose", PoseStamped(1.5, 0.0, "odom"))
    assert robot.drive(1.0)[-1][1] == turtlebot3.SPEED


@pytest.mark.parametrize("sensor", ["scan", "odometry"])
def test_a_late_sensor_stops_it_within_its_timeout(sensor: str, robot: Robot):
    assert robot.drive(2.0)[-1][1] == turtlebot3.SPEED
    last = robot.ros.now
    commands = robot.wait(2.0, robot.see_odometry if sensor == "scan" else robot.see_scan)
    stops = [when for when, linear, angular in commands if (linear, angular) == (0.0, 0.0)]
    assert stops[0] - last <= 0.5 + 0.05 + 0.011
    moved = [when for when, linear, _ in commands if linear != 0.0]
    assert not moved or max(moved) < stops[0], "and stays"
    assert robot.ros.said[-1][0] == "warning"
    assert f"standing: the {sensor} is late" in robot.ros.said[-1][1]
    assert robot.drive(1.0)[-1][1] == turtlebot3.SPEED, "until it is back"


def test_a_scan_that_says_nothing_stops_it(robot: Robot):
    robot.drive(1.0)
    robot.ranges = [float("nan")] * 360
    assert robot.drive(1.0)[-1][1:] == (0.0, 0.0)
    assert "no valid reading" in robot.ros.said[-1][1]
    assert len([words for _, words in robot.ros.said if "late" in words]) == 1, "said once"


def test_it_stands_at_the_goal(robot: Robot):
    robot.drive(1.0)
    robot.pose = (1.35, 0.0, 0.0)
    commands = robot.drive(3.0)
    assert commands[0][1:] == (0.0, 0.0)
    assert commands[-1][0] - commands[0][0] <= 1.3, "then it is quiet"
    assert robot.ros.said[-1] == ("info", "goal reached (0.15 m away)")


def test_something_near_stops_it(robot: Robot):
    robot.drive(1.0)
    robot.ranges = [*FREE[:7], 0.12, *FREE[8:]]
    assert robot.drive(0.5)[-1][1:] == (0.0, 0.0)
    assert "too near" in robot.ros.said[-1][1]


def test_the_service_cancels_the_goal(robot: Robot):
    assert robot.drive(1.0)[-1][1] == turtlebot3.SPEED
    before = len(robot.ros.sent["cmd_vel"])
    answer = robot.ros.call("/qhat_turtlebot3/cancel")
    assert (answer.success, answer.message) == (True, "goal cancelled")
    assert robot.ros.velocities("cmd_vel")[before:] == [(robot.ros.now, 0.0, 0.0)], "at once"
    assert robot.ros.said[-1] == ("info", "goal cancelled")
    assert {sent[1:] for sent in robot.drive(1.0)} == {(0.0, 0.0)}
    answer = robot.ros.call("/qhat_turtlebot3/cancel")
    assert (answer.success, answer.message) == (False, "there is no goal to cancel")
    robot.ros.send("goal_pose", PoseStamped(1.5, 0.0, "odom"))
    assert robot.drive(1.0)[-1][1] == turtlebot3.SPEED


def test_a_stop_distance_that_is_too_short_is_warned_of(package: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Robot(package, monkeypatch, robot="waffle_pi", stop_distance=0.12)
    ((level, words),) = robot.ros.said
    assert level == "warning"
    assert "stop_distance is 0.12 m; a waffle_pi at 0.15 m/s needs 0.42 m" in words
    text = (package / "config" / "params.yaml").read_text()
    assert "= 0.27 for a burger, 0.42 for a waffle." in text


def test_a_goal_in_another_frame_is_refused(robot: Robot):
    robot.drive(1.0)
    robot.ros.send("goal_pose", PoseStamped(-1.0, 0.0, "map"))
    assert robot.ros.said[-1][0] == "error"
    assert "frame 'map' and the odometry in 'odom'" in robot.ros.said[-1][1]
    assert robot.node._control.driver.goal == (1.5, 0.0)
    robot.ros.send("goal_pose", PoseStamped(float("nan"), 0.0, "odom"))
    assert "expected finite numbers" in robot.ros.said[-1][1]
    assert robot.node._control.driver.goal == (1.5, 0.0)


def test_a_policy_that_fails_stops_it(robot: Robot, monkeypatch: pytest.MonkeyPatch):
    robot.drive(1.0)

    def broken(observation: Any) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr(robot.node._control.driver._policy, "act", broken)
    assert robot.drive(0.5)[-1][1:] == (0.0, 0.0)
    assert "the policy gave no action: broken" in robot.ros.said[-1][1]


def test_the_users_filter_is_called(package: Path, monkeypatch: pytest.MonkeyPatch):
    ros = Ros({"goal": "1.5, 0.0"})
    install(ros, monkeypatch)
    module = imported(package, monkeypatch)
    kind = sys.modules[f"{NAME}.task"].Command
    slow = lambda command, look, pose: kind(0.02, command.angular)  # noqa: E731
    monkeypatch.setattr(module, "safety", slow)
    module.rclpy.init(args=None, signal_handler_options="no")
    module.Drive()
    ros.pass_time(1.0, lambda: sensors(ros))
    assert ros.velocities("cmd_vel")[-1][1] == 0.02


def test_topics_and_stamps_are_parameters(package: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Robot(package, monkeypatch, cmd_vel_topic="tb3/cmd_vel", scan_topic="tb3/scan", stamped=True)
    ros = robot.ros
    assert set(ros.subscriptions) == {"tb3/scan", "odom", "goal_pose"}
    ros.pass_time(0.4)
    when, message = ros.sent["tb3/cmd_vel"][-1]
    assert type(message).__name__ == "TwistStamped"
    stamp = message.header.stamp
    assert stamp.sec + stamp.nanosec * 1e-9 - EPOCH == pytest.approx(when)
    assert message.header.frame_id == "base_link"


def test_the_clock_is_steady_unless_it_is_simulated(package: Path, monkeypatch: pytest.MonkeyPatch):
    for simulated, kind in ((False, "steady"), (True, "ros")):
        robot = Robot(package, monkeypatch, use_sim_time=simulated)
        assert {clock.kind for _, _, clock in robot.ros.timers} == {kind}
        assert sorted(period for period, _, _ in robot.ros.timers) == [0.05, 0.2]


def test_another_rate_is_warned_of(package: Path, monkeypatch: pytest.MonkeyPatch):
    robot = Robot(package, monkeypatch, rate=10.0)
    assert robot.ros.said == [("warning", "rate is 10 Hz; the policy was trained at 5 Hz only.")]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"rate": 0.0}, "parameter rate is 0.0; expected more than 0."),
        ({"sensor_timeout": float("nan")}, "parameter sensor_timeout is nan"),
        ({"scan_yaw": float("inf")}, "parameter scan_yaw is inf"),
        ({"robot": "wafle"}, "parameter robot is 'wafle'; expected burger, waffle, waffle_pi."),
        ({"goal": "over there"}, "the goal is 'over there'; expected two numbers"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_a_sentence(
    parameters: dict[str, Any], says: str, package: Path, monkeypatch: pytest.MonkeyPatch
):
    ros = Ros(parameters)
    install(ros, monkeypatch)
    module = imported(package, monkeypatch)
    with kept_signals(), pytest.raises(SystemExit) as ended:
        module.main()
    assert says in str(ended.value)
    assert not ros.running


class kept_signals:  # noqa: N801 - a context manager
    """Restore the signal handlers of the process."""

    def __enter__(self) -> None:
        self._kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)


SIGNALLED = """
import json, os, sys
from pathlib import Path
import pytest
from test_ros2_package import Ros, imported, install, sensors

package, number = Path(sys.argv[1]), int(sys.argv[2])
with pytest.MonkeyPatch.context() as monkeypatch:
    ros = Ros({"goal": "1.5, 0.0"})
    install(ros, monkeypatch)
    module = imported(package, monkeypatch)
    sent = []

    def spin():
        if ros.now > 1.0 and not sent:
            sent.append(ros.now)
            os.kill(os.getpid(), number)
        ros.pass_time(0.1, lambda: sensors(ros))

    ros.spinning = spin
    module.main()
    print(json.dumps([ros.running, [list(each) for each in ros.velocities("cmd_vel")]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_robot_first(number: int, package: Path):
    running, velocities = signalled("deploy", SIGNALLED, package, number)
    assert turtlebot3.SPEED in [linear for _, linear, _ in velocities], "it drove"
    assert velocities[-1][1:] == [0.0, 0.0]
    assert not running


def test_an_edited_policy_does_not_drive(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    copied = tmp_path / NAME
    shutil.copytree(package, copied)
    path = copied / NAME / "policy" / "policy.json"
    path.write_text(path.read_text().replace('"name": "', '"name": "my '))
    with pytest.raises(ValueError, match=r"policy\.json"):
        Robot(copied, monkeypatch)


def test_the_task_is_the_trainings(package: Path):
    task = json.loads((package / NAME / "policy" / "task.json").read_text())
    assert task["turns"] == list(turtlebot3.TURNS)
    assert (task["beams"], task["seconds"], task["speed"]) == (24, 0.2, 0.15)
    assert task["reach"] == pytest.approx(4 * 2**0.5)


def test_other_environments_are_refused():
    with pytest.raises(UsageError, match=r"'CartPole-v1'; expected a map of your robot, targets="):
        write_package(exported_cartpole()[1])
    for name in ("TurtleBot3-v0", "qhat:TurtleBot3-v0", "gym:qhat/TurtleBot3-v0"):
        require_robot(name)
