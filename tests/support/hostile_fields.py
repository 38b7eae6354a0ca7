"""Bad values for manifests, configurations and run folders."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import HUGE
from qhat.system.files import LARGEST


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def set_to(name: str, value: Any) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), name: value})


def with_field(path: str, value: Any) -> Callable[[str], str]:
    """Change one field of nested objects, named as `recipe/num_envs`."""

    def change(text: str) -> str:
        data = json.loads(text)
        *first, last = path.split("/")
        at = data
        for name in first:
            at = at[name]
        at[last] = value
        return json.dumps(data)

    return change


JSON: dict[str, Callable[[str], str | bytes]] = {
    "empty": lambda text: "",
    "no JSON": lambda text: text[:-3],
    "no text": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "null": lambda text: "null",
    "a number": lambda text: "1e999",
    "a list": lambda text: f"[{text}]",
    "a word": lambda text: '"manifest"',
    "nested 20 deep": set_to("recipe", [json.loads(_deep(40))]),
    "nested 10^6 deep": lambda text: _deep(10**6).decode(),
    "a number of 5,000 digits": lambda text: text.replace("{", '{"n": ' + "9" * 5_000 + ",", 1),
    "a number of 30 digits": lambda text: text.replace("{", '{"n": ' + "9" * 30 + ",", 1),
    "a name twice": lambda text: text.replace("{", '{"format": 2, "format": 2, "env": 0,  "env": 0, ', 1),
    "a byte more than is read": lambda text: text + " " * (LARGEST + 1 - len(text.encode())),
}
"""Manifests and configurations that are refused whatever they say."""


ODD = (None, True, -1, 1.5, 2**40, "1", [], {}, [1], {"a": 1})
MANIFEST = {
    "format": (None, True, 0, 1, 3, 2.0, "2", [2], {}),
    "sha256": (None, [], "0" * 64, 1, {"../../etc/passwd": "0" * 64}, {"/etc/passwd": "0" * 64},
               {"weights.safetensors": 1},
               {"weights.safetensors": "0" * 64}, {"weights.safetensors": None}),
    "step": (None, True, -1, 1.5, 2**40, "40", [40], {}),
    "best_score": (None, [], [1.0], [1.0] * 3, ["1", "2"], [[1.0], 2.0], {"0": 1.0}, 2, [True, False]),
    "best_step": (None, [], [1], [1] * 3, ["1", "2"], [-1, 1], [1.5, 1], {}),
    "halted": (None, [], [True], [False] * 3, [0, 1], ["", ""], {}, True),
}  # fmt: skip


AGENT = {
    "recipe": (None, [], "dqn", 1, {"hidden": 3}),
    "recipe/hidden": ([HUGE], [0], [[8]], "8", [8] * 1_000, [1.5], None, [32]),
    "recipe/num_envs": (HUGE, "1", -1, 2**63, 1.5),
    "recipe/replay_capacity": (HUGE, 2**31, 0, "200", [200], 300),
    "recipe/head": (None, "expected", {"name": "pickle"}, {"name": ["c51"]},
                    {"name": "categorical", "atoms": HUGE}),
    "recipe/sampler": ({"name": "prioritised", "alpha": "x"}, {"name": "\x1b[2J" * 1_000}),
    "recipe/gamma": ("0.9", None, 1e999, [0.9]),
    "observation": (None, [], {"shape": [4]}, {"dtype": "float32"}),
    "observation/shape": (4, "4", [HUGE, HUGE], [-4], ["4"], [True], [1] * 100, None, [5]),
    "observation/dtype": (None, "O", "object", "float32,float32", {"names": ["a"]},
                          "S1000000000", "float16"),
    "actions": (None, [], 2, {"choices": [2]}),
    "actions/choices": (None, 2, "2", [HUGE], [True], [2**40] * 9, [-2], [0], [], [1.5], [3]),
    "actions/commands": (0, [[1]], [[1, "2"]], "12", [[1, None]], [[1e999, 1]]),
    "steps": ODD, "updates": ODD, "acts": ODD, "masked": (None, 1, "true", [], True),
    "replay": (1, "yes", None, []), "open": (1, "yes", None, []),
    "streams": (None, 0, {}, [0, 0], [1.5], [True], [None], [0, 1, 2]),
    "exploring": (None, 0, [True], [[]]),
}  # fmt: skip


CONFIG = {
    "env": (None, 1, [], {}),
    "recipe": (None, [], "dqn", {"hidden": [8], "import": "os"}),
    **{name: values for name, values in AGENT.items() if name.startswith("recipe/")},
    "spec": (None, [], {}, "CartPole-v1"),
    "spec/shape": AGENT["observation/shape"],
    "spec/dtype": AGENT["observation/dtype"][:-1],
    "spec/actions": AGENT["actions"],
    "spec/actions/choices": AGENT["actions/choices"],
    "spec/stack": (0, "4", HUGE, None, 2**40),
    "spec/limit": (-1, "4", None, 2**40),
    "spec/masked": (None, 1, "yes"),
    "spec/reference": (1, [], {}),
    "spec/options": (None, [], 1),
    "env_kwargs": (None, [], 1, "a=1"),
    "wrap": (None, {}, "frame_stack", [1], [None], [{"name": "os"}], [{"name": "reward_scale"}] * 100,
             [{"name": "frame_stack", "count": HUGE}], [{"name": "reward_scale", "factor": "x"}]),
}  # fmt: skip


RESUMED = {
    "recipe_name": (1, "../../x", "[/]", "", "x" * 1_000),
    "recipe/num_envs": (HUGE, 2**40, "2"),
    "recipe/replay_capacity": (2**31, 2**40, "200"),
    "eval_episodes": (HUGE, 0, "2", True),
    **dict.fromkeys(("steps", "save_every", "eval_every", "keep", "seeds"), (0, "2", [], 1.5, True, {})),
    "seed": (-1, "0", 2**40, [], 1.5),
    "max_seconds": (-1, "9", [], {}),
    "stop_at": ("9", [], {}, 501, True),
    "stop_below": ("9", [], {}, "auto", True),
    "log": (1, "info.x", [1], ["x"], {}, ["info.a,b"], ["info.x"] * 2),
    "env_timeout": (-1, "9", [], {}),
    "threads": (0, -1, "9", [], {}, 1.5, True),
    "device": ("gpu", "cuda", 1, [], {}, True, "CPU"),
    "vector": (1, "both", ["sync"]),
}


def _socket(path: Path) -> None:
    where = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(where)


def _replaced(name: str, by: Callable[[Path], Any]) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        by(path)

    return harm


def _linked(name: str, to: str, absolute: bool = False) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        goal = run.parent / "outside" / to
        _replaced(name, lambda path: path.symlink_to(
            goal if absolute else os.path.relpath(goal, path.parent)))(run)  # fmt: skip

    return harm


KINDS: dict[str, Callable[[Path], None]] = {
    **{f"a link: {name}": _linked(name, to, absolute) for name, to, absolute in (
        ("config.json", "secret", False), ("last", "secret", True), ("best", "best", False),
        ("checkpoints/40", "best", False), ("checkpoints", "", True), ("metrics.csv", "secret", False),
        ("best/manifest.json", "best/manifest.json", False), ("lock", "secret", True),
        ("best/weights.safetensors", "best/weights.safetensors", True), ("eval.csv.new", "none", False),
        ("checkpoints/40/state.safetensors", "secret", False), ("videos", "", True),
        ("last.new", "secret", True), (".best.qhat-new", "best", True),
    )},
    **{f"a {what}: {name}": _replaced(name, by) for what, by in (("pipe", os.mkfifo), ("socket", _socket))
       for name in ("config.json", "last", "best/weights.safetensors", "checkpoints/40/manifest.json",
                    "metrics.csv", "lock")},
    **{f"a folder: {name}": _replaced(name, Path.mkdir) for name in ("config.json",)},
}  # fmt: skip
