"""A policy on a robot's own sensors: clipped, scaled and remembered by the runtime as by the simulator."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mjlab", reason="mjlab has a venv of its own: make test-simulators")
import torch  # pyright: ignore[reportMissingImports]

import qhat
from qhat import runtime
from qhat.environments.isaaclab.robots import RobotEnvironment
from qhat.environments.isaaclab.terms import terms_of

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = "Mjlab-Velocity-Flat-Unitree-Go1"


def robots(copies: int, noise: bool = False) -> RobotEnvironment:
    """Make Go1s with a history, a clip and scales, which mjlab's task does not have."""
    from mjlab.envs import ManagerBasedRlEnv  # pyright: ignore[reportMissingImports]
    from mjlab.tasks.registry import load_env_cfg  # pyright: ignore[reportMissingImports]

    cfg: Any = load_env_cfg(TASK)
    cfg.scene.num_envs, cfg.auto_reset, cfg.seed, cfg.episode_length_s = copies, False, 3, 0.4
    terms = cfg.observations["actor"].terms
    terms["base_ang_vel"].history_length, terms["base_ang_vel"].scale = 3, 0.25
    terms["joint_pos"].history_length = 2
    terms["joint_vel"].clip, terms["joint_vel"].scale = (-1.0, 1.5), 0.05
    terms["command"].scale = (2.0, 2.0, 0.25)
    cfg.observations["actor"].enable_corruption = noise
    return RobotEnvironment(ManagerBasedRlEnv(cfg, device="cpu"))


def sensors(environment: RobotEnvironment, robot: int) -> dict[str, np.ndarray]:
    """Return what the simulator's own functions of the terms give now, before anything is made of it."""
    manager = environment.env.observation_manager
    rows = zip(manager.active_terms["actor"], manager._group_obs_term_cfgs["actor"], strict=True)
    return {name: cfg.func(environment.env, **cfg.params)[robot].numpy().copy() for name, cfg in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a policy that was trained a little, with noisy sensors."""
    here = tmp_path_factory.mktemp("robot")
    run = qhat.train(
        robots(8, noise=True), "decqn", judge=robots(4, noise=True), steps=160, eval_every=160,
        eval_episodes=4, num_envs=8, hidden=(16,), learning_starts=64, run_dir=here / "run",
    )  # fmt: skip
    return qhat.export(run, env=robots(9, noise=True), observations=64).path


def test_the_export_says_what_becomes_of_the_sensors(folder: Path) -> None:
    about = json.loads((folder / "policy.json").read_text())
    terms = {term["name"]: term for term in about["observation"]["terms"]}
    assert [term["history"] for term in terms.values()].count(1) == len(terms) - 2
    assert terms["base_ang_vel"] == {
        "name": "base_ang_vel", "size": 3, "history": 3, "clip": None, "scale": [0.25],
    }  # fmt: skip
    assert terms["joint_vel"]["clip"] == [-1.0, 1.5]
    assert terms["command"]["scale"] == [2.0, 2.0, 0.25]
    assert about["control_period"] == pytest.approx(0.02)
    assert about["actions"]["names"][0] == "FR_hip_joint"
    assert len(about["actions"]["drives"]) == 12
    import onnx

    kept = {one.key: one.value for one in onnx.load(folder / "policy.onnx").metadata_props}
    assert json.loads(kept["observation"])["terms"] == about["observation"]["terms"]
    assert "| `base_ang_vel` | 3 |  | 0.25 | 3 |" in (folder / "README.md").read_text()


def test_the_runtime_acts_on_sensors_as_in_the_simulator(folder: Path) -> None:
    """Over several episodes, with the robot's own sensors and nothing but the exported file."""
    environment, policy = robots(2), runtime.Policy.load(folder, "numpy")
    observation = environment.start()[0, 0]
    policy.reset()
    episodes = 0
    for _ in range(60):
        raw = sensors(environment, 0)
        x = policy._read(policy.coded(raw)).copy()
        np.testing.assert_allclose(x, observation, atol=1e-5)
        action = policy.act(raw)
        assert action.shape == (12,)
        drive = np.array(policy.about["actions"]["drives"])
        environment.send_env_action(np.stack([action, action]))
        now = environment.receive()
        aimed = environment.env.action_manager.get_term("joint_pos")
        target = aimed._processed_actions[0].numpy()
        if not now.closed[0, 0]:
            np.testing.assert_allclose(target, drive[:, 1] + drive[:, 0] * action, atol=1e-5)
        observation = now.observation[0, 0]
        if now.closed[0, 0]:
            episodes += 1
            policy.reset()
    assert episodes >= 2


def test_readings_that_do_not_fit_are_sentences(folder: Path) -> None:
    policy = runtime.Policy.load(folder, "numpy")
    raw = {term["name"]: np.zeros(term["size"]) for term in policy.about["observation"]["terms"]}
    first = policy.act(raw)
    np.testing.assert_array_equal(policy.act(raw), first)
    with pytest.raises(runtime.PolicyError, match=r"sensor 'command' gives 2 numbers .* expected 3"):
        policy.act({**raw, "command": np.zeros(2)})
    with pytest.raises(runtime.PolicyError, match=r"The sensors are base_lin_vel.*; expected base_lin_vel"):
        policy.act({name: value for name, value in raw.items() if name != "command"})
    with pytest.raises(runtime.PolicyError, match="expected a finite number"):
        policy.act({**raw, "command": np.full(3, np.nan)})
    robot = runtime.Runner(policy, safe_action=[0.0] * 12, timeout=1.0)
    robot.observe(raw)
    np.testing.assert_array_equal(robot.command(), first)
    robot.observe({})
    assert (robot.command() == 0).all()
    assert "The sensors are" in robot.reason


def test_what_a_robot_could_not_do_is_left_out() -> None:
    """A filter within the simulator, and a history with an axis of its own."""
    environment = robots(1)
    manager = environment.env.observation_manager
    assert terms_of(environment.env, ("actor",))
    manager._group_obs_term_cfgs["actor"][0].modifiers = [object()]
    assert terms_of(environment.env, ("actor",)) == ()
    assert torch.is_tensor(environment.env.obs_buf["actor"])


def test_a_student_sees_the_robots_group(tmp_path: Path) -> None:
    teacher = qhat.train(
        "mjlab:Mjlab-Cartpole-Balance", "decqn", steps=160, eval_every=160, eval_episodes=2, num_envs=8,
        hidden=(16,), learning_starts=64, env_kwargs={"group": "critic"}, run_dir=tmp_path / "teacher",
    )  # fmt: skip
    student = qhat.distil(
        teacher, "actor", steps=1_024, copies=16, episodes=2, memory="min_gru:units=8",
        run_dir=tmp_path / "student",
    )  # fmt: skip
    assert student.env_kwargs == {"group": "actor"}
    report = json.loads((tmp_path / "student" / "distilled.json").read_text())
    assert report["steps"] == 1_024


@pytest.mark.parametrize("task", [TASK, "Mjlab-Velocity-Flat-Unitree-G1"])
def test_the_mirror_image_of_a_robot_moves_as_its_image(task: str) -> None:
    """Two robots, of which one begins as the image of the other and gets its commands: physics agrees."""
    from mjlab.envs import ManagerBasedRlEnv  # pyright: ignore[reportMissingImports]
    from mjlab.tasks.registry import load_env_cfg  # pyright: ignore[reportMissingImports]

    cfg: Any = load_env_cfg(task)
    cfg.scene.num_envs, cfg.auto_reset, cfg.seed = 2, False, 3
    cfg.observations["actor"].enable_corruption = False
    # Without what differs between robots, or pushes them.
    kept = {name: event for name, event in cfg.events.items() if event.mode == "reset"}
    cfg.events = kept
    # Commands stay what they are set to below.
    twist = cfg.commands["twist"]
    twist.heading_command, twist.ranges.heading = False, None
    twist.rel_standing_envs = twist.rel_heading_envs = 0.0
    environment = RobotEnvironment(ManagerBasedRlEnv(cfg, device="cpu"))
    mirror, spec = environment.spec.mirror, environment.spec
    assert mirror is not None
    swapped = mirror.swapped(spec.actions, spec.shape, spec.id)
    environment.start()
    raw = environment.env
    qpos, qvel = raw.sim.data.qpos, raw.sim.data.qvel
    partners, signs = list(mirror.joints), torch.tensor(mirror.joint_signs, dtype=torch.float32)
    origin = raw.scene.env_origins
    # In the air: feet that strike the ground a little earlier would not tell a wrong sign from a right one.
    qpos[0, :3] = origin[0] + torch.tensor([0, 0, 2.0])
    qpos[1, :7] = qpos[0, :7] * torch.tensor([1, -1, 1, 1, -1, 1, -1.0])
    qpos[1, :2] = origin[1, :2]
    qpos[1, 7:] = qpos[0, 7:][partners] * signs
    qvel[1, :6] = qvel[0, :6] * torch.tensor([1, -1, 1, -1, 1, -1.0])
    qvel[1, 6:] = qvel[0, 6:][partners] * signs
    command = raw.command_manager.get_term("twist").vel_command_b
    command[0] = torch.tensor([0.7, 0.3, -0.4])
    command[1] = command[0] * torch.tensor([1, -1, -1.0])
    rng, places = np.random.default_rng(0), np.array(mirror.observation)
    moved = 0.0
    for _ in range(8):
        choice = rng.integers(spec.actions.choices[0], size=spec.actions.factors)
        image = np.array([swapped.choices[f][choice[g]] for f, g in enumerate(swapped.factors)])
        environment.send(np.stack([choice, image])[None].astype(np.int32))
        shown = environment.receive().successor[0]
        wanted = shown[0][places] * np.array(mirror.signs)
        # Go1's velocity is measured beside the middle, at its IMU: rotation adds to it on one side.
        first = 3 if task == TASK else 0
        np.testing.assert_allclose(shown[1][first:], wanted[first:], atol=0.05)
        moved = max(moved, float(np.abs(shown[0] - shown[1]).max()))
    assert moved > 0.5
