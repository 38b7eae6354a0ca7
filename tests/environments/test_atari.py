"""Atari's games and EnvPool's options: what is learned from, what is scored, and EnvPool on the host loop.

Protects against clipped scores, a life that is taken for a game, stacks of frames that replay puts together
wrongly, and options that are silently ignored or end the process.
"""

import dataclasses
from pathlib import Path
from typing import Any

import envpool
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat import recipes
from qhat.axes.explore import EpsilonGreedy
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.environments.base import Environment, Timestep
from qhat.environments.catalogue import find
from qhat.environments.envpool import atari
from qhat.environments.envpool.hosted import EnvPoolHost
from qhat.environments.envpool.make import make as make_pool
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.make_args import MakeArgs
from qhat.environments.spaces import episode_seeds
from qhat.evaluation.play import play_of
from qhat.recipes.config import TrainConfig
from qhat.runs.run import evaluate
from qhat.runs.train import train
from qhat.system.errors import UsageError
from qhat.system.host_memory import nbytes

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
SEEDS, ENVS = (3, 8), 2
SMALL = {"img_height": 12, "img_width": 10}
LIVES = {**SMALL, "episodic_life": True, "max_episode_steps": 60, "noop_max": 1}
TINY = dataclasses.replace(
    recipes.get("dqn"), hidden=(16,), num_envs=2, replay_ratio=0.25, replay_capacity=600, n_step=3,
    learning_starts=100, batch_size=16, explore=EpsilonGreedy(1.0, 0.1, 400),
)  # fmt: skip


def pool_of(env_id: str, num_envs: int, seeds: tuple[int, ...], options: dict[str, Any]) -> Any:
    return make_pool(find(env_id), MakeArgs(num_envs, seeds, options=options))


def pools(env_id: str, **options: Any) -> tuple[Any, Any]:
    """The same task in the compiled loop and on the host."""
    one = pool_of(env_id, ENVS, SEEDS, options=options)
    other = pool_of(env_id, ENVS, SEEDS, options={**options, "host": True})
    assert isinstance(one, Environment)
    assert isinstance(other, EnvPoolHost)
    assert dataclasses.asdict(one.spec) == dataclasses.asdict(other.spec)
    return one, other


def actions_for(environment: Any, turns: int) -> np.ndarray:
    shape = (turns, len(SEEDS), ENVS, environment.spec.actions.factors)
    draw = np.random.default_rng(0).integers(environment.spec.actions.width, size=shape)
    return draw.astype(np.int32)


def rows_compiled(environment: Environment, actions: np.ndarray) -> tuple[np.ndarray, Any]:
    keys = jax.random.split(jax.random.key(0), len(SEEDS))
    state, first = environment.start(keys)

    @jax.jit
    def play(state: Any) -> Timestep:
        turn = lambda state, action: jax.vmap(environment.step)(state, action, keys)  # noqa: E731
        return jax.lax.scan(turn, state, jnp.asarray(actions))[1]

    return np.asarray(first), jax.tree.map(np.asarray, play(state))


def rows_hosted(environment: HostEnvironment, actions: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    first, steps = environment.start(), []
    for action in actions:
        environment.send(action)
        steps.append(environment.receive())
    return first, steps


@pytest.mark.parametrize(
    ("env_id", "options", "turns"),
    [("Breakout-v5", LIVES, 200), ("MsPacman-v5", {**SMALL, "reward_clip": False}, 60)],
)
def test_the_host_interface_says_what_the_compiled_step_says(env_id: str, options: dict, turns: int):
    compiled, hosted = pools(env_id, **options)
    actions = actions_for(compiled, turns)
    (first, steps), (same_first, same) = rows_compiled(compiled, actions), rows_hosted(hosted, actions)
    np.testing.assert_array_equal(first, same_first)
    for turn, row in enumerate(same):
        for name, value in row._asdict().items():
            if value is None:
                assert getattr(steps, name) is None
                continue
            expected = getattr(steps, name)[turn]
            np.testing.assert_array_equal(value, expected, err_msg=name)
            assert value.dtype == expected.dtype
    if env_id == "Breakout-v5":
        assert (~steps.real).sum() > 10, "episodes ended"
        assert steps.truncated.any()
        assert steps.terminated.any()
    hosted.close()


def test_rewards_are_clipped_to_learn_from_and_scores_never():
    def game(clip: bool) -> Any:
        options = {**SMALL, "host": True, "reward_clip": clip}
        return pool_of("MsPacman-v5", ENVS, SEEDS, options=options)

    clipped, raw = game(True), game(False)
    actions = actions_for(clipped, 150)
    (_, steps), (_, same) = (rows_hosted(each, actions) for each in (clipped, raw))
    scores = np.stack([step.scored for step in steps])
    assert scores.max() >= 10, "a pill is 10 points"
    np.testing.assert_array_equal(np.stack([step.reward for step in steps]), np.sign(scores))
    np.testing.assert_array_equal(np.stack([step.reward for step in same]), scores)


def test_a_life_ends_an_episode_and_a_game_ends_a_score():
    """By EnvPool's own words: lives go 5, 4, …; a game is over at 0, or where it is cut."""
    options = {**SMALL, "episodic_life": True, "noop_max": 1}
    environment = pool_of("Breakout-v5", ENVS, SEEDS, options={**options, "host": True})
    assert isinstance(environment, EnvPoolHost)
    numbers = [number for seed in SEEDS for number in episode_seeds(seed, 0, ENVS)]
    options = dict(environment.spec.options)
    pool: Any = envpool.make("Breakout-v5", env_type="gymnasium", num_envs=4, seed=numbers, **options)
    pool.reset()
    environment.start()
    lost, over = 0, 0
    for action in actions_for(environment, 300):
        environment.send(action)
        step = environment.receive()
        lives = np.asarray(pool.step(action.reshape(-1))[4]["lives"]).reshape(len(SEEDS), ENVS)
        np.testing.assert_array_equal(step.finished, step.terminated & (lives == 0))
        lost, over = lost + step.terminated.sum(), over + step.finished.sum()
    assert over >= 3
    assert lost >= 4 * over


def test_a_game_that_ends_in_the_no_ops_after_a_lost_life_is_over():
    """EnvPool starts the next game without a word; all frames of its stack are then the first one."""
    options = {**SMALL, "episodic_life": True, "host": True}
    environment = pool_of("RoadRunner-v5", ENVS, SEEDS, options=options)
    numbers = [number for seed in SEEDS for number in episode_seeds(seed, 0, ENVS)]
    pool: Any = envpool.make(
        "RoadRunner-v5", env_type="gymnasium", num_envs=4, seed=numbers, **dict(environment.spec.options)
    )
    pool.reset()
    environment.start()
    games, found = 0, 0
    before, life = np.zeros(4, bool), np.zeros(4, int)
    for action in actions_for(environment, 1_500):
        environment.send(action)
        step = environment.receive()
        observation, _, ended, _, info = pool.step(action.reshape(-1))
        fresh = (observation[:, :1] == observation).all(axis=(1, 2, 3))
        unsaid = before & (life > 0) & fresh & (info["lives"] > life)
        over = (info["terminated"] > 0) & ended | unsaid
        np.testing.assert_array_equal(step.finished.reshape(-1), over)
        np.testing.assert_array_equal(step.closed.reshape(-1), over)
        games, found = games + over.sum(), found + unsaid.sum()
        assert not (step.real.reshape(-1) & unsaid).any(), "it is a reset"
        before, life = ended.copy(), info["lives"].copy()
    assert games > found >= 1, "both kinds of end"
    environment.close()


def test_replay_rebuilds_the_stacks_of_a_game():
    environment = pool_of("Breakout-v5", ENVS, SEEDS, options={**LIVES, "host": True})
    spec = environment.spec
    assert (spec.shape, spec.dtype, spec.stack) == ((4, 12, 10), "uint8", 4)
    assert isinstance(environment, HostEnvironment)
    E = len(SEEDS) * ENVS
    ring = replay.Ring.empty(E, 100, spec.shape, spec.dtype, spec.actions, stack=spec.stack)
    observation = environment.start().reshape(E, *spec.shape)
    store = jax.jit(replay.store)
    expected: dict[int, tuple] = {}
    for action in actions_for(environment, 250):
        environment.send(action)
        step = environment.receive()
        flat: Any = jax.tree.map(lambda part: part.reshape(E, *part.shape[2:]), step)
        flags = (flat.terminated, flat.truncated, flat.real)
        now = (observation, action.reshape(E, 1), flat.reward, flat.successor, *flags)
        ring, slots, starts = store(ring, replay.Step(*map(jnp.asarray, now)))
        for slot, start in zip(np.asarray(slots), np.asarray(starts), strict=True):
            expected.pop(int(slot), None)
            if start and slot < ring.size:
                env = int(slot) // ring.rows
                expected[int(slot)] = (observation[env], flat.successor[env], action.reshape(E, 1)[env])
        observation = flat.observation
    assert np.all(np.asarray(ring.filled) == 100)
    slots = jnp.asarray(sorted(expected))
    window = replay.view(ring, slots, 1, 0.9)
    assert np.all(window.complete)
    found = jax.device_get(replay.look_up(ring, slots, window))
    before, after, chosen = (
        np.stack(each) for each in zip(*(expected[int(s)] for s in slots), strict=True)
    )
    np.testing.assert_array_equal(found.observation, before)
    np.testing.assert_array_equal(found.successor, after)
    np.testing.assert_array_equal(found.action, chosen)
    assert len(expected) > 250


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        ("Pong-v5", {"frame_skp": 2}, "has no option 'frame_skp'; it has difficulty, episodic_life,"),
        ("Pong-v5", {"frame_skp": 2}, "Did you mean 'frame_skip'?"),
        ("Pong-v5", {"frame_skip": 2.5}, "'Pong-v5' is 2.5; expected a whole number, such as 4."),
        ("Pong-v5", {"frame_skip": True}, "expected a whole number"),
        ("Pong-v5", {"episodic_life": 1}, "expected true or false, such as False."),
        ("Pong-v5", {"img_height": 0}, "is 0; expected 1 or more."),
        ("Pong-v5", {"repeat_action_probability": 1.5}, "is 1.5; expected within [0, 1]."),
        ("Pong-v5", {"num_threads": 2}, "has no option 'num_threads'"),
        ("Pong-v5", {"mode": 99}, "cannot be made by EnvPool (Invalid game mode requested); options:"),
        ("LunarLander-v3", {"reward_clip": True}, "'LunarLander-v3' has no option 'reward_clip'"),
        ("LunarLander-v3", {"max_episode_steps": "ten"}, "is 'ten'; expected a whole number, such as"),
    ],
)  # fmt: skip
def test_options_that_are_not_there_are_refused(env_id: str, options: dict, words: str):
    with pytest.raises(UsageError) as refused:
        pool_of(env_id, 1, (0,), options=options)
    assert words in str(refused.value)


def test_options_do_what_they_say_and_are_in_the_spec():
    options = {"full_action_space": True, "stack_num": 3, "gray_scale": False, **SMALL, "frame_skip": 2}
    environment = pool_of("Pong-v5", 1, (0,), options=options)
    assert environment.spec.shape == (9, 12, 10), "three colours a frame"
    assert environment.spec.stack == 3
    assert environment.spec.actions.choices == (18,)
    chosen = dict(environment.spec.options)
    assert chosen == {**options, "repeat_action_probability": 0.25, "reward_clip": True}
    short = pool_of("LunarLander-v3", 1, (0,), options={"max_episode_steps": 5, "host": True})
    _, steps = rows_hosted(short, np.zeros((7, 1, 1, 1), np.int32))  # pyright: ignore[reportArgumentType]
    assert [bool(step.truncated[0, 0]) for step in steps] == [False] * 4 + [True] + [False] * 2
    assert [bool(step.real[0, 0]) for step in steps] == [True] * 5 + [False, True]


def test_both_loops_train_and_judge_atari():
    scores = []
    for host in (False, True):
        options = {**SMALL, "max_episode_steps": 40, "host": host}
        environment = pool_of("Breakout-v5", 2, (0,), options=options)
        spec = environment.spec
        program = Program.of(TINY, spec.shape, spec.dtype, spec.actions, stack=spec.stack)
        loop: Any = (HostLoop if host else Loop)(program, environment)  # pyright: ignore[reportArgumentType]
        state, log = loop.compile(150)(loop.init(jax.random.split(jax.random.key(0), 1)), 150)
        assert np.isfinite(np.asarray(log.metrics.loss)).sum() > 10
        assert int(np.asarray(log.ended).sum()) >= 6
        np.testing.assert_array_equal(np.asarray(log.lengths)[np.asarray(log.ended)] <= 40, True)
        assert state.seeds.ring.observation.dtype == jnp.uint8
        assert state.seeds.ring.observation.shape == (1, 600, 1, 12, 10)
        judge = pool_of("Breakout-v5", 3, (7,), options=options)
        online = state.seeds.learner.online
        assert isinstance(judge, Environment) is not host
        returns = play_of(program.learner, judge)(online, jax.random.key(0)).returns
        scores.append(returns)
        assert returns.shape == (1, 3)
        assert (returns >= 0).all()


def test_pong_trains_within_its_forecast_and_is_judged_in_whole_games(tmp_path: Path):
    config = TrainConfig(
        "Pong-v5", recipe=TINY, run_dir=tmp_path / "run", steps=300, seeds=1, eval_every=300,
        eval_episodes=1, save_every=300,
    )  # fmt: skip
    run = train("Pong-v5", config)
    assert run.spec.stack == 4
    assert dict(run.spec.options) == {"repeat_action_probability": 0.25, "reward_clip": True}
    shape = jax.eval_shape(
        lambda key: run.program.init(key, jnp.zeros((2, 4, 84, 84), "uint8"), None), jax.random.key(0)
    )
    assert nbytes(shape.ring) < 600 * 84 * 84 * 1.01
    (score,) = run.summary()["best_score"]
    assert -21 <= score <= 21
    assert score != 0


def test_a_frame_of_gymnasiums_is_the_mean_over_areas_and_nearly_envpools():
    screen = np.random.default_rng(0).integers(0, 256, (210, 160)).astype(np.uint8)
    rows = np.repeat(screen.astype(np.float64), 84, axis=0).reshape(84, 210, 160).mean(axis=1)
    exact = np.repeat(rows, 84, axis=1).reshape(84, 84, 160).mean(axis=2)
    assert np.abs(atari._shrink(screen) - exact).max() <= 0.5 + 1e-9, "the nearest whole number"

    env, pool = (
        atari.make("ALE/Pong-v5"),
        pool_of("Pong-v5", 1, (0,), options={"host": True}),
    )
    assert isinstance(pool, EnvPoolHost)
    _, steps = rows_hosted(pool, np.zeros((40, 1, 1, 1), np.int32))
    observation, _ = env.reset(seed=0)
    for _ in range(40):
        observation = env.step(0)[0]
    difference = np.abs(observation[-1].astype(int) - steps[-1].observation[0, 0, -1])
    assert (difference <= 1).mean() > 0.98, "but for the ball and the paddles"
    env.close()


def test_ale_through_gymnasium_trains_on_single_stored_frames(tmp_path: Path):
    assert find("gym:ALE/Pong-v5").observation == "(4, 84, 84) uint8"
    with pytest.raises(UsageError, match="Did you mean 'ALE/Pong-v5'"):
        find("gym:ALE/Png-v5")
    environment: Any = make_any("gym:ALE/Pong-v5", 1, SEEDS)
    spec = environment.spec
    assert (spec.shape, spec.dtype, spec.stack, spec.actions.choices) == ((4, 84, 84), "uint8", 4, (6,))
    before, steps = rows_hosted(environment, actions_for(environment, 20)[:, :, :1])
    np.testing.assert_array_equal(before[:, :, :1].repeat(4, axis=2), before, "the first frame, four times")
    for step in steps:
        np.testing.assert_array_equal(step.successor[:, :, :-1], before[:, :, 1:])
        before = step.observation
    assert len(np.unique([step.successor[0, 0, -1] for step in steps], axis=0)) > 1, "it moves"
    environment.close()

    recipe = dataclasses.replace(TINY, num_envs=1)
    config = TrainConfig(
        "gym:ALE/Pong-v5", recipe=recipe, run_dir=tmp_path / "run", steps=150, seeds=1, eval_every=150,
        eval_episodes=1, save_every=150,
    )  # fmt: skip
    run = train("gym:ALE/Pong-v5", config)
    assert run.spec.stack == 4
    (score,) = run.summary()["best_score"]
    assert -21 <= score <= 21
    assert score != 0


def test_where_there_is_no_compiled_step_python_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind: Any = type(envpool.make_gymnasium("Catch-v0", num_envs=1))

    def missing(self: Any) -> Any:
        raise RuntimeError("XLA is unavailable.")

    monkeypatch.setattr(kind, "xla", missing)
    config = TrainConfig(
        "envpool:Catch-v0", recipe=TINY, run_dir=tmp_path / "run", steps=400, seeds=2, eval_every=200,
        eval_episodes=3, save_every=400,
    )  # fmt: skip
    with pytest.warns(RuntimeWarning, match=r"no compiled step for .*Catch-v0.*XLA is unavailable"):
        run = train("envpool:Catch-v0", config)
    assert all(-1 <= score <= 1 for score in run.summary()["best_score"])
    with pytest.warns(RuntimeWarning, match="stepped in Python"):
        score = evaluate(run, episodes=4)
    assert len(score.per_seed) == 2
