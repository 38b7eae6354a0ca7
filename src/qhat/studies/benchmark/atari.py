"""Suites of Atari games that two cores can carry: 100,000 steps of eight games, and Pong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Categorical
from qhat.axes.merge import Dueling
from qhat.axes.optimiser import Adam
from qhat.axes.policy import Double
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Soft
from qhat.axes.torso import DataEfficient, Nature
from qhat.recipes import dqn, rainbow
from qhat.recipes.presets import CONTROL_SEEDS as FRESH
from qhat.recipes.recipe import Recipe
from qhat.studies.benchmark.tasks import Number, Published, Suite, Task

STEPS = 100_000
"""Steps of the agent: 400,000 frames, two hours of play (Kaiser et al. 2020, arXiv:1903.00374)."""

GAMES: Mapping[str, tuple[Number, ...]] = {
    # The random player, the human, then as in SYSTEMS.
    "Assault": (222.4, 742.0, 431.2, 500.9, 579.6, 565.6),
    "BattleZone": (2360.0, 37187.5, 10124.6, 8997.8, 10165.3, 14834.1),
    "ChopperCommand": (811.0, 7387.8, 861.8, 783.5, 844.6, 946.3),
    "Freeway": (0.0, 29.6, 27.9, 28.3, 20.3, 19.3),
    "Hero": (1027.0, 30826.4, 6857.0, 4987.7, 4167.9, 5858.6),
    "Krull": (1598.0, 2665.5, 2851.5, 3049.2, 4402.1, 3681.6),
    "Pong": (-20.7, 14.6, -19.3, -18.5, -9.1, -5.4),
    "RoadRunner": (11.5, 7845.0, 9600.0, 5006.1, 11211.4, 12213.1),
}
"""Every third of the 26 games by name, from the third on: chosen before any was played."""
SYSTEMS = (
    ("data-efficient Rainbow", "DER", "5 runs"),
    ("CURL", "rliable", "100 runs"),
    ("DrQ(ε)", "rliable", "100 runs"),
    ("SPR", "rliable", "100 runs"),
)

# Data-efficient Rainbow's network and n (van Hasselt et al. 2019, arXiv:1906.05243), DrQ's shifts, and ε in
# place of noise, as in DrQ(ε): one update per step of a small network. Chosen between two settings on seed
# 2000 of Boxing, which is none of the games.
RECIPE = Recipe(
    torso=DataEfficient(), hidden=(256,), head=Categorical(), policy=Double(), merge=Dueling(), n_step=10,
    random_shift=4, sampler=Prioritised(alpha=0.5), explore=EpsilonGreedy(1.0, 0.01, steps=5_000),
    target=Soft(0.005), optimiser=Adam(1.5e-4), learning_rate=1e-4, max_gradient_norm=10.0, batch_size=32,
    replay_ratio=1.0, replay_capacity=STEPS, learning_starts=1_600,
)  # fmt: skip

# The benchmark's rules: no sticky actions, and a life is an episode of what is learned.
RULES = {"repeat_action_probability": 0.0, "episodic_life": True}


def hundred_thousand() -> Suite:
    """Return `atari-100k`."""
    tasks = []
    for game, (random, human, *scores) in GAMES.items():
        rows = tuple(
            Published(system, score, STEPS, source, runs)
            for (system, source, runs), score in zip(SYSTEMS, scores, strict=True)
        )
        settings = {
            "recipe": RECIPE, "env_kwargs": RULES, "steps": STEPS, "eval_every": STEPS, "eval_episodes": 10,
            "save_every": STEPS // 10,
        }  # fmt: skip
        tasks.append(Task(f"{game}-v5", 3, settings, published=rows, players=(random, human)))
    return Suite(
        "atari-100k",
        "Atari, 100,000 steps",
        "400,000 frames, no sticky actions, the actions that a game has; a lost life ends an episode in"
        " training, and scores are of whole games; after a lost life EnvPool lets up to 30 frames pass, in"
        " these games too. The games are every third of the 26 by name, from the"
        " third on, chosen before any was played. One recipe for all. The last weights are the result.",
        tuple(tasks),
    )


# With the small encoder DQN was at −16.5 after 600,000 steps of seed 0; so seeds begin later here.
_PONG = {
    "torso": Nature(), "hidden": (512,), "target": Soft(0.005), "learning_rate": 3e-4,
    "learning_rate_end": 5e-5, "batch_size": 32, "num_envs": 4, "replay_ratio": 0.25,
    "replay_capacity": 200_000, "learning_starts": 10_000,
}  # fmt: skip
DQN = dataclasses.replace(dqn, explore=EpsilonGreedy(1.0, 0.01, steps=50_000), **_PONG)
RAINBOW = dataclasses.replace(rainbow, **_PONG)


def pong() -> tuple[Suite, Suite]:
    """Return `pong-dqn` and `pong-rainbow`."""
    about = (
        "Sticky actions (0.25, Machado et al. 2018), six actions; the Nature network, an update of"
        " 32 transitions per four steps."
    )

    def suite(name: str, title: str, recipe: Recipe, steps: int) -> Suite:
        settings = {
            "recipe": recipe, "steps": steps, "eval_every": 50_000, "eval_episodes": 10,
            "save_every": 50_000,
        }  # fmt: skip
        return Suite(name, title, about, (Task("Pong-v5", 3, settings, first=FRESH),))

    return (
        suite("pong-dqn", "Pong by plain DQN", DQN, 1_000_000),
        suite("pong-rainbow", "Pong by Rainbow", RAINBOW, 500_000),
    )
