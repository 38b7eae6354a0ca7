"""The search: Optuna proposes settings, a short training scores them, and poor trials stop early."""

from __future__ import annotations

import dataclasses
import importlib
import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.runs.progress import Progress
from qhat.runs.train import Interrupted, train
from qhat.studies.tuning.space import Dimension, applied
from qhat.studies.tuning.study import COMPLETE, FAILED, PRUNED, Study, Trial
from qhat.system.errors import QhatError, UsageError, in_shell
from qhat.system.machine import require_installed

LAST = 3
"""Number of last evaluations whose mean is a trial's value: a single one is too noisy."""
STARTUP = 5
"""Number of trials before pruning starts."""


def load_optuna() -> Any:
    """Import Optuna. Raises `UsageError` with the command that installs it."""
    require_installed("optuna", "qhat tune needs", "Optuna")
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Search:
    """Asks Optuna for settings and reports their results to it."""

    def __init__(self, study: Study, space: Sequence[Dimension], base: TrainConfig):
        """Create the search, with the study's earlier trials.

        Args:
            base: configuration of a trial, before the searched settings are applied.
        """
        self.optuna = load_optuna()
        self.study, self.space, self.base = study, tuple(space), base
        self.trials = study.trials(space, base.recipe, base.steps)
        self.distributions = {dimension.name: self._distribution(dimension) for dimension in self.space}
        self.asked = self.optuna.create_study(
            direction="maximize", pruner=self.optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
        )
        for trial in self.trials:
            self.asked.add_trial(self._known(trial))

    def _distribution(self, dimension: Dimension) -> Any:
        if dimension.values:
            return self.optuna.distributions.CategoricalDistribution(dimension.values)
        return self.optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=True)

    def _known(self, trial: Trial) -> Any:
        states = self.optuna.trial.TrialState
        return self.optuna.trial.create_trial(
            state={COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}[trial.state],
            params=trial.params,
            distributions=self.distributions,
            intermediate_values=dict(trial.evaluations),
            value=trial.value if trial.state != FAILED else None,
        )

    def run_one(
        self, should_stop: Callable[[], bool], progress: Callable[[Progress], None]
    ) -> Trial | None:
        """Run one trial and log it; return `None` if it was stopped, which leaves nothing behind.

        The proposal depends only on the earlier trials and their number, so a resumed study continues like
        an uninterrupted one.
        """
        proposed = self.ask()
        config = dataclasses.replace(self.config_of(proposed), run_dir=self.study.path / "trial")
        trial = attempt(config, dict(proposed.params), proposed, should_stop, progress)
        return self.record(proposed, trial)

    def ask(self, running: int = 0) -> Any:
        """Return Optuna's proposal.

        Args:
            running: number of trials that train now. The sampler takes their values for poor ones, so that
                it does not propose the same again.
        """
        samplers = self.optuna.samplers
        more = {"constant_liar": True} if running else {}
        with warnings.catch_warnings():
            # Optuna calls this option of its sampler experimental.
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            self.asked.sampler = samplers.TPESampler(seed=len(self.trials) + running, **more)
        return self.asked.ask(self.distributions)

    def config_of(self, proposed: Any) -> TrainConfig:
        """Return what a proposal trains with."""
        recipe = applied(self.space, self.base.recipe, dict(proposed.params), self.base.steps)
        return dataclasses.replace(self.base, recipe=recipe)

    def record(self, proposed: Any, trial: Trial | None) -> Trial | None:
        """Log a trial, if it was not stopped, and return it."""
        self.asked.tell(proposed, state=self.optuna.trial.TrialState.FAIL)
        if trial is not None:
            # Added in the form in which it will be read again, so that the next proposal is the same.
            self.asked.add_trial(self._known(trial))
            self.study.add(trial)
            self.trials.append(trial)
        return trial


def attempt(
    config: TrainConfig,
    params: dict[str, Any],
    proposed: Any,
    should_stop: Callable[[], bool],
    progress: Callable[[Progress], None],
) -> Trial | None:
    """Train a trial in `config.run_dir`, which is removed; return `None` if it was stopped.

    Args:
        params: of the trial.
        proposed: gets its evaluations by `report`, and says by `should_prune` whether it ends early.
    """
    folder = config.run_dir
    assert folder is not None
    watch = _Watch(config, proposed, progress)
    began = time.perf_counter()
    _emptied(folder)
    why = ""
    try:
        train(config.env, config, progress=watch, should_stop=lambda: watch.hopeless or should_stop())
        state = COMPLETE
    except Interrupted:
        if not watch.hopeless:
            return None
        state = PRUNED
    except UsageError:
        raise
    except QhatError as error:
        state, why = FAILED, in_shell(error)
    finally:
        _emptied(folder)
    if not watch.evaluations and state != FAILED:
        state, why = FAILED, "no evaluation gave a finite return"
    value = None if state == FAILED else _value(watch.evaluations)
    seconds = round(time.perf_counter() - began, 2)
    return Trial(params, state, value, tuple(watch.evaluations), seconds, why)


class _Watch:
    """Reports a run's evaluations to Optuna, and remembers whether to stop the trial."""

    def __init__(self, config: TrainConfig, proposed: Any, progress: Callable[[Progress], None]):
        E = config.recipe.num_envs
        self.every, self.end = max(1, config.eval_every // E) * E, config.steps
        self.proposed, self.progress = proposed, progress
        self.evaluations: list[tuple[int, float]] = []
        self.hopeless = False

    def __call__(self, now: Progress) -> None:
        self.progress(now)
        due = now.step % self.every == 0 or now.step >= self.end
        reported = bool(self.evaluations) and self.evaluations[-1][0] >= now.step
        if not due or reported or not math.isfinite(now.evaluation):
            return
        self.evaluations.append((now.step, round(now.evaluation, 6)))
        self.proposed.report(self.evaluations[-1][1], now.step)
        self.hopeless = now.step < self.end and bool(self.proposed.should_prune())


def _value(evaluations: Sequence[tuple[int, float]]) -> float:
    last = [score for _, score in evaluations[-LAST:]]
    return sum(last) / len(last)


def _emptied(folder: Path) -> None:
    """Remove a trial's run folder; its evaluations are in the study."""
    if folder.exists():
        shutil.rmtree(folder)


def best_of(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return the best complete trials, the best first."""
    done = [trial for trial in trials if trial.state == COMPLETE and trial.value is not None]
    return sorted(done, key=lambda trial: -(trial.value or 0.0))[:count]
