"""Scores over seeds, against SciPy and a naive bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qhat.errors import UsageError
from qhat.statistics import Score, iqm, stratified_bootstrap_ci


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
    seen: set[tuple[float, ...]] = set()

    def spy(sample: np.ndarray) -> float:
        assert sample.shape == scores.shape
        assert set(sample[:, 0]) <= {0.0, 1.0, 2.0}
        assert set(sample[:, 1]) <= {100.0, 101.0, 102.0}
        seen.update(map(tuple, sample))
        return 0.0

    stratified_bootstrap_ci(scores, spy, repetitions=200)
    assert len(seen) == 9, "rows of the sample pair every seed of one task with every of the other"


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
    fields += ["broken"]
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
