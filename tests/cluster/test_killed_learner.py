"""A learner that gets SIGKILL: its actors end, and the run continues from its last checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from numbered_replay import episodes_of, require_whole, saved_state
from places import python_path
from qhat.engine.replay.nstep import TRUNCATED
from qhat.runs.run import Run
from ray_cluster import RayCluster, processes

EVERY = 500
"""Steps between two checkpoints."""
ENDS = 30.0
"""Seconds that a cluster has to end the actors of a dead learner."""
WORDS = (
    "--recipe", "dqn", "--actors", "2", "--num-envs", "2", "--actor-cpus", "0.2", "--hidden", "8",
    "--env-kwargs", "seconds=0.002", "--replay-capacity", "60000", "--learning-starts", "100",
    "--batch-size", "16", "--replay-ratio", "0.5", "--save-every", str(EVERY), "--eval-every", "2000",
    "--eval-episodes", "2",
)  # fmt: skip


def started(folder: Path, cluster: str, *words: str) -> subprocess.Popen[str]:
    """Start a learner as a user does, in a process that has none of this one's settings of XLA."""
    command = [sys.executable, "-m", "qhat", "train", "gym:cluster_envs:Numbered-v0", *WORDS]
    command += ["--run-dir", str(folder), "--cluster", cluster, *words]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": python_path()}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output


def wait_until_saved(process: subprocess.Popen[str], folder: Path) -> None:
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        if (folder / "last").exists():
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"no checkpoint: {process.communicate()[1]}")


def actors_on(cluster: RayCluster) -> list[psutil.Process]:
    """Return the processes of actors on the nodes of one cluster: another test process has another one."""
    found = []
    for process in processes("Actor"):
        try:
            node = process.parent()
            if node is not None and cluster.address in " ".join(node.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("where", ["the same cluster", "local"])
def test_a_killed_learner_leaves_no_actor_and_a_run_that_resumes(
    ray_cluster: RayCluster, tmp_path: Path, where: str
):
    folder = tmp_path / "run"
    learner = started(folder, ray_cluster.address, "--steps", "50000")
    wait_until_saved(learner, folder)
    actors = actors_on(ray_cluster)
    assert len(actors) == 2
    learner.kill()
    learner.communicate()
    assert learner.returncode == -signal.SIGKILL
    _, alive = psutil.wait_procs(actors, timeout=ENDS)
    assert not alive

    at, before = Run.open(folder).summary()["step"], saved_state(folder)
    kept = require_counted(before, at)
    assert at >= EVERY

    end = at + 1_000
    cluster = ray_cluster.address if where == "the same cluster" else "local"
    finish(started(folder, cluster, "--steps", str(end), "--resume"))
    run = Run.open(folder)
    assert run.summary()["step"] == end
    after = saved_state(folder)
    assert kept < require_counted(after, end, sessions=2)
    first = run.program.recipe.first_update
    assert int(after.clock.updates) == sum(1 for step in range(2, end + 1, 2) if step >= first)


def require_counted(state: Any, step: int, sessions: int = 1) -> set[tuple[float, ...]]:
    """Require that replay has the run's steps, each one time and in its episode; return which they are.

    Args:
        sessions: each may store one step beyond its whole iterations, which are of two steps.
    """
    found = {tuple(observation.tolist()) for observation, _, _ in episodes_of(state)}
    kinds = require_whole(state, len(found))
    assert int(state.clock.iterations) * 2 == step
    assert step <= len(found) < step + 1 + sessions
    if sessions > 1:
        assert kinds[TRUNCATED] > 0
    return found
