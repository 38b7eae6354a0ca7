"""What rliable says of some scores: tests/evaluation/rliable.json, the reference of test_statistics.py.

rliable 1.2.0 holds arch below 8, which does not import beside pandas 3, so it gets a venv of its own:

    python -m venv .venv-rliable
    .venv-rliable/bin/pip install rliable==1.2.0 'pandas<3'
    .venv-rliable/bin/python tools/rliable_reference.py > tests/evaluation/rliable.json

rliable resamples by NumPy's global legacy generator, whose stream is frozen: its seed says which.
"""

import importlib.metadata
import json
import sys
from typing import Any

import numpy as np

REPETITIONS = 1000
THRESHOLDS = [-1.0, 0.0, 0.25, 0.5, 1.0, 1.5, 3.0]
GAMMAS = [1.0, 0.4]


def drawn(seed: int, seeds: int, tasks: int, ties: bool) -> np.ndarray:
    scores = np.random.RandomState(seed).normal(np.linspace(0, 1, tasks), 0.7, (seeds, tasks))
    return np.round(scores, 1 if ties else 12)


def main() -> None:
    # Not in the project's venv; see above.
    from rliable import library, metrics  # pyright: ignore[reportMissingImports]

    def aggregates(scores: np.ndarray) -> np.ndarray:
        gaps = [metrics.aggregate_optimality_gap(scores, gamma) for gamma in GAMMAS]
        named = (metrics.aggregate_iqm, metrics.aggregate_mean, metrics.aggregate_median)
        return np.array([*(estimate(scores) for estimate in named), *gaps])

    def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([metrics.probability_of_improvement(x, y)])

    def case(number: int, seeds: int, others: int, tasks: int, ties: bool) -> dict[str, Any]:
        x, y = drawn(10 + number, seeds, tasks, ties), drawn(20 + number, others, tasks, ties)
        np.random.seed(number)
        points, intervals = library.get_interval_estimates({"x": x}, aggregates, reps=REPETITIONS)
        np.random.seed(number)
        profile, band = library.create_performance_profile({"x": x}, THRESHOLDS, reps=REPETITIONS)
        np.random.seed(number)
        wins, ends = library.get_interval_estimates({"xy": [x, y]}, improvement, reps=REPETITIONS)
        return {
            "seed": number, "x": x.tolist(), "y": y.tolist(),
            "aggregates": points["x"].tolist(), "aggregates_ci95": intervals["x"].tolist(),
            "profile": profile["x"].tolist(), "profile_ci95": band["x"].tolist(),
            "improvement": wins["xy"].tolist(), "improvement_ci95": ends["xy"].tolist(),
        }  # fmt: skip

    sizes = [(5, 5, 1, False), (8, 3, 3, True), (10, 10, 6, False), (2, 7, 4, True)]
    cases = [case(number, *size) for number, size in enumerate(sizes)]
    versions = {name: importlib.metadata.version(name) for name in ("rliable", "arch", "numpy", "scipy")}
    facts = {"versions": versions, "repetitions": REPETITIONS, "thresholds": THRESHOLDS, "gammas": GAMMAS}
    json.dump({**facts, "cases": cases}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
