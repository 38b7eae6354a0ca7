"""MinAtar as its paper plays it: the compiled games move as the reference package's do, and it keeps score.

Protects against actions and channels that mean another thing, an action that does not stick, and scores
from games that are cut short.
"""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar import Environment as Reference

from full import FULL
from qhat.engine.iteration import Program
from qhat.environments import reference
from qhat.environments.make import make
from qhat.evaluation.play import play_of
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.runs.train import train
from qhat.system.errors import UsageError

GAMES = {
    "Asterix": "asterix", "Breakout": "breakout", "Freeway": "freeway", "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}  # fmt: skip
ALL_ACTIONS = {"use_minimal_action_set": False}
NEVER_STICKS = {**ALL_ACTIONS, "sticky_action_prob": 0.0}
LISTS = {"f_bullets": "f_bullet_count", "e_bullets": "e_bullet_count", "e_fish": "e_fish_count",
         "e_subs": "e_subs_count", "divers": "divers_count"}  # fmt: skip
"""Seaquest's lists, and where the twin counts their entries."""


def placed(state: Any, game: Any) -> Any:
    """The twin's state (of one copy) with the situation of the reference's game."""
    values: dict[str, Any] = {"time": 0, "terminal": False}
    for name, value in vars(game).items():
        if name == "entities":  # Asterix: a free slot is all zeros, a taken one ends in 1
            values[name] = [[*map(int, each), 1] if each else [0] * 5 for each in value]
        elif name in LISTS:
            filled = np.zeros(getattr(state.game, name).shape[1:], int)
            for row, each in enumerate(value):
                filled[row] = each
            values |= {name: filled, LISTS[name]: len(value)}
        elif hasattr(state.game, name):
            values[name] = value
    old = {name: getattr(state.game, name) for name in values}
    new = {name: jnp.asarray(value, old[name].dtype)[None] for name, value in values.items()}
    assert all(new[name].shape == old[name].shape for name in new)
    return type(state)(state.game.replace(**new), state.last)


def draws(game: Any) -> bool:
    """Whether the next step draws what comes in: each implementation has random numbers of its own."""
    timers = ("spawn_timer", "e_spawn_timer", "d_spawn_timer")
    return any(getattr(game, timer, 1) == 0 for timer in timers)


@pytest.mark.parametrize("name", GAMES if FULL else ["Breakout", "Seaquest"])
def test_twin_moves_as_the_reference_from_the_same_situations(name: str) -> None:
    """Every channel, reward and end of 300 steps; the reference's own situation each time."""
    twin = make(f"{name}-MinAtar", 1, options=NEVER_STICKS)
    other = Reference(GAMES[name], sticky_action_prob=0.0)
    other.seed(0)
    other.reset()
    fresh, _ = jax.jit(twin.reset)(jax.random.key(0))
    step = jax.jit(twin.step)
    random = np.random.default_rng(0)
    compared, ends, total, channels = 0, 0, 0.0, np.zeros(twin.spec.shape[-1], bool)
    action = 0
    for turn in range(300):
        state = placed(fresh, other.env)
        drawn = draws(other.env)
        if random.random() < 0.5:
            action = int(random.integers(6))
        if name == "Freeway" and turn > 50:
            action = 2
        reward, ended = other.act(action)
        _, now = step(state, jnp.array([[action]]), jax.random.key(turn))
        # A chicken that has crossed draws new cars.
        if not drawn and not (name == "Freeway" and reward):
            compared += 1
            ends += ended
            total += reward
            assert float(now.reward[0]) == float(reward)
            assert bool(now.terminated[0]) == bool(ended)
            expected = other.state()
            if name == "Seaquest" and ended:
                # The twin fills the tank of a submarine that comes up in vain, and is lost.
                expected[..., 7] = now.successor[0, ..., 7]
            np.testing.assert_array_equal(now.successor[0], expected)
            channels |= expected.any(axis=(0, 1))
        if ended:
            other.reset()
    assert compared > 200
    assert ends > 0 or name == "Freeway"
    assert channels.sum() >= channels.size - (3 if name == "Seaquest" else 0)


@pytest.mark.parametrize("name", GAMES)
def test_spaces_and_actions_are_the_references(name: str) -> None:
    for minimal, version in ((True, "v1"), (False, "v0")):
        twin = make(f"{name}-MinAtar", 1, options={"use_minimal_action_set": minimal})
        assert twin.spec.reference == f"MinAtar/{name}-{version}"
        assert reference.lacks(twin.spec.reference) is None
        other = reference.make_reference(f"MinAtar/{name}-{version}")
        assert other.observation_space.shape == twin.spec.shape
        assert other.observation_space.dtype == np.dtype(twin.spec.dtype) == bool
        assert isinstance(other.action_space, gymnasium.spaces.Discrete)
        assert twin.spec.actions.choices == (other.action_space.n,)
        # What each choice stands for among all 6 actions.
        assert list(np.asarray(twin._meaning)) == other.unwrapped.action_set  # pyright: ignore


def test_an_action_sticks_at_the_given_rate_and_over_an_episodes_end() -> None:
    """Breakout's paddle tells what was executed: it goes left, unless the last action (right) sticks."""
    twin = make("Breakout-MinAtar", 2_000, options={**ALL_ACTIONS, "sticky_action_prob": 0.25})
    state, _ = jax.jit(twin.reset)(jax.random.key(0))
    assert not state.last.any()
    left, right = (jnp.full((2_000, 1), action) for action in (1, 3))
    step = jax.jit(twin.step)
    state, now = step(state, right, jax.random.key(1))
    moved = np.asarray(now.observation[:, 9, :, 0].argmax(axis=1)) - 4
    assert set(moved.tolist()) == {0, 1}
    assert abs((moved == 0).mean() - 0.25) < 0.04
    np.testing.assert_array_equal(state.last, np.where(moved == 1, 3, 0))
    before = now.observation[:, 9, :, 0].argmax(axis=1)
    went_right = state.last == 3
    state, now = step(state, left, jax.random.key(2))
    moved = np.asarray(now.observation[:, 9, :, 0].argmax(axis=1) - before)
    assert abs((moved[np.asarray(went_right)] == 1).mean() - 0.25) < 0.04
    # To the end of an episode: what was executed last stays, as in the reference.
    for turn in range(3, 12):
        state, now = step(state, left, jax.random.key(turn))
        ended = np.asarray(now.terminated)
        if ended.any():
            assert set(np.asarray(state.last)[ended].tolist()) <= {1, 3, 0}
            assert (np.asarray(state.last)[ended] == 1).mean() > 0.6
            break
    else:
        raise AssertionError("no episode ended")
    other = Reference("breakout")
    other.act(3)
    last = other.last_action
    other.reset()
    assert other.last_action == last


def test_default_is_the_papers_stickiness() -> None:
    twin = make("Breakout-MinAtar", 500)
    state, _ = jax.jit(twin.reset)(jax.random.key(0))
    state, _ = jax.jit(twin.step)(state, jnp.full((500, 1), 2), jax.random.key(1))
    assert set(state.last.tolist()) == {0, 3}
    assert 0.04 < float((state.last == 0).mean()) < 0.16


def test_an_episode_is_cut_at_the_given_limit_and_freeway_where_the_reference_ends_it() -> None:
    twin = make("Seaquest-MinAtar", 1, options={"max_episode_steps": 7})
    state, _ = jax.jit(twin.reset)(jax.random.key(0))
    step = jax.jit(twin.step)
    cuts = []
    for turn in range(14):
        state, now = step(state, jnp.array([[0]]), jax.random.key(turn))
        cuts.append(bool(now.truncated[0]))
        assert not bool(now.terminated[0])
    assert cuts == [False] * 6 + [True] + [False] * 6 + [True]
    assert make("Seaquest-MinAtar", 1).spec.limit == 5_000
    other = Reference("freeway")
    length = next(turn for turn in range(1, 3_000) if other.act(0)[1])
    assert make("Freeway-MinAtar", 1).spec.limit == length


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"sticky_action_probs": 0.1},
            r"'sticky_action_probs'; it has .*Did you mean 'sticky_action_prob'",
        ),
        ({"sticky_action_prob": 1.5}, r"sticky_action_prob is 1.5; expected 0 or more"),
        ({"use_minimal_action_set": "no"}, r"use_minimal_action_set is 'no'; expected true or false"),
        ({"max_episode_steps": 0}, r"max_episode_steps is 0; expected a whole number"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make("Breakout-MinAtar", 1, options=options)


@pytest.mark.skipif(not FULL, reason="a minute of games, which `make test-full` plays")
def test_scores_are_the_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained policy in both action sets, told apart by what Gymnasium was asked to make."""
    made: list[str] = []
    make_one = gymnasium.make

    def noted(env_id: str, **options: Any) -> Any:
        made.append(env_id)
        return make_one(env_id, **options)

    monkeypatch.setattr(gymnasium, "make", noted)
    recipe = Recipe(hidden=(8,), batch_size=8, replay_capacity=256, learning_starts=30)
    config = TrainConfig(
        "Breakout-MinAtar",
        recipe=recipe,
        steps=40,
        eval_every=40,
        eval_episodes=2,
        run_dir=tmp_path / "run",
    )
    run = train("Breakout-MinAtar", config)
    assert run.program.recipe.torso.name == "minatar"
    assert Run.open(run.folder.path).spec == run.spec
    assert run.spec.reference == "MinAtar/Breakout-v1"
    score = run.evaluate(3)
    assert set(made) == {"MinAtar/Breakout-v1"}
    assert 0 <= score.mean_return < 30
    options = {**ALL_ACTIONS, "sticky_action_prob": 0.25}
    config = TrainConfig(
        "x", recipe=recipe, steps=40, eval_every=40, run_dir=tmp_path / "all", env_kwargs=options
    )
    six = train("Breakout-MinAtar", config)
    assert six.spec.actions.choices == (6,)
    six.evaluate(3)
    assert made[-1] == "MinAtar/Breakout-v0"
    # Where the package is missing, the twin is played.
    monkeypatch.setattr(reference, "installed", lambda module: False)
    assert reference.lacks("MinAtar/Breakout-v1") == "atari"
    assert reference.lacks("CartPole-v1") is None
    count = len(made)
    run.evaluate(2)
    assert len(made) == count


def test_reference_cuts_an_episode_that_would_never_end() -> None:
    """A submarine that stays at the surface: no enemy comes there, and the air lasts."""
    twin = make("Seaquest-MinAtar", 1)
    program = Program.of(Recipe(hidden=()), twin.spec.shape, "bool", twin.spec.actions)
    learner = program.learner
    like = learner.init_parameters(jax.random.key(0))
    parameters = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), like)
    build = reference.reference_builder(dataclasses.replace(twin.spec, limit=60), {}, ())
    returns = play_of(learner, build, 2)(parameters, jax.random.key(0), [0]).returns
    assert returns.tolist() == [[0.0, 0.0]]
