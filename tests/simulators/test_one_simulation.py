"""Training and evaluations share one simulation, as Isaac Sim asks: by id, and handed over."""

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mjlab", reason="mjlab has a venv of its own: make test-simulators")
import torch  # pyright: ignore[reportMissingImports]

import qhat
from qhat.environments.isaaclab import isaac
from qhat.environments.isaaclab.robots import RobotEnvironment
from qhat.environments.isaaclab.shared import Simulation
from qhat.system.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")
LIMIT = 5


class Line(gymnasium.Env):
    """Isaac Lab's published interface: robots that are to stand at their targets, and reset by themselves.

    Their first observation group is the policy's, their second knows the same number twice.
    """

    metadata, made = {"render_modes": ["rgb_array"]}, 0

    def __init__(self, cfg: Any = None, render_mode: str | None = None):
        assert not Line.made, "Isaac Sim has one simulation in a process"
        Line.made += 1
        self.cfg = cfg or types.SimpleNamespace(num_envs=4, compute_final_obs=False)
        self.num_envs, self.device, self.max_episode_length = self.cfg.num_envs, "cpu", LIMIT
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        self.generator = torch.Generator().manual_seed(0)
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.resets += 1
        self.turn, self.target = torch.zeros(self.num_envs), self._targets()
        return self._shown(), {"log": {"Metrics/success_rate": torch.tensor(0.0)}}

    def step(self, action: torch.Tensor) -> tuple[dict, Any, Any, Any, dict]:
        assert action.shape == (self.num_envs, 1)
        reward = 1.0 - (action[:, 0] - self.target).abs()
        self.turn += 1
        late = self.turn >= LIMIT
        extras = {"log": {"Metrics/success_rate": torch.tensor(0.5)}, "final_obs": self._shown()}
        self.turn[late] = 0
        self.target = torch.where(late, self._targets(), self.target)
        return self._shown(), reward, torch.zeros_like(late), late, extras

    def close(self) -> None:
        Line.made -= 1

    def _targets(self) -> torch.Tensor:
        return torch.randint(-1, 2, (self.num_envs,), generator=self.generator).float()

    def _shown(self) -> dict[str, torch.Tensor]:
        return {"policy": self.target[:, None].clone(), "critic": self.target[:, None].repeat(1, 2)}


@pytest.fixture(autouse=True)
def one() -> Iterator[None]:
    Line.made = 0
    yield
    Line.made = 0


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of Isaac Lab's modules qhat calls, in their published form."""
    started: list[str] = []

    def module(name: str, **names: Any) -> None:
        found = types.ModuleType(name)
        found.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for key, value in names.items():
            setattr(found, key, value)
        monkeypatch.setitem(sys.modules, name, found)

    def parse_env_cfg(task: str, device: str, num_envs: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(num_envs=num_envs, compute_final_obs=False, seed=None)

    def app(**settings: Any) -> None:
        started.append("app")

    context = types.SimpleNamespace(new_stage=lambda: started.append("stage"))
    module("isaaclab")
    module("isaaclab.app", AppLauncher=app)
    module("isaaclab_tasks")
    module("isaaclab_tasks.utils", parse_env_cfg=parse_env_cfg)
    module("omni")
    module("omni.usd", get_context=lambda: context)
    if "Isaac-Line-v0" not in gymnasium.registry:
        made: Any = Line
        gymnasium.register("Isaac-Line-v0", entry_point=made, disable_env_checker=True)
    monkeypatch.setattr(isaac, "_started", [])
    monkeypatch.setattr(isaac, "_live", {})
    return started


SETTINGS: Any = {
    "steps": 8_000, "eval_every": 4_000, "eval_episodes": 4, "hidden": (32,), "gamma": 0.5, "bins": 3,
}  # fmt: skip


def test_a_task_of_isaac_lab_is_trained_judged_and_exported(installed: list[str], tmp_path: Path) -> None:
    run = qhat.train("isaaclab:Isaac-Line-v0", "decqn", num_envs=4, run_dir=tmp_path / "run", **SETTINGS)
    assert installed.count("app") == 1
    assert Line.made == 0
    assert run.evaluate(20, "last").mean_return == pytest.approx(LIMIT)
    assert qhat.export(run, observations=32).parity["passed"]
    assert Line.made == 0
    with pytest.raises(UsageError, match="no group of observations 'polic'; it has policy, critic"):
        qhat.train("isaaclab:Isaac-Line-v0", "decqn", env_kwargs={"group": "polic"}, run_dir=tmp_path / "n")
    with pytest.raises(UsageError, match=r"not known to the installed Isaac Lab.*Isaac-Line-v0"):
        qhat.train("isaaclab:Isaac-Lime-v0", "decqn", run_dir=tmp_path / "m")


def test_what_a_process_has_no_second_of_is_a_sentence(installed: list[str], tmp_path: Path) -> None:
    run = qhat.train("isaaclab:Isaac-Line-v0", "decqn", num_envs=4, run_dir=tmp_path / "run", **SETTINGS)
    with pytest.raises(UsageError, match="started without cameras"):
        qhat.play(run)
    isaac._live["Isaac-Other-v0"] = Simulation(Line())
    with pytest.raises(UsageError, match=r"second simulation beside Isaac-Other-v0"):
        run.evaluate(4)


def test_one_that_is_handed_over_judges_itself(tmp_path: Path) -> None:
    env = Line()
    run = qhat.train(env, "decqn", num_envs=4, run_dir=tmp_path / "run", **SETTINGS)
    assert run.evaluate(3, "last", env=env).mean_return == pytest.approx(LIMIT)
    assert Line.made == 1
    with pytest.raises(UsageError, match=r"has 4 robots, and the run 2 .*; expected as many: num_envs=4"):
        qhat.train(env, "decqn", num_envs=2, run_dir=tmp_path / "two", **SETTINGS)
    with pytest.raises(UsageError, match=r"one simulation of 4 robots, and 9 are asked for"):
        qhat.train(env, "decqn", num_envs=4, run_dir=tmp_path / "n", **(SETTINGS | {"eval_episodes": 9}))


def test_an_evaluation_ends_the_trainings_episodes() -> None:
    """The step that would go on is no transition, and everything begins anew."""
    simulation = Simulation(Line())
    trained = RobotEnvironment(simulation.part(4, "line"))
    judged = RobotEnvironment(simulation.part(2, "line"))
    assert (trained.num_envs, judged.num_envs) == (4, 2)

    def step(environment: RobotEnvironment) -> Any:
        environment.send(np.zeros((1, environment.num_envs, 1), np.int32))
        return environment.receive()

    trained.start()
    assert step(trained).real.all()
    judged.start()
    now = step(judged)
    assert now.reward.shape == (1, 2)
    assert now.success is None
    back = step(trained)
    assert not back.real.any()
    assert back.broken.all()
    assert not back.finished.any()
    rows = [step(trained) for _ in range(LIMIT)]
    assert all(row.real.all() for row in rows)
    assert [bool(row.truncated.all()) for row in rows] == [False] * 4 + [True]
    # The log is a mean over all robots: of a part there is none.
    assert np.nansum(rows[-1].success) == 2
