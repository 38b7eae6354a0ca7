"""Maps of docs/maps, and policies that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhat.runtime.qhat_robot.facts import Facts
from qhat.runtime.qhat_robot.mapped import MappedControl
from qhat.runtime.qhat_robot.mapping import RobotMap

MAPS = Path(__file__).parents[2] / "docs" / "maps"


def about(
    shape: Sequence[int] = (), kind: str = "discrete", choices: Sequence[int] = (2,), **other: Any
) -> dict[str, Any]:
    """The parts of a policy.json that a map is checked against."""
    observation: dict[str, Any] = {"shape": list(shape), "dtype": "float32", "names": other.get("names")}
    if "entries" in other:
        observation["entries"] = [
            {"path": list(path), "shape": list(size), "dtype": dtype}
            for path, size, dtype in other["entries"]
        ]
    return {
        "observation": observation,
        "actions": {
            "kind": kind, "choices": list(choices), "start": other.get("start", [0] * len(choices)),
            "names": other.get("action_names"), "labels": other.get("labels"), "masked": False,
        },
        "environment": {"id": other.get("env", "MyRobot-v0")},
        "control_period": other.get("period", 0.1), "timeout": None,
        "safe_action": other.get("safe_action"),
    }  # fmt: skip


POLICIES: Mapping[str, dict[str, Any]] = {
    "cartpole": about(
        (4,), names=["cart_position", "cart_velocity", "pole_angle", "pole_velocity"],
        labels=[["push left", "push right"]],
    ),
    "ur5e": about((12,), "joints", [3] * 6),
    "arm_trajectory": about((2,), "multi_discrete", [3, 3]),
    "jackal": about(
        (40,), "discrete", [5],
        entries=[(["goal"], [2], "float32"), (["scan"], [36], "float32"), (["velocity"], [2], "float32")],
    ),
    "create3": about((9,), "multi_discrete", [2, 3]),
    "turtlebot3": about(
        (26,), "discrete", [5], names=[*(f"lidar_{i}" for i in range(24)), "goal_bearing", "goal_distance"]
    ),
}  # fmt: skip
"""By the name of the map."""


class Scripted:
    """A policy that records observations, and returns the same action."""

    def __init__(self, action: Any):
        self.action, self.observed, self.resets = action, [], 0

    def act(self, observation: Any) -> Any:
        self.observed.append(observation)
        return self.action

    def reset(self) -> None:
        self.resets += 1


def control(name: str, action: Any, text: str | None = None) -> tuple[MappedControl, Scripted]:
    """A started control for a map of docs/maps, or for a changed text of it."""
    facts = Facts.of(POLICIES[name])
    plan = RobotMap.read(text or (MAPS / f"{name}.yaml").read_text(), facts)
    policy = Scripted(action)
    return MappedControl(plan, facts, policy, started=True), policy


def written(made: MappedControl, orders: Any, kinds: Mapping[str, type]) -> list[Any]:
    """Messages as the node writes them."""
    messages = []
    for output, writes in zip(made.outputs, orders, strict=True):
        if writes is not None:
            message = kinds[output.type]()
            for path, value in writes:
                path.write(message, value)
            messages.append(message)
    return messages


def flat(observation: Any) -> np.ndarray:
    return np.asarray(observation, float).ravel()
