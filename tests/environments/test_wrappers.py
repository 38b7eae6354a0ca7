"""Wrappers and constructor options: the same task compiled and in Gymnasium, in training and in scores.

Protects against a stack that shows another episode, an action that outlives its episode, rewards that are
scaled in the reported scores, options that only the training sees, and memories that a resume forgets.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from command_line import qhat
from full import FULL
from qhat.axes.actions import Actions
from qhat.axes.axis import from_json, parse, spell, to_json
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay.nstep import CONTINUES, NOTHING
from qhat.environments import options
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import find
from qhat.environments.make import make, make_any
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import (
    WRAPPERS,
    ActionRepeat,
    BoundActions,
    Drop,
    Flicker,
    FrameStack,
    RewardClip,
    RewardScale,
    StickyActions,
    around,
    validate,
)
from qhat.recipes.config import TrainConfig
from qhat.runs.run import Run, evaluate
from qhat.runs.train import Interrupted, train
from qhat.system.errors import UsageError
from tiny import TINY

LENGTHS = (5, 3)


class Counting(Environment):
    """Copy e's episodes last `LENGTHS[e]` steps. It shows episode, time and the executed action.

    The reward is 10 · episode + time. With `late`, it resets on the step after, as EnvPool does.
    """

    def __init__(self, late: bool = False):
        self.num_envs, self.late = 2, late
        self.spec = Spec("counting", "test", (3,), "float32", Actions((4,)))

    def reset(self, key: Array) -> tuple[Any, Array]:
        state = (jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32), jnp.zeros(2, bool))
        return state, self._show(*state[:2], -jnp.ones(2, jnp.int32))

    def _show(self, episode: Array, time: Array, action: Array) -> Array:
        return jnp.column_stack([episode, time, action]).astype(jnp.float32)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, Timestep]:
        episode, time, over = state
        reset, none = over if self.late else jnp.zeros(2, bool), -jnp.ones(2, jnp.int32)
        time = jnp.where(reset, 0, time + 1)
        episode += reset
        ended = (time == jnp.array(LENGTHS)) & ~reset
        successor = self._show(episode, time, jnp.where(reset, none, action[:, 0]))
        reward = jnp.where(reset, -1000.0, 10.0 * episode + time)
        observation = successor
        if not self.late:
            fresh = self._show(episode + 1, jnp.zeros_like(time), none)
            observation = jnp.where(ended[:, None], fresh, successor)
            episode, time = episode + ended, jnp.where(ended, 0, time)
        cut = jnp.zeros(2, bool)
        return (episode, time, ended), Timestep(observation, reward, ended, cut, successor, ~reset)


class CountingGym(gymnasium.Env):
    """One copy of the same for Gymnasium."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, length: int):
        self.length, self.episode = length, -1

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.array([self.episode, 0, -1], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        observation = np.array([self.episode, self.time, action], np.float32)
        return observation, 10.0 * self.episode + self.time, self.time == self.length, False, {}


ACTIONS = np.random.default_rng(0).integers(0, 4, (40, 2))


def play(environment: Environment, actions: np.ndarray = ACTIONS) -> tuple[np.ndarray, Timestep]:
    """The first observations, and the timesteps of the given actions, leaves `[T, E, ...]`."""
    state, first = jax.jit(environment.reset)(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(actions))
    _, steps = jax.lax.scan(
        lambda state, turn: environment.step(state, turn[0][:, None], turn[1]),
        state,
        (jnp.asarray(actions), keys),
    )
    return np.asarray(first), jax.tree.map(np.asarray, steps)


def play_gym(env: gymnasium.Env, actions: np.ndarray) -> list[tuple]:
    """Real rows: what was acted on, the reward, the end, the true successor."""
    rows, (observation, _) = [], env.reset(seed=0)
    for action in actions:
        after, reward, terminated, truncated, _ = env.step(int(action))
        rows.append((observation, reward, terminated or truncated, after))
        observation = env.reset()[0] if terminated or truncated else after
    return rows


def real_rows(first: np.ndarray, steps: Timestep, copy: int) -> list[tuple]:
    rows, observation = [], first[copy]
    for turn in range(len(steps.reward)):
        if steps.real[turn, copy]:
            ended = bool(steps.terminated[turn, copy] | steps.truncated[turn, copy])
            rows.append((observation, steps.reward[turn, copy], ended, steps.successor[turn, copy]))
        observation = steps.observation[turn, copy]
    return rows


LISTS = [
    (FrameStack(3),),
    (ActionRepeat(2),),
    (FrameStack(2), ActionRepeat(4)),
    (ActionRepeat(2), FrameStack(3)),
    (),
]


@pytest.mark.parametrize("wrap", LISTS, ids=lambda wrap: "+".join(spell(part) for part in wrap) or "none")
@pytest.mark.parametrize("late", [False, True], ids=["same-step", "next-step"])
def test_compiled_wrappers_are_gymnasiums(wrap: tuple, late: bool):
    """Row for row, over episodes' ends and reset rows."""
    first, steps = play(wrapped(Counting(late), wrap))
    assert (~steps.real).any() == late
    for copy, length in enumerate(LENGTHS):
        ours = real_rows(first, steps, copy)
        chosen = ACTIONS[steps.real[:, copy], copy]
        theirs = play_gym(around(CountingGym(length), wrap), chosen)
        assert len(ours) == len(theirs)
        assert sum(row[2] for row in ours) > 3, "episodes ended"
        for row, other in zip(ours, theirs, strict=True):
            for mine, reference in zip(row, other, strict=True):
                np.testing.assert_array_equal(mine, reference)


def test_a_reset_row_goes_through_repeats_as_one_row_that_is_not_real():
    _, steps = play(wrapped(Counting(late=True), (ActionRepeat(2),)))
    ended = steps.terminated
    np.testing.assert_array_equal(~steps.real[1:], ended[:-1])
    assert (steps.reward[steps.real] > 0).all(), "no reward of a reset row was added"


def test_sticky_actions_stick_as_often_as_they_say_and_never_across_episodes():
    actions = np.random.default_rng(1).integers(0, 4, (4_000, 2))
    _, steps = play(wrapped(Counting(), (StickyActions(0.25),)), actions)
    executed = steps.successor[..., 2]
    opens = np.vstack([[True, True], steps.terminated[:-1]])
    np.testing.assert_array_equal(executed[opens], actions[opens])
    before = np.vstack([[-1, -1], executed[:-1]])
    stuck = executed != actions
    np.testing.assert_array_equal(executed[stuck], before[stuck])
    differs = ~opens & (before != actions)
    assert abs(stuck[differs].mean() - 0.25) < 0.02


def test_what_a_wrapper_cannot_stop_it_refuses():
    with pytest.raises(
        UsageError, match=r"action_repeat' cannot stop single copies .*env_kwargs=.'frame_skip': 2"
    ):
        make("envpool:CartPole-v1", 2, wrap=(ActionRepeat(2),))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "envpool:FrozenLake-v1", "gym:FrozenLake-v1"])
def test_frames_stack_on_every_backend(env_id: str):
    plain, stacked = make_any(env_id, 2), make_any(env_id, 2, wrap=(FrameStack(4),))
    assert stacked.spec.shape == (4, *plain.spec.shape)
    assert stacked.spec.dtype == plain.spec.dtype
    if isinstance(stacked, Environment):
        _, observation = stacked.start(jax.random.split(jax.random.key(0), 1))
    else:
        observation = stacked.start()
    assert observation.shape == (1, 2, *stacked.spec.shape)
    assert observation.dtype == plain.spec.dtype
    np.testing.assert_array_equal(observation[:, :, 0], observation[:, :, 3])


def test_rewards_are_learned_from_scaled_and_scored_as_they_are(tmp_path: Path):
    wrap = (RewardScale(-2.0), RewardClip(-11.0, 0.0))
    spec = Counting().spec
    program = Program.of(TINY, spec.shape, spec.dtype, spec.actions, rewards=wrap)
    loop = Loop(program, Counting())
    state, log = loop.compile(200)(loop.init(jax.random.split(jax.random.key(0), 1)), 200)
    ring = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.seeds.ring)
    starts = (ring.kind != NOTHING) & (ring.kind >= CONTINUES)
    episode, time = (ring.observation[:, at][starts] for at in (0, 1))
    learned = np.clip(-2.0 * (10 * episode + time + 1), -11.0, 0.0)
    np.testing.assert_allclose(ring.reward[starts], learned)
    for copy, length in enumerate(LENGTHS):
        ended = np.asarray(log.ended)[0, :, copy]
        expected = 10.0 * length * np.arange(ended.sum()) + length * (length + 1) / 2
        np.testing.assert_allclose(np.asarray(log.returns)[0, ended, copy], expected, rtol=1e-5)
    config = _config(tmp_path / "run", wrap=(RewardScale(0.001),))
    run = train("CartPole-v1", config)
    assert min(run.summary()["best_score"]) > 5, "in the task's own units"
    assert evaluate(run.folder.path, episodes=2).mean_return > 5


def _config(folder: Path, **settings: Any) -> TrainConfig:
    base = {"env": "CartPole-v1", "recipe": TINY, "run_dir": folder, "steps": 400, "seeds": 1,
            "eval_every": 200, "eval_episodes": 2, "save_every": 200}  # fmt: skip
    return TrainConfig(**{**base, **settings})


ALL = (
    StickyActions(0.5),
    ActionRepeat(2),
    Flicker(0.2),
    FrameStack(3),
    RewardScale(0.1),
    RewardClip(-0.15, 0.15),
)


def test_a_resumed_run_with_wrappers_equals_one_that_never_stopped(tmp_path: Path):
    whole = train("CartPole-v1", _config(tmp_path / "whole", wrap=ALL))
    with pytest.raises(Interrupted):
        train("CartPole-v1", _config(tmp_path / "parts", wrap=ALL), should_stop=lambda: True)
    parts = train("CartPole-v1", _config(tmp_path / "parts", wrap=ALL, resume=True))
    assert whole.weights_sha256() == parts.weights_sha256()
    assert whole.spec.shape == (3, 4)
    assert Run.open(tmp_path / "whole").wrap == ALL
    score = evaluate(tmp_path / "whole", episodes=3)
    assert score.mean_return >= 8, "frames of Gymnasium's own environment, wrapped alike"


@pytest.mark.parametrize("env_id", ["LunarLander-v3", *(["gym:CartPole-v1"] if FULL else [])])
def test_wrappers_on_the_other_backends_train_and_are_judged(env_id: str, tmp_path: Path):
    wrap = (StickyActions(0.25), FrameStack(2), RewardScale(0.1))
    run = train(
        env_id, _config(tmp_path / "run", env=env_id, wrap=wrap, seeds=2, steps=300, eval_every=300)
    )
    assert run.spec.shape[0] == 2
    assert np.isfinite(evaluate(run, episodes=2).per_seed).all()


def test_options_reach_training_judge_and_evaluation(tmp_path: Path):
    kwargs = {"max_episode_steps": 7}
    run = train("gym:CartPole-v1", _config(tmp_path / "run", env="gym:CartPole-v1", env_kwargs=kwargs))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["env_kwargs"] == kwargs
    assert max(run.summary()["best_score"]) <= 7
    assert evaluate(tmp_path / "run", episodes=3).mean_return <= 7
    assert evaluate(tmp_path / "run", episodes=3, env_kwargs={}).mean_return > 7
    again = _config(tmp_path / "run", env="gym:CartPole-v1", resume=True, steps=500)
    with pytest.raises(UsageError, match="trained with another env_kwargs"):
        train("gym:CartPole-v1", again)
    with pytest.raises(UsageError, match="trained with another wrap"):
        train("gym:CartPole-v1", dataclasses.replace(again, env_kwargs=kwargs, wrap=(RewardScale(2.0),)))
    train("gym:CartPole-v1", dataclasses.replace(again, env_kwargs=kwargs))


def test_an_option_that_the_reference_does_not_know_is_scored_where_it_is_known(tmp_path: Path):
    assert find("CartPole-v1", {"max_steps_in_episode": 9}).reference is None
    assert find("envpool:CartPole-v1", {"max_episode_steps": 9}).reference == "CartPole-v1"
    assert find("MountainCar-v0", {"goal_velocity": 0.01}).reference == "MountainCar-v0"
    run = train("CartPole-v1", _config(tmp_path / "run", env_kwargs={"max_steps_in_episode": 9}))
    assert evaluate(tmp_path / "run", episodes=3).mean_return <= 9
    assert run.spec.reference is None
    pool = _config(tmp_path / "pool", env_kwargs={"max_episode_steps": 7}, env="envpool:CartPole-v1")
    train("envpool:CartPole-v1", pool)
    assert evaluate(tmp_path / "pool", episodes=3).mean_return <= 7


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [
        ("CartPole-v1", {"gravty": 1.0}, "no option 'gravty'.* Did you mean 'gravity'"),
        ("envpool:CartPole-v1", {"max_episode_step": 1}, "Did you mean 'max_episode_steps'"),
        ("envpool:CartPole-v1", {"num_envs": 1}, "no option 'num_envs'"),
        ("gym:LunarLander-v3", {"enable_wnd": True}, "no option 'enable_wnd'.* Did you mean 'enable_wind'"),
        ("gym:CartPole-v1", {"render_mode": (1, 2)}, "expected what JSON holds"),
        ("gym:CartPole-v1", {"render_mode": float("nan")}, "expected what JSON holds"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(env_id: str, kwargs: dict, words: str):
    with pytest.raises(UsageError, match=words):
        make_any(env_id, 1, options=kwargs)


def test_wrappers_are_spelled_as_parts_of_a_recipe_are():
    values = (
        FrameStack(3), ActionRepeat(2), StickyActions(0.5), BoundActions(-2.0, 3.0), Drop("text+id"),
        Flicker(0.25, 1, 2, 3.0), RewardScale(0.5), RewardClip(-2.0, 3.0),
    )  # fmt: skip
    assert {type(value) for value in values} == set(WRAPPERS)
    for value in values:
        assert ":" in spell(value)
        assert parse(spell(value), WRAPPERS) == value
        assert from_json(json.loads(json.dumps(to_json(value))), WRAPPERS) == value


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        ((RewardClip(), ActionRepeat(2)), "reward_clip before action_repeat"),
        ((FrameStack(0),), "frame_stack:count is 0"),
        ((RewardClip(1.0, 1.0),), "expected low < high"),
        ((RewardScale(0.0),), "factor is 0"),
        ((BoundActions(1.0, 1.0),), "bound_actions:low is 1.0"),
        ((StickyActions(1.0),), "probability is 1.0"),
    ],
)
def test_lists_that_mean_nothing_are_refused(wrap: tuple, words: str):
    with pytest.raises(UsageError, match=words):
        validate(wrap)


def test_words_of_options():
    assert options.read_words(["gravity=-5.0", "name=on", "deep=[1, 2]", "on=true", "a=b=c"]) == {
        "gravity": -5.0, "name": "on", "deep": [1, 2], "on": True, "a": "b=c",
    }  # fmt: skip
    assert options.read_words(options.write_words({"a": "1", "b": [1]})) == {"a": "1", "b": [1]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--env-kwargs", "gravity"), "--env-kwargs has 'gravity'; expected key=value"),
        (("--env-kwargs", "gravty=1"), "Did you mean 'gravity'?"),
        (("--wrap", "frame_stck:count=4"), "Did you mean 'frame_stack'?"),
        (("--wrap", "reward_clip", "frame_stack:cout=4"), "Did you mean 'count'?"),
    ],
)
def test_a_mistake_in_them_is_one_sentence(words: tuple[str, ...], sentence: str, tmp_path: Path):
    done = qhat("train", "CartPole-v1", *words, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert sentence in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_them_and_a_resume_remembers_them(tmp_path: Path):
    folder = str(tmp_path / "run")
    words = ("--run-dir", folder, "--json", "--hidden", "16", "--eval-episodes", "2")
    wrap = ("--wrap", "frame_stack:count=2", "reward_scale:factor=0.1")
    done = qhat("train", "--env-kwargs", "max_episode_steps=9", "render_mode=null", *wrap, "--merge",
                 "dueling", "gym:CartPole-v1", "--steps", "60", *words)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = qhat("train", "gym:CartPole-v1", "--resume", "--steps", "80", *words[:3])
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["env_kwargs"] == {"max_episode_steps": 9, "render_mode": None}
    assert [part["name"] for part in written["wrap"]] == ["frame_stack", "reward_scale"]
    for more, longest in (((), 9), (("--env-kwargs", "max_episode_steps=3"), 3)):
        done = qhat("evaluate", folder, "--episodes", "2", "--json", *more)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["mean_return"] <= longest
