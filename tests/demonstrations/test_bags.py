"""ROS 2 bags in MCAP, as `qhat learn`, `--demos` and `qhat doctor` read them by a robot's map.

Protects against observations from the future, rewards and ends of another step, actions that nobody took,
and recordings of which a part is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from qhat.axes.actions import Actions
from qhat.cli import main
from qhat.demonstrations import bags
from qhat.demonstrations.reading import raw, read
from qhat.demonstrations.sources import env_of, is_data, require_readable
from qhat.environments.base import Spec
from qhat.environments.observations import Observations
from qhat.runtime.qhat_robot.facts import Facts
from qhat.runtime.qhat_robot.mapping import RobotMap, load_yaml
from qhat.system.errors import UsageError
from ros_maps import MAPS, POLICIES
from ros_messages import message_type

pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed: no bag is read")
from bag_files import Sent, write_bag

SPEC = Spec("CartPole-v1", "gymnax", (4,), "float32", Actions((2,)))
PERIOD = 0.02
LOG = """
log:
  environment: CartPole-v1
  topics:
    reward: {topic: reward, type: std_msgs/Float32}
    done: {topic: episode/terminated, type: std_msgs/Bool}
    cut: {topic: episode/truncated, type: std_msgs/Bool}
  reward: {from: reward, field: data}
  terminated: {from: done, field: data}
  truncated: {from: cut, field: data}
"""
CARTPOLE = (MAPS / "cartpole.yaml").read_text() + LOG


def message(kind: str, **fields: Any) -> Any:
    return message_type(kind)(**fields)


def joints(state: np.ndarray, time: float) -> Any:
    """Joint states in another order than the environment's, with a stamp."""
    made = message(
        "sensor_msgs/JointState", name=["cart_to_pole", "slider_to_cart"],
        position=[float(state[2]), float(state[0])], velocity=[float(state[3]), float(state[1])],
    )  # fmt: skip
    stamp = 1_700_000_000 + time
    made.header.stamp.sec, made.header.stamp.nanosec = int(stamp), round(stamp % 1 * 1e9)
    return made


def drive(episodes: int = 4, steps: int = 18) -> tuple[list[Sent], dict[str, np.ndarray]]:
    """Record CartPole as a node drives it, and the transitions as Gymnasium has them.

    Joint states come ten times in a step; the newest before a command is what the command is for.
    """
    env, rng, sent, rows = gymnasium.make("CartPole-v1"), np.random.default_rng(0), [], []
    time = 0.5
    for episode in range(episodes):
        state, _ = env.reset(seed=episode)
        for step in range(steps):
            # A timer is late by up to a tenth of the period.
            late = rng.uniform(0, 0.1 * PERIOD)
            for before in range(10, 0, -1):
                old = state + (before - 1) * 0.01
                sent.append(Sent(time - before * 1e-3, "/joint_states", joints(old, time - before * 1e-3)))
            action = int(rng.integers(2))
            force = message("std_msgs/Float64MultiArray", data=[(-10.0, 10.0)[action]])
            sent.append(Sent(time + late, "/effort_controller/commands", force))
            after, one, ended, _, _ = env.step(action)
            reward = float(one) + step
            cut = not ended and step == steps - 1
            rows.append((state, action, reward, after, ended, cut))
            time += PERIOD
            sent.append(Sent(time - 0.004, "/reward", message("std_msgs/Float32", data=reward)))
            if ended:
                sent.append(Sent(time - 0.003, "/episode/terminated", message("std_msgs/Bool", data=True)))
            if cut:
                sent.append(Sent(time - 0.003, "/episode/truncated", message("std_msgs/Bool", data=True)))
            state = after
            if ended or cut:
                break
        # What follows the last step, and a pause in which somebody lifts the pole.
        sent.append(Sent(time - 0.001, "/joint_states", joints(state, time - 0.001)))
        time += 0.4
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    return sent, dict(zip(names, map(np.asarray, zip(*rows, strict=True)), strict=True))


def bag(folder: Path, sent: list[Sent] | None = None, text: str = CARTPOLE, **how: Any) -> str:
    """Write a bag and a map; return the word that names both."""
    sent = drive()[0] if sent is None else sent
    folder.mkdir(exist_ok=True, parents=True)
    write_bag(folder / "run.mcap", sorted(sent, key=lambda one: one.time), **how)
    (folder / "map.yaml").write_text(text)
    return f"{folder / 'run.mcap'}@{folder / 'map.yaml'}"


def test_transitions_are_those_that_gymnasium_made(tmp_path: Path) -> None:
    sent, rows = drive()
    source = bag(tmp_path, sent)
    assert is_data(source)
    assert env_of(source) == "CartPole-v1"
    found = read(source, SPEC)
    np.testing.assert_array_equal(found.terminated, rows["terminated"])
    np.testing.assert_array_equal(found.truncated, rows["truncated"])
    np.testing.assert_array_equal(found.action[:, 0], rows["action"])
    np.testing.assert_array_equal(found.reward, rows["reward"].astype(np.float32))
    np.testing.assert_allclose(found.observation, rows["observation"], rtol=1e-6)
    np.testing.assert_allclose(found.successor, rows["next_observation"], rtol=1e-6)
    assert found.breaks(source) is None
    assert rows["terminated"].any()
    assert rows["truncated"].any()


LEARN = (
    "--steps", "60", "--batch-size", "16", "--eval-every", "60", "--eval-episodes", "1", "--hidden", "8",
)  # fmt: skip


def exit_of(*words: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    return ended.value.code


def test_a_bag_is_learned_from_and_examined(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = bag(tmp_path / "bag", drive(12, 18)[0])
    assert exit_of("learn", source, *LEARN, "--run-dir", str(tmp_path / "run")) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["demos"] == [source]
    capsys.readouterr()
    assert exit_of("doctor", source) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "choices 0 to 1" in out
    assert "0 not marked" in out
    words = ["train", "CartPole-v1", "--recipe", "dqn", "--demos", source, *LEARN]
    assert exit_of(*words, "--run-dir", str(tmp_path / "online")) == 0


def test_a_bag_of_another_writer_in_a_folder(tmp_path: Path) -> None:
    """Package rosbags writes the folder that `ros2 bag record` writes, with metadata.yaml."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from ros_messages import cdr

    sent, rows = drive()
    folder, store = tmp_path / "rosbag2", get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for one in sorted(sent, key=lambda one: one.time):
            kind = type(one.message).full_name.replace("/", "/msg/")
            if one.topic not in connections:
                connections[one.topic] = writer.add_connection(one.topic, kind, typestore=store)
            at = 1_700_000_000_000_000_000 + round(one.time * 1e9)
            writer.write(connections[one.topic], at, cdr(one.message))
    (tmp_path / "map.yaml").write_text(CARTPOLE)
    found = read(f"{folder}@{tmp_path / 'map.yaml'}", SPEC)
    np.testing.assert_array_equal(found.action[:, 0], rows["action"])
    np.testing.assert_allclose(found.successor, rows["next_observation"], rtol=1e-6)


def test_a_namespace_and_compression_change_nothing(tmp_path: Path) -> None:
    from mcap.writer import CompressionType

    sent, _ = drive()
    first = read(bag(tmp_path / "0", sent), SPEC)
    there = [one._replace(topic=f"/robot1{one.topic}") for one in sent]
    ways: list[dict[str, Any]] = [
        {"compression": CompressionType.LZ4}, {"compression": CompressionType.NONE},
        {"use_chunking": False}, {"use_statistics": False},
    ]  # fmt: skip
    for number, how in enumerate(ways):
        found = read(bag(tmp_path / str(number + 1), there, **how), SPEC)
        np.testing.assert_allclose(found.observation, first.observation, rtol=1e-6)
        np.testing.assert_array_equal(found.reward, first.reward)


def test_late_observations_break_the_recording_off(tmp_path: Path) -> None:
    """Between 0.6 and 0.7 s no joint state came, and the node would have stood after 0.06 s."""
    sent = [one for one in drive()[0] if not (one.topic == "/joint_states" and 0.6 < one.time < 0.7)]
    source = bag(tmp_path, sent)
    whole, found = read(bag(tmp_path / "whole"), SPEC), read(source, SPEC)
    assert len(whole) - 5 <= len(found) < len(whole)
    assert "break off after 1 of" in str(found.breaks(source))


def test_a_command_stands_until_the_timeout(tmp_path: Path) -> None:
    """Somebody sends a command each third step only: it stands for three steps."""
    sent, rows = drive(1, 9)
    kept, commands = [], 0
    for one in sorted(sent, key=lambda one: one.time):
        if "commands" in one.topic:
            commands += 1
            if commands % 3 != 1:
                continue
        kept.append(one)
    text = CARTPOLE.replace("{from: done, field: data}", "{value: 0}").replace("0.06", "0.07")
    text = text.replace("    done: {topic: episode/terminated, type: std_msgs/Bool}\n", "")
    found = read(bag(tmp_path, kept, text), SPEC)
    # Nothing says how long the last one stood.
    np.testing.assert_array_equal(found.action[:, 0], np.repeat(rows["action"][[0, 3, 6]], 3)[:7])
    assert np.flatnonzero(found.truncated).tolist() == [6]


def test_a_flag_that_stays_ends_one_episode(tmp_path: Path) -> None:
    """The simulator says again and again that it is over, until it begins anew."""
    sent, rows = drive()
    for one in list(sent):
        if one.topic == "/episode/terminated":
            for again in (0.01, 0.05, 0.1):
                sent.append(one._replace(time=one.time + again))
            sent.append(Sent(one.time + 0.3, one.topic, message("std_msgs/Bool", data=False)))
    found = read(bag(tmp_path, sent), SPEC)
    np.testing.assert_array_equal(found.terminated, rows["terminated"])


def test_an_arm_of_joints_and_what_is_added(tmp_path: Path) -> None:
    """Actions are differences to where the joints are; the message says where they shall be."""
    text = """
rate: 10
topics: {joints: {topic: joints, type: sensor_msgs/JointState}}
observation: [{to: "0:2", from: joints, field: "position[a, b]"}]
commands:
  - topic: command
    type: trajectory_msgs/JointTrajectory
    fields:
      - field: "points[0].positions[0:2]"
        scale: 0.5
        offset: 0.25
        add: {from: joints, field: "position[a, b]"}
    set: {joint_names: [a, b]}
    stop: nothing
log:
  reward: {value: -1.0}
  terminated: {value: 0}
"""
    arm = Spec("arm", "own", (2,), "float32", Actions.binned([-1.0, -1.0], [1.0, 1.0], (5, 5), "arm"))
    rng, sent = np.random.default_rng(0), []
    place, actions = np.zeros(2), np.round(rng.uniform(-1, 1, (20, 2)) * 2) / 2
    for step, action in enumerate(actions):
        state = message("sensor_msgs/JointState", name=["b", "a"], position=place[::-1].tolist())
        place = place + 0.5 * action + 0.25
        point = message("trajectory_msgs/JointTrajectoryPoint", positions=place.tolist())
        aim = message("trajectory_msgs/JointTrajectory", joint_names=["a", "b"], points=[point])
        sent += [Sent(0.1 * step, "/joints", state), Sent(0.1 * step + 0.01, "/command", aim)]
    found = read(bag(tmp_path, sent, text), arm)
    np.testing.assert_array_equal(found.action, actions[: len(found)] * 2 + 2)
    assert len(found) == 19, "after the last command nothing was recorded"
    np.testing.assert_array_equal(found.reward, -1.0)


def test_dictionaries_and_stamped_velocities(tmp_path: Path) -> None:
    """The map of a Jackal: a scan, a goal on a topic, and actions as TwistStamped."""
    text = (MAPS / "jackal.yaml").read_text()
    space = gymnasium.spaces.Dict(
        {name: gymnasium.spaces.Box(-99, 99, (size,)) for name, size in
         (("goal", 2), ("scan", 36), ("velocity", 2))}
    )  # fmt: skip
    jackal = Spec("jackal", "own", (40,), "float32", Actions((5,)), layout=Observations.of(space, "jackal"))
    plan = load_yaml(text)
    kinds = {one["topic"]: one["type"] for one in plan["topics"].values()}
    table, command = plan["commands"][0]["actions"], plan["commands"][0]["topic"]
    sent, goal = [], message("geometry_msgs/PoseStamped")
    goal.pose.position.x, goal.header.frame_id = 5.0, "odom"
    for step in range(12):
        time = 0.1 + step / plan["rate"]
        for topic, kind in kinds.items():
            made = message(kind)
            made.header.stamp.sec, made.header.stamp.nanosec = 1_700_000_000, round(time * 1e9)
            if kind == "nav_msgs/Odometry":
                made.pose.pose.position.x, made.header.frame_id = 0.1 * step, "odom"
                made.pose.pose.orientation.w, made.twist.twist.linear.x = 1.0, 0.01 * step
            else:
                made.ranges, made.range_max, made.angle_increment = [4.0] * 360, 30.0, np.pi / 180
                made.angle_min, made.angle_max = -np.pi, np.pi - np.pi / 180
            sent.append(Sent(time, f"/{topic.lstrip('/')}", made))
        sent += [Sent(time + 0.001, "/goal_pose", goal)] if step == 0 else []
        move = message("geometry_msgs/TwistStamped")
        row = table[step % 5] if isinstance(table, list) else list(table.values())[step % 5]
        for field, value in row.items():
            part, axis = field.split(".")[-2:]
            setattr(getattr(move.twist, part), axis, float(value))
        sent.append(Sent(time + 0.002, f"/{command.lstrip('/')}", move))
    log = "\nlog: {reward: {value: 0.5}, terminated: {value: 0}}\n"
    found = read(bag(tmp_path, sent, text + log), jackal)
    np.testing.assert_array_equal(found.action[:, 0], np.arange(11) % 5)
    distances = found.observation[:, :2]
    assert (np.diff(distances.max(axis=1)) < 0).all(), "it drives to the goal"
    goal.header.frame_id = "map"
    with pytest.raises(UsageError, match=r"/goal_pose at .* frame 'map', and the odometry in 'odom'"):
        read(bag(tmp_path / "map", sent, text + log), jackal)


def test_a_command_of_no_action(tmp_path: Path) -> None:
    sent, rows = drive()
    at = next(at for at, one in enumerate(sent) if "commands" in one.topic)
    sent[at] = sent[at]._replace(message=message("std_msgs/Float64MultiArray", data=[7.5]))
    sentence = r"commands at 0\.0.* s cannot be used: data are 7.5, which no action of the map sets"
    with pytest.raises(UsageError, match=sentence):
        read(bag(tmp_path, sent), SPEC)
    found = read(bag(tmp_path, sent, CARTPOLE + "  nearest: true\n"), SPEC)
    assert found.action[0, 0] == 1
    np.testing.assert_array_equal(found.action[1:, 0], rows["action"][1:])
    sent[at] = sent[at]._replace(message=message("std_msgs/Float64MultiArray", data=[0.0]))
    assert len(read(bag(tmp_path, sent), SPEC)) == len(rows["action"]) - 1, "the map's stop is no action"


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [half, flipped, lambda path: path.write_bytes(b""),
                                    lambda path: path.write_bytes(path.read_bytes()[:-1])])  # fmt: skip
def test_a_damaged_bag_is_refused(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    source = bag(tmp_path)
    damage(tmp_path / "run.mcap")
    with pytest.raises(UsageError, match=r"run.mcap' is damaged, or its recording.*mcap recover"):
        read(source, SPEC)


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "a topic": (
        lambda text: text.replace("topic: joint_states", "topic: joint_stats"),
        "topics.joints.topic is 'joint_stats', and the bag has no such topic.*Did you mean '/joint_states'",
    ),
    "a type": (
        lambda text: text.replace("std_msgs/Float32", "std_msgs/Float64"),
        "/reward has the type std_msgs/Float32 in the bag, and the map says std_msgs/Float64",
    ),
    "a command": (
        lambda text: text.replace("std_msgs/Float64MultiArray", "std_msgs/Float32MultiArray"),
        "/effort_controller/commands has the type std_msgs/Float64MultiArray in the bag",
    ),
    "a size": (
        lambda text: text.replace("0.0]", "0.0, 0.0]"),
        "data have 1 numbers; expected 2",
    ),
    "no log": (lambda text: text.replace(LOG, ""), "map.yaml: the map has no log, which says where"),
    "no reward": (
        lambda text: text.replace("  reward: {from: reward, field: data}\n", ""), "no log.reward",
    ),
    "no ends": (
        lambda text: text.replace("  terminated: {from: done, field: data}\n", ""), "no log.terminated",
    ),
    "a key": (lambda text: text + "  rewards: 1\n", "log.rewards is no key.*Did you mean 'reward'"),
    "no yaml": (lambda text: text + "\t: [", "map.yaml: the map is no YAML"),
    "a place": (lambda text: text.replace("cart_velocity", "cart_speed"), "to is 'cart_speed'; expected"),
    "names": (lambda text: text + "  observation_names: [a]\n", "observation_names is .*list of 4 texts"),
    "a field": (lambda text: text.replace("reward, field: data", "reward, field: date"), "no field 'date'"),
    "no default": (
        lambda text: text.replace("from: reward, field: data", "from: cut, field: data"),
        "have no reward from .* expected a message in every step, or a default",
    ),
    "always": (
        lambda text: text.replace("{from: done, field: data}", "{value: 1}"), "value is 1; expected 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_map_is_refused_in_one_sentence(how: str, tmp_path: Path) -> None:
    change, sentence = WRONG[how]
    assert change(CARTPOLE) != CARTPOLE
    source = bag(tmp_path, text=change(CARTPOLE))
    with pytest.raises(UsageError, match=sentence) as error:
        read(source, SPEC)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_what_else_a_bag_can_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bag(tmp_path)
    path = source.partition("@")[0]
    with pytest.raises(UsageError, match=r"nothing says what its.*run.mcap@MAP.yaml"):
        require_readable(path)
    with pytest.raises(UsageError, match=r"The map 'gone.yaml' is no file"):
        require_readable(f"{path}@gone.yaml")
    with pytest.raises(UsageError, match=r"'gone.mcap' is no file; expected a bag"):
        require_readable("gone.mcap@map.yaml")
    bare = bag(tmp_path / "bare", text=CARTPOLE.replace("  environment: CartPole-v1\n", ""))
    assert env_of(bare) is None
    with pytest.raises(UsageError, match=r"the map has no log.environment"):
        raw(bare)
    with pytest.raises(UsageError, match=r"by definitions in 'ros2idl'; expected cdr and ros2msg"):
        read(bag(tmp_path / "idl", encoding="ros2idl"), SPEC)
    small = Spec("CartPole-v1", "gymnax", (4,), "float32", Actions((3,)))
    with pytest.raises(UsageError, match=r"push left is no action; expected 3 entries"):
        read(source, small)
    monkeypatch.setattr(bags, "installed", lambda module: module != "mcap_ros2")
    with pytest.raises(UsageError, match=r"need mcap-ros2-support, which.*pip install"):
        require_readable(source)


def test_the_node_takes_a_map_with_a_log() -> None:
    """One file is for both, so the node must read it."""
    facts, plain = Facts.of(POLICIES["cartpole"]), (MAPS / "cartpole.yaml").read_text()
    assert RobotMap.read(CARTPOLE, facts).topics == RobotMap.read(plain, facts).topics
