"""What a suite of `qhat benchmark` is made of: tasks, their seeds, and published results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from qhat.axes.axis import AxisValue, spell
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError, near_miss

Number = int | float


@dataclasses.dataclass(frozen=True)
class Published:
    """One published score."""

    system: str
    score: Number
    steps: int | None
    """Environment steps after which it was measured; None if not stated."""
    source: str
    """Key of `SOURCES`."""
    about: str = ""
    """Caveats of the comparison: number of runs, another version of the environment."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment and how it is trained."""

    env: str
    seeds: int
    """Default number of seeds (`--seeds`). An even number fills two cores."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `TrainConfig` that replace those of the preset, or of the default recipe."""
    measure: Literal["return", "success"] = "return"
    """Reported measure: the mean return, or the share of successful attempts."""
    published: tuple[Published, ...] = ()
    first: int = 0
    """First reported seed; lower seeds were used while settings were chosen."""
    players: tuple[Number, Number] | None = None
    """Scores of a random player and of a human, which are 0 and 1 of a human-normalised score."""

    def config(self, seeds: int, seed: int, run_dir: Path | None = None) -> TrainConfig:
        """Return the training configuration."""
        settings = {**self.settings, "seeds": seeds, "seed": seed, "run_dir": run_dir}
        return TrainConfig.of(self.env, **settings)

    def changed(self, parts: Mapping[str, AxisValue]) -> Task:
        """Return the task with other parts, by axis, in its recipe."""
        settings = dict(self.settings)
        if isinstance(recipe := settings.get("recipe"), Recipe):
            settings["recipe"] = dataclasses.replace(recipe, **parts)
        else:
            settings |= parts
        return dataclasses.replace(self, settings=settings)


@dataclasses.dataclass(frozen=True)
class Suite:
    """The tasks of one table."""

    name: str
    title: str
    about: str
    tasks: tuple[Task, ...]

    def task(self, name: str) -> Task:
        """Return the task of an environment. Raises `UsageError` if the suite has none."""
        named = {task.env: task for task in self.tasks}
        if name not in named:
            raise UsageError(
                f"Suite '{self.name}' has no task '{name}'; it has {', '.join(named)}."
                + near_miss(name, named)
            )
        return named[name]

    def changed(self, parts: Mapping[str, AxisValue]) -> Suite:
        """Return the suite with other parts, by axis, in every task's recipe."""
        if not parts:
            return self
        tasks = tuple(task.changed(parts) for task in self.tasks)
        spelled = ", ".join(f"{axis} {spell(part)}" for axis, part in parts.items())
        about = f"{self.about} In every recipe: {spelled}."
        return dataclasses.replace(self, about=about, tasks=tasks)


SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "rl-zoo": "rl-baselines3-zoo, benchmark.md, https://github.com/DLR-RM/rl-baselines3-zoo",
        "SLM-Lab": "SLM-Lab's benchmark tables, https://github.com/kengz/SLM-Lab",
        "CleanRL": "CleanRL's documentation of dqn.py and c51.py, https://docs.cleanrl.dev",
        "rlox": "rlox's published run of Stable-Baselines3",
        "MinAtar": "Young & Tian 2019, https://arxiv.org/abs/1903.03176",
        "minatar-dqn": "its recipe, `qhat benchmark minatar-dqn`, docs/results/minatar-dqn.md",
        "ensembles": "published tables of ensemble methods on MinAtar at 5 million frames",
        "pgx": "pgx's PPO on its own MinAtar, https://github.com/sotetsuk/pgx",
        "DER": "van Hasselt et al. 2019, https://arxiv.org/abs/1906.05243",
        "rliable": "Agarwal et al. 2021, https://arxiv.org/abs/2108.13264; its runs as kept in"
        " https://github.com/eloialonso/iris, results/data",
        "simbav2": "result files of SimbaV2's and FlashSAC's repositories, an action repeat of 2 being two"
        " steps, https://github.com/dojeon-ai/SimbaV2",
        "tdmpc2": "tdmpc2's published result files, https://github.com/nicklashansen/tdmpc2",
    }
)
"""Sources of the published scores."""
