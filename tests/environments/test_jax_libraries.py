"""Environments of other libraries in JAX: their conventions hidden, their true successors kept."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import command_line
import qhat
from qhat.environments.catalogue import find
from qhat.environments.contract import require_contract
from qhat.environments.jax.batch import JaxBatch, Starts
from qhat.environments.jax.libraries.make import single
from qhat.environments.make import make
from qhat.system.errors import UsageError

# Brax says of itself that it is not maintained, and libraries use what others have deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Brax System:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ONE_OF_EACH = (
    "playground:CartpoleBalance", "brax:inverted_pendulum", "jumanji:Snake-v1", "jumanji:Tetris-v0",
    "jumanji:Cleaner-v0", "navix:Navix-Empty-5x5-v0", "craftax:Craftax-Classic-Symbolic-v1",
    "pgx:tic_tac_toe", "pgx:2048",
)  # fmt: skip


@pytest.mark.parametrize("env_id", ONE_OF_EACH)
def test_each_keeps_the_contract(env_id: str) -> None:
    made = make(env_id, 4)
    assert made.spec.id == env_id
    require_contract(made)


@pytest.mark.parametrize("env_id", ONE_OF_EACH)
def test_the_table_says_what_is_made(env_id: str) -> None:
    made, entry = make(env_id, 1), find(env_id)
    assert entry.observation == f"{made.spec.shape} {made.spec.dtype}"
    assert entry.limit == made.spec.limit


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("playground:CartpoleBalance", {"episode_length": 5}),
        ("brax:inverted_pendulum", {"episode_length": 5}),
        ("navix:Navix-Empty-5x5-v0", {"max_steps": 5}),
    ],
)
def test_a_time_limit_cuts_and_shows_the_last_observation(env_id: str, options: dict) -> None:
    """What the library's raw environment gives for the same actions, and no first observation."""
    made = make(env_id, 2, options=options)
    alone = single(find(env_id), options)
    key = jax.random.key(3)
    state, _ = jax.jit(made.reset)(key)
    playing = getattr(state, "playing", state)
    raw = jax.tree.map(lambda leaf: leaf[0], playing.state)
    step, step_alone = jax.jit(made.step), jax.jit(alone.step)
    # No force: a pendulum that is pushed falls before its limit.
    middle = 0 if made.spec.actions.commands is None else 1
    choice = jnp.full((2, made.spec.actions.factors), middle, jnp.int32)
    now = None
    for turn in range(5):
        state, now = step(state, choice, jax.random.key(turn))
        raw, shown, *_ = step_alone(raw, made.spec.actions.to_env(choice, jnp)[0], jax.random.key(9))
        np.testing.assert_allclose(
            now.successor[0], jnp.ravel(shown).reshape(now.successor[0].shape), rtol=1e-4
        )
    assert now is not None
    assert bool(now.truncated[0])
    assert not bool(now.terminated[0])
    assert not np.array_equal(now.observation[0], now.successor[0])


def test_domain_randomisation_draws_a_model_for_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's randomiser, as Playground defines them: a batch of models, and the axes that differ."""
    import mujoco_playground

    def lighter(model: Any, keys: Any) -> tuple[Any, Any]:
        def scaled(key: Any) -> Any:
            return model.body_mass * jax.random.uniform(key, minval=0.1, maxval=2.0)

        masses = jax.vmap(scaled)(keys)
        axes = jax.tree.map(lambda _: None, model).tree_replace({"body_mass": 0})
        return model.tree_replace({"body_mass": masses}), axes

    monkeypatch.setattr(mujoco_playground.registry, "get_domain_randomizer", lambda name: lighter)
    drawn = single(find("playground:CartpoleBalance"), {"randomise": True})
    (first, one), (_, other) = (drawn.reset(jax.random.key(seed))[0] for seed in (0, 1))
    assert not np.allclose(one[0], other[0])
    push = jnp.ones(1)
    here = drawn.step((first, one), push, jax.random.key(0))[1]
    there = drawn.step((first, other), push, jax.random.key(0))[1]
    assert not np.allclose(here, there)


def test_a_task_without_randomisation_says_so() -> None:
    with pytest.raises(UsageError, match="has no domain randomisation"):
        make("playground:CartpoleBalance", 1, options={"randomise": True})


def test_the_others_move_at_random_and_only_legal_actions_are_offered() -> None:
    made = make("pgx:tic_tac_toe", 64)
    state, _ = jax.jit(made.reset)(jax.random.key(0))
    step = jax.jit(made.step)
    rewards = []
    for turn in range(40):
        legal = made.legal(state)
        assert legal is not None
        assert bool(legal.any(axis=-1).all())
        choice = jax.random.categorical(jax.random.key(turn), jnp.where(legal, 0.0, -jnp.inf), axis=-1)
        state, now = step(state, choice.astype(jnp.int32), jax.random.key(1_000 + turn))
        assert bool((state.state.current_player == 0).all())
        rewards.append(np.asarray(now.reward)[np.asarray(now.terminated)])
    won = np.concatenate(rewards)
    assert {-1.0, 1.0} <= set(won.tolist())


def test_actions_that_are_legal_only_as_a_whole_are_one_choice() -> None:
    made = make("jumanji:Tetris-v0", 2)
    assert made.spec.actions.choices == (40,)
    assert make("jumanji:Cleaner-v0", 2).spec.actions.choices == (4, 4, 4)


def test_names_need_their_library_and_near_misses_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="Did you mean 'CartpoleBalance'"):
        find("playground:CartpoleBalanc")
    with pytest.raises(UsageError, match="WalkerWalk-v1"):
        find("WalkerWalk")
    monkeypatch.setattr("qhat.environments.catalogue.installed", lambda module: module != "jumanji")
    with pytest.raises(UsageError, match=r"needs jumanji, which is not installed; type: .*\[jumanji\]"):
        find("jumanji:Snake-v1")


def test_an_option_that_no_one_knows_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"has no option 'episode_lenght'; it has .*Did you mean"):
        make("playground:CartpoleBalance", 1, options={"episode_lenght": 5})
    with pytest.raises(UsageError, match="has no groups of observations; leave group out"):
        make("playground:CartpoleBalance", 1, options={"group": "privileged_state"})
    with pytest.raises(UsageError, match=r"no version. Did you mean 'Craftax-Symbolic-v1'"):
        find("craftax:Craftax-Symbolic")
    with pytest.raises(UsageError, match="cannot be made with"):
        make("navix:Navix-Empty-5x5-v0", 1, options={"colour": 1})


class Falls(qhat.JaxEnvironment):
    """Its observation stops being finite at the third step."""

    observation_space, action_space, limit = (1,), 2, 10
    starts, start_every, may_diverge = 4, 2, True

    def reset(self, key):
        place = jax.random.uniform(key)
        return (place, 0), place[None]

    def step(self, state, action, key):
        place, time = state
        shown = jnp.where(time == 2, jnp.nan, place)[None]
        return (place, time + 1), shown, 1.0, jnp.asarray(False), {"success": time == 1}


def test_numbers_that_are_not_finite_are_no_transition_and_begin_anew() -> None:
    batch = JaxBatch(Falls(), 3)
    state, _ = batch.reset(jax.random.key(0))
    flags = []
    for turn in range(3):
        state, now = batch.step(state, jnp.zeros((3, 1), jnp.int32), jax.random.key(turn))
        flags.append((bool(now.real.all()), bool(now.broken.any())))
        assert bool(jnp.isfinite(now.successor).all() & jnp.isfinite(now.observation).all())
    assert flags == [(True, False), (True, False), (False, True)]
    assert isinstance(state, Starts)
    assert state.playing.time.tolist() == [0, 0, 0]


def test_starts_are_drawn_anew_one_after_the_other() -> None:
    batch = JaxBatch(Falls(), 3)
    state, _ = batch.reset(jax.random.key(0))
    step = jax.jit(jax.vmap(batch.step, (0, None, 0)))
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    changes = []
    for turn in range(4):
        keys = jax.random.split(jax.random.key(turn), 2)
        after, _ = step(seeds, jnp.zeros((3, 1), jnp.int32), keys)
        changes.append((after.ready[1] != seeds.ready[1]).sum(axis=(1, 2)).tolist())
        seeds = after
    assert changes == [[1, 1], [0, 0], [1, 1], [0, 0]]


def test_a_task_is_trained_scored_and_filmed_by_its_id(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = "--recipe decqn --steps 400 --eval-every 200 --eval-episodes 1 --env-kwargs episode_length=50"
    command_line.qhat("train", "playground:CartpoleBalance", *words.split(), "--run-dir", str(run))
    score = qhat.evaluate(run, episodes=1)
    assert 0 < score.mean_return <= 50
    film = qhat.play(run, tmp_path / "film.mp4")
    assert film.lengths == [50]
