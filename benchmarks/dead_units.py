"""Which units of Atari networks are dead: `python benchmarks/dead_units.py RUN …`.

Writes docs/results/dead_units.md. A unit is dead if it is 0 in every one of the frames that the policy
itself plays: no gradient reaches it any more. RUN is a folder of an EnvPool game, with one hidden layer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import envpool
import numpy as np
from safetensors.numpy import load_file

import qhat
from qhat.runtime import Policy, plan
from qhat.system.machine import machine

OUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "dead_units.md"
FRAMES, EVERY = 1_600, 8
"""Steps that are played without sticky actions; one in `EVERY` is looked at."""


def main() -> None:
    """Look at every run; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = [_row(Path(run)) for run in options.runs]
    options.out.write_text(_page(rows), encoding="utf-8")
    print(f"Written: {options.out.name}")


def _row(run: Path) -> str:
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    game, recipe = config["env"].removeprefix("envpool:"), config["recipe"]
    if config["spec"]["stack"] != 4 or config["spec"]["backend"] != "envpool" or len(recipe["hidden"]) != 1:
        raise SystemExit(
            f"'{run}' is a run of {game}; expected an Atari game of EnvPool, one hidden layer."
        )
    with tempfile.TemporaryDirectory() as folder:
        qhat.export(str(run), out=f"{folder}/policy", checkpoint="last", observations=20)
        policy = Policy.load(f"{folder}/policy")
        ops = json.loads(Path(folder, "policy", "policy.json").read_text(encoding="utf-8"))["network"]
        tensors = load_file(Path(folder, "policy", "weights.safetensors"))
    frames = _played(game, policy)
    shares = [
        _dead(ops[1 : index + 1], tensors, frames) for index, op in enumerate(ops) if op["op"] == "relu"
    ]
    hidden = shares.pop()
    # A dueling network's one layer in an export: the value's units, then the advantages'.
    halves = np.split(hidden, 2) if recipe["merge"]["name"] == "dueling" else [hidden, hidden]
    bright = f"{frames[:, -1].mean() / 255:.2f}"
    cells = [
        *(f"{share.mean():.0%}" for share in (shares[-1], *halves)),
        f"{np.mean(frames.std(0) == 0):.0%}",
    ]
    line = f"| {game.removesuffix('-v5')} | {recipe['torso']['name']} | {bright} | {' | '.join(cells)} |"
    print(line, flush=True)
    return line


def _played(game: str, policy: Policy) -> np.ndarray:
    """Return stacks of frames `[T, 4, H, W]` from the policy's own play."""
    env = envpool.make(game, env_type="gymnasium", num_envs=1, seed=3, repeat_action_probability=0.0)
    observation, _ = env.reset()
    policy.reset()
    frames = []
    for step in range(FRAMES):
        action = int(policy.act(observation[0][-1]))
        observation, _, terminated, truncated, _ = env.step(np.array([action]))
        if terminated[0] or truncated[0]:
            policy.reset()
        if step % EVERY == 0:
            frames.append(observation[0].copy())
    return np.array(frames)


def _dead(ops: list[Any], tensors: dict[str, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """Return which units are 0 after these operations in every observation."""
    forward = plan(ops, tensors)
    return np.max([forward(stack).reshape(-1).copy() for stack in frames], axis=0) <= 0


def _page(rows: list[str]) -> str:
    head = "| game | torso | brightness | dead features | dead value units | dead advantage units | still |"
    return "\n".join(
        [
            "# Dead units in Atari networks",
            "",
            "Written by `python benchmarks/dead_units.py RUN …` from run folders; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            "Of the last weights of a run, in frames of its own greedy play"
            f" ({FRAMES // EVERY}): the share of units that are 0 in all of them.",
            "*Brightness* is the frames' mean, black 0 and white 1; *still* pixels never change.",
            "",
            head,
            "|---|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
