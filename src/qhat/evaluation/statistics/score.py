"""What an evaluation of several seeds in one environment comes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qhat.evaluation.outcomes import Played
from qhat.evaluation.statistics.bootstrap import stratified_bootstrap_ci
from qhat.evaluation.statistics.estimates import finite, iqm
from qhat.system.display import card
from qhat.system.errors import require


@dataclass(frozen=True)
class Score:
    """How well a set of independently trained seeds does in one environment.

    Attributes:
        env: The environment's id.
        episodes: Evaluation episodes per seed.
        mean_return: Mean undiscounted return over all the episodes of all the seeds.
        std_return: Population standard deviation over the same episodes: the spread of single
            episodes, not the uncertainty of the mean.
        iqm: Interquartile mean of `per_seed` (arXiv:2108.13264).
        ci95: `[low, high]`, the bootstrap 95% interval of `iqm` over seeds; None with one seed,
            which says nothing about how another seed would have done.
        per_seed: Mean undiscounted return of each seed.
        mean_length: Mean number of steps over all the episodes of all the seeds.
        success_rate: Share of all the tries at the task's goal that succeeded; None in a task that does
            not tell.
        success_per_seed: The same of each seed.
        attempts: Number of those tries; None as above.
        saturation: Of each joint, the share of the steps at which its command was one of its bounds; None
            where actions are no commands.
        smoothness: Mean |Δ command| from step to step, in the environment's units; None as above.
        broken: Episodes that broke off because the environment's numbers were not finite.
        cut: Episodes that were not over when the evaluation ended them; they count with what they had.
        cut_at: Steps after which it does.
    """

    env: str
    episodes: int
    mean_return: float
    std_return: float
    iqm: float
    ci95: list[float] | None
    per_seed: list[float]
    mean_length: float | None = None
    success_rate: float | None = None
    success_per_seed: list[float] | None = None
    attempts: int | None = None
    saturation: list[float] | None = None
    smoothness: float | None = None
    broken: int = 0
    cut: int = 0
    cut_at: int | None = None

    def __repr__(self) -> str:
        """Return the score with its interval, and of how many seeds and episodes it is."""
        sure = "" if self.ci95 is None else f" [{self.ci95[0]:.4g}, {self.ci95[1]:.4g}]"
        return f"Score({self.env!r}, {self.iqm:.4g}{sure}, {len(self.per_seed)} seed(s) × {self.episodes})"

    def _repr_html_(self) -> str:
        """Return the score as a table, for notebooks."""
        sure = "none: only one seed" if self.ci95 is None else "{:.4g} to {:.4g}".format(*self.ci95)
        rows: dict[str, Any] = {"IQM over seeds": f"{self.iqm:.4g}", "95% interval": sure}
        rows["mean ± std over episodes"] = f"{self.mean_return:.4g} ± {self.std_return:.4g}"
        rows["per seed"] = ", ".join(f"{score:.4g}" for score in self.per_seed)
        rows["episodes"] = f"{self.episodes} per seed, greedy, fresh"
        if self.success_rate is not None:
            rows["success"] = f"{self.success_rate:.1%} of {self.attempts}"
        if self.cut:
            rows["cut"] = f"{self.cut} after {self.cut_at} steps"
        return card(f"Score in {self.env}", rows)

    @classmethod
    def of(cls, env: str, returns: ArrayLike, **fields: Any) -> Score:
        """Summarise evaluation returns.

        Args:
            env: The environment's id.
            returns: Undiscounted returns `[seeds, episodes]`, in the environment's unit of reward.
            fields: Other fields of the score.

        Raises:
            UsageError: If the returns are not a finite, non-empty matrix.
        """
        values = finite(returns, f"returns of {env}")
        require(
            values.ndim == 2,
            f"returns of {env} has shape {values.shape}, expected [seeds, episodes].",
        )
        per_seed = values.mean(axis=1)
        several = len(per_seed) > 1
        return cls(
            env=env,
            episodes=values.shape[1],
            mean_return=float(values.mean()),
            std_return=float(values.std()),
            iqm=iqm(per_seed),
            # One environment is one task, hence one column.
            ci95=stratified_bootstrap_ci(per_seed[:, None], iqm).tolist() if several else None,
            per_seed=per_seed.tolist(),
            **fields,
        )

    @classmethod
    def of_played(cls, env: str, played: Played, commanded: bool) -> Score:
        """Summarise episodes `[seeds, episodes]`.

        Args:
            commanded: whether actions are commands of joints.
        """
        fields: dict[str, Any] = {"mean_length": float(played.lengths.mean())}
        fields["broken"] = int(played.broken.sum())
        fields["cut"] = int(played.cut.sum())
        if fields["cut"]:
            # Rows of resets are no steps of an episode.
            fields["cut_at"] = int(played.lengths.max())
        if played.attempts.sum():
            fields["success_rate"] = float(played.success_rate())
            fields["attempts"] = int(played.attempts.sum())
            fields["success_per_seed"] = played.success_rate(axis=1).tolist()
        if commanded:
            fields["saturation"] = played.saturation().mean(axis=0).tolist()
            fields["smoothness"] = float(played.smoothness())
        return cls.of(env, played.returns, **fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, under their own names."""
        return asdict(self)


def mean_of_finite(values: np.ndarray) -> np.ndarray:
    """Mean over iterations `[S, N] → [S]`, of those that made an update; NaN where none did."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.nan)
