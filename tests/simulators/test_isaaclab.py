"""Isaac Lab's API: ends of episodes, groups, commands, logs; on mjlab, and on what resets by itself.

They need mjlab and PyTorch, in a venv of their own: `make test-simulators`.
"""

import types
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mjlab", reason="mjlab has a venv of its own: make test-simulators")
import torch  # pyright: ignore[reportMissingImports]

from qhat.environments.base import Timestep
from qhat.environments.catalogue import Entry, find
from qhat.environments.host import HostEnvironment
from qhat.environments.isaaclab.mjlab import make
from qhat.environments.isaaclab.robots import RobotEnvironment, require_robots
from qhat.environments.make_args import MakeArgs
from qhat.environments.scene import scene_of
from qhat.system.errors import QhatError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")
CARTPOLE, LIMIT = "mjlab:Mjlab-Cartpole-Balance", 1_000


def made(
    name: str = CARTPOLE, copies: int = 2, seeds: int = 1, log: tuple = (), **options: Any
) -> RobotEnvironment:
    return make(find(name), MakeArgs(copies, range(seeds), options=options, log=log))


def stepped(environment: HostEnvironment, choice: int = 0) -> Timestep:
    shape = (environment.seeds, environment.num_envs, environment.spec.actions.factors)
    environment.send(np.full(shape, choice, np.int32))
    return environment.receive()


def test_a_time_out_shows_the_last_observation() -> None:
    """Against a second simulation, which is stepped in the same way and is not reset."""
    one, other = made(), made()
    for environment in (one, other):
        for term in environment.env.observation_manager._group_obs_term_cfgs["actor"]:
            term.noise = None
    one.start()
    other.start()
    other.env.sim.data.qpos[:] = one.env.sim.data.qpos
    other.env.sim.data.qvel[:] = one.env.sim.data.qvel
    one.env.episode_length_buf[0] = LIMIT - 3
    now = None
    for turn in range(3):
        now, raw = stepped(one, 1), stepped(other, 1)
        np.testing.assert_allclose(now.successor, raw.successor, atol=1e-5)
        assert now.truncated[0].tolist() == [turn == 2, False]
    assert now is not None
    assert not now.terminated.any()
    assert now.real.all()
    # The wrong ways: the first observation of the next episode as successor, and a cut taken as an end.
    assert np.abs(now.observation[0, 0] - now.successor[0, 0]).max() > 1e-3
    np.testing.assert_array_equal(now.observation[0, 1], now.successor[0, 1])


def test_rewards_are_not_changed_by_the_next_step() -> None:
    environment = made()
    environment.start()
    first = stepped(environment, 0)
    before = first.reward.copy(), first.successor.copy()
    for _ in range(3):
        stepped(environment, 2)
    np.testing.assert_array_equal(first.reward, before[0])
    np.testing.assert_array_equal(first.successor, before[1])


def test_groups_and_terms_have_their_names() -> None:
    environment = made("mjlab:Mjlab-Velocity-Flat-Unitree-Go1", 1)
    assert environment.spec.layout is not None
    labels = [entry.label for entry in environment.spec.layout.entries]
    assert {"base_ang_vel", "projected_gravity", "joint_pos", "joint_vel"} <= set(labels)
    assert environment.start().shape == (1, 1, 48)
    both = made("mjlab:Mjlab-Velocity-Flat-Unitree-Go1", 1, group="critic+actor")
    assert both.spec.shape == (72 + 48,)
    assert both.spec.layout is not None
    assert both.spec.layout.entries[0].path[0] == "critic"
    with pytest.raises(UsageError, match=r"no group of observations 'criti'; it has .*'critic'"):
        made(group="criti")


def test_commands_go_around_the_default_pose_within_the_limits() -> None:
    environment = made("mjlab:Mjlab-Velocity-Flat-Unitree-Go1", 1, reach=50.0)
    term = environment.env.action_manager.get_term("joint_pos")
    limits = term._entity.data.soft_joint_pos_limits[0, term.target_ids].numpy()
    table = environment.spec.actions.table
    assert table.shape == (12, 3)
    assert (table[:, 1] == 0).all()
    target = table * term.scale[0].numpy()[:, None] + term.offset[0].numpy()[:, None]
    assert (target[:, 0] >= limits[:, 0] - 1e-4).all()
    assert (target[:, 2] <= limits[:, 1] + 1e-4).all()
    assert len(environment.joints) == 12
    near = made("mjlab:Mjlab-Velocity-Flat-Unitree-Go1", 1)
    assert np.abs(near.spec.actions.table).max() <= 1.0


def test_the_log_is_of_the_robots_that_ended() -> None:
    environment = made(log=("info.Episode_Termination/time_out",))
    environment.start()
    assert np.isnan(stepped(environment).info).all()
    environment.env.episode_length_buf[1] = LIMIT - 1
    info = stepped(environment).info[0, :, 0]
    assert np.isnan(info[0])
    assert info[1] == 1
    with pytest.raises(UsageError, match="time_ou"):
        made(log=("info.Episode_Termination/time_ou",))


def test_physics_that_fails_is_no_transition_and_begins_anew() -> None:
    environment = made()
    environment.start()
    environment.env.sim.data.qpos[1] = float("nan")
    now = stepped(environment)
    assert now.broken[0].tolist() == [False, True]
    assert now.real[0].tolist() == [True, False]
    assert np.isfinite(now.observation).all()
    assert np.isfinite(now.successor).all()
    assert stepped(environment).real.all()


def test_a_task_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"not known to the installed mjlab.*Did you mean"):
        make(Entry("Mjlab-Cartpole-Balanc", "", "", None, "mjlab"), MakeArgs())
    with pytest.raises(UsageError, match=r"has no option 'grup'"):
        made(grup="actor")


class Counter:
    """Isaac Lab's published interface: a counter that resets in the step in which its episode ends."""

    device, num_envs, max_episode_length = "cpu", 2, 4

    def __init__(self, shows: bool, fails: bool = False):
        self.cfg = types.SimpleNamespace(**({"compute_final_obs": False} if shows else {}))
        self.single_action_space = types.SimpleNamespace(shape=(1,), low=-np.inf, high=np.inf)
        self.fails = fails

    def reset(self, seed: int | None = None) -> tuple[dict, dict]:
        self.count = torch.zeros(2)
        return {"policy": self.count[:, None]}, {"log": {}}

    def step(self, action: Any) -> tuple[dict, Any, Any, Any, dict]:
        # In place: an observation is a view of the simulator's state.
        self.count += 1
        extras: dict[str, Any] = {"log": {"Episode_Reward/alive": torch.tensor(1.0)}}
        late = self.count >= self.max_episode_length
        fell = torch.tensor([False, bool(self.count[1] == 2)])
        if getattr(self.cfg, "compute_final_obs", False):
            extras["final_obs"] = {"policy": self.count[:, None].clone()}
        self.count[late | fell] = 0
        shown = torch.full((2, 1), float("nan")) if self.fails else self.count[:, None]
        return {"policy": shown}, torch.ones(2), fell, late, extras


def test_a_simulator_that_shows_the_last_observation_is_believed() -> None:
    environment = RobotEnvironment(Counter(shows=True))
    environment.start()
    rows = [stepped(environment) for _ in range(4)]
    assert [float(row.successor[0, 0, 0]) for row in rows] == [1, 2, 3, 4]
    assert rows[3].truncated[0].tolist() == [True, False]
    assert rows[3].observation[0, 0, 0] == 0
    assert rows[1].terminated[0].tolist() == [False, True]
    assert rows[1].successor[0, 1, 0] == 2
    assert all(row.real.all() for row in rows)


def test_where_the_last_observation_is_hidden_the_cut_step_is_left_out() -> None:
    environment = RobotEnvironment(Counter(shows=False))
    environment.start()
    with pytest.warns(UserWarning, match="hides its last observation"):
        rows = [stepped(environment) for _ in range(4)]
    assert [bool(row.real[0, 0]) for row in rows] == [True, True, True, False]
    assert rows[3].finished[0, 0]
    assert not rows[3].truncated.any()
    # What ended by itself is a transition: nothing follows it.
    assert rows[1].real[0, 1]
    assert rows[1].terminated[0, 1]
    # An observation that was a view of the simulator's state did not follow it.
    assert [float(row.observation[0, 0, 0]) for row in rows] == [1, 2, 3, 0]


def test_robots_that_nobody_resets_end_the_run() -> None:
    environment = RobotEnvironment(Counter(shows=True))
    environment.start()
    environment.env.fails = True
    with pytest.raises(QhatError, match="not finite for 2 of its robots"):
        stepped(environment)


def test_a_log_that_says_a_share_is_counted() -> None:
    """Of three robots that ended, two: the log does not say which."""
    environment = RobotEnvironment(Counter(shows=True))
    environment._goal = "Metrics/success_rate"
    share, ended = np.array([2 / 3] * 4), np.array([True, False, True, True])
    counted = environment._success({"Metrics/success_rate": share}, ended)
    assert counted is not None
    np.testing.assert_array_equal(counted, [1, np.nan, 1, 0])
    unsaid = environment._success({}, ended)
    assert unsaid is not None
    assert np.isnan(unsaid).all()


def test_actions_that_are_no_numbers_are_a_sentence() -> None:
    class Chooser(Counter):
        def __init__(self) -> None:
            super().__init__(shows=True)
            self.single_action_space = gymnasium.spaces.Discrete(3)

    with pytest.raises(UsageError, match=r"action space Discrete\(3\); expected one of numbers"):
        RobotEnvironment(Chooser())
    with pytest.raises(UsageError, match=r"reach is -1\.0"):
        RobotEnvironment(Counter(shows=True), reach=-1.0)
    with pytest.raises(UsageError, match="which has no num_envs"):
        require_robots(gymnasium.make("CartPole-v1"), "isaaclab:CartPole")


def test_a_robot_is_drawn() -> None:
    environment = made(copies=1)
    scene = scene_of(environment.spec, {}, (), (3,), seed=0)
    scene.environment.start()
    stepped(scene.environment)
    picture = scene.picture()
    assert picture.shape[2] == 3
    assert picture.std() > 5
    assert scene.fps == pytest.approx(20.0)


def test_robots_are_shared_evenly() -> None:
    with pytest.raises(UsageError, match="2 robots for 3 seeds"):
        RobotEnvironment(Counter(shows=True), 3)
