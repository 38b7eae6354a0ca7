"""Networks with a memory, and the sequences of replay that they learn from.

Protects against a state that leaks from one episode into the next, a state that acting and learning compute
differently, a row that is taken for the wrong step's, and settings that have no meaning with a memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from full import FULL
from memory_tasks import TMaze
from qhat.axes import (
    GRU,
    Actions,
    Categorical,
    Double,
    Dueling,
    EpsilonGreedy,
    Expected,
    Hard,
    Implicit,
    MinGRU,
    Noisy,
    Prioritised,
    Recurrent,
)  # fmt: skip
from qhat.axes.axis import parse, spell
from qhat.axes.memory import MEMORIES, at_the_same_time, in_steps
from qhat.engine import recurrent
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import sequences
from qhat.engine.state import Clock
from qhat.environments.jax.batch import JaxBatch
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

CELLS = (GRU(units=5, length=4, burn_in=3), MinGRU(units=5, length=4, burn_in=3))
E = 3
RECIPE = Recipe(
    head=Expected(delta=None), memory=CELLS[0], hidden=(6, 7), gamma=0.9, num_envs=E, batch_size=16,
    replay_ratio=1 / 3, replay_capacity=90, learning_starts=30, explore=EpsilonGreedy(1.0, 1.0),
    target=Hard(every=4), normalise=False,
)  # fmt: skip
NEVER = {"learning_starts": 10_000}


def looped(recipe: Recipe, iterations: int, delay: int = 3) -> tuple[Program, Any]:
    """Return a program, and one seed's state after some iterations in a short T-maze."""
    environment = JaxBatch(TMaze(delay), recipe.num_envs)
    program = Program.of(recipe.validate(), (3,), "float32", Actions((4,)))
    loop = Loop(program, environment)
    state = loop.init(jax.random.split(jax.random.key(7), 1))
    state, _ = loop.compile(iterations)(state, iterations)
    return program, jax.tree.map(lambda leaf: leaf[0], state.seeds)


def drawn(program: Program, seed: Any, n: int = 1) -> tuple[Any, Any, Any]:
    return sequences.sample(
        seed.ring, program.recipe.sampler, seed.sampler, jax.random.key(3), jnp.int32(0),
        memory=program.recipe.memory, batch=program.recipe.batch_size, n=n, gamma=program.recipe.gamma,
    )  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_sequence_is_its_steps(cell: Recurrent) -> None:
    draw = jax.random.split(jax.random.key(0), 3)
    parameters = cell.init(draw[0], 4)
    x, states = jax.random.normal(draw[1], (12, 4)), jax.random.normal(draw[2], (12, 5))
    first = np.isin(np.arange(12), (0, 4, 5, 9))
    state, expected = states[0], []
    for row in range(12):
        state = cell.step(parameters, states[row] if first[row] else state, x[row])
        expected.append(state)
    found = cell.sequence(parameters, states, jnp.asarray(first), x)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


def test_both_ways_to_compose_lines_agree() -> None:
    stays = jax.random.uniform(jax.random.key(0), (33, 5))
    added = jax.random.normal(jax.random.key(1), (33, 5))
    np.testing.assert_allclose(in_steps(stays, added), at_the_same_time(stays, added), atol=1e-5)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_burn_in_computes_the_states_that_acting_had(cell: Recurrent) -> None:
    # 5 rounds of the ring, so that sequences also cross its cursor.
    program, seed = looped(dataclasses.replace(RECIPE, memory=cell, **NEVER), 150)
    batch, starts, _ = drawn(program, seed)
    states = recurrent.states_of(program.learner, seed.learner.online, batch.sequences, None)
    wide = cell.length + 1
    slots, _ = sequences.around(seed.ring, starts, 0, wide)
    # What a step left is what the next step of its episode met.
    kinds = np.asarray(seed.ring.kind)
    compared = 0
    for number, row in enumerate(np.asarray(slots)):
        for place, (slot, after) in enumerate(itertools.pairwise(row)):
            if kinds[slot] == 1 and kinds[after] != 0:
                np.testing.assert_allclose(
                    states[number * wide + place], seed.ring.memory[after], atol=1e-6
                )
                compared += 1
    assert compared > 8
    assert float(np.abs(seed.ring.memory).max()) > 0.01


def test_an_episode_begins_with_an_empty_memory() -> None:
    _, seed = looped(dataclasses.replace(RECIPE, **NEVER), 100)
    kinds = np.asarray(seed.ring.kind).reshape(E, -1)
    memory = np.asarray(seed.ring.memory).reshape(E, kinds.shape[1], -1)
    for env in range(E):
        cursor = int(seed.ring.cursor[env])
        firsts = [
            row for row in range(1, kinds.shape[1])
            if kinds[env, row] != 0 and kinds[env, row - 1] == 0 and cursor not in (row, row - 1)
        ]  # fmt: skip
        assert firsts
        assert not memory[env, firsts].any()
        later = [row + 1 for row in firsts if row + 1 < kinds.shape[1] and kinds[env, row] == 1]
        assert np.abs(memory[env, [row for row in later if kinds[env, row] != 0]]).max() > 0


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_errors_are_those_of_whole_episodes(cell: Recurrent, n: int) -> None:
    # From each episode's first step: the states of θ⁻ are approximate where they begin with stored ones.
    cell = dataclasses.replace(cell, burn_in=13)
    wide: dict[str, Any] = {"replay_capacity": 150, **NEVER}
    recipe = dataclasses.replace(RECIPE, memory=cell, n_step=n, policy=Double(), **wide)
    program, seed = looped(recipe, 28)
    learner, ring = program.learner, seed.ring
    target = learner.init(jax.random.key(9)).online
    state = dataclasses.replace(seed.learner, target=target)
    batch, starts, weights = drawn(program, seed, n)
    _, update = learner.fit(state, batch, weights, jax.random.key(0), jnp.int32(1))

    def values(parameters: Any, rows: list[int]) -> np.ndarray:
        """Q of every row of an episode, from its start, one look after the other."""
        recall, found = recurrent.fresh(learner, 1), []
        for row in rows:
            one = ring.observation[row][None]
            q, recall = recurrent.look(learner, learner.q_values, parameters, one, None, recall)
            found.append(np.asarray(q[0, 0]))
        return np.stack(found)

    kinds, reward = np.asarray(ring.kind), np.asarray(ring.reward)
    slots = np.asarray(sequences.around(ring, starts, 0, cell.length)[0]).ravel()
    checked = 0
    for slot, error, weight in zip(slots, np.asarray(update.errors), np.asarray(weights), strict=True):
        env = slot // ring.rows
        first = slot
        while first - 1 >= env * ring.rows and kinds[first - 1] == 1:
            first -= 1
        steps = []
        for step in range(slot, slot + n):
            steps.append(step)
            if kinds[step] != 1:
                break
        if any(kinds[step] == 0 for step in steps):
            assert weight == 0
            continue
        after = steps[-1] + 1
        episode = list(range(first, after + 1))
        online, other = values(state.online, episode), values(target, episode)
        goal = sum(0.9**k * reward[step] for k, step in enumerate(steps))
        if kinds[steps[-1]] != 2:
            goal += 0.9 ** len(steps) * other[-1][online[-1].argmax()]
        q = online[slot - first][int(ring.action[slot, 0])]
        np.testing.assert_allclose(abs(error), abs(goal - q), rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked > 8


def test_a_gradient_flows_through_the_learned_steps_alone() -> None:
    cell = dataclasses.replace(CELLS[0], burn_in=2)
    program, seed = looped(dataclasses.replace(RECIPE, memory=cell, **NEVER), 60)
    batch, *_ = drawn(program, seed)
    given = batch.sequences

    def last(observation: Any) -> Any:
        rows = dataclasses.replace(given, observation=observation, first=given.first.at[:, 1:].set(False))
        states = recurrent.states_of(program.learner, seed.learner.online, rows, None)
        return states.reshape(len(observation), -1, cell.units)[:, -1].sum()

    slope = np.abs(np.asarray(jax.grad(last)(given.observation))).sum(axis=(0, 2))
    assert not slope[:2].any()
    assert (slope[2:] > 0).all()


@pytest.mark.parametrize(
    "parts",
    [
        {"sampler": Prioritised(), "head": Categorical(), "merge": Dueling(), "n_step": 3},
        {"head": Implicit(), "dense": Noisy(), "policy": Double()},
        {"head": Categorical(v_min=None, v_max=None), "normalise": True},
    ],
    ids=["rainbow", "implicit", "calibrated"],
)
def test_other_parts_learn_with_a_memory(parts: dict[str, Any]) -> None:
    _, seed = looped(dataclasses.replace(RECIPE, **parts), 60)
    start = Program.of(dataclasses.replace(RECIPE, **parts), (3,), "float32", Actions((4,)))
    fresh = start.learner.init(jax.random.key(0)).online["memory"]
    leaves = jax.tree.leaves(seed.learner)
    assert all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))
    assert int(seed.guard.what) == 0
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), seed.learner.online["memory"], fresh)
    assert all(change > 0 for change in moved.values())


def test_the_priority_of_a_sequence_is_of_its_errors() -> None:
    errors = jnp.array([1.0, -3.0, 0.0, 0.0, 0.5, 0.5])
    found = sequences.errors_of(errors, jnp.ones(6), 2)
    np.testing.assert_allclose(found, [0.9 * 3 + 0.1 * 4 / 3, 0.9 * 0.5 + 0.1 / 3], rtol=1e-6)
    # A row of weight 0 is no step.
    found = sequences.errors_of(errors, jnp.array([0.5, 0, 0.5, 0, 0, 0]), 2)
    np.testing.assert_allclose(found, [0.9 * 1 + 0.1 / 2, 0.0], rtol=1e-6)
    assert sequences.errors_of(errors, jnp.ones(6), 6) is errors


def test_what_is_no_step_is_in_no_priority() -> None:
    """An episode's last observation, of which a value is never learned, lies within most sequences."""
    memory = GRU(units=4, length=8, burn_in=0)
    program, seed = looped(dataclasses.replace(RECIPE, memory=memory, sampler=Prioritised()), 60)
    _, slots, weights = drawn(program, seed)
    assert (np.asarray(weights) == 0).any()
    errors = jnp.where(weights > 0, 0.25, 1_000.0)
    np.testing.assert_allclose(sequences.errors_of(errors, weights, slots.shape[0]), 0.25, rtol=1e-6)


def test_only_a_memory_solves_the_t_maze() -> None:
    settings: dict[str, Any] = {
        "recipe": "dqn", "batch_size": 128, "replay_ratio": 0.25, "n_step": 3, "policy": "double",
        "num_envs": 8, "steps": 16_000, "eval_every": 16_000, "eval_episodes": 100, "seed": 11,
    }  # fmt: skip
    recurrent_run = qhat.train(TMaze(5), memory="min_gru:length=16,burn_in=4", **settings)
    plain = qhat.train(TMaze(5), **settings)
    assert recurrent_run.summary()["best_score"][0] > 3.5
    assert plain.summary()["best_score"][0] < 2.6


@pytest.mark.skipif(not FULL, reason="a corridor of 30 steps takes minutes, one of 5 does not: QHAT_FULL=1")
def test_only_a_memory_solves_a_t_maze_of_30_steps() -> None:
    settings: dict[str, Any] = {"recipe": "drqn", "steps": 160_000, "eval_every": 160_000, "seed": 21}
    recurrent_run = qhat.train(TMaze(30), **settings)
    plain = qhat.train(TMaze(30), memory="none", **settings)
    assert recurrent_run.summary()["best_score"][0] >= 0.95 * 4.0
    assert plain.summary()["best_score"][0] < 2.6


@pytest.mark.parametrize("kind", MEMORIES, ids=lambda kind: kind.name)
def test_a_memory_is_spelled(kind: Any) -> None:
    value = kind()
    assert parse(spell(value), MEMORIES) == value


def test_a_setting_without_meaning_is_refused() -> None:
    cases = {
        "learns from sequences of 4 steps, and": {"batch_size": 18},
        "needs sequences of 8": {"replay_capacity": 27, "learning_starts": 0},
        "cannot say which actions were greedy; expected n_step_cut=None, and": {"n_step_cut": 0.1},
        "would see pictures move within a sequence": {"random_shift": 2},
    }
    for words, wrong in cases.items():
        with pytest.raises(UsageError, match=words):
            dataclasses.replace(RECIPE, **wrong).validate()
    with pytest.raises(UsageError, match="batch_size=16, or memory='gru:units=5,length=3,burn_in=3'"):
        dataclasses.replace(RECIPE, batch_size=18).validate()
    for fits in ({"batch_size": 16}, {"batch_size": 18, "memory": GRU(units=5, length=3, burn_in=3)}):
        dataclasses.replace(RECIPE, **fits).validate()
    for words, text in {
        "units is 0": "gru:units=0", "length is 0": "min_gru:length=0", "burn_in is -1": "gru:burn_in=-1",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=words):
            parse(text, MEMORIES)
    with pytest.raises(UsageError, match=r"of one frame: without wrap='frame_stack:count=4'"):
        Program.of(RECIPE, (12,), "float32", Actions((4,)), stack=4)


def test_the_clock_of_a_memory_is_everybodys() -> None:
    program, seed = looped(RECIPE, 60)
    assert int(program.updates_due(Clock(jnp.int32(60), jnp.int32(0)))) == 1
    assert seed.recall is not None
    assert seed.recall.after.shape == (E, 5)
