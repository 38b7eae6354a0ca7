"""Actors on a real cluster of two nodes: what they step is learned from one time, whatever dies."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from cluster_envs import Numbered
from numbered_replay import episodes_of, require_whole
from qhat.cluster import crew as crews
from qhat.cluster import environment as environments
from qhat.cluster import loop
from qhat.engine.replay.nstep import NOTHING, TERMINATED, TRUNCATED
from qhat.system.errors import UsageError
from ray_cluster import RayCluster

pytestmark = pytest.mark.usefixtures("ray_cluster")
SMALL: dict[str, Any] = {
    "hidden": 8, "eval_episodes": 1, "replay_capacity": 60_000, "actor_cpus": 0.2,
    "cluster": "auto",
}  # fmt: skip


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The environments of actors that runs make, in order."""
    made: list[Any] = []
    begin = environments.ActorEnvironment.__init__

    def noted(self: Any, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(environments.ActorEnvironment, "__init__", noted)
    return made


def train(folder: Path, env: Any = "gym:cluster_envs:Numbered-v0", **settings: Any) -> Any:
    steps = settings.pop("steps", 2_000)
    every = {"eval_every": steps, "save_every": steps}
    return qhat.train(env, "dqn", steps=steps, run_dir=folder / "run", **{**SMALL, **every, **settings})


def test_every_step_is_stored_one_time_and_the_updates_are_those_of_the_recipe(
    tmp_path: Path, saved: list[Any], crew: list[Any]
):
    run = train(tmp_path, actors=2, num_envs=4, steps=4_000, replay_ratio=0.25, n_step=3)
    kinds = require_whole(saved[-1], crew[0].stored)
    assert kinds[TERMINATED] > 50
    clock = saved[-1].clock
    assert int(clock.iterations) * 4 == run.summary()["step"] == 4_000
    assert 4_000 <= crew[0].stored < 4_004
    first = run.program.recipe.first_update
    assert int(clock.updates) == sum(1 for at in range(4, 4_001, 4) if at >= first)
    table = (tmp_path / "run" / "metrics.csv").read_text()
    episodes = [row.split(",") for row in table.splitlines() if row.startswith("episode")]
    lengths = [int(row[4]) for row in episodes]
    assert set(lengths) <= set(range(11, 16))
    assert all(float(row[3]) == n * (n + 1) / 2 for row, n in zip(episodes, lengths, strict=True))


def test_an_actor_needs_no_jax(tmp_path: Path):
    train(tmp_path, "gym:cluster_envs:Modules-v0", actors=1, steps=200, log="info.jax")
    table = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = table[0].split(",").index("info.jax")
    values = {row.split(",")[column] for row in table[1:] if row.startswith("progress")}
    assert values == {"0"}


def test_a_function_that_makes_an_environment_travels(tmp_path: Path, saved: list[Any], crew: list[Any]):
    made = functools.partial(Numbered, length=9)
    train(tmp_path, lambda: made(), actors=2, steps=400)
    assert crew[0].stored >= 400
    assert {int(after[2]) for _, after, kind in episodes_of(saved[-1]) if kind == TERMINATED} <= set(
        range(9, 14)
    )


@pytest.mark.parametrize(
    ("settings", "env"),
    [
        ({"wrap": "frame_stack:count=3"}, "gym:cluster_envs:Numbered-v0"),
        ({}, "gym:cluster_envs:Barred-v0"),
        ({"vector": "async", "num_envs": 4}, "gym:cluster_envs:Numbered-v0"),
    ],
    ids=["stack", "mask", "processes"],
)
def test_stacks_masks_and_processes_are_stored_whole(
    tmp_path: Path, saved: list[Any], crew: list[Any], settings: dict[str, Any], env: str
):
    train(tmp_path, env, actors=2, **settings)
    if "wrap" not in settings:
        require_whole(saved[-1], crew[0].stored)
    else:
        _require_stacks(saved[-1])


def _require_stacks(state: Any) -> None:
    """A row has the newest frame; the frames before an episode's first repeat it."""
    ring = state.seeds.ring
    frames, kind = np.asarray(ring.observation[0])[:, 0], np.asarray(ring.kind[0])
    starts = [row for row in np.flatnonzero(kind != NOTHING) if row % ring.rows >= 2]
    assert len(starts) > 1_000
    for row in starts:
        steps = frames[row - 2 : row + 2, 2]
        np.testing.assert_array_equal(np.diff(steps), np.diff(np.maximum(steps[2] + [-2, -1, 0, 1], 0)))
        assert (frames[row - 2 : row + 2, :2] == frames[row, :2]).all()


def killing(crew: list[Any], kills: int, pause: float) -> tuple[threading.Thread, list[float]]:
    """Kill random actors from a thread; return it, and the times of the kills."""
    times: list[float] = []

    def kill() -> None:
        while len(times) < kills:
            time.sleep(pause)
            slots = crew[0].crew.slots if crew else []
            working = [slot.facts.process for slot in slots if slot.facts and slot.expected]
            # The loss of one may not be noticed yet.
            with contextlib.suppress(ProcessLookupError):
                if working:
                    os.kill(random.choice(working), signal.SIGKILL)
                    times.append(time.monotonic())

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread, times


def test_kills_lose_no_step_that_came_and_join_no_episodes(
    tmp_path: Path, saved: list[Any], crew: list[Any], monkeypatch: pytest.MonkeyPatch
):
    thread, times = killing(crew, kills=8, pause=0.4)
    over = threading.Event()

    def stop(_: Any) -> bool:
        return not thread.is_alive() or over.is_set()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(
            tmp_path, actors=3, steps=60_000, eval_every=500, callback=stop,
            env_kwargs={"seconds": 0.004},
        )  # fmt: skip
    assert len(times) == 8
    assert sum("was lost" in str(each.message) for each in said) >= 7
    kinds = require_whole(saved[-1], crew[0].stored)
    assert kinds[TRUNCATED] > 0


def test_an_actor_that_raises_hangs_or_exits_is_replaced(tmp_path: Path, saved: list[Any], crew: list[Any]):
    for what in ("raise", "hang", "exit"):
        kwargs = {"what": what, "file": str(tmp_path / what)}
        folder = tmp_path / f"run of {what}"
        with pytest.warns(UserWarning, match="was lost") as said:
            train(
                folder, "gym:cluster_envs:Moody-v0", actors=2, steps=1_500, env_kwargs=kwargs,
                env_timeout=2.0,
            )  # fmt: skip
        why = {"raise": "the arm is stuck", "hang": "within 2 s", "exit": "died"}[what]
        assert any(why in str(each.message) for each in said)
        require_whole(saved[-1], crew[-1].stored)


def test_a_place_is_taken_again(tmp_path: Path, crew: list[Any]):
    gaps: list[float] = []
    thread, times = killing(crew, kills=2, pause=1.0)
    taken = functools.partial(_working_since, crew)

    def stop(_: Any) -> bool:
        if not thread.is_alive() and len(gaps) < 1 and taken() >= 2:
            gaps.append(time.monotonic() - times[-1])
        return bool(gaps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(
            tmp_path, actors=2, steps=60_000, eval_every=100, callback=stop, env_kwargs={"seconds": 0.005}
        )
    assert gaps


def test_an_actor_that_dies_while_another_one_plays_is_replaced_at_that_time(
    tmp_path: Path, crew: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """One episode is played by one actor, and the other has nothing to do until it is over."""
    playing, found = threading.Event(), []
    play = loop.played

    def noted(*given: Any) -> Any:
        playing.set()
        try:
            return play(*given)
        finally:
            playing.clear()

    def kill() -> None:
        playing.wait()
        idle = crew[0].crew.slots[1]
        os.kill(idle.facts.process, signal.SIGKILL)
        while playing.is_set() and not (idle.incarnation and idle.facts):
            time.sleep(0.01)
        found.append(playing.is_set())

    monkeypatch.setattr(loop, "played", noted)
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    # Nothing is trained after that evaluation, and the user hears of the loss all the same.
    with pytest.warns(UserWarning, match="Actor 1 on .* was lost"):
        train(
            tmp_path, actors=2, steps=400, eval_every=200, callback=lambda _: bool(found),
            env_kwargs={"seconds": 0.02, "length": 500},
        )  # fmt: skip
    assert found == [True]


def _working_since(crew: list[Any]) -> int:
    return sum(slot.facts is not None and slot.expected > 0 for slot in crew[0].crew.slots)


def test_a_run_resumes_with_another_number_of_actors(tmp_path: Path, saved: list[Any], crew: list[Any]):
    train(tmp_path, actors=4, steps=1_000)
    stored = crew[0].stored
    run = train(tmp_path, actors=2, steps=2_000, resume=True, num_envs=4)
    assert run.summary()["step"] == 2_000
    assert 2_000 <= crew[1].stored + stored < 2_010
    require_whole(saved[-1], crew[1].stored + stored)


def test_a_node_that_goes_away_costs_its_actors_alone(
    tmp_path: Path, ray_cluster: RayCluster, saved: list[Any], crew: list[Any]
):
    extra = ray_cluster.add_node(num_cpus=1)
    gone = threading.Event()

    def stop(evaluation: Any) -> bool:
        if evaluation.step >= 1_000 and not gone.is_set():
            gone.set()
            ray_cluster.remove_node(extra)
        return evaluation.step >= 6_000

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(
            tmp_path, actors=6, actor_cpus=0.4, steps=20_000, eval_every=500, callback=stop,
            env_kwargs={"seconds": 0.002},
        )  # fmt: skip
    assert gone.is_set()
    assert 1 <= sum("was lost" in str(each.message) for each in said) <= 4
    require_whole(saved[-1], crew[0].stored)


BAD: list[tuple[Callable[[Path], dict[str, Any]], str]] = [
    (lambda _: {"actors": 0}, "actors is 0; expected a whole number from 1"),
    (lambda _: {"actors": 50}, "actors=50 with 0.2 core.s. each take 10, and the 2 node.s. of the cluster"),
    (lambda _: {"actors": 2, "seeds": 2}, "feed one learner"),
    (
        lambda _: {"actors": 2, "num_envs": 3},
        "num_envs=3 cannot be shared by actors=2; expected",
    ),
    (lambda _: {"actors": 1, "env": "CartPole-v1"}, "is compiled into the learner.*gym:CartPole-v1"),
    (lambda _: {"actors": 1, "env": "gym:not_there:Robot-v0"}, "not_there"),
    (
        lambda _: {"actors": 1, "env": "gym:cluster_envs:Moody-v0", "env_kwargs": {"what": "never"}},
        "the motor is not there",
    ),
    (lambda _: {"actors": 1, "env": Numbered(), "judge": Numbered}, "cannot be made on a node"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_before_training(
    tmp_path: Path, settings: Callable[[Path], dict[str, Any]], sentence: str
):
    given = settings(tmp_path)
    with pytest.raises((UsageError, qhat.QhatError), match=sentence):
        train(tmp_path, given.pop("env", "gym:cluster_envs:Numbered-v0"), **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("actors", [1, 2])
def test_an_actor_that_fails_again_and_again_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, actors: int
):
    """What others sent meanwhile is counted: the run ends with the reason, and no other error."""
    monkeypatch.setattr(crews, "FAILURES", 2)
    monkeypatch.setattr(crews.Crew, "_make", functools.partialmethod(_first_fails, crews.Crew._make))
    kwargs = {"what": "raise", "at": 1, "file": "/no/such/folder/file"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(qhat.QhatError, match=r"was lost 3 times without a step between.*resume"):
            train(tmp_path, "gym:cluster_envs:Moody-v0", actors=actors, env_kwargs=kwargs)
    assert (tmp_path / "run" / "last").exists()


def _first_fails(crew: Any, make: Callable[..., None], slot: Any) -> None:
    """Make an actor, and let all but the first have an environment that does not fail."""
    args = crew._args
    if slot.actor:
        crew._args = dataclasses.replace(args, options={**args.options, "file": "/dev/null"})
    make(crew, slot)
    crew._args = args
