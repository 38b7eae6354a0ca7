"""The comparison with RLlib and TorchRL: its commands, its sentences and its page, without the peers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from places import ROOT

BENCHMARKS = ROOT / "benchmarks"
PATHS = [str(BENCHMARKS), str(BENCHMARKS / "peers")]
FACTS = dict.fromkeys(("command", "date", "machine", "load", "qhat", "peers"), "word")


@pytest.fixture(scope="module")
def peers() -> Any:
    """The module of the command."""
    sys.path.extend(PATHS)
    try:
        importlib.import_module("cluster_rules")
        return importlib.import_module("cluster_peers")
    finally:
        for path in PATHS:
            sys.path.remove(path)


def reached(seconds: float, reached: bool = True) -> dict[str, Any]:
    return {
        "seconds": seconds, "total_seconds": seconds + 10, "first_steps": 5.0, "steps": 10_000,
        "updates": 5_000, "reached": reached, "score": 480.0 if reached else 100.0, "evaluations": [],
    }  # fmt: skip


def test_every_command_is_one_that_its_script_reads(peers: Any) -> None:
    parser = sys.modules["cluster_rules"].parser("")
    for contender in peers.CLUSTER:
        assert (BENCHMARKS / contender.script).is_file()
        assert contender.part in peers.CLUSTER_PARTS
        options = parser.parse_args(contender.command(peers.FULL, 100))
        assert options.seed == 100
        assert options.runners == (16 if contender.part == "slow-16" else 2)
    assert len({each.name for each in peers.CLUSTER}) == len(peers.CLUSTER) == 9


def test_peers_have_an_environment_and_qhat_another(peers: Any) -> None:
    homes = {each.name.partition("-")[0]: each.home for each in peers.CLUSTER}
    assert homes == {"qhat": "qhat", "rllib": "cluster", "torchrl": "cluster"}
    assert set(homes.values()) - {"qhat"} <= set(peers.peers_environment.PLACES)


def test_only_one_part_and_another_limit(peers: Any) -> None:
    assert {each.part for each in peers.chosen(["slow"], 60.0)} == {"slow-2", "slow-16"}
    sizes = {each.size for each in peers.chosen(["cartpole"], 60.0)}
    assert sizes == {("--max-seconds", 60, 60)}


def test_missing_peers_are_a_sentence(peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.peers_environment, "installed", lambda name: None)
    with pytest.raises(SystemExit, match=r"peers_environment\.py cluster` installs them there"):
        peers.python_of_peers(None)
    with pytest.raises(SystemExit, match="--peers-python is 'nowhere'; expected"):
        peers.python_of_peers(Path("nowhere"))


def test_the_clock_stops_with_the_evaluation_that_reached_the_goal(peers: Any) -> None:
    curve = sys.modules["cluster_rules"].Curve()
    curve.note_steps()
    assert not curve.add(2_500, 474.99)
    assert curve.result(2_600, 100)["reached"] is False
    assert curve.add(5_000, 475.0)
    first, later = curve.result(5_000, 200), curve.result(5_000, 200)
    assert first["reached"] is True
    assert first["seconds"] == later["seconds"] == curve.evaluations[-1][2] < curve.seconds
    assert first["first_steps"] <= first["seconds"] < first["total_seconds"]


def test_the_page_has_medians_and_ratios(peers: Any) -> None:
    cartpole = [each for each in peers.CLUSTER if each.part == "cartpole"]
    ours, theirs = [reached(10.0), reached(20.0), reached(30.0)], [reached(50.0), reached(80.0), None]
    never = [reached(300.0, False), reached(90.0), reached(301.0, False)]
    results = dict(zip((each.name for each in cartpole), (ours, theirs, never), strict=True))
    text = peers.page(cartpole, results, FACTS, 100)
    assert "| qhat, its defaults | 20.0 (10.0–30.0) | 1.00 |" in text
    assert "| RLlib DQN | 80.0 (50.0–80.0) | 4.50 |" in text
    # Each of them is at least 10 times qhat's seconds, or 4.5 times, or 10.03 times.
    assert "| TorchRL DQN | not reached in 301 s (90.0–not reached in 301 s) | > 10.03 |" in text
    assert "| RLlib DQN | 102 | failed |" in text
    assert "| TorchRL DQN | 100 | not reached in 300.0 s |" in text


def test_the_page_has_steps_per_second(peers: Any) -> None:
    slow = [each for each in peers.CLUSTER if each.part == "slow-16"]
    speeds = (1_200.0, 400.0, 600.0)
    results = {
        each.name: [{"steps_per_second": speed, "steps": 100, "updates": 99}]
        for each, speed in zip(slow, speeds, strict=True)
    }
    text = peers.page(slow, results, FACTS, 100)
    assert "16 runners could do 3,200" in text
    assert "| RLlib DQN | 400 | 3.00 | 0.99 |" in text
