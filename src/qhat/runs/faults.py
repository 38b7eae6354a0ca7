"""Bad numbers in a run: those that are not finite, and rewards too large or too small to learn from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qhat.engine import guard as guards
from qhat.engine.guard import Guard
from qhat.engine.replay.nstep import CONTINUES
from qhat.engine.replay.nstep import NOTHING as NO_START
from qhat.engine.state import SeedState, TrainState
from qhat.environments.reward_scale import reward_scale_advice
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.system.errors import QhatError, require, setting, warn
from qhat.system.files import replacing, writing

STEPS = 100
"""Number of steps before a fault that its file has."""


class Faults:
    """Reports the first fault of every seed, and writes a file for each."""

    def __init__(self, folder: Path, config: TrainConfig, seeds: SeedState):
        """Begin; faults that `seeds` have already were reported by an earlier part of the run."""
        self._folder, self._config, self._stops = folder, config, config.on_nan == "stop"
        self._reported = np.asarray(seeds.guard.what) != guards.NOTHING
        self.sentences: list[str] = []

    def look(self, seeds: SeedState) -> None:
        """Report the seeds whose first fault came since the last look."""
        what = np.asarray(seeds.guard.what)
        for seed in np.flatnonzero((what != guards.NOTHING) & ~self._reported):
            one = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), seeds.guard)
            number = self._config.seed + int(seed)
            path = self._folder / "faults" / f"seed_{number}_step_{self._step(one)}.npz"
            _write(path, _steps(seeds, int(seed), one))
            self.sentences.append(self._sentence(number, one, path))
        self._reported = what != guards.NOTHING

    @property
    def halted(self) -> np.ndarray:
        """Which seeds had stopped at the last look, `[S]`."""
        return self._reported & self._stops

    def require_any(self) -> None:
        """Raise `UsageError` if every seed has stopped."""
        require(
            not self.halted.all(),
            f"Every seed of run '{self._folder}' has stopped at a number that was not finite (faults/ has"
            f" the steps before it). Add {setting('on_nan', 'skip')} to continue without such rows.",
        )

    def _step(self, one: Guard) -> int:
        return (int(one.iteration) + 1) * self._config.recipe.num_envs

    def _sentence(self, seed: int, one: Guard, path: Path) -> str:
        step, at = self._step(one), int(np.argmax(one.faulty))
        if int(one.what) == guards.UPDATE:
            met = (
                f"The loss or the gradient of seed {seed} was not finite at step {step:,}; the update was"
                f" not applied. A lower {setting('learning_rate')}, {setting('max_gradient_norm')} or"
                " smaller rewards"
                f" ({setting('wrap', 'reward_scale')}) help where values diverge."
            )
        else:
            value = np.asarray(one.reward[at] if int(one.what) == guards.REWARD else one.observation[at])
            name = "reward" if int(one.what) == guards.REWARD else "observation"
            where = f"seed {seed}, copy {at}, action {one.action[at].tolist()}"
            met = (
                f"Environment '{self._config.env}' gave {name} {_short(value)} at step {step:,} of the run"
                f" ({where}); expected finite numbers. Nothing of it was stored."
            )
        what_next = (
            f"The seed has stopped and keeps its weights; continue it with {setting('resume', True)} and"
            f" {setting('on_nan', 'skip')}."
            if self._stops
            else "Such rows are left out; column 'skipped' of metrics.csv counts them."
        )
        return f"{met} The last steps before it are in '{path}'. {what_next}"


def _steps(seeds: SeedState, seed: int, one: Guard) -> dict[str, np.ndarray]:
    """Return the last steps of each copy from replay, and the values of the fault."""
    ring = seeds.ring
    names = ("faulty", "observation", "reward", "action")
    kept = {name: np.asarray(getattr(one, name)) for name in names}
    for env in range(len(one.cursor)):
        most = min(int(ring.filled[seed, env]), (STEPS + 1) * (ring.stack + 1))
        rows = env * ring.rows + (int(one.cursor[env]) - most + np.arange(most)) % ring.rows
        kind = np.asarray(ring.kind[seed, rows])
        starts = np.flatnonzero(kind != NO_START)
        first = starts[-STEPS] if len(starts) >= STEPS else 0
        for name in ("observation", "action", "reward", "kind"):
            kept[f"env{env}_{name}"] = np.asarray(getattr(ring, name)[seed, rows[first:]])
    return kept


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    with replacing(path) as new, new.open("wb") as file:
        np.savez(file, **arrays, allow_pickle=False)


def _short(value: np.ndarray) -> str:
    """Write an observation; for a long one, how much of it was not finite."""
    if value.size <= 32:
        return str(value.tolist())
    bad = int((~np.isfinite(value)).sum())
    return f"{value.shape} with {bad:,} of {value.size:,} numbers not finite"


def require_finite(weights: Iterable[Any]) -> None:
    """Raise `QhatError` if weights are not finite, so that nothing useless is saved."""
    for leaf in weights:
        if np.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(np.asarray(leaf)).all():
            raise QhatError(
                "The weights are not finite, so nothing was saved; the last checkpoint is whole. This is an"
                " error in qhat: please report it with the run's config.json."
            )


def look_at_rewards(recipe: Recipe, state: TrainState, count: int) -> None:
    """Check the rewards of the first seed, if learning started within the last `count` iterations."""
    at, E = int(state.clock.iterations), recipe.num_envs
    starts = recipe.first_update
    # A support that places itself follows any scale.
    if recipe.head.calibrates or not (at - count) * E < starts <= at * E:
        return
    ring = state.seeds.ring
    used = int(np.asarray(ring.filled[0]).max())
    rewards, kinds = (np.asarray(leaf[0]).reshape(E, -1)[:, :used].T for leaf in (ring.reward, ring.kind))
    rewards = np.where(kinds == NO_START, 0.0, rewards)
    if advice := reward_scale_advice(rewards, kinds != CONTINUES, recipe.gamma):
        warn(advice, stacklevel=2)
