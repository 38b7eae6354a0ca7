"""The memory of a run is known before it is allocated, and does not grow.

Protects a machine from a run that runs out of memory half-way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from full import FULL
from places import SUPPORT

MIB = 2**20
CHILD = SUPPORT / "memory_child.py"


def measured(env: str, settings: dict[str, Any], recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train in a separate process; return its forecast, and its memory during training, in bytes."""
    words = [sys.executable, str(CHILD), env, json.dumps(settings), json.dumps(recipe), str(folder / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("env", "settings", "recipe"),
    [
        ("CartPole-v1", {"steps": 20_000}, {}),
        ("Breakout-MinAtar", {"steps": 10_000, "seeds": 2}, {"replay_capacity": 1_000_000}),
        *(
            [
                ("CartPole-v1", {"steps": 20_000, "seeds": 8}, {}),
                ("CartPole-v1", {"steps": 20_000}, {"replay_capacity": 10_000_000}),
                ("gym:CartPole-v1", {"steps": 8_000}, {}),
                ("WalkerWalk-v1", {"steps": 20_000}, {"replay_capacity": 1_000_000}),
                ("QuadrupedWalk-v1", {"steps": 20_000}, {"replay_capacity": 2_000_000}),
                ("TurtleBot3-v0", {"steps": 50_000, "seeds": 2}, {}),
                ("LunarLander-v3", {"steps": 30_000, "seeds": 4}, {}),
            ]
            if FULL
            else []
        ),
    ],
)
def test_the_forecast_is_within_a_twentieth(
    env: str, settings: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
):
    got = measured(env, settings, recipe, tmp_path)
    most = max(rss for _, rss in got["rss"])
    print(f"{env} {settings} {recipe}: {got['forecast'] / MIB:.0f} MiB forecast, {most / MIB:.0f} measured")
    assert most == pytest.approx(got["forecast"], rel=0.05)


def test_memory_does_not_grow_after_replay_is_full(tmp_path: Path):
    steps = 1_000_000 if FULL else 300_000
    settings = {"steps": steps, "eval_every": steps, "save_every": 50_000}
    small = {"replay_capacity": 10_000, "batch_size": 16, "replay_ratio": 0.1}
    got = measured("CartPole-v1", settings, small, tmp_path)
    # The first checkpoint and what it imports come at 50,000 steps, the evaluation at the end.
    between = [(step, rss) for step, rss in got["rss"] if 100_000 <= step < steps]
    (first, before), (last, after) = between[0], between[-1]
    grown = (after - before) / ((last - first) / 1e5)
    print(f"{grown / MIB:.2f} MiB per 100,000 steps, from {first:,} to {last:,}")
    assert last - first >= 1e5
    assert grown <= MIB
