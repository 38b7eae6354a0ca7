"""Settings that `qhat doctor` proposes: each one if its findings call for it, and only then."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qhat import recipes
from qhat.cli import checkup, doctor
from qhat.cli.proposals import proposed, with_words
from qhat.environments import catalogue
from qhat.environments.gymnasium.probe import GAMMA, Findings, share_of_others
from qhat.environments.wrappers import RewardClip, RewardScale
from qhat.recipes.config import TrainConfig
from qhat.system.errors import UsageError

RECIPE, STEPS, GIB = recipes.get(recipes.DEFAULT), TrainConfig.steps, 2**30
PLAIN = Findings(
    copies=1, steps=1_000, steps_per_second=1_000.0, declared=None, found=None, final_observation=True,
    lengths=(20, 25, 30), limit=100, rewards=(0.0, 1.0), others=0.3, largest_return=8.0, faults=(),
    warnings=(),
)  # fmt: skip


def flags_for(
    replay: int = GIB, free: int = 8 * GIB, known: bool = False, **changes: object
) -> dict[str, str]:
    found = dataclasses.replace(PLAIN, **changes)  # pyright: ignore[reportArgumentType]
    proposals = proposed(found, RECIPE, STEPS, replay, free, known=known)
    assert all(each.why and not each.why.endswith(".") for each in proposals)
    return {each.flag: each.value for each in proposals}


def test_returns_use_the_discount_of_the_recipe() -> None:
    assert RECIPE.gamma == GAMMA


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, {}),
        ({"largest_return": 3e-3}, {"--wrap": "reward_scale:factor=1000"}),
        ({"largest_return": 2e6}, {"--wrap": "reward_scale:factor=1e-06"}),
        ({"largest_return": 0.0}, {}),
        # A reward at the end of 1,000 steps; a second reward on every other step; pay for lasting.
        ({"limit": 1_000, "others": 0.001}, {"--gamma": "0.997"}),
        ({"limit": 1_000, "others": 0.5}, {}),
        ({"limit": 500, "others": 0.0, "rewards": (1.0, 1.0)}, {}),
        ({"limit": 800, "others": 0.0, "rewards": (-1.0, -1.0)}, {"--gamma": "0.9963"}),
        ({"limit": 200_000, "others": 0.0, "lengths": ()}, {"--gamma": "0.9995", "--steps": "40000000"}),
        ({"limit": 500, "others": 0.0, "rewards": (-1.0, -1.0)}, {}),
        # Runs of 50 episodes; nothing ended and nothing says when.
        ({"limit": 1_000, "lengths": (1_000,)}, {"--steps": "200000"}),
        ({"limit": None, "lengths": (), "others": 0.0}, {}),
        ({"largest_return": 2e6, "limit": 1_000, "lengths": (1_000,), "known": True}, {}),
        # Pictures: 20 GiB of replay where 8 are free.
        ({"replay": 20 * GIB}, {"--replay-capacity": "20000"}),
        ({"replay": 20 * GIB, "known": True}, {"--replay-capacity": "20000"}),
        ({"replay": 4 * GIB}, {}),
    ],
)  # fmt: skip
def test_findings_lead_to_proposals(changes: dict, words: dict[str, str]) -> None:
    assert flags_for(**changes) == words


def test_a_command_has_the_proposals_and_the_users_flags() -> None:
    proposals = proposed(
        dataclasses.replace(PLAIN, largest_return=2e6, limit=1_000, others=0.0), RECIPE, STEPS, 0, GIB
    )
    assert with_words(["train", "X"], proposals) == [
        "train", "X", "--wrap", "reward_scale:factor=1e-06", "--gamma", "0.997",
    ]  # fmt: skip
    mine = ["train", "X", "--wrap", "frame_stack:count=2", "--bins", "3", "--gamma", "0.9"]
    assert with_words(mine, proposals) == [*mine[:4], "reward_scale:factor=1e-06", *mine[4:]]


def test_rewards_are_judged_after_their_scaling() -> None:
    assert checkup._learned(2e6, ()) == 2e6
    assert checkup._learned(2e6, (RewardScale(1e-6), RewardScale(-2.0))) == pytest.approx(4.0)
    assert checkup._learned(2e6, (RewardScale(1e-6), RewardClip())) == 0.0


def test_a_share_of_others() -> None:
    assert share_of_others(np.array([])) == 0.0
    assert share_of_others(np.array([-1.0, -1.0, -1.0, 0.0])) == 0.25


FAR = """
import gymnasium, numpy as np
class Far(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    window = False
    def __init__(self):
        Far.window = True
    def observe(self):
        assert Far.window, "display Surface quit"
        return np.array([self.time / 800], np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}
    def step(self, action):
        self.time += 1
        return self.observe(), 1e-4 * (self.time == 800), self.time == 800, False, {}
    def close(self):
        Far.window = False
gymnasium.register("Far-v0", Far)
"""


def test_the_proposed_command_trains_in_a_package_named_like_a_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`popgym:...` was once mistaken for a misspelling of `gym:...`."""
    (tmp_path / "gymm.py").write_text(FAR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkup, "STEPS", 900)
    assert doctor.run(["gym:gymm:Far-v0", "--seconds", "60"]) == 0
    printed = capsys.readouterr().out
    command = printed.partition("next:\n")[2].split()
    assert command[:3] == ["qhat", "train", "gymm:Far-v0"]
    assert command[3:] == ["--wrap", "reward_scale:factor=10000", "--gamma", "0.9963", "--steps", "160000"]
    for flag in ("--wrap", "--gamma", "--steps"):
        assert f"proposed: {flag} " in printed
    small = "--recipe dqn --hidden 8 --batch-size 16 --learning-starts 16 --eval-every 40 --eval-episodes 1"
    words = [*command[1:-1], "40", *small.split(), "--run-dir", "run"]
    done = subprocess.run([sys.executable, "-m", "qhat", *words], capture_output=True, text=True)
    # Each that is closed closes the window of all of its kind in its process, as pygame's do.
    assert done.returncode == 0, done.stderr
    assert "step 40" in done.stderr
    words[words.index("--eval-every") + 1] = "20"
    done = subprocess.run(
        [sys.executable, "-m", "qhat", *words[:-1], "two"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "display Surface quit" in done.stderr
    assert "had just closed other copies" in " ".join(done.stderr.split())
    again = [*words[:-1], "three", "--vector", "async"]
    done = subprocess.run([sys.executable, "-m", "qhat", *again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(UsageError, match="names backend 'gymn'; expected one of"):
        catalogue.find("gymn:Far-v0")
    del sys.modules["gymm"]
