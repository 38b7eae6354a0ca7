"""Reads the runs to compare from their folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhat.axes.axis import spell
from qhat.environments.options import check, write_words
from qhat.environments.wrappers import listed
from qhat.recipes.config import COPIES
from qhat.recipes.labels import label_of_run, require_label, value_of
from qhat.runs.curves import Clock, Evaluations, read_clock, read_evaluations
from qhat.runs.folder import RunFolder, path_of
from qhat.system.errors import UsageError, blaming, require
from qhat.system.files import quote

if TYPE_CHECKING:
    from qhat.runs.run import Run  # Opening one takes JAX.

SETTINGS = ("demos", "init_from")
"""Settings besides the recipe that change how a run learns."""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One run to compare."""

    folder: RunFolder
    run: Run | None
    """The open run, if the caller passed one."""
    env: str
    """Environment with options and wrappers; runs with the same value are compared."""
    reference: str
    """Name of the environment; empty if options or wrappers change the task."""
    recipe: str
    """Label of the recipe, from its value."""
    settings: str
    """All settings that change how it learns, as JSON."""
    budget: int
    """Planned environment steps per seed."""
    num_envs: int
    first_seed: int
    rows: tuple[int, ...]
    """Indices of the seeds that count."""
    evaluations: Evaluations
    clock: Clock | None
    """None unless requested."""

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def seeds(self) -> list[int]:
        """Numbers of the seeds that count."""
        return [self.first_seed + row for row in self.rows]

    @property
    def end(self) -> int:
        """Environment steps at the last complete evaluation."""
        return int(self.evaluations.step[-1])


def read_entrants(runs: Sequence[Run | Path | str], timed: bool) -> tuple[list[Entrant], list[str]]:
    """Return the runs that have an evaluation, each once, and a note for each run left out.

    Args:
        timed: whether to read their clocks.

    Raises:
        UsageError: a folder is not a run or is damaged, or no run has an evaluation.
    """
    require(len(runs) > 0, "There is no run to compare; expected one run folder or more.")
    entrants: list[Entrant] = []
    notes: list[str] = []
    named: set[Path] = set()
    for given in runs:
        path = path_of(given)
        folder = RunFolder.open(path)
        if path.resolve() in named:
            notes.append(f"'{path}' was named more than once; it counts once.")
            continue
        named.add(path.resolve())
        entrant = _read(folder, None if isinstance(given, str | Path) else given, timed)
        if entrant.evaluations.step.size == 0:
            notes.append(f"'{path}' has no complete evaluation yet and is left out.")
            continue
        entrants.append(entrant)
        if entrant.end < entrant.budget:
            notes.append(
                f"'{path}' was last evaluated at step {entrant.end:,} of {entrant.budget:,}; only that"
                " part counts."
            )
    if not entrants:
        raise UsageError(f"There is nothing to compare: {' '.join(notes)}")
    return entrants, notes


def _read(folder: RunFolder, run: Run | None, timed: bool) -> Entrant:
    config = folder.read_config()
    with blaming(f"'{folder.config}'"):
        first, seeds, budget = (_whole(config, name) for name in ("seed", "seeds", "steps"))
        require(1 <= seeds <= COPIES, f"seeds is {seeds}; expected 1 to {COPIES:,}.")
        num_envs = _whole(config["recipe"], "num_envs")
        wrap = [spell(part) for part in listed(config["wrap"])]
        options = check(config["env_kwargs"])
        require_label(config.get("recipe_name", "recipe"))
        recipe = value_of(config["recipe"])
    # Twins of an environment are scored in the same reference.
    name = str(config["spec"].get("reference") or config["env"])
    env = ", ".join([name, *write_words(options), *wrap])
    require(env.isprintable(), f"'{folder.config}': env is {quote(env)}; expected letters and digits.")
    evaluations = Evaluations(np.zeros(0), np.zeros((seeds, 0)))
    if folder.evaluations.is_file() and folder.evaluations.stat().st_size > 0:
        evaluations = read_evaluations(folder.path, seeds)
    return Entrant(
        folder=folder,
        run=run,
        env=env,
        reference=name if not options and not wrap else "",
        recipe=label_of_run(config),
        settings=json.dumps(
            {**{name: config.get(name) for name in SETTINGS}, "recipe": recipe}, sort_keys=True
        ),
        budget=budget,
        num_envs=num_envs,
        first_seed=first,
        rows=tuple(range(seeds)),
        evaluations=evaluations,
        clock=read_clock(folder.path) if timed and evaluations.step.size else None,
    )


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if type(value) is not int or not 0 <= value < 2**31:
        raise UsageError(f"{name} is {quote(value)}; expected a whole number.")
    return value
