"""A map from topics to an observation and from actions to messages, without ROS.

Protects against a robot whose joints are mixed up, that acts on old or damaged messages, or whose map has a
mistake that shows only when the robot moves. Messages have ROS's definitions (support/ros_messages.py).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat.deploy.ros2 import plan_of, read_map
from qhat.runtime.qhat_robot import pictures
from qhat.runtime.qhat_robot.fields import FieldPath
from qhat.runtime.qhat_robot.messages import definitions, of_rclpy
from qhat.runtime.qhat_robot.scan import observation_of
from qhat.runtime.qhat_robot.task import Pose, UnusableError
from qhat.system.errors import UsageError
from ros_maps import MAPS, POLICIES, about, control, flat, written
from ros_messages import cdr, known, message_type

UR = [
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
    "shoulder_pan_joint",
]
"""In the order of a UR5e's joint_states, which is not the arm's."""


@pytest.fixture(autouse=True)
def _messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qhat.runtime.qhat_robot.fields.message_class", message_type)


KINDS: Any = type("Kinds", (dict,), {"__missing__": lambda self, name: message_type(name)})()


def joints(names: list[str], position: Any, velocity: Any = (), stamp: float = 1.0) -> Any:
    message = message_type("sensor_msgs/JointState")(
        name=names, position=[float(one) for one in position], velocity=[float(one) for one in velocity]
    )
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), round(stamp % 1 * 1e9)
    return message


@pytest.mark.parametrize("distribution", ["HUMBLE", "JAZZY", "KILTED"])
def test_the_definitions_are_those_of_ros(distribution: str):
    theirs = known(distribution)
    compared = 0
    for name, fields in definitions().items():
        if name in theirs:
            ours = {field: kind.partition("<=")[0] for field, kind in fields.items()}
            here = {k: v for k, v in theirs[name].items() if k != "structure_needs_at_least_one_member"}
            assert here.items() <= ours.items(), name
            compared += 1
    assert compared > 90
    imu = message_type("sensor_msgs/Imu", distribution).get_fields_and_field_types()
    assert {name: of_rclpy(kind) for name, kind in imu.items()} == definitions()["sensor_msgs/Imu"]
    assert of_rclpy("sequence<geometry_msgs/Point, 4>") == "geometry_msgs/Point[<=4]"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_maps_of_the_documentation_fit(name: str):
    plan = plan_of((MAPS / f"{name}.yaml").read_text(), POLICIES[name])
    assert plan.package.startswith("qhat_")
    assert {path.stem for path in MAPS.glob("*.yaml")} == set(POLICIES)
    unknown = ["irobot_create_msgs/IrIntensityVector"] if name == "create3" else []
    assert plan.unchecked() == unknown


def test_joints_are_taken_by_name():
    made, policy = control("ur5e", [0.5, -1.0, 0.0, 1.0, 0.25, -0.25])
    q = {name: 0.1 * at for at, name in enumerate(UR)}
    made.see("joints", joints(UR, q.values(), [10 * value for value in q.values()]), 0.0, None)
    orders = made.decide(0.01)
    arm = ["shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", *UR[2:5]]
    wanted = [q[name] for name in arm]
    np.testing.assert_allclose(
        policy.observed[0], [*wanted, *np.clip(np.multiply(wanted, 10), -3, 3)], rtol=1e-6
    )
    assert policy.observed[0].dtype == np.float32
    (message,) = written(made, orders, KINDS)
    assert message.data.tolist() == [0.25, -0.5, 0.0, 0.5, 0.125, -0.125]
    assert len(cdr(message)) > 48, "it can be sent"
    (message,) = written(made, made.standing(), KINDS)
    assert message.data.tolist() == [0.0] * 6


def test_joint_states_of_a_gripper_on_the_same_topic_are_not_the_arms():
    made, policy = control("ur5e", [0.0] * 6)
    made.see("joints", joints(["finger_joint"], [0.7]), 0.0, None)
    assert made.decide(0.0) is None
    assert "joint_states is late (none yet, limit 0.05 s)" in made.why
    assert "the message has finger_joint, and not shoulder_pan_joint" in made.why
    made.see("joints", joints(UR, range(6), [0] * 6), 0.01, None)
    made.see("joints", joints(["finger_joint"], [0.7], stamp=2.0), 0.02, None)
    assert made.decide(0.03) is not None
    assert made.decide(0.07) is None, "the gripper's message does not make the arm's newer"
    assert len(policy.observed) == 1


@pytest.mark.parametrize(
    ("velocity", "says"),
    [
        ([], "'velocity[shoulder_pan_joint, shoulder_lift_joint"),
        (
            [0.0, math.nan, 0.0, 0.0, 0.0, 0.0],
            "has nan at place 2; expected a finite number (or a default)",
        ),
    ],
)
def test_numbers_that_are_missing_stop_it(velocity: list[float], says: str):
    """joint_state_broadcaster leaves velocity empty, or NaN, where the hardware has none."""
    made, policy = control("ur5e", [0.0] * 6)
    made.see("joints", joints(UR, range(6), velocity), 0.0, None)
    assert made.decide(0.0) is None
    assert says in made.why
    text = (MAPS / "ur5e.yaml").read_text().replace("clip: [-3.0, 3.0]", "default: 0.0")
    made, policy = control("ur5e", [0.0] * 6, text)
    made.see("joints", joints(UR, range(6), velocity), 0.0, None)
    assert made.decide(0.0) is not None
    assert policy.observed[0][6:].tolist() == [0.0] * 6


def test_old_and_repeated_messages_stop_it():
    made, policy = control("cartpole", 1)
    names = ["slider_to_cart", "cart_to_pole"]
    message = joints(names, [0.1, 0.2], [0.3, 0.4])
    made.see("joints", message, 0.0, None)
    (sent,) = written(made, made.decide(0.05), KINDS)
    assert sent.data.tolist() == [10.0]
    np.testing.assert_allclose(flat(policy.observed[0]), [0.1, 0.3, 0.2, 0.4], rtol=1e-6)
    made.see("joints", message, 0.06, None)
    assert not made.watch(0.07), "a driver that hangs repeats the last message"
    assert made.why == "joint_states is late (0.07 s old, limit 0.06 s)"
    assert made.decide(0.08) is None
    assert policy.resets > 0
    made.see("joints", joints(names, [0, 0], [0, 0], stamp=0.0), 0.09, None)
    made.see("joints", joints(names, [0, 0], [0, 0], stamp=0.0), 0.15, None)
    assert made.decide(0.2) is not None, "without a stamp, every message is new"


def test_messages_that_were_long_on_the_way_do_not_count():
    text = (MAPS / "cartpole.yaml").read_text().replace("JointState}", "JointState, max_delay: 0.1}")
    made, _ = control("cartpole", 1, text)
    made.see("joints", joints(["slider_to_cart", "cart_to_pole"], [0, 0], [0, 0]), 0.0, 0.4)
    assert made.decide(0.0) is None
    assert made.why.endswith("its newest message was 0.40 s old, limit 0.1 s")


def test_a_late_topic_may_have_a_default():
    text = (MAPS / "cartpole.yaml").read_text()
    text = text.replace(
        "topics:\n", "topics:\n  extra: {topic: extra, type: std_msgs/Float64, max_age: 0.01}\n"
    )
    both = '[cart_position, pole_angle], from: joints, field: "position[slider_to_cart, cart_to_pole]"'
    text = text.replace(both, 'pole_angle, from: joints, field: "position[cart_to_pole]"')
    text = text.replace(
        "observation:\n",
        "observation:\n  - {to: 0, from: extra, field: data, default: 7.0, late: default}\n",
    )
    made, policy = control("cartpole", 1, text)
    names = ["slider_to_cart", "cart_to_pole"]
    made.see("joints", joints(names, [0.1, 0.2], [0.3, 0.4]), 0.0, None)
    made.see("extra", message_type("std_msgs/Float64")(data=3.0), 0.0, None)
    made.decide(0.005)
    made.decide(0.05)
    assert [one[0] for one in policy.observed] == [3.0, 7.0]


@pytest.mark.parametrize("action", [2, -1, 0.5, [0, 1], math.nan])
def test_what_is_no_action_stops_it(action: Any):
    made, _ = control("cartpole", action)
    made.see("joints", joints(["slider_to_cart", "cart_to_pole"], [0, 0], [0, 0]), 0.0, None)
    assert made.decide(0.0) is None
    assert "the policy gave no action: the action is" in made.why


def test_a_trajectory_starts_where_the_joints_are_and_stays_there():
    made, _ = control("arm_trajectory", np.array([2, 0]))
    made.see("joints", joints(["elbow", "shoulder"], [1.98, -0.5]), 0.0, None)
    (message,) = written(made, made.decide(0.0), KINDS)
    assert message.joint_names == ["shoulder", "elbow"]
    (point,) = message.points
    np.testing.assert_allclose(point.positions, [-0.45, 1.93])
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 100_000_000)
    assert not made.outputs[0].stamp, "a stamp of 0 means now"
    cdr(message)
    made.see("joints", joints(["elbow", "shoulder"], [1.93, -0.45], stamp=2.0), 0.1, None)
    (message,) = written(made, made.standing(), KINDS)
    assert message.points[0].positions.tolist() == [-0.45, 1.93]
    made.see("joints", joints(["elbow", "shoulder"], [1.0, -0.9], stamp=3.0), 0.2, None)
    (message,) = written(made, made.standing(), KINDS)
    assert message.points[0].positions.tolist() == [-0.45, 1.93], "an arm that sags is not followed"


def test_a_custom_message_and_a_quaternion():
    made, policy = control("create3", [1, 2])
    reading = lambda value: type("IrIntensity", (), {"value": value})()  # noqa: E731
    vector = type("IrIntensityVector", (), {"readings": [reading(100 * at) for at in range(7)]})()
    imu = message_type("sensor_msgs/Imu")()
    imu.orientation.z, imu.orientation.w = math.sin(0.4), math.cos(0.4)
    made.see("ir", vector, 0.0, None)
    made.see("imu", imu, 0.0, None)
    (message,) = written(made, made.decide(0.0), KINDS)
    np.testing.assert_allclose(policy.observed[0][:7], np.arange(7) / 10, rtol=1e-6)
    np.testing.assert_allclose(policy.observed[0][7:], [math.cos(0.8), math.sin(0.8)], rtol=1e-6)
    assert (message.linear.x, message.angular.z) == (0.2, 1.0)
    imu = message_type("sensor_msgs/Imu")()
    imu.header.stamp.sec = 9
    made.see("imu", imu, 0.2, None)
    made.decide(0.4)
    assert "quaternion" not in made.why or "expected a length of 1" in made.why


def scan(ranges: list[float], first: float, step: float) -> Any:
    return message_type("sensor_msgs/LaserScan")(
        ranges=ranges, angle_min=first, angle_max=first + step * (len(ranges) - 1), angle_increment=step,
        range_min=0.05, range_max=30.0,
    )  # fmt: skip


def odometry(x: float, y: float, yaw: float, ahead: float = 0.0) -> Any:
    message = message_type("nav_msgs/Odometry")()
    message.pose.pose.position.x, message.pose.pose.position.y = x, y
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    message.twist.twist.linear.x, message.header.frame_id = ahead, "odom"
    return message


def test_a_mobile_base_with_a_dictionary_and_a_goal():
    made, policy = control("jackal", 4)
    assert made.decide(0.0) is None
    assert made.why == "waiting for a goal"
    made.set_goal(1.0, 1.0)
    # A Hokuyo: 270°, nothing seen is infinite.
    ranges = [math.inf] * 541
    ranges[0], ranges[270] = 1.5, 2.5
    made.see("scan", scan(ranges, -math.pi * 0.75, math.pi / 360), 0.0, None)
    made.see("odom", odometry(0.0, 1.0, math.pi / 2, ahead=0.3), 0.0, None)
    orders = made.decide(0.1)
    observed = policy.observed[0]
    assert observed["scan"].shape == (36,)
    assert observed["scan"][0] == 1.5
    assert sorted(set(observed["scan"].tolist())) == [1.5, 2.5, 10.0]
    np.testing.assert_allclose(observed["velocity"], [0.3, 0.0], rtol=1e-6)
    np.testing.assert_allclose(observed["goal"], [-math.pi / 2, 1.0], rtol=1e-6)
    (message,) = written(made, orders, KINDS)
    assert (message.linear.x, message.angular.z) == (0.4, -0.8)
    resets = policy.resets
    made.set_goal(1.0, 1.0)
    assert policy.resets == resets, "a planner that repeats its goal begins no new episode"
    made.set_goal(1.0, 1.1)
    assert policy.resets == resets + 1
    made.set_goal(1.0, 1.0)
    made.see("odom", odometry(0.9, 1.0, 0.0), 0.2, None)
    assert made.decide(0.3) is None
    assert made.why == "goal reached (0.10 m away)"
    assert made.is_idle


@settings(deadline=None)
@given(
    beams=st.lists(
        st.sampled_from([0.0, 0.05, 0.3, 1.0, 3.4, 3.6, math.inf, math.nan]), min_size=24, max_size=400
    ),
    yaw=st.floats(-3, 3),
    goal=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
def test_the_turtlebot_by_a_map_sees_what_its_node_sees(beams: list[float], yaw: float, goal: Any):
    from qhat.runtime.qhat_robot.scan import ScanReader
    from qhat.runtime.qhat_robot.task import Task

    task = Task(24, 0.12, 3.5, 0.15, (1.5, 0.75, 0.0, -0.75, -1.5), 0.25, 0.2, 5.66)
    made, policy = control("turtlebot3", 0)
    made.set_goal(*goal)
    message = scan(beams, 0.0, 2 * math.pi / len(beams))
    made.see("scan", message, 0.0, None)
    made.see("odom", odometry(0.5, -0.5, yaw), 0.0, None)
    orders = made.decide(0.1)
    try:
        look = ScanReader(task).read(message)
    except UnusableError:
        assert orders is None
        return
    if orders is None:
        assert made.why.startswith("goal reached")
        return
    wanted = observation_of(look, Pose(0.5, -0.5, yaw), goal, task)
    np.testing.assert_allclose(policy.observed[0], wanted, atol=1e-5)


# Pictures ------------------------------------------------------------------------------------------------


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Any:
    """An Image, also with rows that are longer than their pixels."""
    rows = pixels.reshape(len(pixels), -1)
    rows = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">" if big else "<"))).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return message_type("sensor_msgs/Image")(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1],
        is_bigendian=int(big), data=[int(one) for one in rows.ravel()],
    )  # fmt: skip


def test_encodings_and_padded_rows():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for encoding, pixels in (
        ("rgb8", rgb), ("bgr8", rgb[..., ::-1]), ("8UC3", rgb[..., ::-1]),
        ("rgba8", np.dstack([rgb, rgb[..., 0]])), ("bgra8", np.dstack([rgb[..., ::-1], rgb[..., 0]])),
    ):  # fmt: skip
        for padding in (0, 5):
            got = pictures.picture(image(pixels, encoding, padding), (6, 8, 3))
            np.testing.assert_array_equal(got, rgb)
            np.testing.assert_array_equal(
                pictures.picture(image(pixels, encoding, padding), (3, 6, 8)), np.moveaxis(rgb, -1, 0)
            )
    depth = rng.integers(0, 5_000, (4, 4), dtype=np.uint16)
    for big in (False, True):
        np.testing.assert_array_equal(pictures.picture(image(depth, "16UC1", 2, big), (4, 4)), depth)
    metres = depth.astype(np.float32) / 1000
    np.testing.assert_array_equal(pictures.picture(image(metres, "32FC1"), (4, 4, 1))[..., 0], metres)
    grey = pictures.picture(image(rgb, "rgb8"), (6, 8))
    np.testing.assert_allclose(grey, rgb @ [0.299, 0.587, 0.114])


def test_yuv_as_usb_cam_publishes_it():
    # White, black and a red pair, as YUYV (ITU-R BT.601).
    yuyv = np.array([[[235, 128], [16, 128], [81, 90], [81, 240]]], np.uint8)
    got = pictures.picture(image(yuyv, "yuv422_yuy2"), (1, 4, 3))
    np.testing.assert_allclose(got[0], [[255, 255, 255], [0, 0, 0], [255, 0, 0], [255, 0, 0]], atol=2)
    swapped = image(yuyv[..., ::-1], "yuv422")
    np.testing.assert_array_equal(pictures.picture(swapped, (1, 4, 3)), got)


@pytest.mark.parametrize(("height", "width"), [(84, 84), (60, 80), (100, 33), (480, 640), (500, 700)])
def test_sizes_change_by_area(height: int, width: int):
    pixels = np.random.default_rng(1).integers(0, 256, (480, 640), dtype=np.uint8)
    got = pictures.resized(pixels[..., None].astype(float), height, width)[..., 0]

    # The exact mean: of the picture repeated, so that every new pixel is a whole block.
    def block(size: int, wanted: int) -> np.ndarray:
        ends = np.linspace(0, size, wanted + 1)
        fine = np.arange(size * wanted) / wanted
        weights = np.zeros((wanted, size))
        np.add.at(
            weights,
            (np.minimum(np.searchsorted(ends, fine + 0.5 / wanted) - 1, wanted - 1), fine.astype(int)),
            1,
        )
        return weights / weights.sum(axis=1, keepdims=True)

    wanted = block(480, height) @ pixels.astype(float) @ block(640, width).T
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_damaged_pictures_are_refused():
    good = image(np.zeros((4, 4, 3), np.uint8), "rgb8")
    good.encoding = "bayer_rggb8"
    with pytest.raises(UnusableError, match="encoding is 'bayer_rggb8'; expected one of mono8"):
        pictures.picture(good, (4, 4, 3))
    good.encoding, good.height = "rgb8", 5
    with pytest.raises(UnusableError, match="expected rows of at least 12, and 5 of them"):
        pictures.picture(good, (4, 4, 3))


def test_a_picture_is_an_entry_of_the_observation():
    text = """
rate: 10
topics:
  camera: {topic: image_raw, type: sensor_msgs/Image}
  speed: {topic: speed, type: std_msgs/Float32}
observation:
  - {to: camera, from: camera, as: image}
  - {to: speed, from: speed, field: data}
commands:
  - {topic: out, type: std_msgs/Int32, actions: [{data: 0}, {data: 1}], stop: nothing}
"""
    policy = about(entries=[(["camera"], [8, 8, 3], "uint8"), (["speed"], [1], "float32")])
    from qhat.runtime.qhat_robot.facts import Facts
    from qhat.runtime.qhat_robot.mapped import MappedControl
    from ros_maps import Scripted

    acting = Scripted(1)
    made = MappedControl(plan_of(text, policy), Facts.of(policy), acting, started=True)
    made.see("camera", image(np.full((48, 64, 3), 200, np.uint8), "rgb8"), 0.0, None)
    made.see("speed", message_type("std_msgs/Float32")(data=0.5), 0.0, None)
    (message,) = written(made, made.decide(0.0), KINDS)
    assert message.data == 1
    assert acting.observed[0]["camera"].dtype == np.uint8
    assert (acting.observed[0]["camera"] == 200).all()
    assert acting.observed[0]["speed"].tolist() == [0.5]
    assert made.standing() == [None]


# Mistakes in a map ------------------------------------------------------------------------------------

CARTPOLE = (MAPS / "cartpole.yaml").read_text()
MISTAKES = [
    (
        "type: sensor_msgs/JointState",
        "type: sensor_msgs/JointStates",
        "which is no message of ROS 2; expected one. Did you mean 'sensor_msgs/JointState'?",
    ),
    (
        "type: sensor_msgs/JointState",
        "type: JointState",
        "topics.joints.type is 'JointState'; expected a message type such as",
    ),
    (
        "type: sensor_msgs/JointState",
        "type: sensor_msg/JointState",
        "Did you mean 'sensor_msgs/JointState'?",
    ),
    (
        "topic: joint_states",
        "tpic: joint_states",
        "topics.joints.tpic is no key of a map; expected one of topic, type,",
    ),
    ("topic: joint_states", "tpic: joint_states", "Did you mean 'topic'?"),
    (
        "@POSITION",
        'field: "postion[a, b]"',
        "sensor_msgs/JointState has no field 'postion'; expected one of header, name,",
    ),
    ("@POSITION", 'field: "postion[a, b]"', "Did you mean 'position'?"),
    (
        "@POSITION",
        "field: name",
        "observation[0].field is 'name', which is a string[]; expected a field that is a",
    ),
    (
        "@POSITION",
        "field: header",
        "which is a std_msgs/Header; expected one of its fields: stamp, frame_id.",
    ),
    (
        "@POSITION",
        'field: "position[slider]"',
        "observation[0] gives 1 number of 'position[slider]' for 2 of the observation;",
    ),
    ("[cart_position, pole_angle]", "[cart_position, pole_angel]", "Did you mean 'pole_angle'?"),
    (
        "[cart_position, pole_angle]",
        "[cart_position, cart_velocity]",
        "observation[1].to fills 1 (cart_velocity), which observation[0] fills;",
    ),
    (
        "[cart_position, pole_angle]",
        '"0:9"',
        "observation[0].to is '0:9'; expected places below 4, which the observation has.",
    ),
    (
        "from: joints, @POSITION",
        "from: joint, field: position",
        "observation[0].from is 'joint'; expected a name under topics, or one of goal,",
    ),
    ("from: joints, @POSITION", "from: joint, field: position", "Did you mean 'joints'?"),
    (
        "from: joints, @POSITION",
        "from: goal, field: x",
        "observation[0].from is 'goal', and the map has no goal; expected one.",
    ),
    (
        "push left:",
        "push lefft:",
        "commands[0].actions.push lefft is no action; expected 2 entries, one for each",
    ),
    ("push left:", "push lefft:", "action: push left, push right. Did you mean 'push left'?"),
    ("      push left: {data: [-10.0]}\n", "", "commands[0].actions has 1 entries; expected 2 entries"),
    (
        "{data: [-10.0]}",
        "{data: [much]}",
        "push left.data is ['much']; expected a finite number or a list.",
    ),
    (
        "{data: [-10.0]}",
        "{dat: [-10.0]}",
        "has no field 'dat'; expected one of layout, data. Did you mean 'data'?",
    ),
    (
        "    stop: {data: [0.0]}\n",
        "",
        "commands[0].stop is missing; expected the fields of the message that stops the robot",
    ),
    (
        "stop: {data: [0.0]}",
        "stop: safe_action",
        "the policy has none; give the export its safe action.",
    ),
    ("rate: 50", "rate: fast", "rate is 'fast'; expected a number, more than 0."),
    ("rate: 50", "rate: 0", "rate is 0; expected a number, more than 0."),
    ("timeout: 0.06", "timeout: 0.06\ntimeout: 0.1", "the map has 'timeout' two times, the second in line"),
    ("topics:\n", "topics: {\n", "the map is no YAML (line"),
    (
        "package: qhat_cartpole",
        "package: My Robot",
        "package is 'My Robot'; expected lower-case letters, digits and _",
    ),
    ("package: qhat_cartpole", "beyond: refuze", "expected refuse, clip, ignore. Did you mean 'refuse'?"),
    (
        "commands:\n",
        "comands:\n",
        "comands is no key of a map; expected one of package, rate, timeout, beyond,",
    ),
    (
        "effort_controller/commands\n",
        "effort\n    stamped: auto\n",
        "commands[0].stamped is for the type geometry_msgs/Twist only.",
    ),
    (
        "@VELOCITY",
        'field: "velocity[0:2]", as: yaww',
        "observation[1].as is 'yaww'; expected roll, pitch, yaw",
    ),
    (
        "@VELOCITY",
        'field: "velocity[0:2]", as: yaw',
        "has 2 numbers; expected a quaternion, as in orientation.",
    ),
    (
        "@VELOCITY",
        "as: beams",
        "and joints has the type sensor_msgs/JointState; expected sensor_msgs/LaserScan.",
    ),
    (
        "@VELOCITY",
        'field: "velocity[0:2]", late: default',
        "is 'default', and there is none; expected a default.",
    ),
    (
        "@VELOCITY",
        'field: "velocity[0:2]", clip: [1, -1]',
        "is [1, -1]; expected the lowest and the highest number",
    ),
    (
        "stop: {data: [0.0]}",
        "stop: {data: [.nan]}",
        "stop.data is [nan]; expected a finite number or a list",
    ),
    ("{data: [-10.0]}", "{data: [-.inf]}", "data is [-inf]; expected"),
    ("topic: joint_states", "topic: joint states", "is 'joint states'; expected a topic's name"),
    ("effort_controller/commands", "effort_controller//commands", "expected a topic's name"),
    ("effort_controller/commands", "/2effort", "expected a topic's name"),
    *(
        ("package: qhat_cartpole", f"package: {name}", f"package is '{name}', which Python or ROS uses")
        for name in ("class", "rclpy", "json", "sensor_msgs")
    ),
]
"""What is replaced in the map of the cart-pole, by what, and a part of the sentence."""


@pytest.mark.parametrize(("right", "wrong", "says"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_sentence(right: str, wrong: str, says: str):
    for name in ("position", "velocity"):
        right = right.replace(f"@{name.upper()}", f'field: "{name}[slider_to_cart, cart_to_pole]"')
    assert right in CARTPOLE
    with pytest.raises(UsageError) as refused:
        plan_of(CARTPOLE.replace(right, wrong), POLICIES["cartpole"], "robot.yaml")
    assert says in str(refused.value)
    assert str(refused.value).startswith("robot.yaml: ")
    assert "\n" not in str(refused.value)


def test_an_observation_that_is_not_full_names_what_is_missing():
    text = CARTPOLE[: CARTPOLE.index("  - {to: [cart_velocity")] + CARTPOLE[CARTPOLE.index("commands:") :]
    with pytest.raises(UsageError, match=r"fills 2 of 4 numbers; expected also 1 \(cart_velocity\), 3"):
        plan_of(text, POLICIES["cartpole"])
    text = (MAPS / "ur5e.yaml").read_text().replace("{field: data,", '{field: data, action: "0:5",')
    with pytest.raises(UsageError, match="5 of the action's 6 numbers; expected also number 5"):
        plan_of(text, POLICIES["ur5e"])


def test_a_map_may_set_numbers_as_yaml_reads_them():
    text = CARTPOLE.replace("timeout: 0.06", "timeout: 6e-2").replace("[-10.0]", "[-1e1]")
    assert plan_of(text, POLICIES["cartpole"]).timeout == 0.06


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[1, 2]", b"!!python/object/apply:os.system ['true']"]
)
def test_what_is_no_map_is_refused(content: bytes, tmp_path: Path):
    path = tmp_path / "robot.yaml"
    with pytest.raises(UsageError, match="is no file; expected a YAML file"):
        read_map(path)
    path.write_bytes(content)
    with pytest.raises(UsageError):
        plan_of(read_map(path), POLICIES["cartpole"])


@given(st.text(alphabet="abxyz_[]:,.0 3", max_size=20))
def test_any_text_is_a_path_or_a_sentence(text: str):
    said = "expected"
    try:
        FieldPath.read(text).leaf("sensor_msgs/Imu")
    except UnusableError as error:
        said = str(error)
    assert "expected" in said
