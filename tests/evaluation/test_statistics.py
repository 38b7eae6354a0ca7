"""Scores over seeds, against rliable, SciPy and a naive bootstrap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qhat.evaluation.statistics import (
    Score,
    bootstrap_ci,
    iqm,
    mean,
    median,
    optimality_gap,
    percentile_interval,
    probability_of_improvement,
    score_distribution,
    stratified_bootstrap_ci,
)
from qhat.evaluation.statistics.bootstrap import resampled
from qhat.system.errors import UsageError

RLIABLE = json.loads((Path(__file__).parent / "rliable.json").read_text())
"""What rliable 1.2.0 said; tools/rliable_reference.py has the commands."""
MATRICES = st.integers(1, 5).flatmap(
    lambda tasks: st.tuples(
        *[st.lists(st.lists(st.integers(-9, 9), min_size=tasks, max_size=tasks), min_size=1, max_size=9)]
        * 2
    )
)
"""Two matrices of scores of the same tasks; whole numbers, so that there are ties."""


def aggregates(scores: np.ndarray) -> np.ndarray:
    gaps = [optimality_gap(scores, gamma) for gamma in RLIABLE["gammas"]]
    return np.array([iqm(scores), mean(scores), median(scores), *gaps])


def replayed(seed: int, statistic: Callable[..., Any], *samples: np.ndarray) -> np.ndarray:
    """Return the interval from the seeds that rliable drew, with NumPy's frozen legacy generator."""
    generator = np.random.RandomState(seed)
    replicates = [
        np.asarray(statistic(*(resampled(x, generator.choice(len(x), x.shape)) for x in samples)))
        for _ in range(RLIABLE["repetitions"])
    ]
    return percentile_interval(np.stack(replicates))


@pytest.mark.parametrize("case", RLIABLE["cases"], ids=lambda case: f"case {case['seed']}")
def test_estimates_and_intervals_are_rliables(case: dict[str, Any]) -> None:
    x, y, seed = np.array(case["x"]), np.array(case["y"]), case["seed"]

    def profile(scores: np.ndarray) -> np.ndarray:
        return score_distribution(scores, RLIABLE["thresholds"])

    def wins(*pair: np.ndarray) -> float:
        return probability_of_improvement(*pair)

    for name, statistic, samples in (
        ("aggregates", aggregates, (x,)), ("profile", profile, (x,)), ("improvement", wins, (x, y)),
    ):  # fmt: skip
        np.testing.assert_allclose(
            np.atleast_1d(statistic(*samples)), case[name], rtol=0, atol=1e-6, err_msg=name
        )
        interval = np.array(case[f"{name}_ci95"])
        ends = replayed(seed, statistic, *samples).reshape(interval.shape)
        np.testing.assert_allclose(ends, interval, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", RLIABLE["cases"], ids=lambda case: f"case {case['seed']}")
def test_intervals_of_our_draws_agree_with_rliables_within_chance(case: dict[str, Any]) -> None:
    x, y = np.array(case["x"]), np.array(case["y"])
    theirs = np.array(case["aggregates_ci95"])
    ours = stratified_bootstrap_ci(x, aggregates, repetitions=RLIABLE["repetitions"])
    # An end of 1,000 draws is off by about 2% of a normal interval's width (one standard error).
    width = theirs[1] - theirs[0]
    assert np.all(np.abs(ours - theirs) <= 0.15 * width)
    ours = bootstrap_ci([x, y], probability_of_improvement, repetitions=RLIABLE["repetitions"])
    assert np.all(np.abs(ours - np.ravel(case["improvement_ci95"])) <= 0.08)


@given(MATRICES)
def test_improvement_is_the_mann_whitney_statistic(pair: tuple[list, list]) -> None:
    x, y = (np.array(scores, float) for scores in pair)
    each = [stats.mannwhitneyu(x[:, task], y[:, task]).statistic for task in range(x.shape[1])]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(each) / (len(x) * len(y)))
    assert probability_of_improvement(y, x) == pytest.approx(1 - probability_of_improvement(x, y))


@given(MATRICES)
def test_estimates_are_what_they_are_called(pair: tuple[list, list]) -> None:
    scores, (thresholds, *_) = np.array(pair[0], float), pair[1]
    assert median(scores) == pytest.approx(np.median(scores.mean(axis=0)))
    assert median(scores[:, 0]) == np.median(scores[:, 0])
    above = [np.mean(scores > threshold) for threshold in thresholds]
    np.testing.assert_allclose(score_distribution(scores, thresholds), above)
    assert optimality_gap(scores, 2.0) == pytest.approx(np.mean(np.maximum(2.0 - scores, 0)))


def test_samples_of_other_tasks_are_refused() -> None:
    with pytest.raises(UsageError, match=r"shapes \(2, 1\) and \(2, 2\), expected .* same tasks"):
        probability_of_improvement(np.ones((2, 1)), np.ones((2, 2)))
    with pytest.raises(UsageError, match="one seed"):
        bootstrap_ci([np.ones((2, 1)), np.ones((1, 1))], probability_of_improvement)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_iqm_is_the_trimmed_mean(scores: list[float]) -> None:
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-9, abs=1e-6)


def test_iqm_flattens_or_reduces_an_axis() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 5))
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores.flatten(), 0.25))
    for axis in (0, 1, -1):
        np.testing.assert_allclose(iqm(scores, axis=axis), stats.trim_mean(scores, 0.25, axis))


def test_iqm_ignores_an_outlier_and_leaves_its_input_alone() -> None:
    scores = np.array([1000.0, 1.0, 2.0, 3.0])
    assert iqm(scores) == 2.5
    assert scores.tolist() == [1000.0, 1.0, 2.0, 3.0]


def test_interval_agrees_with_a_naive_bootstrap() -> None:
    scores = np.random.default_rng(1).normal(loc=[0.0, 10.0, -5.0], scale=[1, 4, 2], size=(8, 3))
    generator = np.random.default_rng(2)
    replicates = []
    for _ in range(4000):
        resampled = [
            [scores[generator.integers(8), task] for _ in range(8)]  # within its own task
            for task in range(3)
        ]
        replicates.append(stats.trim_mean(np.array(resampled).flatten(), 0.25))
    naive = np.quantile(replicates, [0.025, 0.975])
    width = naive[1] - naive[0]
    ours = stratified_bootstrap_ci(scores, iqm, repetitions=4000)
    np.testing.assert_allclose(ours, naive, atol=0.06 * width)


def test_tasks_are_resampled_within_themselves_and_independently() -> None:
    scores = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0]])
    rows: set[tuple[float, ...]] = set()

    def spy(sample: np.ndarray) -> float:
        assert sample.shape == scores.shape
        assert set(sample[:, 0]) <= {0.0, 1.0, 2.0}
        assert set(sample[:, 1]) <= {100.0, 101.0, 102.0}
        rows.update(map(tuple, sample))
        return 0.0

    stratified_bootstrap_ci(scores, spy, repetitions=200)
    assert len(rows) == 9, "rows of the sample pair every seed of one task with every of the other"


def test_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        scores = generator.normal(loc=7.0, size=(20, 1))
        low, high = stratified_bootstrap_ci(scores, iqm, repetitions=200)
        covered += low <= 7.0 <= high
    # The percentile interval is known to be slightly narrow for few seeds.
    assert 0.85 <= covered / 200 <= 0.99


def test_interval_is_reproducible_and_grows_with_confidence() -> None:
    scores = np.random.default_rng(4).normal(size=(6, 2))
    low, high = stratified_bootstrap_ci(scores, iqm)
    np.testing.assert_array_equal(stratified_bootstrap_ci(scores, iqm), [low, high])
    wide = stratified_bootstrap_ci(scores, iqm, confidence=0.99)
    assert wide[0] < low < iqm(scores) < high < wide[1]
    assert stratified_bootstrap_ci(scores, iqm, seed=1).tolist() != [low, high]


def test_a_statistic_may_return_an_array() -> None:
    scores = np.random.default_rng(5).normal(size=(6, 4))
    interval = stratified_bootstrap_ci(scores, lambda sample: iqm(sample, axis=0))
    assert interval.shape == (2, 4)
    assert np.all(interval[0] < interval[1])


def test_score_of_several_seeds() -> None:
    returns = np.array([[1.0, 3.0], [2.0, 6.0], [0.0, 0.0], [10.0, 30.0], [5.0, 7.0]])
    score = Score.of("CartPole-v1", returns)
    assert score.episodes == 2
    assert score.per_seed == [2.0, 4.0, 0.0, 20.0, 6.0]
    assert score.mean_return == pytest.approx(returns.mean())
    assert score.std_return == pytest.approx(returns.std())
    assert score.iqm == pytest.approx(4.0)
    assert score.ci95 is not None
    assert 0.0 <= score.ci95[0] < score.iqm < score.ci95[1] <= 20.0
    fields = ["env", "episodes", "mean_return", "std_return", "iqm", "ci95", "per_seed"]
    fields += ["mean_length", "success_rate", "success_per_seed", "attempts", "saturation", "smoothness"]
    fields += ["broken", "cut", "cut_at"]
    assert list(score.to_json()) == fields
    assert json.loads(json.dumps(score.to_json())) == score.to_json()


def test_one_seed_has_no_interval() -> None:
    score = Score.of("CartPole-v1", [[1.0, 2.0, 3.0]])
    assert score.ci95 is None
    assert score.iqm == score.mean_return == 2.0
    assert json.loads(json.dumps(score.to_json()))["ci95"] is None


@pytest.mark.parametrize("bad", [[], [[], []], [[1.0, float("nan")]], [[float("inf"), 1.0]]])
def test_empty_or_nan_scores_are_refused_in_a_sentence(bad: list) -> None:
    attempts = (
        lambda: iqm(bad),
        lambda: stratified_bootstrap_ci(bad, iqm),
        lambda: Score.of("CartPole-v1", bad),
    )
    for attempt in attempts:
        with pytest.raises(UsageError, match=r"^(scores|returns of CartPole-v1) .*expected.*\.$"):
            attempt()


def test_wrong_shapes_and_options_are_refused() -> None:
    matrix = np.ones((3, 2))
    with pytest.raises(UsageError, match="shape"):
        Score.of("CartPole-v1", [1.0, 2.0])
    with pytest.raises(UsageError, match="shape"):
        stratified_bootstrap_ci([1.0, 2.0], iqm)
    with pytest.raises(UsageError, match="one seed"):
        stratified_bootstrap_ci([[1.0, 2.0]], iqm)
    with pytest.raises(UsageError, match="confidence"):
        stratified_bootstrap_ci(matrix, iqm, confidence=95.0)
    with pytest.raises(UsageError, match="repetitions"):
        stratified_bootstrap_ci(matrix, iqm, repetitions=0)
