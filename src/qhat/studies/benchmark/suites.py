"""The suites of `qhat benchmark` as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qhat.axes.bonus import NoBonus
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Expected
from qhat.axes.optimiser import RMSProp
from qhat.axes.policy import Double
from qhat.axes.target import Hard
from qhat.recipes.presets import CONTROL_SEEDS as FRESH
from qhat.recipes.presets import GAMES, minatar
from qhat.recipes.recipe import Recipe
from qhat.studies.benchmark import atari
from qhat.studies.benchmark.tasks import Number, Published, Suite, Task
from qhat.system.errors import UsageError, near_miss

ONE = "one run"
V2 = "one run, on LunarLander-v2"


def _classic() -> Suite:
    def cleanrl(dqn: Number, c51: Number) -> tuple[Published, ...]:
        return (
            Published("CleanRL DQN", dqn, 500_000, "CleanRL"),
            Published("CleanRL C51", c51, 500_000, "CleanRL"),
        )

    def zoo(dqn: Number, qr_dqn: Number, steps: int, about: str = ONE) -> tuple[Published, ...]:
        return (
            Published("rl-zoo DQN", dqn, steps, "rl-zoo", about),
            Published("rl-zoo QR-DQN", qr_dqn, steps, "rl-zoo", about),
        )

    def slm(score: Number, steps: int) -> Published:
        return Published("SLM-Lab Double DQN + PER", score, steps, "SLM-Lab")

    rlox = Published("rlox's SB3 DQN", 500, 50_000, "rlox", "5 seeds, IQM, 95% interval 218 to 500")
    return Suite(
        "classic",
        "Classic control",
        "CartPole-v1 by the default recipe, the others by their presets.",
        (
            Task("CartPole-v1", 10, first=FRESH, published=(
                *zoo(500, 500, 50_000), slm(451.5, 200_000), *cleanrl(489, 481), rlox,
            )),
            Task("Acrobot-v1", 10, published=(
                *zoo(-76.6, -69.1, 100_000), slm(-83.9, 300_000), *cleanrl(-91.5, -87.7),
            )),
            Task("MountainCar-v0", 10, published=(
                *zoo(-100.8, -106.0, 120_000), *cleanrl(-195, -166),
            )),
            Task("LunarLander-v3", 10, published=(*zoo(154, 70, 100_000, V2), slm(265.9, 300_000))),
        ),
    )  # fmt: skip


_MINATAR_ROWS = (
    # system, source, frames, about, then one figure per game as in GAMES
    ("MinAtar paper's DQN", "MinAtar", 5_000_000, "30 seeds, read off a figure", (17, 10, 50, 20, 43)),
    ("EnsembleDQN", "ensembles", 5_000_000, "", (20.9, 17.0, 60.6, 20.5, 93.6)),
    ("BootstrappedDQN", "ensembles", 5_000_000, "", (27.4, 21.3, 60.2, 14.9, 87.8)),
    ("pgx PPO", "pgx", 20_000_000, "on a GPU, about", (23.5, 50, 63, 54, 150)),
)
_PAPER_HERE: Mapping[str, Number] = {"Seaquest": 0.8}
"""IQM of the paper's DQN after a million frames (five seeds of `minatar-dqn`), for games where its score
after five million frames is not decisive."""
_SIX_ACTIONS = {"use_minimal_action_set": False}
# The recipe of the existing rows: older than the preset's quantiles and bonus, with fewer updates.
_FIVE_MILLION = dataclasses.replace(
    minatar(5_000_000).recipe, head=Expected(delta=None), policy=Double(), bonus=NoBonus(),
    replay_ratio=1 / 12,
)  # fmt: skip

# Young & Tian 2019 (arXiv:1903.03176), completed from their program where the paper is silent: an update
# per frame, PyTorch's centred RMSProp with momentum. ε falls from the first frame on, not from frame 5,000.
_PAPER = Recipe(
    hidden=(128,), optimiser=RMSProp(decay=0.95, epsilon=0.01, outside=True, momentum=0.95),
    learning_rate=2.5e-4, replay_ratio=1.0, num_envs=1, batch_size=32, replay_capacity=100_000,
    learning_starts=5_000, explore=EpsilonGreedy(1.0, 0.1, 100_000), target=Hard(every=1_000), gamma=0.99,
    paper="https://arxiv.org/abs/1903.03176",
)  # fmt: skip


def _minatar(
    name: str,
    title: str,
    about: str,
    settings: Mapping[str, Any],
    here: Mapping[str, Number] = MappingProxyType({}),
) -> Suite:
    tasks = []
    for at, game in enumerate(GAMES):
        rows = tuple(
            Published(system, scores[at], frames, source, about_row)
            for system, source, frames, about_row, scores in _MINATAR_ROWS
        )
        if game in here:
            same = Published("the same DQN by qhat", here[game], 1_000_000, "minatar-dqn", "5 seeds, IQM")
            rows = (rows[0], same, *rows[1:])
        task_settings = {"env_kwargs": _SIX_ACTIONS, **settings}
        tasks.append(Task(f"{game}-MinAtar", 6, task_settings, published=rows))
    return Suite(name, title, about, tuple(tasks))


_SAC_STEPS = (100_000, 500_000, 1_000_000)
_ROBOT_ROWS: Mapping[str, tuple[tuple[Number, ...], Number]] = {
    "WalkerWalk-v1": ((708, 953, 957), 980),
    "WalkerRun-v1": ((340, 604, 635), 842),
    "CheetahRun-v1": ((310, 595, 730), 844),
    "FingerSpin-v1": ((762, 873, 878), 986),
    "ReacherHard-v1": ((161, 517, 928), 981),
    "CartpoleSwingup-v1": ((835, 835, 839), 876),
    "QuadrupedWalk-v1": ((55, 199, 455), 956),
    "HopperStand-v1": ((2, 1, 302), 954),
    "HopperHop-v1": ((0, 38, 70), 338),
    "AcrobotSwingup-v1": ((8, 2, 10), 518),
}
"""SAC's returns at `_SAC_STEPS`, TD-MPC2's at a million; three seeds each."""
_FRONTIER = ("SAC of SimbaV2's files", "SimbaV2", "BRO, 2 updates per step", "MR.Q", "XQC")
_FRONTIER_ROWS: Mapping[str, tuple[tuple[int, ...], tuple[Number, ...]]] = {
    "WalkerWalk-v1": ((200_000, 200_000, 250_000, 250_000), (595, 959, 964, 966)),
    "WalkerRun-v1": ((500_000,) * 5, (516, 800, 746, 767, 784)),
    "CheetahRun-v1": ((500_000,) * 5, (586, 890, 759, 903, 889)),
    "FingerSpin-v1": ((500_000,) * 5, (757, 884, 987, 913, 777)),
    "ReacherHard-v1": ((500_000,) * 5, (967, 968, 974, 952, 975)),
    "CartpoleSwingup-v1": ((200_000, 200_000, 250_000), (867, 876, 875)),
    "QuadrupedWalk-v1": ((500_000,) * 5, (148, 955, 931, 963, 953)),
    "HopperStand-v1": ((1_000_000,) * 5, (928, 945, 950, 951, 690)),
    "HopperHop-v1": ((1_000_000,) * 4, (251, 291, 295, 251)),
    "AcrobotSwingup-v1": ((1_000_000,) * 4, (180, 437, 530, 567)),
}
"""Steps and returns of `_FRONTIER`, as far as they are known; two to ten seeds each."""


def _robots() -> Suite:
    tasks = []
    for env, (sac, tdmpc2) in _ROBOT_ROWS.items():
        rows = [
            Published("SAC", score, steps, "tdmpc2", "3 seeds")
            for score, steps in zip(sac, _SAC_STEPS, strict=True)
        ]
        rows.append(Published("TD-MPC2", tdmpc2, 1_000_000, "tdmpc2", "3 seeds"))
        # Of the tasks with fewer numbers, those of the last systems are not known.
        rows += [
            Published(system, score, steps, "simbav2", "2 to 10 seeds")
            for system, steps, score in zip(_FRONTIER, *_FRONTIER_ROWS[env], strict=False)
        ]
        tasks.append(Task(env, 6, first=FRESH, published=tuple(rows)))
    tasks.append(Task("TurtleBot3-v0", 6, measure="success"))
    return Suite(
        "robots",
        "Robots",
        "dm_control's tasks in EnvPool, every joint cut into 2 to 5 commands, and a mobile robot, of which"
        " the share of the goals that it reached is reported; all by their presets.",
        tuple(tasks),
    )


def _smoke() -> Suite:
    return Suite(
        "smoke",
        "Smoke",
        "Two short tasks that tell within a minute whether learning has got worse. CI compares with them.",
        (
            Task("CartPole-v1", 6, {"steps": 20_000, "eval_every": 2_500}, first=FRESH),
            Task("Catch-bsuite", 6, {"steps": 5_000, "eval_every": 2_500}),
        ),
    )


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            _classic(),
            _minatar(
                "minatar",
                "MinAtar",
                "Sticky actions (0.1) and all six actions, a million frames, one preset for all games.",
                {},
                here=_PAPER_HERE,
            ),
            _minatar(
                "minatar-5m",
                "MinAtar, five million frames",
                "Sticky actions (0.1) and all six actions, five million frames, one recipe for all games:"
                " the preset with the squared error and Double Q-learning in place of quantiles and"
                " Munchausen's bonus, and an update per twelve frames in place of four.",
                {
                    "recipe": _FIVE_MILLION,
                    "steps": 5_000_000,
                    "eval_every": 250_000,
                },
            ),
            _minatar(
                "minatar-dqn",
                "MinAtar, the paper's DQN by qhat's engine",
                "What others are measured by: the network, settings and optimiser of MinAtar's paper,"
                " for a million frames. Sticky actions (0.1) and all six actions, as everywhere here. Other"
                " than in their program, ε falls from the first frame on, episodes are cut at 5,000 steps,"
                " and scores are of greedy episodes, where theirs are of those that explored.",
                {"recipe": _PAPER, "eval_every": 50_000},
            ),
            _robots(),
            atari.hundred_thousand(),
            *atari.pong(),
            _smoke(),
        )
    }
)


def suite_of(name: str) -> Suite:
    """Return a suite by its name. Raises `UsageError` if it is unknown."""
    if name not in SUITES:
        raise UsageError(
            f"Suite '{name}' is not known; expected one of {', '.join(SUITES)}." + near_miss(name, SUITES)
        )
    return SUITES[name]
