"""EnvPool inside the compiled loop: its boundaries, its seeds, and runs that stop and go on.

Protects against learning the row of an autoreset, a successor of another episode, and neighbouring seeds
that play the same episodes. EnvPool's own host interface is the oracle.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import envpool
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from qhat.engine.compiler import after_token
from qhat.environments import catalogue
from qhat.environments.catalogue import find
from qhat.environments.envpool.compiled import EnvPoolEnvironment
from qhat.environments.make import make
from qhat.environments.spaces import Observations, episode_seeds
from qhat.recipes.config import TrainConfig
from qhat.runs.run import evaluate
from qhat.runs.train import Interrupted, train
from qhat.system.errors import UsageError
from tiny import TINY

SEEDS, ENVS, TURNS = (3, 8), 3, 120
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
FOUR = dataclasses.replace(TINY, num_envs=4, replay_ratio=0.25)


@pytest.fixture(scope="module")
def played() -> Any:
    """What the adapter made of 120 random actions, as NumPy arrays `[turn, seed, env, ...]`."""
    environment = make("envpool:CartPole-v1", ENVS, SEEDS)
    state, first = environment.start(jax.random.split(jax.random.key(0), len(SEEDS)))
    actions = jax.random.randint(jax.random.key(1), (TURNS, len(SEEDS), ENVS, 1), 0, 2)

    @jax.jit
    def play(state: Any) -> Any:
        def turn(state: Any, action: jax.Array) -> Any:
            keys = jax.random.split(jax.random.key(2), len(SEEDS))
            return jax.vmap(environment.step)(state, action, keys)

        return jax.lax.scan(turn, state, actions)[1]

    return np.asarray(first), np.asarray(actions), jax.tree.map(np.asarray, play(state))


def test_every_row_is_what_envpool_itself_says(played: Any):
    first, actions, steps = played
    numbers = [number for seed in SEEDS for number in episode_seeds(seed, 0, ENVS)]
    pool: Any = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=len(numbers), seed=numbers)
    observation, _ = pool.reset()
    np.testing.assert_allclose(first.reshape(-1, 4), observation, atol=1e-6)
    ended = np.zeros(len(numbers), bool)
    for turn in range(TURNS):
        observation, reward, terminated, truncated, info = pool.step(actions[turn].reshape(-1))
        row = jax.tree.map(lambda leaf, at=turn: leaf[at].reshape(len(numbers), *leaf.shape[3:]), steps)
        np.testing.assert_array_equal(row.real, info["elapsed_step"] > 0)
        np.testing.assert_array_equal(row.real, ~ended)
        np.testing.assert_allclose(row.observation, observation, atol=1e-6)
        np.testing.assert_allclose(row.successor[~ended], observation[~ended], atol=1e-6)
        np.testing.assert_array_equal(row.reward[~ended], reward[~ended])
        np.testing.assert_array_equal(row.terminated, terminated & ~ended)
        np.testing.assert_array_equal(row.truncated, truncated & ~terminated & ~ended)
        ended = (terminated | truncated) & ~ended
    assert (~steps.real).sum() > 10, "episodes ended"


def test_a_terminated_cartpole_shows_its_fall_and_a_reset_row_its_start(played: Any):
    _, _, steps = played
    fallen = steps.successor[steps.terminated]
    assert ((np.abs(fallen[:, 2]) > 0.209) | (np.abs(fallen[:, 0]) > 2.4)).all()
    assert (np.abs(steps.observation[~steps.real]) <= 0.05).all(), "a beginning, never a successor"


def test_a_seeds_episodes_depend_on_its_number_alone():
    starts = {}
    for seeds in ((3,), (3, 8), (8, 3), (4,)):
        _, observation = make("envpool:CartPole-v1", ENVS, seeds).start(
            jax.random.split(jax.random.key(0), len(seeds))
        )
        for seed, row in zip(seeds, np.asarray(observation), strict=True):
            np.testing.assert_array_equal(row, starts.setdefault(seed, row))
    every = np.concatenate(list(starts.values()))
    assert len(np.unique(every, axis=0)) == len(every), "no two environments begin alike"
    later = make("envpool:CartPole-v1", ENVS, (3,), since=1_000)
    _, observation = later.start(jax.random.split(jax.random.key(0), 1))
    assert not np.array_equal(np.asarray(observation)[0], starts[3])


def _config(folder: Path, **settings: Any) -> TrainConfig:
    base = {"env": "LunarLander-v3", "recipe": FOUR, "run_dir": folder, "steps": 1_600,
            "seeds": 2, "eval_every": 800, "eval_episodes": 2, "save_every": 800}  # fmt: skip
    return TrainConfig(**{**base, **settings})


def test_a_run_trains_stops_goes_on_and_is_judged_by_gymnasium(tmp_path: Path):
    """What the pool plays cannot be saved: a resumed run begins new episodes, the same each time."""
    hashes = []
    for name in ("one", "two"):
        with pytest.raises(Interrupted):
            train("LunarLander-v3", _config(tmp_path / name), should_stop=lambda: True)
        run = train("LunarLander-v3", _config(tmp_path / name, resume=True))
        hashes.append(run.weights_sha256())
    assert hashes[0] == hashes[1]
    assert run.summary()["step"] == 1_600
    assert run.spec.shape == (8,)
    score = evaluate(run, episodes=2)
    assert score.env == "LunarLander-v3"
    assert len(score.per_seed) == 2
    assert np.isfinite(score.per_seed).all()


def test_the_compiled_loop_and_the_host_loop_learn_the_same(tmp_path: Path):
    """To the bit: who calls the pool differs, and the order of acting, stepping and learning does not."""
    config = dataclasses.replace(
        _config(tmp_path / "compiled"), env="envpool:CartPole-v1", seeds=1, steps=800
    )
    compiled = train("envpool:CartPole-v1", config)
    hosted = dataclasses.replace(config, run_dir=tmp_path / "host", env_kwargs={"host": True})
    assert train("envpool:CartPole-v1", hosted).weights_sha256() == compiled.weights_sha256()


def test_learning_waits_until_the_step_has_begun():
    """Both orders are right for the compiler; only one lets environments step while the update runs."""
    order: list[str] = []

    def said(word: str) -> Any:
        def say(_: Any) -> np.ndarray:
            order.append(word)
            return np.zeros((), np.int32)

        return lambda given: io_callback(say, jax.ShapeDtypeStruct((), np.int32), given)

    @jax.jit
    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = said("begun")(jnp.int32(1))
        return token, said("learned")(jax.random.bits(after_token(key, token)))

    key = jax.random.key(3)
    for _ in range(50):
        jax.block_until_ready(both(key))
    assert order == ["begun", "learned"] * 50
    assert jax.random.key_data(after_token(key, jnp.int32(0))).tolist() == jax.random.key_data(key).tolist()


def test_replay_holds_no_reset_row_and_no_successor_of_another_episode():
    environment = make("envpool:CartPole-v1", 4, (0,))
    from qhat.engine.iteration import Program
    from qhat.engine.loop import Loop

    spec = environment.spec
    program = Program.of(dataclasses.replace(FOUR, n_step=1), spec.shape, spec.dtype, spec.actions)
    loop = Loop(program, environment)
    state, _ = loop.compile(300)(loop.init(jax.random.split(jax.random.key(0), 1)), 300)
    ring = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.seeds.ring)
    for env in range(4):
        rows = slice(env * ring.rows, env * ring.rows + int(ring.filled[env]))
        observation, kind = ring.observation[rows], ring.kind[rows]
        starts = np.flatnonzero(kind[:-1] > 0)
        moved = np.abs(observation[starts + 1] - observation[starts])
        # 20 ms: a pole that jumps back upright would be another episode's.
        assert moved[:, 0].max() < 0.08
        assert moved[:, 2].max() < 0.08
        assert starts.size > 200


def test_bare_ids_mean_the_fastest_backend_and_prefixes_choose():
    assert find("CartPole-v1").backend == "gymnax"
    assert find("envpool:CartPole-v1").backend == "envpool"
    assert find("envpool:CartPole-v1").id == "envpool:CartPole-v1"
    assert find("LunarLander-v3").backend == "envpool"
    assert find("LunarLander-v3").id == "LunarLander-v3"
    assert find("LunarLander-v3").reference == "LunarLander-v3"


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("LunarLandr-v3", "Did you mean 'LunarLander-v"),
        (
            "envpol:CartPole-v1",
            "names backend 'envpol'; expected one of qhat, gymnax, envpool, playground, brax, jumanji,"
            " navix, craftax, pgx, mjlab, isaaclab, jax, gym. Did you mean",
        ),
        ("gymnax:LunarLander-v3", "'gymnax:LunarLander-v3' is not known"),
    ],
)
def test_ids_without_an_environment_are_refused(env_id: str, words: str):
    with pytest.raises(UsageError) as refused:
        find(env_id)
    assert words in str(refused.value)


def test_a_missing_library_is_a_sentence_with_the_command_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "installed", lambda module: False)
    with pytest.raises(UsageError, match=r"needs envpool, .* type: pip install .*\[robots\]'"):
        find("LunarLander-v3")
    assert find("CartPole-v1").backend == "gymnax", "the others go on working"


def test_the_table_lists_what_envpool_has():
    table = {entry.name: entry for entry in catalogue.entries() if entry.backend == "envpool"}
    there = set(envpool.list_all_envs())
    assert set(table) <= there
    missing = [name for name in there - set(table) if "Vizdoom" not in name and "Procgen" not in name]
    assert len(missing) < 60, "tools/envpool_catalogue.py writes the table"
    for name in ("LunarLander-v3", "FrozenLake-v1", "MiniGrid-Empty-5x5-v0"):
        environment = EnvPoolEnvironment(table[name], 2, (0,), 1, 0)
        assert table[name].actions == f"{environment.spec.actions.width} discrete"
        if not table[name].observation.startswith("{") and "discrete" not in table[name].observation:
            assert table[name].observation == f"{environment.spec.shape} {environment.spec.dtype}"
        _, observation = environment.start(jax.random.split(jax.random.key(0), 1))
        assert observation.shape == (1, 2, *environment.spec.shape)
        assert observation.dtype == environment.spec.dtype
        json.dumps(dataclasses.asdict(table[name]))


def test_a_pool_handed_over_does_not_judge_its_training(tmp_path: Path):
    """The evaluation's reset would put another episode's observation behind the next action."""
    pool = make("envpool:CartPole-v1", FOUR.num_envs)
    config = TrainConfig(
        "", recipe=FOUR, run_dir=tmp_path / "run", steps=400, eval_every=200, eval_episodes=2
    )
    with pytest.raises(UsageError, match="in the middle of the training's episodes"):
        train(pool, config)
    assert not (tmp_path / "run").exists()
    assert train(pool, config, judge="CartPole-v1").summary()["step"] == 400


@pytest.mark.parametrize(
    "env_id",
    ["Go1JoystickFlatTerrain-v1", "SpotFlatTerrainJoystick-v1", "G1JoystickFlatTerrain-v1",
     "PandaPickCube-v1", "LeapCubeReorient-v1"],
)  # fmt: skip
def test_playgrounds_robots_step_in_the_compiled_loop(env_id: str):
    """Every joint takes both ends of its range, and what comes back is as the pool says it."""
    environment = make(env_id, 2, (0,))
    spec = environment.spec
    assert spec.actions.commands is not None
    state, first = environment.start(jax.random.split(jax.random.key(0), 1))
    last = jnp.asarray(spec.actions.choices, jnp.int32) - 1

    @jax.jit
    def play(state: Any) -> Any:
        def turn(state: Any, most: jax.Array) -> Any:
            action = jnp.broadcast_to(most * last, (1, 2, spec.actions.factors))
            return jax.vmap(environment.step)(state, action, jax.random.split(jax.random.key(1), 1))

        return jax.lax.scan(turn, state, jnp.arange(4) % 2)[1]

    steps = play(state)
    pool = envpool.make(env_id, env_type="gymnasium", num_envs=2, seed=episode_seeds(0, 0, 2))
    observed, _ = pool.reset()
    observations = Observations.of(pool.observation_space, env_id)
    np.testing.assert_allclose(np.asarray(first)[0], observations.read(observed), rtol=1e-5)
    for turn in range(4):
        command = np.broadcast_to(
            spec.actions.table[:, 0 if turn % 2 == 0 else -1], (2, spec.actions.factors)
        ).astype(np.float64)
        observed, reward, terminated, *_ = pool.step(command)
        np.testing.assert_allclose(
            steps.observation[turn, 0], observations.read(observed), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(steps.reward[turn, 0], reward, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(steps.terminated[turn, 0], terminated)
    pool.close()
