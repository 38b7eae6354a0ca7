"""`qhat export RUN --web`: one HTML page in which the exported policy drives its environment, offline.

The page joins the files of the folder `page` beside this file, and contains the policy. Its content
security policy allows the browser to run and load nothing else.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from qhat.axes.torso import MLP, Auto
from qhat.deploy.target import ExportTarget
from qhat.runtime import CELLS, kept_by
from qhat.system.errors import UsageError, require, setting, spelled
from qhat.system.files import read_json

NAME = "web.html"
FLAG = spelled("targets='web'", "--web")
"""This target, as each reader asks for it."""
SCRIPTS = ("policy.js", "cartpole.js", "turtlebot3.js", "arena.js", "app.js", "controls.js")
"""In order: each uses only those before it."""
KINDS = {
    "CartPole-v1": "cartpole",
    "TurtleBot3-v0": "turtlebot3",
    "qhat/TurtleBot3-v0": "turtlebot3",
}
"""Environments whose equations the page has."""
OPERATIONS = (
    "stack", "normalise", "flatten", "dense", "layer_norm", "relu", "fractions", "mean_fractions", "atoms",
    "support", "shortcut", "blend", "unit", *CELLS,
)  # fmt: skip
"""Operations that the page can run: all but those of images."""
OPTIONS = {
    "cartpole": ("max_steps_in_episode", "sutton_barto_reward", "max_episode_steps"),
    "turtlebot3": None,
}
"""Options of an environment that do not matter to the page; `None` if it implements all of them."""
SEED = 1


@dataclasses.dataclass(frozen=True)
class Web(ExportTarget):
    """A page in which the policy drives CartPole or a TurtleBot3."""

    name: ClassVar[str] = "web"

    def require(self, config: Mapping[str, Any]) -> None:
        require_drawable(config["env"], config["env_kwargs"], config["wrap"])

    def write(self, folder: Path) -> Path:
        return write_page(folder)

    def next_step(self, path: Path) -> str:
        return f"open {path} in a browser"


def require_drawable(env_id: str, options: Mapping[str, Any], wrap: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UsageError` if the page does not have the training environment.

    Args:
        options: arguments of the environment's constructor.
        wrap: its wrappers, as in config.json.
    """
    name = env_id.rpartition(":")[2]
    kind = KINDS.get(name)
    if kind is None:
        raise UsageError(
            f"{FLAG} draws CartPole-v1 and TurtleBot3-v0, and this run's environment is '{env_id}';"
            " expected"
            " one of those two. qhat play films any environment."
        )
    harmless = OPTIONS[kind]
    for option in options if harmless is not None else ():
        require(
            option in (harmless or ()),
            f"{FLAG} draws {name} without options, and this run's has {option}={options[option]!r}"
            f" ({setting('env_kwargs')}); expected no options.",
        )
    for part in wrap:
        require(
            part["name"] in ("frame_stack", "reward_scale", "reward_clip"),
            f"{FLAG} has no {setting('wrap', part['name'])}, which this run was trained with; expected only"
            " frame_stack and wrappers of rewards.",
        )


def write_page(folder: Path) -> Path:
    """Write the page into an exported folder, from its policy.json and weights.safetensors.

    Returns:
        the page.

    Raises:
        UsageError: the page does not have the environment, or cannot run the network.
    """
    about = read_json(folder / "policy.json")
    environment = about["environment"]
    require_drawable(environment["id"], environment["options"], environment["wrap"])
    for step in about["network"]:
        require(
            step["op"] in OPERATIONS,
            f"{FLAG} cannot run the operation '{step['op']}' of this policy's network; expected"
            f" {', '.join(OPERATIONS)}. It cannot process pictures.",
        )
    page = resources.files(__name__) / "page"
    style = (page / "style.css").read_text(encoding="utf-8")
    # In strict mode and in a local scope.
    texts = [(page / script).read_text(encoding="utf-8") for script in SCRIPTS]
    script = "\n".join(['(() => {\n"use strict";', *texts, "})();\n"])
    env_id = environment["id"].rpartition(":")[2].rpartition("/")[2]
    words = {
        "TITLE": html.escape(f"{about['name']} · qhat"),
        "ENVIRONMENT": html.escape(env_id),
        "SUBTITLE": html.escape(
            f"A policy trained with qhat, recipe {about['source']['recipe']}, running in your browser"
        ),
        "ABOUT": _list(_facts(folder, about)),
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        "STYLE": style,
        "SCRIPT": script,
        "POLICY": _data({name: about[name] for name in ("name", "network", "observation", "actions")}),
        "CONSTANTS": _data(constants_of(about)),
        "WEIGHTS": base64.b64encode((folder / "weights.safetensors").read_bytes()).decode(),
    }
    text = (page / "page.html").read_text(encoding="utf-8")
    # Split first, so that inserted text is not searched again.
    parts = text.split("@")
    text = "".join(words.get(part, part) for part in parts)
    target = folder / NAME
    target.write_text(text, encoding="utf-8")
    return target


def constants_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constants of the page's environment."""
    environment = about["environment"]
    kind = KINDS[environment["id"].rpartition(":")[2]]
    if kind == "cartpole":
        return {"kind": kind, "seed": SEED}
    import dataclasses

    from qhat.environments.turtlebot3 import physics as turtlebot3

    options = turtlebot3.TurtleBot3Options.of(environment["options"], environment["id"])
    return {
        "kind": kind,
        "seed": SEED,
        "beams": turtlebot3.BEAMS,
        "nearest": turtlebot3.NEAREST,
        "farthest": turtlebot3.FARTHEST,
        "radius": turtlebot3.RADIUS,
        "ahead": turtlebot3.SPEED,
        "turns": list(turtlebot3.TURNS),
        "seconds": turtlebot3.SECONDS,
        "near": turtlebot3.REACHED,
        "clear": turtlebot3.CLEAR,
        "tries": turtlebot3.TRIES,
        "options": dataclasses.asdict(options),
    }


def _facts(folder: Path, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts about the policy that the page shows."""
    source, proof = about["source"], read_json(folder / "parity.json")["onnxruntime"]
    inputs, outputs = math.prod(about["observation"]["shape"]), about["actions"]["choices"][0]
    torso = about["recipe"]["torso"]["name"]
    named = [] if torso in (Auto.name, MLP.name) else [torso]
    hidden = [str(width) for width in about["recipe"]["hidden"]]
    keeps, keeper = kept_by(about["network"])
    if keeps == "memory":
        # Between the shared layers and the last one.
        hidden.insert(max(len(hidden) - 1, 0), f"{keeper['op']} {keeper['units']}")
    layers = " · ".join(map(str, (inputs, *named, *hidden, outputs)))
    facts = [
        ("recipe", source["recipe"]),
        ("trained for", f"{source['step']:,} steps"),
        ("layers", layers),
        ("weights", f"{about['files']['weights.safetensors']['bytes'] / 1000:.0f} kB, float32"),
        ("proven on", f"{proof['observations']:,} observations"),
        ("run", source["run"]),
        ("weights' SHA-256", source["weights_sha256"][:12]),
        ("qhat", about["qhat"]),
    ]
    return [(name, str(value)) for name, value in facts]


def _list(facts: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)


def _data(value: Any) -> str:
    """Write JSON that is safe within a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
