"""Numbers that are not finite: always found, never stored or learned from, reported with their place.

Faults are inserted where an environment or a gradient would have them: at random steps, copies and seeds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int

import command_line
import qhat
from full import FULL
from places import SUPPORT
from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.heads import Expected
from qhat.engine.guard import NOTHING, OBSERVATION, REWARD, UPDATE
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.engine.replay.ring import Transition
from qhat.engine.state import TrainState
from qhat.environments.base import Environment, Spec, Timestep
from qhat.runs.faults import require_finite
from qhat.runs.run import Run
from qhat.system.errors import QhatError, UsageError

E, N, TURNS = 4, 3, 60
RECIPE = replace(
    recipes.get("nstep_dqn"), hidden=(8,), num_envs=E, n_step=N, replay_ratio=0.5, replay_capacity=E * 100,
    learning_starts=16, batch_size=16,
).scheduled()  # fmt: skip
NONE, BOTH, SHOWN, REWARDED, FIRST = range(5)
"""Where a fault is put: the successor, what is acted on next alone, the reward, the first observation."""
VALUES = (np.nan, np.inf, -np.inf)


class Poisoned(Environment):
    """Observations count the steps of all copies; at one of them something is not finite."""

    num_envs = E

    def __init__(self, places: tuple[int, ...] = (NONE, BOTH, SHOWN, REWARDED, FIRST)):
        self.spec = Spec("poisoned", "own", (2,), "float32", Actions((2,)))
        self.places = places

    def reset(self, key: Array) -> tuple[Any, Array]:
        place, turn, copy, value = (
            jax.random.randint(part, (), 0, most)
            for part, most in zip(jax.random.split(key, 4), (len(self.places), TURNS, E, 3), strict=True)
        )
        place = jnp.asarray(self.places)[place]
        state = {"count": jnp.int32(0), "place": place, "turn": turn, "copy": copy, "value": value}
        return state, self._show(state, place == FIRST)

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        now = state["count"] == state["turn"]
        state = {**state, "count": state["count"] + 1}
        hit = now & (jnp.arange(E) == state["copy"])
        rewarded = hit & (state["place"] == REWARDED)
        reward = jnp.where(rewarded, jnp.asarray(VALUES)[state["value"]], 1.0)
        terminated = jnp.full(E, state["count"] % 13 == 0)
        successor = self._show(state, now & (state["place"] == BOTH))
        shown = self._show(state, now & ((state["place"] == BOTH) | (state["place"] == SHOWN)))
        return state, Timestep(shown, reward, terminated, jnp.zeros(E, bool), successor, jnp.ones(E, bool))

    def _show(self, state: Any, hits: Array) -> Array:
        numbers = jnp.broadcast_to(state["count"].astype(jnp.float32), (E, 2))
        bad = hits & (jnp.arange(E) == state["copy"])
        return numbers.at[:, 1].set(jnp.where(bad, jnp.asarray(VALUES)[state["value"]], numbers[:, 1]))


def loop_of(environment: Environment, stops: bool = True) -> Loop:
    return Loop(Program.of(RECIPE, (2,), "float32", environment.spec.actions, stops=stops), environment)


PUT = ("place", "turn", "copy", "value")


def begun(loop: Loop, seeds: int) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Return a first state, and the inserted faults."""
    state = loop.init(jax.vmap(jax.random.key)(jnp.arange(seeds)))
    return state, {name: np.asarray(state.seeds.environment[name]) for name in PUT}


SEEDS = 20_000 if FULL else 120


class Ran(NamedTuple):
    """The state after `TURNS` iterations, the log, the inserted faults, and a function that runs fewer."""

    state: TrainState
    log: Any
    put: dict[str, np.ndarray]
    after: Callable[[int], TrainState]


def ran(stops: bool) -> Ran:
    loop = loop_of(Poisoned(), stops)
    run = loop.compile(TURNS)
    first, put = begun(loop, SEEDS)
    state, log = run(first, TURNS)
    return Ran(state, log, put, lambda turns: run(begun(loop, SEEDS)[0], turns)[0])


@pytest.fixture(scope="module")
def stopped() -> Ran:
    return ran(True)


@pytest.fixture(scope="module")
def skipped() -> Ran:
    return ran(False)


def finite(tree: Any) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


@pytest.mark.parametrize("mode", ["stopped", "skipped"])
def test_every_fault_is_found_where_it_was_put(mode: str, request: pytest.FixtureRequest):
    state, _, put, _ = request.getfixturevalue(mode)
    guard, place = state.seeds.guard, put["place"]
    expected = np.select([place == NONE, place == REWARDED], [NOTHING, REWARD], OBSERVATION)
    np.testing.assert_array_equal(guard.what, expected)
    met = place != NONE
    turn = np.where(place == FIRST, -1, put["turn"])
    np.testing.assert_array_equal(np.asarray(guard.iteration)[met], turn[met])
    np.testing.assert_array_equal(np.asarray(guard.faulty)[met], np.eye(E)[put["copy"]][met] > 0)
    bad = np.where(place == REWARDED, np.asarray(guard.reward)[np.arange(SEEDS), put["copy"]],
                   np.asarray(guard.observation)[np.arange(SEEDS), put["copy"], 1])  # fmt: skip
    np.testing.assert_array_equal(bad[met], np.asarray(VALUES, np.float32)[put["value"]][met])
    assert set(put["place"].tolist()) == {NONE, BOTH, SHOWN, REWARDED, FIRST}


@pytest.mark.parametrize("mode", ["stopped", "skipped"])
def test_nothing_that_is_not_finite_is_kept(mode: str, request: pytest.FixtureRequest):
    state = request.getfixturevalue(mode).state
    for part in (state.seeds.ring, state.seeds.learner, state.seeds.observation, state.seeds.episodes):
        assert finite(part)


def test_a_seed_that_stops_keeps_what_it_had_and_its_siblings_go_on(stopped: Ran):
    state, put = stopped.state, stopped.put
    starts = np.asarray(state.seeds.ring.kind).astype(bool).sum(axis=1)
    stop = np.select([put["place"] == NONE, put["place"] == FIRST], [TURNS, 0], put["turn"])
    np.testing.assert_array_equal(starts, stop * E)
    # A seed that has its fault at turn t has the weights of one that trained for t turns.
    seed = int(np.flatnonzero((put["place"] == REWARDED) & (put["turn"] > 40))[0])
    before = stopped.after(int(put["turn"][seed]))
    for part, then in ((state.seeds.learner, before.seeds.learner), (state.seeds.ring, before.seeds.ring)):
        for one, other in zip(jax.tree.leaves(part), jax.tree.leaves(then), strict=True):
            np.testing.assert_array_equal(np.asarray(one)[seed], np.asarray(other)[seed])
    sibling = int(np.flatnonzero(put["place"] == NONE)[0])
    now, then = (np.asarray(one.seeds.learner.online["q"]["bias"])[sibling] for one in (state, before))
    assert not np.array_equal(now, then)


def test_rows_that_are_skipped_are_counted_and_never_joined(skipped: Ran):
    state, log, put, _ = skipped
    rows = np.select([put["place"] == NONE, put["place"] == REWARDED], [0, 1], 2)
    # The fault's row, and the one that was acted on blindly after it, if the run went on for so long.
    last = put["turn"] == TURNS - 1
    rows = np.where(last & np.isin(put["place"], (BOTH, SHOWN)), 1, rows)
    np.testing.assert_array_equal(state.seeds.guard.skipped, rows)
    missing = np.where(put["place"] == FIRST, 1, rows)
    starts = np.asarray(state.seeds.ring.kind).astype(bool).sum(axis=1)
    np.testing.assert_array_equal(starts, TURNS * E - missing)
    # An observation is the number of its step: a transition over n steps must be n apart.
    faulty = np.flatnonzero(put["place"] != NONE)[:40]
    rings = jax.tree.map(lambda leaf: np.asarray(leaf)[faulty], state.seeds.ring)
    slots = jnp.arange(rings.kind.shape[1])

    @jax.jit
    @jax.vmap
    def views(ring: Any) -> tuple[Any, Any]:
        window = replay.view(ring, slots, N, 0.9)
        return window, replay.look_up(ring, slots, window)

    window, batch = views(rings)
    whole = np.asarray(window.complete) & (rings.kind != 0)
    assert (whole.sum(axis=1) > 100).any()
    distance = np.asarray(batch.successor - batch.observation)[whole, 0]
    np.testing.assert_array_equal(distance, np.asarray(window.length)[whole])
    # An episode that is given up is no score.
    assert np.isfinite(np.asarray(log.returns)).all()


def _batch(reward: float, n: int = 16) -> Transition:
    rows = jnp.linspace(-1, 1, n)
    return Transition(
        observation=jnp.stack([rows, rows], axis=1),
        action=jnp.zeros((n, 1), jnp.int32),
        reward=rows.at[3].set(reward),
        discount=jnp.full(n, 0.9),
        successor=jnp.stack([rows, -rows], axis=1),
    )


@pytest.mark.parametrize("reward", [np.nan, 3e38], ids=["nan", "overflow"])
@pytest.mark.parametrize("name", ["dqn", "c51", "qr_dqn", "iqn", "hl_gauss_dqn", "m_dqn"])
def test_an_update_that_is_not_finite_moves_nothing(name: str, reward: float):
    recipe = replace(recipes.get(name), hidden=(8,))
    if name in ("dqn", "m_dqn"):
        # Its square overflows; the Huber loss of so large an error is a number.
        recipe = replace(recipe, head=Expected(delta=None))
    elif reward > 1e30:
        # Beyond a support's ends everything is its last atom: only NaN is not.
        reward = np.nan if name in ("c51", "hl_gauss_dqn") else np.inf
    learner = Learner.of(recipe, (2,), Actions((2,)))
    state = learner.init(jax.random.key(0))

    @jax.jit
    def update(*arguments: Any) -> Any:
        state, done = learner.update(*arguments)
        return state, done.errors, done.metrics

    weights, key = jnp.ones(16), jax.random.key(1)
    state, _, metrics = update(state, _batch(0.0), weights, key, jnp.int32(1))
    assert bool(metrics.finite)
    after, errors, metrics = update(state, _batch(reward), weights, key, jnp.int32(2))
    assert not bool(metrics.finite)
    assert np.isfinite(np.asarray(errors)).all()
    for old, new in zip(
        jax.tree.leaves((state.online, state.optimiser)), jax.tree.leaves((after.online, after.optimiser)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(old, new)
    again, _, metrics = update(after, _batch(0.0), weights, key, jnp.int32(3))
    assert bool(metrics.finite)
    assert finite(again)


class Diverging(Poisoned):
    """Odd seeds get finite rewards whose squared errors are not finite, from some turn on."""

    def reset(self, key: Array) -> tuple[Any, Array]:
        state, _ = super().reset(key)
        state = {**state, "place": jnp.int32(NONE), "odd": jax.random.key_data(key)[-1] % 2}
        return state, self._show(state, jnp.bool(False))

    def step(self, state: Any, action: Int[Array, "E F"], key: Array) -> tuple[Any, Timestep]:
        state, now = super().step(state, action, key)
        huge = (state["odd"] > 0) & (state["count"] > 30)
        return state, now._replace(reward=jnp.where(huge, 3e37, now.reward))


@pytest.mark.parametrize("stops", [True, False])
def test_a_loss_that_overflows_is_not_applied(stops: bool):
    environment = Diverging()
    recipe = replace(RECIPE, head=Expected(delta=None))
    program = Program.of(recipe, (2,), "float32", environment.spec.actions, stops=stops)
    loop = Loop(program, environment)
    state = loop.init(jax.vmap(jax.random.key)(jnp.arange(8)))
    odd = np.asarray(state.seeds.environment["odd"]) > 0
    assert 0 < odd.sum() < 8
    state, _log = loop.compile(TURNS)(state, TURNS)
    guard = state.seeds.guard
    np.testing.assert_array_equal(guard.what, np.where(odd, UPDATE, NOTHING))
    assert finite(state.seeds.learner)
    assert finite(state.seeds.ring)
    # The first batch that holds such a reward; afterwards one that stops tries no more.
    assert (np.asarray(guard.iteration)[odd] >= 30).all()
    counts = np.asarray(guard.skipped)
    assert (counts[odd] == 1).all() if stops else (counts[odd] > 5).all()
    assert (counts[~odd] == 0).all()


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "recipe": RECIPE, "recipe_name": "nstep_dqn", "steps": TURNS * E, "eval_every": 100 * E,
        "eval_episodes": 1, "seeds": 8, "run_dir": folder / "run", **more,
    }  # fmt: skip


def seeds_of(places: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the faults of seeds 0 to 7."""
    return begun(loop_of(Poisoned(places)), 8)[1]


PLACES = (NONE, NONE, REWARDED, BOTH)


def test_a_run_tells_of_the_seed_that_stopped_and_finishes_the_others(tmp_path: Path):
    put = seeds_of(PLACES)
    met = np.flatnonzero(put["place"] != NONE)
    assert 0 < len(met) < 8
    reports: list[Any] = []
    config = settings(tmp_path, progress=reports.append, judge=Poisoned((NONE,)))
    run = qhat.train(Poisoned(PLACES), **config)
    sentences = reports[-1].faults
    assert len(sentences) == len(met)
    assert run.summary()["halted"] == [place != NONE for place in put["place"].tolist()]
    for seed in met:
        turn, copy = int(put["turn"][seed]), int(put["copy"][seed])
        step = (turn + 1) * E
        path = run.folder.path / "faults" / f"seed_{seed}_step_{step}.npz"
        name = {REWARDED: "reward", BOTH: "observation"}[int(put["place"][seed])]
        sentence = next(text for text in sentences if f"(seed {seed}, copy {copy}" in text)
        for words in (f"gave {name}", f"at step {step:,} of the run", "expected finite numbers", str(path)):
            assert words in sentence
        with np.load(path, allow_pickle=False) as kept:
            # Every copy's last steps, up to the one before.
            for env in range(E):
                stored = kept[f"env{env}_observation"][kept[f"env{env}_kind"] != 0]
                np.testing.assert_array_equal(stored[:, 0], np.arange(max(0, turn - 100), turn))
            assert not np.isfinite(kept[name][copy]).all()
            assert kept["faulty"].tolist() == [env == copy for env in range(E)]
    with run.folder.metrics.open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "progress"]
    skipped = {int(row["seed_index"]): int(row["skipped"]) for row in rows}
    assert {seed for seed, count in skipped.items() if count} == set(met.tolist())
    assert "Halted at a number that was not finite" in (run.folder.path / "README.md").read_text()
    assert finite(Run.open(run.folder.path).weights("last"))


def test_a_stopped_seed_stays_stopped_until_skip_is_set(tmp_path: Path):
    config = settings(tmp_path, judge=Poisoned((NONE,)))
    halted = qhat.train(Poisoned(PLACES), **config).summary()["halted"]
    before = Run.open(tmp_path / "run").weights("last")
    config |= {"steps": 2 * TURNS * E, "resume": True}
    run = qhat.train(Poisoned(PLACES), **config)
    assert run.summary()["halted"] == halted
    after = run.weights("last")
    changed = [
        any(bool((one[seed] != other[seed]).any()) for one, other in zip(
            jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        for seed in range(8)
    ]  # fmt: skip
    assert changed == [not one for one in halted]
    config |= {"steps": 4 * TURNS * E, "on_nan": "skip"}
    run = qhat.train(Poisoned(PLACES), **config)
    assert run.summary()["halted"] == [False] * 8
    last = run.weights("last")
    assert all(
        any(bool((one[seed] != other[seed]).any()) for one, other in zip(
            jax.tree.leaves(after), jax.tree.leaves(last), strict=True))
        for seed in range(8)
    )  # fmt: skip


def test_when_every_seed_has_stopped_the_run_ends_with_a_checkpoint(tmp_path: Path):
    config = settings(tmp_path, judge=Poisoned((NONE,)))
    with pytest.raises(QhatError, match=r"gave reward .* expected finite numbers") as raised:
        qhat.train(Poisoned((REWARDED,)), **config)
    assert raised.value.exit_code == 1
    run = Run.open(tmp_path / "run")
    assert run.summary()["halted"] == [True] * 8
    assert finite(run.weights("best"))
    with pytest.raises(UsageError, match="on_nan='skip'"):
        qhat.train(Poisoned((REWARDED,)), **config, resume=True)
    config |= {"on_nan": "skip", "resume": True, "steps": 2 * TURNS * E}
    assert qhat.train(Poisoned((REWARDED,)), **config).summary()["halted"] == [False] * 8


class Robot(gymnasium.Env):
    """A host environment whose reward is not finite at the tenth step of every episode."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self.time = 0
        return np.zeros(2), {}

    def step(self, action: int) -> Any:
        self.time += 1
        reward = np.nan if self.time == 10 else 1.0
        return np.full(2, self.time / 20), reward, False, self.time == 20, {}


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_the_host_loop_has_the_same_guard(tmp_path: Path, vector: Any):
    config = settings(tmp_path, seeds=1, vector=vector)
    with pytest.raises(QhatError, match=r"gave reward nan at step 40 of the run \(seed 0, copy 0, action"):
        qhat.train(Robot, **config)
    assert (tmp_path / "run" / "faults" / "seed_0_step_40.npz").exists()
    config |= {"run_dir": tmp_path / "skipping", "on_nan": "skip"}
    run = qhat.train(Robot, **config)
    with run.folder.metrics.open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "progress"]
    # Three episodes of twenty steps in each of the copies, and one step in each of them.
    assert int(rows[-1]["skipped"]) == 3 * E
    score = run.evaluate(5, env=Robot)
    assert score.broken == 5
    assert score.mean_return == 9.0
    assert score.mean_length == 9.0


def test_the_command_line_tells_and_exits(tmp_path: Path):
    (tmp_path / "poisoned_robot.py").write_text(
        "import gymnasium, sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), str(SUPPORT)]!r}\n"
        "gymnasium.register('Poisoned-v0', 'test_guard:Robot')\n"
    )
    words = "--recipe dqn --hidden 8 --steps 400 --eval-every 400 --eval-episodes 1 --run-dir run"
    env = ("train", "gym:poisoned_robot:Poisoned-v0")
    done = command_line.qhat(*env, *words.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert "gave reward nan" in done.stderr
    assert "Traceback" not in done.stderr
    done = command_line.qhat(*env, "--resume", "--run-dir", "run", "--on-nan", "skip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command_line.qhat(*env, "--on-nan", "maybe", cwd=tmp_path)
    assert done.returncode == 2
    assert "maybe" in done.stderr


def test_weights_that_are_not_finite_are_never_saved():
    require_finite([np.zeros(3), np.zeros(2, np.int32)])
    with pytest.raises(QhatError, match="nothing was saved"):
        require_finite([np.zeros(3), np.array([0.0, np.nan])])
