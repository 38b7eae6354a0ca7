"""The runner on a robot: a sentence for what is wrong, the safe action in the loop, and never garbage.

Protects against a folder that somebody edited or broke, observations of another sensor, numbers that are
not finite, sensors that are late, and filters that fail.
"""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_export import FEW, a_run

import qhat
from hostile import HUGE, opened, packed
from qhat import runtime
from qhat.runtime import Policy, PolicyError, Runner

OBSERVATION = np.array([0.1, 0.0, -0.02, 0.3], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = a_run("CartPole-v1", tmp_path_factory.mktemp("runtime"))
    return qhat.export(run, observations=FEW).path


@pytest.fixture(params=["numpy", "onnxruntime"])
def policy(request: pytest.FixtureRequest, folder: Path) -> Policy:
    return Policy.load(folder, request.param)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_a_file_needs_is_numpy_and_python_3_9():
    source = Path(runtime.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    assert {str(name).partition(".")[0] for name in names} == {
        "__future__", "collections", "hashlib", "importlib", "json", "math", "numpy", "onnxruntime",
        "pathlib", "stat", "threading", "time", "typing",
    }  # fmt: skip
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    assert "strict=" not in source, "zip knows it from 3.10 on"


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (np.zeros(5, np.float32), r"has shape \(5,\); expected \(4,\)"),
        (OBSERVATION[None], r"has shape \(1, 4\); expected \(4,\)"),
        (0.5, r"has shape \(\); expected \(4,\)"),
        ([[1], [2, 3]], "expected numbers"),
        (None, r"has shape \(\)"),
        (["a", "b", "c", "d"], "expected float32 numbers"),
        (np.zeros(4, complex), "is complex128.*expected float32"),
        (np.zeros(4, object), "is object"),
        (
            np.array([0, math.nan, 0, 0], np.float32),
            r"at \(1,\) \(cart_velocity\) is nan; expected a finite",
        ),
        (
            np.array([math.inf, 0, 0, 0], np.float32),
            r"at \(0,\) \(cart_position\) is inf; expected a finite",
        ),
        (np.array([0, 0, 0, -math.inf]), r"at \(3,\) \(pole_velocity\) is -inf; expected a finite"),
        (np.array([0, 1e300, 0, 0]), "is inf; expected a finite"),
        (np.array([0, 0, 0.5, 0]), r"at \(2,\) \(pole_angle\) is 0.5; expected -0.41.* to 0.41"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_an_observation_that_is_none_is_refused(policy: Policy, observation: Any, sentence: str):
    before = policy.act(OBSERVATION)
    with pytest.raises(PolicyError, match=sentence):
        policy.act(observation)
    with pytest.raises(PolicyError, match=sentence):
        policy.q_values(observation)
    assert policy.act(OBSERVATION) == before, "nothing of it is left"


def test_other_types_of_numbers_that_are_the_same_are_taken(policy: Policy):
    expected = policy.q_values(OBSERVATION)
    np.testing.assert_array_equal(policy.q_values(OBSERVATION.astype(float)), expected)
    np.testing.assert_array_equal(policy.q_values(OBSERVATION.tolist()), expected)
    assert policy.q_values([0, 1, 0, 1]).shape == (2,)
    two = np.stack([OBSERVATION, OBSERVATION])
    np.testing.assert_array_equal(policy.q_values(two[:, ::1][0]), expected)
    np.testing.assert_array_equal(policy.q_values(np.repeat(OBSERVATION, 2)[::2]), expected)


def test_values_belong_to_the_caller(policy: Policy):
    kept = policy.q_values(OBSERVATION)
    copy = kept.copy()
    policy.q_values(-OBSERVATION)
    np.testing.assert_array_equal(kept, copy)


def test_bounds_can_be_brought_to_or_ignored(folder: Path):
    beyond, at = OBSERVATION.copy(), OBSERVATION.copy()
    beyond[2], at[2] = 0.6, json.loads((folder / "policy.json").read_text())["observation"]["high"][2]
    clipping, ignoring = (Policy.load(folder, beyond=how) for how in ("clip", "ignore"))
    np.testing.assert_array_equal(clipping.q_values(beyond), clipping.q_values(at))
    assert not np.array_equal(ignoring.q_values(beyond), clipping.q_values(beyond))
    for policy in (clipping, ignoring):
        with pytest.raises(PolicyError, match="expected a finite"):
            policy.act(np.full(4, np.nan, np.float32))
    for word, value in (("beyond", "cut"), ("runtime", "torch")):
        with pytest.raises(PolicyError, match=f"{word} is '{value}'; expected"):
            Policy.load(folder, **{word: value})


@pytest.mark.parametrize("mask", [[1, 1, 1], [0, 0], [0.5, 1], ["a", "b"], [[1], [1]], 1, [[1, 0], [1, 0]]])
def test_a_mask_that_is_none_is_refused(policy: Policy, mask: Any):
    with pytest.raises(PolicyError, match="mask"):
        policy.act(OBSERVATION, mask)


def made(
    network: list, tensors: dict[str, Any], shape: tuple[int, ...], numbers: str, **actions: Any
) -> Policy:
    action_space = {
        "kind": "discrete",
        "choices": [2],
        "commands": None,
        "dtype": "int64",
        "masked": False,
        **actions,
    }
    observation = {"shape": list(shape), "dtype": numbers, "low": [None], "high": [None], "names": None}
    about = {
        "observation": observation,
        "actions": action_space,
        "network": network,
        "safe_action": None,
        "timeout": None,
    }
    return Policy(about, runtime.planned(network, tensors), False)


def linear(weight: Any, bias: Any) -> dict[str, Any]:
    return {"weight": np.asarray(weight, np.float32), "bias": np.asarray(bias, np.float32)}


DENSE = [{"op": "flatten"}, {"op": "dense", "weight": "weight", "bias": "bias"}]


def test_pixels_that_were_scaled_already_are_refused():
    policy = made(DENSE, linear(np.ones((2, 4)), [0, 1]), (2, 2), "uint8")
    assert policy.act(np.full((2, 2), 200, np.uint8)) == 1
    assert policy.act(np.full((2, 2), 200)) == 1, "whole numbers that a byte can hold"
    for wrong in (np.full((2, 2), 0.5), np.full((2, 2), 256), np.full((2, 2), -1)):
        with pytest.raises(PolicyError, match="beyond what uint8 can hold; expected uint8"):
            policy.act(wrong)


def test_values_that_are_not_finite_are_no_action():
    policy = made(DENSE, linear(np.full((2, 1), 3e38), [0, 0]), (1,), "float32")
    assert policy.act([0.1]) == 0
    with np.errstate(over="ignore"), pytest.raises(PolicyError, match="values are not finite"):
        policy.act([1e3])


def joints() -> Policy:
    commands = [[-1.0, 0.0, 1.0], [0.0, 4.0]]
    weight = np.arange(12).reshape(6, 2) % 5
    return made(
        DENSE, linear(weight, np.zeros(6)), (2,), "float32",
        kind="joints", choices=[3, 2], commands=commands, dtype="float32",
    )  # fmt: skip


def test_joints_are_commanded():
    policy = joints()
    found = policy.act([1.0, -1.0])
    q = policy.q_values([1.0, -1.0])
    assert np.isneginf(q[1, 2])
    expected = [[-1.0, 0.0, 1.0][q[0].argmax()], [0.0, 4.0][q[1].argmax()]]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert found.dtype == np.float32


def test_joint_actions_have_a_value_each_and_the_last_joint_changes_first():
    commands = [[-1.0, 0.0, 1.0], [0.0, 4.0]]
    weight = np.zeros((6, 2))
    weight[3] = weight[4] = [1.0, 0.0]
    weight[4, 1] = 1.0
    policy = made(
        DENSE, linear(weight, np.zeros(6)), (2,), "float32",
        kind="joints", choices=[3, 2], commands=commands, dtype="float32", joint=True, masked=True,
    )  # fmt: skip
    # Of the six: (0, 1), (1, 1) and (2, 0) are the second, fourth and fifth.
    np.testing.assert_array_equal(policy.act([1.0, 1.0]), np.array([1.0, 0.0], np.float32))
    np.testing.assert_array_equal(policy.act([1.0, -1.0]), np.array([0.0, 4.0], np.float32))
    assert policy.q_values([1.0, 1.0]).shape == (1, 6)
    found = policy.act([1.0, 1.0], mask=[[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(found, np.array([0.0, 4.0], np.float32))
    with pytest.raises(PolicyError, match="mask allows no action"):
        policy.act([1.0, 1.0], mask=[[0, 0, 0], [1, 1, 0]])


def test_a_shortcut_adds_its_input():
    ops = [*DENSE, {"op": "shortcut", "network": [{"op": "relu"}, *DENSE[-1:]]}]
    square = np.array([[0.0, 1.0], [2.0, 0.0]])
    policy = made(ops, linear(square, [0.5, -9.0]), (2,), "float32", choices=[2])
    x = square @ [1.0, 2.0] + [0.5, -9.0]
    expected = x + square @ np.maximum(x, 0) + [0.5, -9.0]
    np.testing.assert_allclose(policy.q_values([1.0, 2.0]), expected, rtol=1e-6)


def test_a_blend_moves_a_share_of_the_way():
    ops = [*DENSE, {"op": "blend", "share": "s", "network": [{"op": "relu"}, *DENSE[-1:]]}]
    square = np.array([[0.0, 1.0], [2.0, 0.0]])
    share = np.array([0.25, 1.0])
    policy = made(
        ops, {**linear(square, [0.5, -9.0]), "s": share.astype(np.float32)}, (2,), "float32", choices=[2]
    )
    x = square @ [1.0, 2.0] + [0.5, -9.0]
    inner = square @ np.maximum(x, 0) + [0.5, -9.0]
    np.testing.assert_allclose(policy.q_values([1.0, 2.0]), x + share * (inner - x), rtol=1e-6)


def test_a_unit_has_its_length():
    unit = {"op": "unit", "length": 2.0, "epsilon": 1e-8}
    policy = made([unit, *DENSE], linear(np.eye(2), [0.0, 0.0]), (2,), "float32", choices=[2])
    np.testing.assert_allclose(policy.q_values([3.0, -4.0]), [1.2, -1.6], rtol=1e-6)
    behind = {**unit, "append": 12.0, "length": 1.0}
    policy = made([behind, *DENSE], linear(np.eye(3)[1:], [0.0, 0.0]), (2,), "float32", choices=[2])
    np.testing.assert_allclose(policy.q_values([3.0, -4.0]), [-4 / 13, 12 / 13], rtol=1e-6)
    assert np.isfinite(policy.q_values([0.0, 0.0])).all()


# The loop -----------------------------------------------------------------------------------------------


def runner(policy: Policy, **words: Any) -> tuple[Runner, Clock]:
    clock = Clock()
    return Runner(policy, **{"safe_action": 0, "timeout": 0.2, "clock": clock, **words}), clock


def away(policy: Policy) -> int:
    """Return the action that the policy does not choose."""
    return 1 - policy.act(OBSERVATION)


def test_a_folder_is_named_by_its_file_too(folder: Path):
    assert Policy.load(folder / "policy.json").act(OBSERVATION) == Policy.load(folder).act(OBSERVATION)


def test_the_watchdog_takes_the_safe_action(policy: Policy):
    robot, clock = runner(policy, safe_action=away(policy))
    assert robot.command() == away(policy)
    assert robot.reason == "There is no observation yet."
    robot.observe(OBSERVATION)
    clock.now += 0.19
    assert robot.command() == policy.act(OBSERVATION)
    assert robot.reason == ""
    clock.now += 0.02
    assert robot.command() == away(policy)
    assert robot.reason == "The observation is 0.210 s old; expected at most 0.2 s."
    robot.observe(OBSERVATION, stamp=clock.now + 0.5)
    assert robot.command() == away(policy), "measured in the future: two clocks"
    robot.observe(OBSERVATION, stamp=math.nan)
    assert robot.command() == away(policy)
    robot.observe(OBSERVATION, stamp=7.0)
    assert robot.command(now=7.1) == policy.act(OBSERVATION)
    assert robot.safe_count == 4
    robot.act(OBSERVATION, stamp=1.7e9, now=5.0)
    assert "another clock's: see Runner(clock=)" in robot.reason
    robot.reset()
    assert robot.command() == away(policy)


@pytest.mark.parametrize(
    "observation",
    [np.full(4, np.nan), np.zeros(3), "none", None, [[1], [2, 3]], {"a": 1}, np.full(4, 9.0), object()],
)
def test_garbage_is_never_acted_on(policy: Policy, observation: Any):
    robot, _ = runner(policy, safe_action=away(policy))
    assert robot.act(OBSERVATION) == policy.act(OBSERVATION)
    assert robot.act(observation) == away(policy)
    assert "bservation" in robot.reason
    assert robot.act(OBSERVATION, mask="all") == away(policy)
    assert robot.act(OBSERVATION, stamp="noon", now=None) == away(policy)
    assert robot.act(OBSERVATION) == policy.act(OBSERVATION)
    assert robot.reason == ""


def test_an_array_that_its_owner_writes_to_is_copied(policy: Policy):
    robot, _ = runner(policy, safe_action=away(policy))
    buffer = OBSERVATION.copy()
    robot.observe(buffer)
    buffer[:] = np.nan
    assert robot.command() == policy.act(OBSERVATION)


def raises(action: Any) -> Any:
    raise RuntimeError("the wall is near")


@pytest.mark.parametrize(
    ("safety", "reason"),
    [
        (raises, "the wall is near"),
        (lambda action: 2, "the safety filter's action is 2; expected whole numbers from 0"),
        (lambda action: -1, "the safety filter's action is -1"),
        (lambda action: None, "the safety filter's action is None"),
        (lambda action: 0.5, "the safety filter's action is 0.5"),
        (lambda action: [0, 1], "the safety filter's action is"),
        (lambda action: True, "the safety filter's action is True"),
    ],
)
def test_a_filter_that_fails_is_the_safe_action(policy: Policy, safety: Callable, reason: str):
    robot, _ = runner(policy, safe_action=away(policy), safety=safety)
    assert robot.act(OBSERVATION) == away(policy)
    assert reason in robot.reason


def test_the_filter_stands_between_policy_and_motors():
    actions = []

    def slower(action: Any) -> Any:
        actions.append(action.copy())
        action *= 0.5
        return action

    policy, clock = joints(), Clock()
    robot = Runner(policy, [0.0, 0.0], 0.5, slower, clock)
    for _ in range(2):
        np.testing.assert_array_equal(robot.act([1.0, -1.0]), 0.5 * policy.act([1.0, -1.0]))
    robot.observe([1.0, -1.0])
    robot.command()
    robot.command()
    assert len(actions) == 4, "it is asked anew for every command"
    assert len({row.tobytes() for row in actions}) == 1, "and never given what it changed"
    for wrong in ([1.0, np.nan], [2.0, 0.0], [1.0], [1, 2, 3]):
        robot = Runner(policy, [0.0, 0.5], 0.5, lambda action, wrong=wrong: wrong, clock)
        safe = robot.act([1.0, -1.0])
        np.testing.assert_array_equal(safe, np.array([0, 0.5], np.float32))
        safe[:] = 7
        np.testing.assert_array_equal(robot.command(), np.array([0, 0.5], np.float32))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"safe_action": None}, "No safe action is known"),
        ({"safe_action": 5}, "safe_action is 5; expected whole numbers from 0"),
        ({"safe_action": [0, 0]}, "safe_action is"),
        ({"timeout": None}, "timeout is None; expected seconds"),
        ({"timeout": 0}, "timeout is 0; expected seconds"),
        ({"timeout": math.inf}, "timeout is inf; expected seconds"),
        ({"timeout": "1 s"}, "timeout is '1 s'; expected seconds"),
    ],
)
def test_a_runner_says_what_it_lacks_before_the_robot_moves(policy: Policy, words: dict, sentence: str):
    with pytest.raises(PolicyError, match=sentence):
        runner(policy, **words)


def test_a_safe_action_may_be_none_of_the_policys(policy: Policy):
    robot, _ = runner(policy, safe_action="stop")
    assert robot.command() == "stop"
    for wrong in ([0.0, math.nan], [0.0, 5.0], [0.0]):
        with pytest.raises(PolicyError, match=r"safe_action is .*; expected 2 commands"):
            Runner(joints(), wrong, 1.0)


def test_a_frame_goes_into_the_stack_one_time():
    network = [{"op": "stack", "count": 2, "fill": "repeat", "shape": [2, 1]}, *DENSE]
    policy = made(network, linear([[1, 0], [0, 1]], [0, 0]), (1,), "float32")
    robot, _ = runner(policy)
    robot.observe([5.0])
    for _ in range(3):
        assert robot.command() == 0
        np.testing.assert_array_equal(policy.q_values([7.0]), [5, 7])
    assert robot.act([7.0]) == 1
    assert robot.act([np.nan]) == 0
    np.testing.assert_array_equal(policy.q_values([9.0]), [7, 9])
    zeros = [{**network[0], "fill": "zeros"}, *DENSE]
    policy = made(zeros, linear([[1, 0], [0, 1]], [0, 0]), (1,), "float32")
    np.testing.assert_array_equal(policy.q_values([3.0]), [0, 3])
    policy.act([3.0])
    np.testing.assert_array_equal(policy.q_values([4.0]), [3, 4])
    policy.reset()
    np.testing.assert_array_equal(policy.q_values([4.0]), [0, 4])


def test_sensors_and_motors_may_have_separate_threads(policy: Policy):
    robot, _ = runner(policy, safe_action="stop")
    over = threading.Event()

    def sense() -> None:
        while not over.is_set():
            robot.observe(OBSERVATION)
            robot.observe(np.full(4, np.nan))

    thread = threading.Thread(target=sense)
    thread.start()
    found = {robot.command() for _ in range(2_000)}
    over.set()
    thread.join()
    assert found <= {"stop", policy.act(OBSERVATION)}


# Folders of somebody else's -----------------------------------------------------------------------------


def edited(change: Callable[[Any], Any], name: str = "policy.json") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        about = json.loads((folder / name).read_text())
        change(about)
        (folder / name).write_text(json.dumps(about))

    return edit


def resealed(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change policy.json and all hashes, as an attacker would."""

    def edit(folder: Path) -> None:
        about = json.loads((folder / "policy.json").read_text())
        change(about)
        rewrite(folder, about)

    return edit


def rewrite(
    folder: Path, about: Any, change: Callable[[Any, bytes], Any] = lambda header, body: None
) -> None:
    path = folder / "weights.safetensors"
    header, body = opened(path.read_bytes())
    header["__metadata__"]["policy_sha256"] = runtime.digest(about)
    replaced = change(header, body)
    path.write_bytes(packed(header, body) if replaced is None else replaced)
    about["files"]["weights.safetensors"]["sha256"] = runtime.hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "policy.onnx").unlink()
    (folder / "policy.json").write_text(json.dumps(about))


def tensors(change: Callable[[Any, bytes], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        rewrite(folder, json.loads((folder / "policy.json").read_text()), change)

    return edit


def nan_in(header: Any, body: bytes) -> bytes:
    return packed(header, b"\x00\x00\xc0\x7f" + body[4:])


def text(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


def first(header: Any) -> Any:
    return next(entry for name, entry in header.items() if name != "__metadata__")


def linked(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to("/etc/hostname")


def piped(folder: Path) -> None:
    (folder / "policy.json").unlink()
    os.mkfifo(folder / "policy.json")


SIDES = {"shape": [9], "low": [None], "high": [None], "names": None}


def joint_of_one(about: dict) -> None:
    about["format"] = 2
    about["actions"]["joint"] = True


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "edited bounds": (edited(lambda a: a["observation"].update(high=[None] * 4)), "was edited"),
    "edited labels": (edited(lambda a: a["actions"]["labels"][0].reverse()), "was edited"),
    "edited safe action": (edited(lambda a: a.update(safe_action=1)), "was edited.*given to the Runner"),
    "edited network": (edited(lambda a: a["network"].pop()), "was edited"),
    "edited hash": (edited(lambda a: a["files"]["policy.onnx"].update(sha256="0" * 64)), "SHA-256"),
    "another graph": (lambda folder: (folder / "policy.onnx").write_bytes(b"else"), "SHA-256"),
    "no json": (text("policy.json", b"{"), "cannot be read as JSON"),
    "no text": (text("policy.json", b"\xff\xfe"), "cannot be read as JSON"),
    "deep": (text("policy.json", b"[" * 100_000), "cannot be read as JSON"),
    "NaN": (text("policy.json", b'{"format": NaN}'), "cannot be read as JSON.*NaN"),
    "a list": (text("policy.json", b"[1]"), "names no format"),
    "of tomorrow": (edited(lambda a: a.update(format=3)), "has format 3; this runtime reads 1 and 2"),
    "true": (edited(lambda a: a.update(format=True)), "has format True"),
    "missing": (lambda folder: (folder / "policy.json").unlink(), "is missing"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "is missing"),
    "linked": (linked, "is no regular file"),
    "piped": (piped, "is no regular file"),
    "no fields": (edited(lambda a: a.pop("observation")), "fields are missing"),
    "a path": (edited(lambda a: a["files"].update({"weights.safetensors": "../x"})), "fields are missing"),
    "shape": (resealed(lambda a: a["observation"].update(shape=[HUGE, HUGE])), "fields are missing"),
    "negative": (resealed(lambda a: a["observation"].update(shape=[-1])), "fields are missing"),
    "dtype": (resealed(lambda a: a["observation"].update(dtype="object")), "fields are missing"),
    "bounds": (resealed(lambda a: a["observation"].update(low=["x"] * 4)), "fields are missing"),
    "choices": (resealed(lambda a: a["actions"].update(choices=[HUGE])), "fields are missing"),
    "start": (resealed(lambda a: a["actions"].update(start=["1"])), "fields are missing"),
    "a far start": (resealed(lambda a: a["actions"].update(start=[2**63])), "fields are missing"),
    "a start too many": (resealed(lambda a: a["actions"].update(start=[0, 0])), "fields are missing"),
    "action's shape": (resealed(lambda a: a["actions"].update(shape=[2])), "fields are missing"),
    "a list's shape": (resealed(lambda a: a["actions"].update(shape=[1])), "fields are missing"),
    "action's dtype": (resealed(lambda a: a["actions"].update(dtype="float32")), "fields are missing"),
    "none": (resealed(lambda a: a["actions"].update(choices=[])), "fields are missing"),
    "kind": (resealed(lambda a: a["actions"].update(kind="joints")), "fields are missing"),
    "operation": (resealed(lambda a: a["network"].append({"op": "system"})), "operation 'system'"),
    "a shortcut of nothing": (resealed(lambda a: a["network"].append({"op": "shortcut"})), "cannot be run"),
    "joint": (resealed(lambda a: a["actions"].update(joint="yes")), "fields are missing"),
    "joint actions": (resealed(joint_of_one), "fields are missing"),
    "of format 1": (resealed(lambda a: a["actions"].update(joint=True)), "fields are missing"),
    "no joint actions": (resealed(lambda a: a.update(format=2)), "fields are missing"),
    "no operation": (resealed(lambda a: a.update(network=[3])), "fields are missing"),
    "tensor": (resealed(lambda a: a["network"][1].update(weight="../../etc")), "cannot be run"),
    "order": (resealed(lambda a: a["network"].reverse()), "cannot be run"),
    "outputs": (resealed(lambda a: a["actions"].update(choices=[3])), "cannot be run"),
    "inputs": (resealed(lambda a: a["observation"].update(SIDES)),
               "cannot be run"),
    "cut short": (tensors(lambda header, body: packed(header, body[:-4])), "not where, or what"),
    "too long": (tensors(lambda header, body: packed(header, body + b"1234")), "that are no tensor's"),
    "not finite": (tensors(nan_in), "not finite"),
    "another type": (tensors(lambda header, body: first(header).update(dtype="F64")), "not where, or what"),
    "a huge tensor": (tensors(lambda header, body: first(header).update(shape=[HUGE, HUGE])), "not where"),
    "moved": (tensors(lambda header, body: first(header).update(data_offsets=[4, 8])), "not where"),
    "backwards": (tensors(lambda header, body: first(header).update(data_offsets=[-8, -4])), "not where"),
    "no header": (tensors(lambda header, body: packed(b"nothing", body)), "header cannot be read"),
    "a long header": (tensors(lambda header, body: HUGE.to_bytes(8, "little") + body), "header is longer"),
    "empty": (tensors(lambda header, body: b""), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_broken_is_a_sentence(folder: Path, tmp_path: Path, name: str):
    change, sentence = BROKEN[name]
    broken = tmp_path / "it"
    shutil.copytree(folder, broken)
    change(broken)
    with pytest.raises(PolicyError, match=sentence):
        Policy.load(broken, "numpy")


def test_a_graph_that_contradicts_policy_json_is_refused(folder: Path, tmp_path: Path):
    broken = tmp_path / "it"
    shutil.copytree(folder, broken)
    graph = (broken / "policy.onnx").read_bytes()
    resealed(lambda about: about["observation"].update(high=[None] * 4))(broken)
    (broken / "policy.onnx").write_bytes(graph)
    assert Policy.load(broken, "numpy"), "which needs no graph"
    with pytest.raises(PolicyError, match=r"does not agree with 'policy.onnx'"):
        Policy.load(broken, "onnxruntime")


def test_whole_files_are_read_again(folder: Path, tmp_path: Path):
    """The changes above break a folder; rewriting it without a change does not."""
    shutil.copytree(folder, tmp_path / "it")
    resealed(lambda about: None)(tmp_path / "it")
    assert Policy.load(tmp_path / "it", "numpy").act(OBSERVATION) in (0, 1)
