"""What is done with the weights of an `Agent`: they are scored, and written as a run."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qhat.agent.made import played
from qhat.agent.to_run import Situation, write_run
from qhat.environments.user_envs import EnvLike
from qhat.evaluation.statistics import Score
from qhat.runs.run import Run
from qhat.system.errors import UsageError


class Evaluated(abc.ABC):
    """Has weights that play greedy episodes."""

    @abc.abstractmethod
    def _situation(self) -> Situation:
        """Return the weights of now, and what led to them."""

    def evaluate(
        self,
        env: str | EnvLike | None = None,
        *,
        episodes: int = 100,
        seed: int = 1_000_000,
        env_kwargs: Mapping[str, Any] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Score:
        """Score the weights of now in fresh greedy episodes of `env`; see `qhat.evaluate`."""
        if env is None:
            raise UsageError("An agent knows no environment; expected one: qhat.evaluate(agent, env).")
        now, options = self._situation(), {"episodes": episodes, "seed": seed, "progress": progress}
        return played(now.program, now.online, env, env_kwargs, **options).score

    def to_run(
        self,
        env: str | EnvLike,
        *,
        run_dir: Path | str | None = None,
        episodes: int = 20,
        env_kwargs: Mapping[str, Any] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Run:
        """Evaluate the weights of now in `env`, and write a run: for `plot`, `compare`, `report`, `export`.

        Args:
            run_dir: folder; one that an earlier call wrote gets the next evaluation, which makes a curve.
                Default: runs/<env>/<recipe>/<date-time>.
            episodes: greedy episodes, which also choose the best weights of the folder.

        Raises:
            UsageError: `env` has other spaces, or the folder is of something else.
        """
        where = None if run_dir is None else Path(run_dir)
        return write_run(self._situation(), env, where, env_kwargs or {}, episodes, progress)
