"""Environments on the host loop that die, hang and raise: they are restarted, or the run stops and is saved.

Protects against transitions from one episode into another, runs that are lost because of one bad step, and
endless restarts.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import random
import shutil
import signal
import statistics
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import faults
from places import python_path
from tiny import TINY_DQN
import qhat
from full import FULL
from qhat import recipes
from qhat.engine.bridge import FailedError
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.replay.nstep import NOTHING, TERMINATED, TRUNCATED
from qhat.engine.replay.ring import Ring, Transition, look_up, view
from qhat.engine.state import TrainState
from qhat.environments.base import Timestep
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.restarts import Restarts
from qhat.recipes.config import TrainConfig
from qhat.runs.stop import StoppedError
from qhat.runs.run import Run
from qhat.system.errors import QhatError

RECIPE = dataclasses.replace(
    TINY_DQN, num_envs=2, replay_ratio=0.5, replay_capacity=8_000, batch_size=8, learning_starts=20,
    gamma=0.5, n_step=3,
)  # fmt: skip
WORDS = (sys.executable, "-m", "qhat", "train", "gym:faults:Robot-v0", "--vector", "async")
COUNTS = {"kill": 60, "stop": 20, "sleep": 20} if FULL else {"kill": 3, "stop": 1}
SECONDS = 0.5
"""Limit of a step."""


def loop_of(environment: GymnasiumEnvironment, recipe: Any = RECIPE) -> HostLoop:
    spec = environment.spec
    return HostLoop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)


@jax.jit
def transitions(ring: Ring) -> tuple[Transition, Array, Array]:
    """Return the transition of each row, its number of steps, and whether it can be drawn."""
    slots = jnp.arange(ring.size)
    window = view(ring, slots, RECIPE.n_step, RECIPE.gamma)
    return look_up(ring, slots, window), window.length, window.complete & (ring.kind != NOTHING)


def check(ring: Ring) -> int:
    """Assert that every transition of one seed follows the script; return their number."""
    drawn, length, usable = jax.tree.map(np.asarray, transitions(ring))
    moved = drawn.successor - drawn.observation
    np.testing.assert_array_equal(moved[usable, :2], 0, "a transition is of one episode")
    np.testing.assert_array_equal(moved[usable, 2], length[usable], "and of consecutive steps")
    rows = np.asarray(ring.kind) != NOTHING
    kind, action = np.asarray(ring.kind)[rows], np.asarray(ring.action)[rows, 0]
    reward, terminated, truncated = faults.fate(*np.asarray(ring.observation)[rows].T.astype(np.int64))
    np.testing.assert_array_equal(np.asarray(ring.reward)[rows], np.float32(reward + 2 * action))
    np.testing.assert_array_equal(kind == TERMINATED, terminated)
    assert (kind[truncated & ~terminated] == TRUNCATED).all()
    return int(usable.sum())


class Saboteur:
    """Harms a running environment in several ways, and measures the effects."""

    def __init__(self, environment: GymnasiumEnvironment, folder: Path):
        self.environment, self.folder = environment, folder
        self.recovered, self.draw = threading.Event(), random.Random(0)
        self._receive, self._broken = environment.receive, False
        environment.receive = self._watched

    def _watched(self) -> Timestep:
        step = self._receive()
        if step.broken is not None:
            assert step.broken.all()
            assert not step.real.any()
            self._broken = True
        elif self._broken:
            self._broken = False
            self.recovered.set()
        return step

    def strike(self, kind: str) -> float:
        """Harm a process; return the seconds until the next step of fresh ones."""
        time.sleep(self.draw.uniform(0.05, 0.3))
        self.recovered.clear()
        envs: Any = self.environment._stepping.envs
        process = self.draw.choice(envs.processes)
        began = time.monotonic()
        if kind == "sleep":
            (self.folder / "sleep").touch()
        else:
            os.kill(process.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        assert self.recovered.wait(60), f"nothing came after {kind}"
        return time.monotonic() - began


def test_processes_that_die_or_hang_are_replaced_and_no_transition_spans_it(tmp_path: Path):
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    random.Random(1).shuffle(kinds)
    build = functools.partial(faults.Faulty, str(tmp_path))
    environment = GymnasiumEnvironment.of(
        "faulty", build, 2, (0, 5), vector="async", seconds=SECONDS, restarts=len(kinds)
    )
    loop, saboteur = loop_of(environment), Saboteur(environment, tmp_path)
    state, advance = loop.init(jax.random.split(jax.random.key(0), 2)), loop.compile(1_000)
    state, _ = advance(state, 10)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}

    def one_after_the_other(state: TrainState) -> tuple[int, int]:
        broken = checked = 0
        with ThreadPoolExecutor(1) as pool:
            for kind in kinds:
                struck = pool.submit(saboteur.strike, kind)
                while not struck.done():
                    before = int(state.clock.iterations)
                    state, log = advance(state, 1_000, struck.done)
                    done = int(state.clock.iterations) - before
                    broken += int(np.asarray(log.broken)[:, :done].sum())
                seconds[kind].append(struck.result())
                for seed in range(2):
                    checked += check(jax.tree.map(lambda leaf, at=seed: leaf[at], state.seeds.ring))
        return broken, checked

    with pytest.warns(RuntimeWarning, match="were restarted in") as warned:
        broken, checked = one_after_the_other(state)
    environment.close()
    assert len(kinds) == len(warned)
    assert len({str(each.message) for each in warned}) == len(kinds), "each is told once"
    # docs/reliability.md shows these; a clock is no test.
    for kind, times in seconds.items():
        print(
            f"{kind}: {len(times)} times, recovered in {statistics.median(times):.2f} s"
            f" (median), {max(times):.2f} s (most)"
        )
    print(f"{checked:,} transitions looked at, {broken} episodes given up")
    # A strike ends the episode of each copy at most: two seeds have two copies each.
    assert broken <= 4 * len(kinds)
    assert broken > 0
    assert checked > 100 * len(kinds)


def test_pauses_between_restarts_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch):
    now, slept = [1_000.0], []
    monkeypatch.setattr("qhat.environments.gymnasium.restarts.time.monotonic", lambda: now[0])
    monkeypatch.setattr("qhat.environments.gymnasium.restarts.time.sleep", slept.append)
    restarts = Restarts(8)
    assert all(restarts.take() for _ in range(7))
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    now[0] += 61
    assert restarts.take()
    assert slept[-1] == 0.1, "after a quiet minute"
    assert not restarts.take()
    assert len(slept) == 8, "none is left: there is nothing to wait for"


def step(environment: GymnasiumEnvironment) -> Timestep:
    environment.send(np.zeros((1, 2, 1), np.int32))
    return environment.receive()


def test_new_episodes_are_derived_from_the_seed_and_the_restarts():
    """Processes end at their 20th step, two times; the observations afterwards are always the same."""
    observations = []
    for _ in range(2):
        build = functools.partial(faults.Robot, "kill")
        environment = GymnasiumEnvironment.of("robot", build, 2, (0,), vector="async", restarts=2)
        rows = [environment.start()]
        with pytest.warns(RuntimeWarning, match=r"lost the process of copy .* \(SIGKILL\)"):
            rows += [step(environment).observation for _ in range(45)]
        environment.close()
        observations.append(np.stack(rows))
    np.testing.assert_array_equal(*observations)
    firsts = [observations[0][at].tobytes() for at in (0, 20, 40)]
    assert len(set(firsts)) == 3, "no episode is played again"


def config(folder: Path, **settings: Any) -> TrainConfig:
    fields = {"steps": 200, "eval_every": 100, "eval_episodes": 1, "save_every": 100, **settings}
    return TrainConfig("", recipe=RECIPE, run_dir=folder, **fields)


@pytest.mark.parametrize(("vector", "at"), [("sync", 20), ("async", 1)])
def test_an_environment_that_raises_leaves_a_checkpoint(tmp_path: Path, vector: Any, at: int):
    raising = functools.partial(faults.Robot, "raise", always=True, at=at)
    well = functools.partial(faults.Robot, "")
    with pytest.raises(StoppedError) as raised:
        qhat.train(raising, config(tmp_path / "run", vector=vector), judge=well)
    step = 2 * at
    for words in (
        "Environment 'own:Robot' raised at step", "ConnectionError: the gripper is stuck",
        f"saved up to step {step}", f"qhat.train(env, run_dir='{tmp_path / 'run'}', resume=True)",
    ):  # fmt: skip
        assert words in str(raised.value)
    assert "restarted" not in str(raised.value), "what raises is not restarted"
    assert raised.value.exit_code == 1
    run = Run.open(tmp_path / "run")
    assert run.summary()["step"] == step
    assert _sum_of_column(run, "broken") == (0 if at == 1 else 2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    hashes = set()
    for name in ("run", "copy"):
        again = qhat.train(well, config(tmp_path / name, vector=vector, resume=True), judge=well)
        assert again.summary()["step"] == 200
        hashes.add(again.weights_sha256())
    assert len(hashes) == 1, "resumed from the same place, the same is learned"


def test_what_hangs_in_this_process_is_left_behind_and_the_run_is_saved(tmp_path: Path):
    """The environment sleeps for 1,000 s where no Python exception reaches it; the run abandons it."""
    hangs = functools.partial(faults.Robot, "hang", always=True)
    well = functools.partial(faults.Robot, "")
    with pytest.raises(StoppedError, match=r"did not come back from step 20 .*within 1 s.*up to step 40"):
        qhat.train(hangs, config(tmp_path / "run", env_timeout=1.0), judge=well)
    again = qhat.train(well, config(tmp_path / "run", resume=True), judge=well)
    assert again.summary()["step"] == 200


def _sum_of_column(run: Run, name: str) -> int:
    with run.folder.metrics.open() as table:
        return sum(int(row[name] or 0) for row in csv.DictReader(table))


def test_nothing_of_the_step_that_failed_is_stored(tmp_path: Path):
    build = functools.partial(faults.Robot, "kill")
    environment = GymnasiumEnvironment.of("robot", build, 2, (0,), vector="async")
    loop = loop_of(environment)
    state, advance = loop.init(jax.random.split(jax.random.key(0), 1)), loop.compile(100)
    with pytest.raises(FailedError, match=r"lost the process of copy .*\(SIGKILL\).* at step 20") as failed:
        advance(state, 100)
    state, log = failed.value.reached
    assert int(state.clock.iterations) == 20, "the last one is the one that failed"
    assert int((np.asarray(state.seeds.ring.kind) != 0).sum()) == 2 * 19
    assert np.asarray(log.broken)[0, :20].sum(axis=1).tolist() == [0] * 19 + [2]
    again = GymnasiumEnvironment.of("robot", functools.partial(faults.Robot, ""), 2, (0,), 20)
    state = loop_of(again).restart(state, jax.random.split(jax.random.key(1), 1))
    state, _ = loop_of(again).compile(100)(state, 10)
    assert int((np.asarray(state.seeds.ring.kind) != 0).sum()) == 2 * 29
    again.close()


def test_an_evaluation_that_fails_leaves_a_checkpoint_too(tmp_path: Path):
    raising = functools.partial(faults.Robot, "raise", always=True, at=3)
    well = functools.partial(faults.Robot, "")
    with pytest.raises(StoppedError, match=r"the gripper is stuck.*saved up to step 100"):
        qhat.train(well, config(tmp_path / "run"), judge=raising)
    run = qhat.train(well, config(tmp_path / "run", resume=True), judge=well)
    with run.folder.evaluations.open() as table:
        assert [row["step"] for row in csv.DictReader(table)] == ["100", "200"], "it was made up for"


def command(folder: Path, fault: str, *words: str) -> subprocess.CompletedProcess[str]:
    options = "--recipe dqn --hidden 8 --num-envs 2 --steps 300 --eval-every 300 --eval-episodes 1"
    path = python_path(Path(__file__).parent)
    return subprocess.run(
        [*WORDS, *options.split(), "--run-dir", str(folder), *words],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": path, "QHAT_FAULT": fault},
    )  # fmt: skip


def test_a_run_without_restarts_left_is_saved_and_resumes(tmp_path: Path):
    folder = tmp_path / "run"
    done = command(folder, "kill", "--env-restarts", "2")
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "Traceback" not in said
    for number in (1, 2):
        assert f"(restart {number} of 2)" in said
    for words in (
        "qhat: Environment 'faults:Robot-v0' lost", "SIGKILL", "restarted 2 times before (--env-restarts)",
        "saved up to step 120", f"qhat train --resume --run-dir {folder}",
    ):  # fmt: skip
        assert words in said, said
    run = Run.open(folder)
    assert run.summary()["step"] == 120
    assert _sum_of_column(run, "broken") == 6
    done = command(folder, "", "--resume")
    assert done.returncode == 0, done.stderr
    assert Run.open(folder).summary()["step"] == 300


def test_restarts_are_a_number(tmp_path: Path):
    with pytest.raises(QhatError, match="env_restarts is -1; expected 0 or more"):
        config(tmp_path, env_restarts=-1).validate()
