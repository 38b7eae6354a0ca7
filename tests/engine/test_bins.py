"""Joints: ranges split into commands, environments that take commands, agents and runs that store them.

Protects against a robot that gets other commands than those that were learned from.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text

from inside import state_of
from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.heads import Categorical, Expected, Quantile
from qhat.axes.joints import Each, Together
from qhat.axes.policy import Greedy
from qhat.engine.learner import Learner
from qhat.environments.catalogue import find
from qhat.environments.envpool import make as envpool
from qhat.environments.make import make, make_any
from qhat.environments.make_args import MakeArgs
from qhat.environments.user_envs import source_of
from qhat.environments.wrappers import BoundActions
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run, evaluate, spec_from_json, spec_to_json
from qhat.runs.train import train
from qhat.system.errors import UsageError
from tiny import TINY

BINNED = dataclasses.replace(TINY, learning_starts=50, bins=(3,))


def test_commands_are_evenly_spaced_with_both_ends():
    actions = Actions.binned([-1.0, 0.0], [1.0, 6.0], (3, 4), "it")
    assert actions.choices == (3, 4)
    assert actions.commands == ((-1.0, 0.0, 1.0), (0.0, 2.0, 4.0, 6.0))
    assert Actions.binned([-1.0, 0.0], [1.0, 6.0], (2,), "it").commands == ((-1.0, 1.0), (0.0, 6.0))


@pytest.mark.parametrize(
    ("low", "high", "bins", "words"),
    [
        ([-1.0, -np.inf], [1.0, 2.0], (3,), ["it: joint 1", "from -inf to 2", "bound_actions"]),
        ([-1.0, 0.0], [np.inf, 2.0], (3,), ["joint 0", "from -1 to inf", "finite bounds"]),
        ([1.0], [1.0], (3,), ["joint 0", "from 1 to 1", "low < high"]),
        (
            [-1.0, -1.0, -1.0],
            [1.0, 1.0, 1.0],
            (3, 3),
            ["bins has 2 numbers", "3 joints", "expected 1 or 3"],
        ),
    ],
)
def test_joints_that_cannot_be_cut_are_named(low: list, high: list, bins: tuple, words: list):
    with pytest.raises(UsageError) as refused:
        Actions.binned(low, high, bins, "it")
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize("bins", [(1,), (), (3, 0)])
def test_fewer_than_two_bins_are_refused(bins: Any):
    with pytest.raises(UsageError, match=r"bins is .*; expected 2 or more"):
        dataclasses.replace(BINNED, bins=bins).validate()


SPACES = [
    Box(-2.0, 2.0, (3,), np.float64),
    Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32)),
    Box(-1.0, 1.0, (2, 2), np.float32),
    Box(0, 9, (2,), np.uint8),
    Discrete(4, start=2),
    MultiDiscrete([2, 5], start=[1, 0]),
    MultiBinary(3),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("bins", [(2,), (5,)])
def test_every_choice_is_an_action_of_the_space(space: gymnasium.Space, bins: tuple):
    actions = Actions.of(space, "it", bins)
    choices = actions.choices
    grid = np.stack(np.meshgrid(*map(np.arange, choices), indexing="ij"), -1).reshape(-1, len(choices))
    written = actions.to_env(grid)
    compiled = np.asarray(jax.jit(lambda choice: actions.to_env(choice, jnp))(jnp.asarray(grid, jnp.int32)))
    for choice, action, twin in zip(grid, written, compiled, strict=True):
        sent = int(action) if isinstance(space, Discrete) else action
        assert space.contains(sent), (choice, action)
        np.testing.assert_allclose(twin, action, rtol=1e-6)
    if isinstance(space, Box):
        np.testing.assert_array_equal(written[0], space.low)
        np.testing.assert_array_equal(written[-1], space.high)
        assert len(np.unique(written.reshape(len(grid), -1), axis=0)) == len(grid)


def test_a_space_without_choices_is_refused():
    with pytest.raises(UsageError, match="expected Discrete, MultiDiscrete, MultiBinary or Box"):
        Actions.of(Text(5), "it")


def test_pendulum_swings_as_gymnasiums_does():
    twin, reference = make("Pendulum-v1", 1, bins=(5,)), gymnasium.make("Pendulum-v1")
    state, _ = twin.reset(jax.random.key(3))
    reference.reset(seed=0)
    inner: Any = reference.unwrapped
    inner.state = np.array([float(state.theta[0]), float(state.theta_dot[0])])
    assert twin.spec.actions.commands is not None
    step = jax.jit(twin.step)
    for turn, choice in enumerate(np.random.default_rng(0).integers(5, size=60)):
        state, now = step(state, jnp.array([[choice]]), jax.random.key(turn))
        command = twin.spec.actions.commands[0][choice]
        observation, reward, *_ = reference.step(np.array([command], np.float32))
        np.testing.assert_allclose(now.successor[0], observation, rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(now.reward[0], float(reward), rtol=1e-3, atol=2e-3)
    reference.close()


def test_a_compiled_walker_walks_as_the_one_stepped_in_python():
    """EnvPool's MuJoCo takes float64: a rounded command would move it elsewhere."""
    entry, S, E = find("WalkerWalk-v1"), 2, 2
    compiled: Any = envpool.make(entry, MakeArgs(E, (3, 8), bins=(3,)))
    hosted: Any = envpool.make(entry, MakeArgs(E, (3, 8), options={"host": True}, bins=(3,)))
    assert compiled.spec == dataclasses.replace(hosted.spec, options=compiled.spec.options)
    assert compiled.spec.actions.commands == ((-1.0, 0.0, 1.0),) * 6
    state, first = compiled.start(jax.random.split(jax.random.key(0), S))
    observation = first
    np.testing.assert_array_equal(first, hosted.start())
    step = jax.jit(jax.vmap(compiled.step))
    draw = np.random.default_rng(0)
    for turn in range(40):
        choice = draw.integers(3, size=(S, E, 6)).astype(np.int32)
        state, now = step(state, choice, jax.random.split(jax.random.key(turn), S))
        hosted.send(choice)
        then = hosted.receive()
        np.testing.assert_array_equal(now.observation, then.observation)
        np.testing.assert_array_equal(now.reward, then.reward)
        observation = now.observation
    assert np.abs(observation - first).max() > 0.1, "it moved"
    hosted.close()


@pytest.mark.parametrize(
    "head", [Expected(delta=None), Categorical(atoms=7, v_min=-2.0, v_max=2.0), Quantile(quantiles=5)]
)
def test_each_joint_is_regressed_onto_the_common_target(head: Any):
    """With one factor there is no difference; with several, the loss is the mean over the factors."""
    learner = Learner.of(Recipe(head=head, hidden=(8,)), (4,), Actions((3, 3)))
    parameters = learner.init_parameters(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (2, 3, head.outputs))
    basis = head.basis(parameters.get("support", {}), head.fixed_fractions())
    action = jnp.array([2, 0])
    policy = jax.nn.one_hot(jnp.array([1, 1]), 3)
    target = head.backup(
        jnp.float32(0.3), jnp.float32(0.9), 2 * z, policy, jnp.zeros((2, 3)), basis, Greedy()
    )
    loss, error = Each().regress(head, z, action, target, basis)
    alone = [Together().regress(head, z[f : f + 1], action[f : f + 1], target, basis) for f in range(2)]
    np.testing.assert_allclose(loss, np.mean([float(one[0]) for one in alone]), rtol=1e-5)
    np.testing.assert_allclose(error, np.mean([abs(float(one[1])) for one in alone]), rtol=1e-5)
    together, _ = Together().regress(head, z, action, target, basis)
    assert not np.isclose(float(together), float(loss)), "the mean of both is another prediction"


def test_an_agent_commands_joints_and_learns_from_anyones_commands(tmp_path: Path):
    space = Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))
    agent = Agent(3, space, BINNED, bins=(3, 2), batch_size=4, learning_starts=0)
    actions = {tuple(agent.act(np.zeros(3)).tolist()) for _ in range(100)}
    assert actions == {(a, b) for a in (-2.0, 0.0, 2.0) for b in (0.0, 1.0)}
    assert space.contains(agent.act(np.ones(3), explore=False))
    assert agent.q_values(np.zeros(3)).shape == (2, 3)
    for turn in range(20):
        agent.remember(np.full(3, turn), [1.3, 0.2], 1.0, np.full(3, turn + 1), False)
    agent.replay()
    stored = np.asarray(state_of(agent).ring.action)[:20]
    np.testing.assert_array_equal(stored, np.tile([2, 0], (20, 1)))
    agent.save(tmp_path / "agent")
    loaded = Agent.load(tmp_path / "agent")
    assert loaded.program.actions == agent.program.actions
    np.testing.assert_array_equal(
        loaded.act(np.ones(3), explore=False), agent.act(np.ones(3), explore=False)
    )


@pytest.mark.parametrize("action", [[3.0, 0.0], [0.0], 1, [np.nan, 0.0], "left", None])
def test_a_command_beyond_a_joint_is_refused(action: Any):
    agent = Agent(3, Box(-2.0, 2.0, (2,)), BINNED)
    with pytest.raises(UsageError, match=r"expected 2 numbers, from \[-2.0, -2.0\]"):
        agent.remember(np.zeros(3), action, 1.0, np.zeros(3), False)
    assert agent.steps == 0


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gym:Pendulum-v1"])
def test_a_run_keeps_its_commands(env_id: str, tmp_path: Path):
    config = TrainConfig(
        env_id, recipe=dataclasses.replace(BINNED, bins=(5,)), run_dir=tmp_path / "run", steps=400, seeds=1,
        eval_every=400, eval_episodes=2, save_every=200,
    )  # fmt: skip
    train(env_id, config)
    run = Run.open(tmp_path / "run")
    assert run.spec.actions.commands == ((-2.0, -1.0, 0.0, 1.0, 2.0),)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(run.spec)))) == run.spec
    score = evaluate(run, episodes=2)
    assert score.env == env_id
    assert -4_000 < score.mean_return < 0
    with pytest.raises(UsageError, match="takes"):
        evaluate(run, episodes=2, env="MountainCarContinuous-v0")


def test_joints_of_other_bounds_are_another_robot(tmp_path: Path):
    """The choices are the same, but not their commands."""

    def built(torque: float) -> Any:
        env = gymnasium.make("Pendulum-v1")
        return gymnasium.wrappers.RescaleAction(env, np.float32(-torque), np.float32(torque))

    config = TrainConfig(
        "", recipe=BINNED, run_dir=tmp_path / "run", steps=100, eval_every=100, eval_episodes=1
    )
    run = train(lambda: built(1.0), config)
    assert evaluate(run, episodes=1, env=lambda: built(1.0)).per_seed
    with pytest.raises(UsageError, match="command"):
        evaluate(run, episodes=1, env=lambda: built(0.5))


class Free(gymnasium.Env):
    """Two joints, one without bounds; the reward shows the command."""

    observation_space = Box(-1.0, 1.0, (2,))
    action_space = Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32))

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), float(10 * action[0] + action[1]), False, True, {}


def test_an_unbounded_joint_of_an_environment_is_named_and_can_be_bounded():
    with pytest.raises(UsageError, match=r"'own:Free': joint 1 takes actions from -inf to inf"):
        source_of(Free).make(MakeArgs())
    made: Any = source_of(Free).make(MakeArgs(wrap=(BoundActions(low=-2.0, high=3.0),), bins=(2,)))
    assert made.spec.actions.commands == ((-1.0, 1.0), (-2.0, 3.0))
    made.start()
    made.send(np.array([[[0, 1]]]))
    assert made.receive().reward == -7.0
    made.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "gym:CartPole-v1", "Pendulum-v1"])
def test_bounds_have_no_meaning_around_what_has_them(env_id: str):
    with pytest.raises(UsageError, match="bound_actions"):
        make_any(env_id, 1, wrap=(BoundActions(),))


def test_an_agent_speaks_the_type_of_its_box():
    for box, commands in (
        (Box(-0.1, 0.3, (1,), np.float64), [-0.1, 0.3]),
        (Box(0, 10, (1,), np.int32), [0, 3, 6, 10]),
        (Box(0, 1, (1,), np.int8), [0, 1]),
        (Box(-(2**63), 2**63 - 1, (1,), np.int64), [-(2**63), -1, 2**63 - 1]),
    ):
        agent = Agent(2, box, BINNED, bins=(len(commands),))
        heard = [agent.program.actions.to_env(np.array([choice])) for choice in range(len(commands))]
        assert [each.item() for each in heard] == commands
        assert all(box.contains(each) for each in heard), box
        agent.remember(np.zeros(2), heard[-1], 0.0, np.ones(2), False)


def test_a_joint_of_whole_numbers_has_no_more_commands_than_numbers():
    assert Agent(2, Box(0, 1, (2,), np.int8), BINNED, bins=(5,)).program.actions.choices == (2, 2)


def test_a_judge_with_other_commands_is_refused(tmp_path: Path):
    config = TrainConfig("own", recipe=BINNED, steps=100, eval_every=100, run_dir=tmp_path / "run")
    narrow: Any = lambda: gymnasium.make("Pendulum-v1", g=9.0)  # noqa: E731
    with pytest.raises(UsageError, match=r"actions commands \[-2.0, 0.0, 2.0\]; the policy takes"):
        train(lambda: gymnasium.make("MountainCarContinuous-v0"), config, judge=narrow)
    assert not (tmp_path / "run").exists()


def test_one_number_in_a_list_is_answered_in_a_list(tmp_path: Path):
    space = MultiDiscrete([4])
    agent = Agent(2, space, BINNED)
    agent.save(tmp_path / "agent")
    for each in (agent, Agent.load(tmp_path / "agent")):
        assert space.contains(each.act(np.zeros(2)))
        assert each.q_values(np.zeros(2)).shape == (1, 4)


def test_dm_control_on_the_host(tmp_path: Path):
    """In a separate process: the renderer must be set before MuJoCo is imported."""
    command = [sys.executable, "-m", "qhat", "train", "gym:shimmy:dm_control/reacher-easy-v0"]
    settings = "--recipe decqn --bins 3 --steps 600 --learning-starts 200 --eval-episodes 1 --num-envs 2"
    command += settings.split()
    command += ["--replay-capacity", "4000", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "MUJOCO_GL": "egl"}
    )
    assert done.returncode == 0, done.stderr
    run = Run.open(tmp_path / "run")
    # Gymnasium's dictionary {position, to_target, velocity} as one vector, and two joints in float64.
    assert (run.spec.shape, run.spec.actions.dtype) == ((6,), "float64")
    assert run.spec.actions.commands == ((-1.0, 0.0, 1.0),) * 2
    assert run.summary()["step"] == 600
