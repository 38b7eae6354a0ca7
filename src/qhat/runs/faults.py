"""Numbers that go wrong in a run: those that are not finite, and rewards too large or small to learn."""

from __future__ import annotations

import warnings
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
from qhat.system.errors import QhatError, require
from qhat.system.files import replacing, writing

STEPS = 100
"""How many steps before a fault are kept."""


class Faults:
    """The first fault of every seed; told once, and kept in a file each."""

    def __init__(self, folder: Path, config: TrainConfig, seeds: SeedState):
        """Begin with what `seeds` met before: an earlier part of the run told of it."""
        self._folder, self._config, self._stops = folder, config, config.on_nan == "stop"
        self._told = np.asarray(seeds.guard.what) != guards.NOTHING
        self.sentences: list[str] = []

    def look(self, seeds: SeedState) -> None:
        """Tell of seeds that met their first fault since the last look."""
        what = np.asarray(seeds.guard.what)
        for seed in np.flatnonzero((what != guards.NOTHING) & ~self._told):
            one = jax.tree.map(lambda leaf, seed=seed: np.asarray(leaf[seed]), seeds.guard)
            number = self._config.seed + int(seed)
            path = self._folder / "faults" / f"seed_{number}_step_{self._step(one)}.npz"
            _write(path, _steps(seeds, int(seed), one))
            self.sentences.append(self._sentence(number, one, path))
        self._told = what != guards.NOTHING

    @property
    def halted(self) -> np.ndarray:
        """Which seeds had stopped at the last look, `[S]`."""
        return self._told & self._stops

    def require_any(self) -> None:
        """Raise `UsageError` where no seed is left to go on with."""
        require(
            not self.halted.all(),
            f"Every seed of run '{self._folder}' has stopped at a number that was not finite (faults/ has"
            " the steps before it). Add --on-nan skip to go on without such rows.",
        )

    def _step(self, one: Guard) -> int:
        return (int(one.iteration) + 1) * self._config.recipe.num_envs

    def _sentence(self, seed: int, one: Guard, path: Path) -> str:
        step, at = self._step(one), int(np.argmax(one.faulty))
        if int(one.what) == guards.UPDATE:
            met = (
                f"The loss or the gradient of seed {seed} was not finite at step {step:,}; the update was"
                " not applied. A lower --learning-rate, --max-gradient-norm or smaller rewards"
                " (--wrap reward_scale) help where values diverge."
            )
        else:
            value = np.asarray(one.reward[at] if int(one.what) == guards.REWARD else one.observation[at])
            name = "reward" if int(one.what) == guards.REWARD else "observation"
            where = f"seed {seed}, copy {at}, action {one.action[at].tolist()}"
            met = (
                f"Environment '{self._config.env}' gave {name} {_short(value)} at step {step:,} of the run"
                f" ({where}); expected finite numbers. Nothing of it was stored."
            )
        goes_on = (
            "The seed has stopped, with the weights that it had; --resume --on-nan skip goes on with it."
            if self._stops
            else "Such rows are left out (column skipped of metrics.csv)."
        )
        return f"{met} The last steps before it are in '{path}'. {goes_on}"


def _steps(seeds: SeedState, seed: int, one: Guard) -> dict[str, np.ndarray]:
    """Return what replay has of the last steps of each copy, and the values that were met."""
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
    """Spell an observation; of a long one how much of it was not finite."""
    if value.size <= 32:
        return str(value.tolist())
    bad = int((~np.isfinite(value)).sum())
    return f"{value.shape} with {bad:,} of {value.size:,} numbers not finite"


def require_finite(weights: Iterable[Any]) -> None:
    """Raise `QhatError` rather than save weights that nobody could use."""
    for leaf in weights:
        if np.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(np.asarray(leaf)).all():
            raise QhatError(
                "The weights are not finite, so nothing was saved; the last checkpoint is whole. This is an"
                " error of qhat's: please report it with the run's config.json."
            )


def look_at_rewards(recipe: Recipe, state: TrainState, count: int) -> None:
    """Look at the rewards of the first seed, where learning started within the last `count` iterations."""
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
        warnings.warn(advice, stacklevel=2)
