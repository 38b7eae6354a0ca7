"""Commands that come into use during training.

Protects against commands that are tried, chosen or backed up before they are in use, that begin with
another value than their neighbours' mean, that disturb the others' values, or that exports use too early.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import qhat
from qhat.axes import (
    Actions,
    Categorical,
    Dueling,
    EpsilonGreedy,
    ExpectedSarsa,
    Full,
    Growing,
    Noisy,
    Pairs,
    Pink,
    Quantile,
)
from qhat.axes.axis import parse, spell
from qhat.axes.greedy import CLOSED
from qhat.axes.resolution import RESOLUTIONS, between
from qhat.deploy.parity import Agreement
from qhat.engine.calibration import OPENED, split_trainable
from qhat.engine.growth import open_choices, with_growth
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner, LearnerState
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.system.errors import UsageError

KEY = jax.random.key(4)
BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
ACTIONS = Actions.of(BOX, "a test", (9, 5))
GROWING = Growing(last=300)


def recipe(**fields: Any) -> Recipe:
    given: Any = {"hidden": (8,), "resolution": GROWING, "learning_starts": 8, **fields}
    return Recipe(**given).validate()


def learner(**fields: Any) -> Learner:
    return Learner.of(recipe(**fields), (3,), ACTIONS)


def q_of(made: Learner, parameters: Any) -> np.ndarray:
    observations = jax.random.normal(jax.random.key(9), (20, 3))
    return np.asarray(jax.vmap(made.q_values, in_axes=(None, 0))(parameters, observations))


def grown(made: Learner, state: LearnerState, updates: int, applies: bool = True) -> LearnerState:
    return jax.jit(lambda state: with_growth(made, state, jnp.int32(updates), jnp.bool_(applies)))(state)


def test_each_level_halves_the_distance() -> None:
    first, second, third, fourth = Growing().opened((9, 5))
    assert np.flatnonzero(first[0]).tolist() == [0, 8]
    assert np.flatnonzero(second[0]).tolist() == [0, 4, 8]
    assert np.flatnonzero(third[0]).tolist() == [0, 2, 4, 6, 8]
    assert fourth[0].all()
    # The joint with fewer commands has all of its own earlier; it has no sixth.
    assert [np.flatnonzero(level[1]).tolist() for level in (first, second, third, fourth)] == [
        [0, 4], [0, 2, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4],
    ]  # fmt: skip
    assert [level.sum() for level in Growing(start=3).opened((9,))] == [3, 5, 9]


def test_levels_are_equally_long() -> None:
    levels = jax.vmap(lambda at: GROWING.level(at, 4))(jnp.array([0, 99, 100, 199, 200, 299, 300, 10_000]))
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert Growing(share=0.25).scheduled(1_000) == Growing(share=0.25, last=250)
    assert Growing(last=7).scheduled(1_000).last == 7
    made = Recipe(resolution=Growing(), replay_ratio=0.5, learning_starts=1_000).scheduled(10_000)
    assert made.resolution == Growing(last=round(0.5 * made.updates_in(10_000)))


@pytest.mark.parametrize(
    "fields",
    [{}, {"head": Quantile(quantiles=5)}, {"dense": Noisy()}],
    ids=["plain", "quantile", "noisy"],
)
def test_new_commands_begin_with_the_mean_of_their_neighbours(fields: Any) -> None:
    made = learner(**fields)
    state = made.init(KEY)
    before = q_of(made, state.online)
    opened = np.asarray(state.online[OPENED]) > 0.5
    assert (before[:, ~opened] == CLOSED)[:, : 9 + 5 - opened.sum()].all()
    after = q_of(made, grown(made, state, 100).online)
    np.testing.assert_allclose(after[:, opened], before[:, opened], atol=1e-5)
    np.testing.assert_allclose(after[:, 0, 4], (after[:, 0, 0] + after[:, 0, 8]) / 2, atol=1e-5)
    np.testing.assert_allclose(after[:, 1, 2], (after[:, 1, 0] + after[:, 1, 4]) / 2, atol=1e-5)
    assert (after[:, 0, [1, 2, 3, 5, 6, 7]] == CLOSED).all()


def test_the_target_and_the_moments_follow() -> None:
    made = learner()
    fresh = made.init(KEY)
    moments = jax.tree.map(
        lambda leaf: jax.random.uniform(KEY, leaf.shape) if leaf.ndim else leaf, fresh.optimiser
    )
    after = grown(made, LearnerState(fresh.online, made.init(jax.random.key(8)).online, moments), 100)
    q = q_of(made, after.target)
    np.testing.assert_allclose(q[:, 0, 4], (q[:, 0, 0] + q[:, 0, 8]) / 2, atol=1e-5)
    unravel = ravel_pytree(split_trainable(fresh.online)[0])[1]
    for old, new in zip(jax.tree.leaves(moments), jax.tree.leaves(after.optimiser), strict=True):
        if not old.ndim:
            assert old == new
            continue
        rows, mixed = (np.asarray(unravel(leaf)["q"]["weight"]) for leaf in (old, new))
        mean = (rows[0] + rows[8]) / 2
        means = (mean, ((rows[0] ** 0.5 + rows[8] ** 0.5) / 2) ** 2)
        assert any(np.allclose(mixed[4], each, rtol=1e-5) for each in means)
        np.testing.assert_allclose(mixed[[0, 8]], rows[[0, 8]], rtol=1e-5)


def test_several_levels_may_come_with_one_update() -> None:
    made = learner(resolution=Growing(last=1))
    state = made.init(KEY)
    q = q_of(made, grown(made, state, 1).online)
    assert (q[:, 0] > CLOSED).all()
    assert (q[:, 1, :5] > CLOSED).all()
    np.testing.assert_allclose(np.diff(q[:, 0], axis=1), np.repeat((q[:, 0, 8:] - q[:, 0, :1]) / 8, 8, 1),
                               atol=1e-5)  # fmt: skip
    assert between(Growing().opened((5,))).shape == (3, 3, 1, 5, 5)


@pytest.mark.parametrize(("updates", "applies"), [(99, True), (101, True), (400, True), (100, False)])
def test_at_other_times_nothing_changes(updates: int, applies: bool) -> None:
    made = learner()
    state = made.init(KEY)
    after = grown(made, state, updates, applies)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(after)))


def test_what_is_in_use_stays_so() -> None:
    """Weights that were loaded may have more commands than the level of a run that begins."""
    made = learner()
    state = made.init(KEY)
    whole = grown(made, grown(made, grown(made, state, 100), 200), 300)
    again = grown(made, whole, 100)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(again)))


def test_where_only_closed_commands_are_legal_they_are_tried() -> None:
    state = learner().init(KEY)
    legal = jnp.zeros((1, 2, 9), bool).at[0, 0, 3:6].set(True).at[0, 1, :3].set(True)
    tried = open_choices(state.online, legal, 1)
    assert tried is not None
    assert np.flatnonzero(tried[0, 0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(tried[0, 1]).tolist() == [0]


def test_parity_does_not_count_closed_commands() -> None:
    q = np.full((3, 1, 5), CLOSED, np.float32)
    q[:, 0, [0, 4]] = [[1.0, 2.0], [2.0, 1.0], [1.0, 3.0]]
    agreement = Agreement()
    agreement.take(q, np.where(q == CLOSED, q, -q), np.zeros(3, bool), None)
    assert agreement.near_ties == 0
    assert agreement.differing == 3
    assert not agreement.good
    opened = Agreement()
    opened.take(q, np.where(q == CLOSED, np.float32(0.0), q), np.ones(3, bool), None)
    assert not opened.good, "one that the export has in use"


def test_without_growth_nothing_is_compiled() -> None:
    made = learner(resolution=Full())
    state = made.init(KEY)
    assert OPENED not in state.online
    assert with_growth(made, state, jnp.int32(100), True) is state
    assert open_choices(state.online, None, 3) is None


@pytest.mark.parametrize("masked", [False, True])
def test_commands_that_are_not_in_use_are_not_tried(masked: bool) -> None:
    program = Program.of(
        recipe(explore=EpsilonGreedy(1.0, 1.0), num_envs=64), (3,), "float32", ACTIONS, masked=masked
    )
    observation = jnp.zeros((64, 3))
    legal = jnp.ones((64, 2, 9), bool).at[:, 0, 8].set(False) if masked else None
    seed = program.init(KEY, observation, None, legal)
    made = program.learner

    def tried(seed: Any) -> list[set[int]]:
        found: list[set[int]] = [set(), set()]
        for turn in range(40):
            seed = program.act(seed, observation, legal, jax.random.key(turn), jnp.int32(0))
            for joint, choices in enumerate(np.asarray(seed.action).T):
                found[joint] |= set(choices.tolist())
        return found

    assert tried(seed) == [{0} if masked else {0, 8}, {0, 4}]
    later = dataclasses.replace(seed, learner=grown(made, seed.learner, 100))
    assert tried(later) == [{0, 4} if masked else {0, 4, 8}, {0, 2, 4}]


@pytest.mark.parametrize("fields", [{"head": Quantile(quantiles=5)}, {}], ids=["quantile", "expected"])
def test_a_run_grows_and_its_checkpoints_are_exported(fields: Any, tmp_path: Path) -> None:
    settings: Any = {
        "steps": 400, "learning_starts": 60, "eval_every": 100, "eval_episodes": 1, "bins": (5,),
        "resolution": "growing:share=1", "hidden": (8,), "batch_size": 8, "save_every": 200, "keep": 3,
        **fields,
    }  # fmt: skip
    run = qhat.train("Pendulum-v1", "decqn", run_dir=tmp_path / "run", **settings)
    assert np.asarray(run.weights("last")[OPENED]).tolist() == [[[1.0] * 5]]
    early = Run.open(tmp_path / "run").weights("200")[OPENED]
    assert np.asarray(early).tolist() == [[[1.0, 0.0, 1.0, 0.0, 1.0]]] or np.asarray(early).sum() == 2
    made = qhat.export(run, tmp_path / "early", checkpoint="200", observations=300)
    assert made.parity["passed"]
    chosen = {float(run.policy("200")(np.array([np.cos(a), np.sin(a), s], np.float32))[0])
              for a in np.linspace(0, 6, 30) for s in (-4.0, 0.0, 4.0)}  # fmt: skip
    assert chosen <= {-2.0, 0.0, 2.0}


@pytest.mark.parametrize("kind", RESOLUTIONS)
def test_values_are_spelled(kind: Any) -> None:
    assert parse(spell(kind()), RESOLUTIONS) == kind()


@pytest.mark.parametrize(
    ("fields", "actions", "says"),
    [
        ({"resolution": Growing(start=1)}, ACTIONS, "growing:start is 1"),
        ({"resolution": Growing(share=0.0)}, ACTIONS, "growing:share is 0"),
        ({"resolution": Growing(last=0)}, ACTIONS, "growing:last is 0"),
        ({"head": Categorical()}, ACTIONS, "are probabilities"),
        ({"merge": Dueling()}, ACTIONS, "subtracts the mean over all"),
        ({"joints": Pairs()}, ACTIONS, "has values of joint actions"),
        ({"explore": Pink()}, ACTIONS, "moves to those nearby"),
        ({"policy": ExpectedSarsa()}, ACTIONS, "backs all up"),
        ({}, Actions((9,)), "9 choices without an order"),
        ({}, Actions.of(BOX, "a test", (4,)), "a joint has 4; expected .*3, 5, 9, 17 or 33"),
        ({}, Actions.of(BOX, "a test", (2,)), "a joint has 2"),
        ({"resolution": Growing(start=4)}, ACTIONS, "7, 13, 25, 49 or 97"),
    ],
)
def test_growth_without_a_meaning_is_refused(fields: Any, actions: Actions, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Program.of(recipe(**fields), (3,), "float32", actions)


def test_commands_that_come_after_the_run_are_refused() -> None:
    settings: Any = {"steps": 1_000, "replay_ratio": 1.0, "learning_starts": 0, "batch_size": 32}
    settings |= {"bins": 9, "num_envs": 1}

    def config(growth: str) -> qhat.TrainConfig:
        return qhat.TrainConfig.of("Pendulum-v1", "decqn", resolution=growth, **settings)

    with pytest.raises(UsageError, match=r"after 970 updates, and the run has 969; expected no more"):
        config("growing:last=970").validate()
    config("growing:last=969").validate()
    config("growing").validate()
