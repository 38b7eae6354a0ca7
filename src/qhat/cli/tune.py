"""`qhat tune ENV`."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read, values_of
from qhat.environments import options
from qhat.environments.catalogue import find
from qhat.environments.extras import installed
from qhat.environments.wrappers import Wrapper
from qhat.recipes import get
from qhat.recipes.config import OPTIONS, TrainConfig
from qhat.recipes.labels import folder_of
from qhat.studies.tuning.space import space_of
from qhat.system.errors import UsageError, require

TUNING, FINAL = 2_000, 3_000
"""First seeds of the trials and of the comparison with the defaults; reports have those below 1000."""


@dataclasses.dataclass(frozen=True)
class Tune:
    """Search an environment's settings, and write them as a preset file for `qhat train --preset FILE`.

    Trials are trained on seeds from 2000 on, stopped early where they are below the median, and kept in the
    study's folder: the same command goes on with it. The best are then compared with the defaults on seeds
    from 3000 on. docs/tuning.md lists what is searched.
    """

    env: tyro.conf.Positional[str]
    """Environment id; `qhat envs` lists them."""
    recipe: str | None = None
    """Recipe whose settings are searched; none is the environment's preset, or the default recipe."""
    trials: int = 30
    """Trials of the study in all, those that are done already included."""
    seeds: int = 2
    """Seeds of each trial."""
    steps: int | None = None
    """Environment steps per seed; none is the preset's, or the default of train."""
    eval_every: int | None = None
    """Environment steps between evaluations, where a trial may be stopped; none is a tenth."""
    eval_episodes: int = 20
    """Episodes per seed of each such evaluation."""
    only: tuple[str, ...] = ()
    """Dimensions to search; all unless given."""
    top: int = 3
    """How many of the best trials are compared with the defaults."""
    final_seeds: int = 6
    """Seeds of that comparison."""
    episodes: int = 100
    """Fresh episodes per seed of that comparison."""
    timeout: float | None = None
    """Seconds after which no trial is begun any more; none is no limit."""
    env_kwargs: Annotated[Mapping[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor."""
    wrap: tuple[Wrapper, ...] = ()
    """What stands around the environment."""
    study: Path | None = None
    """The study's folder; none is runs/tune/ENV/RECIPE."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout; progress goes to stderr."""


def run(words: Sequence[str]) -> int:
    """Parse, check all that can be checked at once, then search and compare."""
    options.read_words(values_of(words, "--env-kwargs"))
    told = read(Tune, words, "tune")
    for name in ("trials", "seeds", "top", "final_seeds", "episodes"):
        value = getattr(told, name)
        require(value >= 1, f"--{name.replace('_', '-')} is {value}; expected 1 or more.")
    for name, first in (("seeds", TUNING), ("final_seeds", FINAL)):
        most = 1_000
        value, flag = getattr(told, name), f"--{name.replace('_', '-')}"
        require(value <= most, f"{flag} is {value}; expected at most {most:,}, numbered from {first}.")
    require(told.timeout is None or told.timeout > 0, f"--timeout is {told.timeout}; expected more than 0.")
    find(told.env, told.env_kwargs)
    base = _base(told).validate()
    space = space_of(base.recipe, base.steps, told.only)
    if not installed("optuna"):
        raise UsageError("qhat tune needs Optuna, which is not installed; type: pip install 'qhat[tune]'")
    from qhat.cli.studying import Studying

    command = shlex.join(["qhat", "tune", *_without(words, ("--study", "--json"))])
    place = (re.sub(r"[^\w.+-]", "-", told.env), folder_of(base.recipe_name))
    folder = told.study or Path("runs", "tune", *place)
    session = Studying(base, space, folder, command)
    outcome = session.run(
        told.trials, told.timeout, told.top, range(FINAL, FINAL + told.final_seeds), told.episodes
    )
    if told.json:
        print(json.dumps(outcome))
    return session.exit_code


def _base(told: Tune) -> TrainConfig:
    """Return what a trial trains, but for what is searched."""
    settings: dict[str, Any] = {} if told.recipe is None else {"recipe_name": told.recipe}
    if told.recipe is None:
        config = TrainConfig.of(told.env)
    else:
        config = TrainConfig(told.env, told.recipe, get(told.recipe))
    steps = told.steps or config.steps
    settings |= {
        "steps": steps,
        "eval_every": told.eval_every or max(1, steps // 10),
        "eval_episodes": told.eval_episodes,
        "seeds": told.seeds,
        "seed": TUNING,
        "env_kwargs": told.env_kwargs,
        "wrap": told.wrap,
        # A trial is whole or it is nothing: no checkpoint before its end.
        "save_every": 2**31 - 1,
    }
    return dataclasses.replace(config, **settings)


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the words that say what is searched, without where and how it is told."""
    kept, skip = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if skip:
            skip = False
        elif name in flags:
            skip = name != "--json" and not equals
        else:
            kept.append(word)
    return kept
