"""Seeds that are spread over a cluster are those that one process trains: every bit, every row.

Protects what is lost easily between machines: a killed process, a lost node, a stop in the middle, files
that only the driver has.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from rich.console import Console

import qhat
from everything import everything
from qhat.cli.progress import groups_table
from qhat.recipes.config import TrainConfig
from qhat.runs.folder import RunFolder
from qhat.runs.progress import GroupProgress, Progress
from qhat.runs.run import Run
from qhat.runs.spread import crowd
from qhat.runs.spread.groups import Group, divided, folder_of, leave_groups, read_division, write_division
from qhat.runs.spread.merging import divide, merge
from qhat.runs.spread.tables import merge_tables, read_rows
from qhat.runs.train import Interrupted
from ray_cluster import RayCluster, processes

EVERY = 500
SMALL: dict[str, Any] = {
    "hidden": (16,), "replay_capacity": 500, "learning_starts": 50, "batch_size": 16, "steps": 2_000,
    "eval_every": EVERY, "eval_episodes": 2, "save_every": EVERY,
}  # fmt: skip
DIED = "ignore:The process of seed:UserWarning"


def small(folder: Path, **settings: Any) -> TrainConfig:
    given: dict[str, Any] = {**SMALL, "run_dir": folder, **settings}
    return TrainConfig.of("CartPole-v1", "dqn", **given)


def rows_of(folder: Path, table: str, shift: int = 0) -> list[dict[str, Any]]:
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
    qhat.train("CartPole-v1", small(folder, seed=first, seeds=count, threads=1, keep=4))


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


def test_seeds_on_a_cluster_are_those_of_one_process(ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path):
    shown: list[Progress] = []
    run = qhat.train(
        "CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", progress=shown.append
    )
    require_equal(run, alone)
    assert {group.seeds for group in shown[-1].groups} == {"seeds 0 to 1", "seed 2"}
    assert shown[-1].step == 2_000
    written, other = (each.folder.read_config() for each in (run, alone[0]))
    differ = {name for name in other if written[name] != other[name]}
    assert differ == {"seeds", "cluster", "threads", "keep"}
    assert run.summary()["step"] == 2_000
    assert run.evaluate(episodes=2).per_seed



@pytest.mark.filterwarnings(DIED)
def test_a_killed_process_changes_nothing(ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path):
    killed = []

    def kill(evaluation: qhat.Evaluation) -> None:
        if evaluation.step == EVERY:
            assert evaluation.run.summary()["step"] == EVERY
        if evaluation.step == 2 * EVERY:
            for process in processes("seed 2"):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    run = qhat.train("CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", callback=kill)
    assert len(killed) == 1
    require_equal(run, alone)


@pytest.mark.filterwarnings(DIED)
def test_a_group_that_dies_again_and_again_ends_the_run(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qhat.runs.spread.member.DEATHS", 1)

    def kill(evaluation: qhat.Evaluation) -> None:
        for process in processes("seed 2"):
            process.send_signal(signal.SIGKILL)

    with pytest.raises(qhat.QhatError, match="seed 2 died 1 times without a checkpoint in between"):
        qhat.train("CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", callback=kill)


def test_a_score_ends_every_group_at_the_same_step(
    ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path
):
    config = small(tmp_path / "run", seeds=3, stop_at=5.0, save_every=5_000)
    run = qhat.train("CartPole-v1", config, cluster="auto")
    summary = run.summary()
    assert (summary["step"], summary["stopped_by"]) == (EVERY, "stop_at")
    assert not (run.folder.path / "groups").exists()
    weights = alone[1].weights(EVERY)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf: leaf[2:], run.weights("last")), weights)
    # On this machine alone, from the merged checkpoint.
    longer = qhat.train("CartPole-v1", config, resume=True, stop_at=None, steps=1_000)
    assert longer.summary()["step"] == 1_000


def test_a_stopped_run_continues(ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path):
    config = small(tmp_path / "run", seeds=3)
    at = []
    with pytest.raises(Interrupted):
        qhat.train(
            "CartPole-v1", config, cluster="auto", callback=lambda evaluation: at.append(evaluation.step),
            should_stop=lambda: len(at) > 1,
        )  # fmt: skip
    stopped = Run.open(config.run_dir or "").summary()["step"]
    assert 1_000 <= stopped <= 2_000
    require_equal(qhat.train("CartPole-v1", config, cluster="auto", resume=True), alone)


def begun(alone: tuple[Run, Run], folder: Path) -> RunFolder:
    """Make the folder of a run of three seeds, in groups that stopped at steps 1500 and 1000."""
    run, groups = RunFolder(folder), [Group(0, 2), Group(2, 1)]
    folder.mkdir()
    written = json.loads(alone[0].folder.config.read_text())
    run.config.write_text(json.dumps({**written, "seeds": 3}))
    run.start_tables()
    write_division(folder, groups)
    for group, whole, step in zip(groups, alone, (1_500, 1_000), strict=True):
        to, source = folder_of(folder, group), whole.folder.path
        shutil.copytree(source, to.path, ignore=shutil.ignore_patterns("checkpoints", "lock"))
        shutil.copytree(source / "checkpoints" / str(step), to.checkpoints / str(step))
        to.set_last(step)
    return run


def test_groups_at_different_steps_continue_each_from_its_step(
    ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path
):
    folder = begun(alone, tmp_path / "run").path
    run = qhat.train("CartPole-v1", small(folder, seeds=3), cluster="auto", resume=True)
    require_equal(run, alone)


def test_groups_at_different_steps_have_scores_but_no_state(alone: tuple[Run, Run], tmp_path: Path):
    run = begun(alone, tmp_path / "run")
    parts = [(group, folder_of(run.path, group)) for group in read_division(run.path)]
    assert merge(run, parts, None, 1, None) == 1_000
    merge_tables(run, parts, 1_000, run.path / "none.csv")
    assert len(Run.open(run.path).evaluate(episodes=2).per_seed) == 3
    with pytest.raises(qhat.UsageError, match="stopped at different steps"):
        leave_groups(run.path)


def test_what_is_divided_and_joined_again_is_the_same(trained_cartpole: Run, tmp_path: Path):
    run = RunFolder(shutil.copytree(trained_cartpole.folder.path, tmp_path / "run"))
    groups = divided(0, 2, 5)
    assert groups == [Group(0, 1), Group(1, 1)]
    divide(run, groups)
    before = everything(run.path)
    parts = [(group, folder_of(run.path, group)) for group in groups]
    merge(run, parts, 400, 1, None)
    merge_tables(run, parts, 400, run.path / "groups" / "before.csv")
    after = everything(run.path)
    different = {name for name in before["sha256"] if before["sha256"][name] != after["sha256"][name]}
    assert different <= {"state.safetensors", "best.safetensors", "weights.safetensors"}
    for name in ("metrics.csv", "eval.csv", "best_score", "best_step", "halted", "step"):
        assert after[name] == before[name]
    assert run.last().name == "400"


def test_tables_are_joined_in_the_order_of_one_process(trained_cartpole: Run, tmp_path: Path):
    groups = divided(0, 2, 2)
    for group in groups:
        folder = folder_of(tmp_path, group)
        folder.path.mkdir(parents=True)
        for name in ("metrics.csv", "eval.csv"):
            header, *lines = (trained_cartpole.folder.path / name).read_text().splitlines()
            at = header.split(",").index("seed_index")
            mine = [line.split(",") for line in lines if line.split(",")[at] == str(group.first)]
            mine = [[*line[:at], "0", *line[at + 1 :]] for line in mine]
            (folder.path / name).write_text("\n".join([header, *map(",".join, mine)]) + "\n")
    run = RunFolder(tmp_path)
    merge_tables(run, [(group, folder_of(tmp_path, group)) for group in groups], 400, tmp_path / "none.csv")
    for name in ("metrics.csv", "eval.csv"):
        assert rows_of(tmp_path, name) == rows_of(trained_cartpole.folder.path, name)
    speed = float(read_rows(trained_cartpole.folder.metrics)[1][-1]["steps_per_second"])
    assert float(read_rows(run.metrics)[1][-1]["steps_per_second"]) == pytest.approx(2 * speed, rel=1e-3)


def test_groups_differ_by_one_seed_at_most():
    assert divided(7, 5, 2) == [Group(7, 3), Group(10, 2)]
    assert [group.count for group in divided(0, 32, 5)] == [7, 7, 6, 6, 6]


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


def test_an_environment_that_fails_ends_the_run(ray_cluster: RayCluster, tmp_path: Path):
    # Within a function, so that they travel as code: the nodes do not have this file.
    class Breaks(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            assert self.np_random.random() < 0.99, "the simulator is gone"
            return super().step(action)

    def make() -> gymnasium.Env:
        return Breaks(gymnasium.make("CartPole-v1"))

    with pytest.raises(qhat.QhatError, match="the simulator is gone"):
        qhat.train(make, small(tmp_path / "run", seeds=2), cluster="auto")


def test_what_cannot_travel_is_refused(ray_cluster: RayCluster, tmp_path: Path):
    config = small(tmp_path / "run", seeds=2)
    made = cartpole()
    with pytest.raises(qhat.UsageError, match=r"exists in this process alone.*a function that makes one"):
        qhat.train(made, config, cluster="auto")
    made.close()
    lock = threading.Lock()
    with pytest.raises(qhat.UsageError, match="cannot be sent to other machines"):
        qhat.train(lambda: [lock, cartpole()][1], config, cluster="auto")
    with pytest.raises(qhat.UsageError, match="address of a client"):
        qhat.train("CartPole-v1", config, cluster="ray://127.0.0.1:10001")
    assert not (tmp_path / "run").exists()


def test_a_node_without_the_environment_is_named(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = types.ModuleType("only_here")
    here.cartpole = cartpole  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "only_here", here)

    def make() -> gymnasium.Env:
        import only_here  # pyright: ignore[reportMissingImports]

        return only_here.cartpole()

    with pytest.raises(qhat.UsageError, match=r"Node .* cannot train in .*: it has no module 'only_here'"):
        qhat.train(make, small(tmp_path / "run", seeds=2), cluster="auto")


def test_the_screen_has_a_line_for_each_group():
    groups = [GroupProgress("seeds 0 to 1", "one", 500, 20.0, 9.5, ""), GroupProgress("seed 2", "", 0, math.nan, math.nan, "waits")]
    console = Console(width=100, file=io.StringIO())
    with console.capture() as drawn:
        console.print(groups_table(groups))
    lines = drawn.get().splitlines()
    assert [line.split() for line in lines[1:]] == [["0", "to", "1", "one", "500", "20.0", "9.5"], ["2", "0", "–", "–", "waits"]]


@pytest.mark.filterwarnings(DIED, "ignore:The cluster has no core")
def test_a_lost_node_changes_nothing(
    ray_cluster: RayCluster, alone: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crowd, "PATIENT", 1.0)

    def lose(evaluation: qhat.Evaluation) -> None:
        if evaluation.step == 2 * EVERY:
            assert ray_cluster.second is not None
            ray_cluster.remove_node(ray_cluster.second)

    run = qhat.train("CartPole-v1", small(tmp_path / "run", seeds=3), cluster="auto", callback=lose)
    assert ray_cluster.second is None
    require_equal(run, alone)
