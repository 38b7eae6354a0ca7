"""Weighted importance sampling: a policy's return from logs with the probabilities of their actions.

The policy is greedy, so an episode counts as long as its actions are the policy's, by the product of
1/μ(a|s) over its steps. The weights of each step are normalised over the episodes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

RESAMPLES = 1_000
FEWEST = 10.0
"""Episodes' worth of weight at the end, below which an estimate rests on a few episodes."""


@dataclasses.dataclass(frozen=True)
class Weighted:
    """An estimate of the discounted return from the first step."""

    value: float
    interval: tuple[float, float]
    """95%, over resampled episodes."""
    effective: float
    """Effective number of episodes at the end of the longest: (Σ w)² / Σ w²."""


def weighted_return(
    spans: list[np.ndarray],
    reward: np.ndarray,
    same: np.ndarray,
    probability: np.ndarray,
    gamma: float,
    q: np.ndarray | None = None,
    v: np.ndarray | None = None,
    seed: int = 0,
) -> Weighted:
    """Estimate a policy's return, per decision (Precup, Sutton & Singh 2000), or doubly robust with values.

    With `q` and `v` it is the weighted doubly robust estimator (Thomas & Brunskill 2016,
    arXiv:1604.00923): values stand for what the weights have lost, and weights put right what values miss.

    Args:
        spans: rows of each episode.
        reward: `[T]`.
        same: `[T]`, whether the policy takes the recorded action.
        probability: `[T]`, of the recorded action, by those who recorded it.
        q: `[T]`, the policy's value of the recorded action.
        v: `[T]`, the policy's value of the observation.
    """
    N, L = len(spans), max(len(span) for span in spans)
    # After its end an episode keeps its weight, and earns nothing.
    ratio, gains = np.zeros((N, L)), np.zeros((N, L))
    values, judged = np.zeros((N, L)), np.zeros((N, L))
    for row, span in enumerate(spans):
        here = slice(0, len(span))
        ratio[row, here] = np.where(same[span], -np.log(probability[span]), -np.inf)
        gains[row, here] = reward[span]
        if q is not None and v is not None:
            judged[row, here], values[row, here] = q[span], v[span]
    # In logarithms, as products over a thousand steps overflow. Only shares of each step's sum count.
    logs = np.cumsum(ratio, axis=1)
    most = logs.max(axis=0)
    weight = np.exp(logs - np.where(np.isfinite(most), most, 0.0))
    before = np.concatenate([np.ones((N, 1)), weight[:, :-1]], axis=1)
    discount = gamma ** np.arange(L)

    def estimate(drawn: np.ndarray) -> float:
        now, old = _shares(weight[drawn]), _shares(before[drawn])
        parts = now * gains[drawn] - now * judged[drawn] + old * values[drawn]
        return float((discount * parts.sum(axis=0)).sum())

    rng = np.random.default_rng(seed)
    several = [estimate(rng.integers(N, size=N)) for _ in range(RESAMPLES)]
    last = _shares(weight)[:, -1]
    effective = float(1.0 / np.sum(last**2)) if last.any() else 0.0
    low, high = np.quantile(several, [0.025, 0.975])
    return Weighted(estimate(np.arange(N)), (float(low), float(high)), effective)


def _shares(weight: np.ndarray) -> np.ndarray:
    """Return the weights `[N, L]` as shares of each step's sum; 0 where no episode is left."""
    sums = weight.sum(axis=0)
    return np.where(sums > 0, weight / np.where(sums > 0, sums, 1.0), 0.0)
