"""Invented facts of a run for reports: nothing is wrong, and tests add faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import qhat
from qhat.evaluation.diagnosis import Diagnosis
from qhat.evaluation.plasticity import Plasticity
from qhat.evaluation.statistics import Score
from qhat.reports.reading import Evaluated, Facts, Trace
from qhat.runs.folder import RunFolder

LITE = qhat.recipes.get("rainbow_lite")
COMMAND = "qhat train CartPole-v1 --recipe rainbow_lite --seeds 2 --steps 1200 --run-dir runs/x --json"


def score(*per_seed: float) -> Score:
    return Score.of("CartPole-v1", np.repeat(np.array(per_seed, float)[:, None], 3, axis=1))


def evaluated(*seeds: list[float], error: float = 1.0) -> Evaluated:
    scores = np.array(seeds, float)
    return Evaluated(100.0 * np.arange(1, 1 + scores.shape[1]), scores, np.full(scores.shape, error))


def diagnosis(bias: float, dead: float = 0.1, **changes: Any) -> Diagnosis:
    fields = {"q": [10.0 + bias, 10.5 + bias], "value": [10.0, 10.5], "error": [0.1, 0.1], "scale": 10.0,
              "states": 500, "observations": 5_000, "horizon": 44, "dead": [dead, dead],
              "dead_by_layer": {"hidden0": dead}}  # fmt: skip
    return Diagnosis(**(fields | changes))


def able(growth: float = 2.0, rank: float = 30.0) -> Plasticity:
    return Plasticity([1.5, growth], ["value_hidden", "hidden0"], [32.0, rank], [40.0, 40.0])


def some_facts(**changes: Any) -> Facts:
    """A run of two seeds with nothing wrong in its files."""
    config = {"env": "CartPole-v1", "recipe_name": "rainbow_lite", "seeds": 2, "seed": 0, "steps": 1_200}
    fields: dict[str, Any] = {
        "folder": RunFolder(Path("runs/x")), "config": config, "recipe": LITE, "baseline": LITE,
        "system": {}, "command": COMMAND, "evaluated": evaluated(LEVEL, LEVEL), "traces": {},
        "clipped": 0.0, "broken": 0, "skipped": 0, "troubles": (),
    }  # fmt: skip
    return Facts(**{**fields, **changes})


RISING = list(np.linspace(10, 400, 12))
LEVEL = [*np.linspace(10, 400, 6), *[400.0] * 6]
FALLEN = [*LEVEL[:-1], 90.0]
EPSILON = {"epsilon": Trace(np.array([400.0]), np.array([[0.9]]))}
