"""Seeds that are spread over a cluster are those that one process trains: every bit, every row.

Protects what is lost easily between machines: a killed process, a lost node, a stop in the middle, files
that only the driver has.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import qhat
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.runs.run import Run
from ray_cluster import processes

EVERY = 500
SMALL: dict[str, Any] = {
    "hidden": (16,), "replay_capacity": 500, "learning_starts": 50, "batch_size": 16, "steps": 2_000,
    "eval_every": EVERY, "eval_episodes": 2, "save_every": EVERY,
}  # fmt: skip
DIED = "ignore:The process of seed:UserWarning"


def small(folder: Path, **settings: Any) -> TrainConfig:
    return TrainConfig.of("CartPole-v1", "dqn", **{**SMALL, "run_dir": folder, **settings})


def rows_of(folder: Path, table: str, shift: int = 0) -> list[dict[str, str | None]]:
    """Return a table's rows without their speed, which is of no interest."""
    with (folder / table).open(newline="") as file:
        return [
            {**row, "seed_index": str(int(row["seed_index"]) + shift), "steps_per_second": None}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Seeds 0 and 1, and seed 2, each trained in a process without a cluster."""
    base = tmp_path_factory.mktemp("alone")
    script = "import sys; sys.path.insert(0, sys.argv[1]); import test_spread; test_spread.train_alone()"
    kept = {name: value for name, value in os.environ.items() if name not in ("PJRT_NPROC", "XLA_FLAGS")}
    paths = os.pathsep.join([p for p in sys.path if p])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(Path(__file__).parent), str(base / str(first)), str(first), str(count)],
            env={**kept, "PYTHONPATH": paths},
        )
        for first, count in ((0, 2), (2, 1))
    ]
    assert [each.wait() for each in started] == [0, 0]
    return Run.open(base / "0"), Run.open(base / "2")


def train_alone() -> None:
    folder, first, count = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    qhat.train("CartPole-v1", small(folder, seed=first, seeds=count, threads=1))


def require_equal(run: Run, alone: tuple[Run, Run]) -> None:
    """Compare a run of three seeds with its seeds alone."""
    folder, parts = run.folder.path, [each.folder.path for each in alone]
    assert not (folder / "groups").exists()
    for which in ("last", "best"):
        both = [each.weights(which) for each in alone]
        joined = jax.tree.map(lambda one, other: np.concatenate([one, other]), *both)
        jax.tree.map(np.testing.assert_array_equal, run.weights(which), joined)
    expected = [row for part, shift in zip(parts, (0, 2), strict=True) for row in rows_of(part, "eval.csv", shift)]
    assert rows_of(folder, "eval.csv") == sorted(expected, key=lambda row: (int(row["step"]), row["seed_index"]))
    metrics = rows_of(folder, "metrics.csv")
    for seed, part, shift in ((0, parts[0], 0), (1, parts[0], 0), (2, parts[1], 2)):
        mine = [row for row in metrics if row["seed_index"] == str(seed)]
        assert mine == [row for row in rows_of(part, "metrics.csv", shift) if row["seed_index"] == str(seed)]


def test_seeds_on_a_cluster_are_those_of_one_process(ray_cluster: Any, alone: tuple[Run, Run], tmp_path: Path):
    shown: list[qhat.Progress] = []
    run = qhat.train(
        "CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", progress=shown.append
    )
    require_equal(run, alone)
    assert {group.seeds for group in shown[-1].groups} == {"seeds 0 to 1", "seed 2"}
    assert shown[-1].step == 2_000
    written, other = (each.folder.read_config() for each in (run, alone[0]))
    differ = {name for name in other if written[name] != other[name]}
    assert differ == {"seeds", "cluster", "threads"}
    assert run.summary()["step"] == 2_000
    assert run.evaluate(episodes=2).per_seed


@pytest.mark.filterwarnings(DIED)
def test_a_killed_process_changes_nothing(ray_cluster: Any, alone: tuple[Run, Run], tmp_path: Path):
    killed = []

    def kill(evaluation: qhat.Evaluation) -> None:
        if evaluation.step == 2 * EVERY:
            for process in processes("seed 2"):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    run = qhat.train("CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", callback=kill)
    assert len(killed) == 1
    require_equal(run, alone)
