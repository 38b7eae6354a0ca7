"""Scores over seeds and tasks: estimates, bootstrap intervals, and one recipe beside another.

The definitions are those of Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the
Statistical Precipice", arXiv:2108.13264, and of their library, rliable.
"""

from qhat.evaluation.statistics.bootstrap import bootstrap_ci, percentile_interval, stratified_bootstrap_ci
from qhat.evaluation.statistics.estimates import (
    iqm,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    score_distribution,
)
from qhat.evaluation.statistics.score import Score, mean_of_finite

__all__ = [
    "Score",
    "bootstrap_ci",
    "iqm",
    "mean",
    "mean_of_finite",
    "median",
    "optimality_gap",
    "percentile_interval",
    "probability_of_improvement",
    "score_distribution",
    "stratified_bootstrap_ci",
]
