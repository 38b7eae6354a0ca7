"""Weights that are drawn anew in the middle of training.

Protects against a reset at another time, of other weights, that leaves the target network or the optimiser
as they were, that never happens, or that a resumed run does another way.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.agent.agent import Agent
from qhat.axes import MLP, Actions, BroNet, NoReset, Periodic, SimBaV2
from qhat.axes.axis import parse, spell
from qhat.axes.reset import RESETS
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner, LearnerState
from qhat.engine.resets import with_reset
from qhat.engine.state import Clock
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

KEY = jax.random.key(7)


def learner(**fields: Any) -> Learner:
    recipe = Recipe(hidden=(8,), normalise=True, **fields)
    return Learner.of(recipe, (3,), Actions((2,)))


def aged(made: Learner) -> LearnerState:
    """Return a state of which no number is as at the start."""
    state = made.init(jax.random.key(0))
    online = jax.tree.map(lambda leaf: leaf + 1.0, state.online)
    target = jax.tree.map(lambda leaf: leaf + 2.0, state.target)
    optimiser = jax.tree.map(lambda leaf: leaf + 3, state.optimiser)
    return dataclasses.replace(state, online=online, target=target, optimiser=optimiser)


def reset(made: Learner, updates: int, applies: bool = True) -> tuple[LearnerState, LearnerState]:
    before = aged(made)
    after = with_reset(made, before, KEY, jnp.int32(updates), jnp.bool_(applies))
    return before, after


def same(a: Any, b: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("torso", [MLP(), BroNet(width=4, blocks=1)], ids=["mlp", "bronet"])
def test_a_reset_mixes_old_and_fresh_weights(torso: Any) -> None:
    made = learner(torso=torso, reset=Periodic(every=10, keep=0.2, keep_torso=0.7, last=100))
    before, after = reset(made, updates=20)
    fresh = made.network.init(jax.random.fold_in(KEY, 1))
    for name, part in fresh.items():
        share = 0.7 if name == "torso" else 0.2
        mixed = functools.partial(lambda share, old, new: share * old + (1 - share) * new, share)
        expected = jax.tree.map(mixed, before.online[name], part)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), after.online[name], expected)
    assert same(after.online["observations"], before.online["observations"])
    assert same(after.target, after.online)
    assert same(after.optimiser, made.init(KEY).optimiser)


def test_weights_of_length_1_are_so_after_a_reset() -> None:
    made = learner(torso=SimBaV2(width=4, blocks=1), reset=Periodic(every=10, keep_torso=0.7, last=100))
    _, after = reset(made, updates=20)
    for parameters in (after.online, after.target):
        rows = [leaf for leaf in jax.tree.leaves(parameters["torso"]) if leaf.ndim == 2]
        assert len(rows) == 3
        for leaf in rows:
            np.testing.assert_allclose(np.linalg.norm(leaf, axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(("updates", "applies"), [(19, True), (21, True), (110, True), (20, False)])
def test_at_other_times_nothing_changes(updates: int, applies: bool) -> None:
    before, after = reset(learner(reset=Periodic(every=10, last=100)), updates, applies)
    assert same(before, after)


def test_seeds_share_the_condition() -> None:
    """A condition of each seed would draw fresh weights at every update."""
    made = learner(reset=Periodic(every=10, last=100))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), aged(made))

    def both(states: Any, updates: jax.Array, applies: jax.Array) -> Any:
        one = functools.partial(with_reset, made)
        return jax.vmap(one, in_axes=(0, 0, None, 0))(states, jax.random.split(KEY, 2), updates, applies)

    mixed = jnp.array([True, False])
    assert " cond[" in str(jax.make_jaxpr(both)(states, jnp.int32(20), mixed))
    after = both(states, jnp.int32(20), mixed)
    first, second = (jax.tree.map(lambda leaf, at=at: leaf[at], after) for at in (0, 1))
    assert same(second, aged(made))
    assert not same(first, aged(made))


def test_without_resets_nothing_is_compiled() -> None:
    made = learner()
    state = made.init(KEY)
    assert made.recipe.reset == NoReset()
    assert with_reset(made, state, KEY, jnp.int32(0), True) is state


def test_the_last_updates_of_a_run_have_no_reset() -> None:
    recipe = Recipe(reset=Periodic(every=500), replay_ratio=0.5, learning_starts=1_000).scheduled(10_000)
    assert recipe.updates_in(10_000) == 4_501
    assert recipe.reset == Periodic(every=500, last=4_001)
    assert Recipe(reset=Periodic(last=7)).scheduled(10_000).reset == Periodic(last=7)
    assert Agent((3,), 2, reset="periodic").recipe.reset == Periodic(last=2**31 - 1), "an agent has no end"


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 777), ({"num_envs": 4, "replay_ratio": 0.75}, 668),
     ({"num_envs": 8, "replay_ratio": 0.0625}, 992),
     ({"learning_starts": 100, "replay_ratio": 3.0}, 150), ({"learning_starts": 0, "batch_size": 1}, 10)],
)  # fmt: skip
def test_the_updates_of_a_run_are_those_of_its_clock(fields: dict, steps: int) -> None:
    recipe = Recipe(hidden=(4,), **fields).scheduled(steps)
    program = Program.of(recipe, (3,), "float32", Actions((2,)))
    clock = Clock(jnp.int32(0), jnp.int32(0))
    for _ in range(steps // recipe.num_envs):
        clock = program.tick(clock)
    assert recipe.updates_in(steps) == int(clock.updates)


@pytest.mark.parametrize("text", ["none", "periodic", "periodic:every=500,keep=0.2"])
def test_each_is_spelled(text: str) -> None:
    assert spell(parse(text, RESETS)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("periodic:every=0", "periodic:every is 0; expected 1 or more updates."),
        ("periodic:keep=1.5", "periodic:keep is 1.5; expected a share within [0, 1]."),
        ("periodic:keep=1,keep_torso=1", "which resets nothing"),
        ("periodic:last=-1", "periodic:last is -1; expected an update"),
    ],
)
def test_settings_without_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(text, RESETS)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("periodic:every=500", "periodic:every=242"),
        ("periodic:every=500,keep=0.5", "periodic:every=242,keep=0.5"),
        ("periodic:every=300,last=200", "periodic:every=50,last=200"),
    ],
)
def test_a_run_without_a_reset_is_refused(text: str, good: str) -> None:
    """Updates begin after a batch: of 1,000 steps the first 32 have none but the last."""
    settings: Any = {"steps": 1_000, "replay_ratio": 1.0, "learning_starts": 0, "batch_size": 32}
    with pytest.raises(UsageError, match=f"resets nothing: the run has 969 updates.*{good}'?, or"):
        qhat.TrainConfig.of("CartPole-v1", "dqn", reset=text, **settings).validate()
    qhat.TrainConfig.of("CartPole-v1", "dqn", reset=good, **settings).validate()


def test_a_reset_of_a_torso_without_weights_is_refused() -> None:
    with pytest.raises(UsageError, match=r"resets the torso alone, and .*mlp.* has no weights"):
        learner(reset=Periodic(every=10, keep=1.0))
    learner(reset=Periodic(every=10, keep=1.0), torso=SimBaV2(width=4, blocks=1))


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("inf"), float("nan"), 1e-320])
def test_a_replay_ratio_without_meaning_has_its_sentence(ratio: float) -> None:
    with pytest.raises(UsageError, match="replay_ratio is"):
        qhat.TrainConfig.of("CartPole-v1", "dqn", reset="periodic", replay_ratio=ratio).validate()


def test_a_run_is_the_same_when_it_is_interrupted_between_resets(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "reset": "periodic:every=300", "hidden": (8,), "eval_every": 400, "eval_episodes": 2, "seed": 0,
        "steps": 1_200,
    }  # fmt: skip
    whole = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "a", **settings)
    again = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "b", callback=lambda _: True, **settings)
    assert again.summary()["step"] == 400
    again = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "b", resume=True, **settings)
    assert again.summary()["step"] == 1_200
    assert same(whole.weights("last"), again.weights("last"))
    settings["reset"] = "none"
    other = qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "c", **settings)
    assert not same(whole.weights("last"), other.weights("last"))
