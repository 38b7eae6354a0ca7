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
from qhat.axes import MLP, Actions, BroNet, NoReset, Periodic
from qhat.axes.axis import parse, spell
from qhat.axes.reset import RESETS
from qhat.engine.learner import Learner, LearnerState
from qhat.engine.resets import with_reset
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


def reset(
    made: Learner, updates: int, steps: int, applies: bool = True
) -> tuple[LearnerState, LearnerState]:
    before = aged(made)
    after = with_reset(made, before, KEY, jnp.int32(updates), jnp.int32(steps), jnp.bool_(applies))
    return before, after


def same(a: Any, b: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("torso", [MLP(), BroNet(width=4, blocks=1)], ids=["mlp", "bronet"])
def test_a_reset_mixes_old_and_fresh_weights(torso: Any) -> None:
    made = learner(torso=torso, reset=Periodic(every=10, keep=0.2, keep_torso=0.7, steps=100))
    before, after = reset(made, updates=20, steps=100)
    fresh = made.network.init(jax.random.fold_in(KEY, 1))
    for name, part in fresh.items():
        share = 0.7 if name == "torso" else 0.2
        mixed = functools.partial(lambda share, old, new: share * old + (1 - share) * new, share)
        expected = jax.tree.map(mixed, before.online[name], part)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), after.online[name], expected)
    assert same(after.online["observations"], before.online["observations"])
    assert same(after.target, after.online)
    assert same(after.optimiser, made.init(KEY).optimiser)


@pytest.mark.parametrize(
    ("updates", "steps", "applies"), [(19, 50, True), (21, 50, True), (20, 101, True), (20, 50, False)]
)
def test_at_other_times_nothing_changes(updates: int, steps: int, applies: bool) -> None:
    made = learner(reset=Periodic(every=10, steps=100))
    before, after = reset(made, updates, steps, applies)
    assert same(before, after)


def test_without_resets_nothing_is_compiled() -> None:
    made = learner()
    state = made.init(KEY)
    assert made.recipe.reset == NoReset()
    assert with_reset(made, state, KEY, jnp.int32(0), jnp.int32(0), True) is state


def test_the_last_updates_of_a_run_have_no_reset() -> None:
    recipe = Recipe(reset=Periodic(every=500), replay_ratio=0.5).scheduled(10_000)
    assert recipe.reset == Periodic(every=500, steps=9_000)
    assert Recipe(reset=Periodic(steps=7)).scheduled(10_000).reset == Periodic(steps=7)


@pytest.mark.parametrize("text", ["none", "periodic", "periodic:every=500,keep=0.2"])
def test_each_is_spelled(text: str) -> None:
    assert spell(parse(text, RESETS)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("periodic:every=0", "periodic:every is 0; expected 1 or more updates."),
        ("periodic:keep=1.5", "periodic:keep is 1.5; expected a share within [0, 1]."),
        ("periodic:keep=1,keep_torso=1", "which resets nothing"),
        ("periodic:steps=-1", "periodic:steps is -1; expected 0 or more"),
    ],
)
def test_settings_without_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(text, RESETS)


@pytest.mark.parametrize(
    ("text", "steps"), [("periodic:every=600", 1_000), ("periodic:every=300,steps=200", 1_000)]
)
def test_a_run_without_a_reset_is_refused(text: str, steps: int) -> None:
    with pytest.raises(UsageError, match=r"resets nothing: the run has 1,000 updates.*every=250"):
        qhat.TrainConfig.of("CartPole-v1", "dqn", reset=text, steps=steps, replay_ratio=1.0).validate()


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
