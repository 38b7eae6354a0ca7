"""The memory of a task on a cluster: Ray is asked for it, and what no node has is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

import qhat
from qhat.recipes.config import TrainConfig
from qhat.runs.spread.need import Need, parts_of, require_room
from qhat.runs.spread.travel import made_on_node
from ray_cluster import RayCluster

SMALL: dict[str, Any] = {
    "hidden": (16,), "replay_capacity": 500, "learning_starts": 50, "batch_size": 16, "steps": 1_000,
    "eval_every": 500, "eval_episodes": 2, "save_every": 500, "seeds": 2, "cluster": "auto",
}  # fmt: skip


def test_a_task_asks_for_its_memory(ray_cluster: RayCluster, tmp_path: Path):
    """What Ray still has to give falls by what the tasks need, and rises again at the end."""
    whole = ray.cluster_resources()["memory"]
    taken: list[float] = []

    def look(_: qhat.Evaluation) -> None:
        taken.append(whole - ray.available_resources()["memory"])

    qhat.train("CartPole-v1", "dqn", **SMALL, run_dir=tmp_path / "run", callback=look)
    assert 2 * 200 < max(taken) / 2**20 < 2 * 1_500


def test_a_seed_that_no_node_has_memory_for_is_refused(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qhat.runs.spread.driver._nodes", lambda task: [{"CPU": 1.0, "memory": 1e6}])
    with pytest.raises(qhat.UsageError, match=r"1 seed of this run takes about .* GiB of memory"):
        qhat.train("CartPole-v1", "dqn", **SMALL, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_groups_are_as_many_as_memory_has_room_for():
    def parts(seeds: int, count: int, *memories: float) -> int:
        return parts_of(Need(300, 100), seeds, count, [{"memory": each} for each in memories])

    assert parts(8, 4, 2_000.0, 2_000.0) == 4, "two of 500 on each node"
    assert parts(8, 4, 1_100.0) == 1, "two would take 1,400 together, and one takes 1,100"
    assert parts(8, 2, 700.0) == 2, "each fits, one after the other"
    assert parts(8, 1, 600.0) == 3, "one node has room for three seeds"
    assert parts(8, 16, 9_000.0) == 8
    with pytest.raises(qhat.UsageError, match="expected a larger node"):
        parts(8, 4, 399.0)


def test_seeds_that_were_one_group_may_need_a_larger_node():
    with pytest.raises(qhat.UsageError, match=r"A task with 8 seeds of this run takes about 2\.0 GiB"):
        require_room(Need(2**30, 2**27), 8, [{"memory": 2.0**30}])


@pytest.mark.parametrize("env", ["CartPole-v1", "gym:CartPole-v1"])
def test_the_state_is_known_before_anything_is_compiled(env: str):
    small, large = (
        made_on_node(env, TrainConfig.of(env, "dqn", hidden=8, replay_capacity=rows))
        for rows in (100_000, 300_000)
    )
    assert isinstance(small, Need)
    assert isinstance(large, Need)
    # A row of replay has 4 floats, an action, a reward and a kind.
    assert 200_000 * (4 * 4 + 4 + 2) <= large.seed - small.seed <= 200_000 * (4 * 4 + 4 * 4)
    assert small.process > 200 * 2**20
