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

from qhat.cli.parsing import read
from qhat.cli.parts import OtherParts, check_spelling, with_parts
from qhat.environments.catalogue import find
from qhat.environments.wrappers import Wrapper
from qhat.recipes import get
from qhat.recipes.config import OPTIONS, TrainConfig
from qhat.recipes.labels import folder_of
from qhat.studies.tuning.space import space_of
from qhat.system.errors import require, setting
from qhat.system.machine import require_installed
from qhat.system.ray_address import require_address

TUNING, FINAL = 2_000, 3_000
"""First seeds of the trials and of the comparison with the defaults; reports use seeds below 1000."""


@dataclasses.dataclass(frozen=True)
class Tune(OtherParts):
    """Tune an environment's hyperparameters and write a preset file for `qhat train --preset FILE`.

    Trials train on seeds from 2000 on and stop early if they fall below the median. They are kept in the
    study's folder; the same command resumes it. The best trials are then compared with the defaults on
    seeds from 3000 on. docs/tuning.md lists the search space.
    """

    env: tyro.conf.Positional[str]
    """Environment id; `qhat envs` lists them."""
    recipe: str | None = None
    """Recipe to tune. Default: the environment's preset, or the default recipe."""
    trials: int = 30
    """Total number of trials, including finished ones."""
    seeds: int = 2
    """Number of seeds per trial."""
    steps: int | None = None
    """Environment steps per seed. Default: the preset's, or the default of train."""
    eval_every: int | None = None
    """Environment steps between evaluations, after which a trial may stop. Default: a tenth of --steps."""
    eval_episodes: int = 20
    """Number of episodes per seed in each of these evaluations."""
    only: tuple[str, ...] = ()
    """Dimensions to search. Default: all."""
    top: int = 3
    """Number of best trials to compare with the defaults."""
    final_seeds: int = 6
    """Number of seeds in that comparison."""
    episodes: int = 100
    """Number of fresh episodes per seed in that comparison."""
    timeout: float | None = None
    """Seconds after which no new trial starts. Default: no limit."""
    env_kwargs: Annotated[Mapping[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor."""
    wrap: tuple[Wrapper, ...] = ()
    """Wrappers, innermost first."""
    cluster: str | None = None
    """Ray cluster on which trials train side by side: auto, local, or HOST:PORT."""
    study: Path | None = None
    """Folder of the study. Default: runs/tune/ENV/RECIPE."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout; progress goes to stderr."""


def run(words: Sequence[str]) -> int:
    """Parse, check everything that can be checked early, then search and compare."""
    words, parts = with_parts(words)
    check_spelling(words, parts, "tune")
    args = read(Tune, words, "tune", parts=parts)
    outcome, exit_code = tuned(args, _without(words, ("--study", "--cluster", "--json")))
    if args.json:
        print(json.dumps(outcome))
    return exit_code


def tuned(args: Tune, words: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Search and compare; return the outcome and the exit status.

    Args:
        words: the command line that does the same, for the preset file.
    """
    for name in ("trials", "seeds", "top", "final_seeds", "episodes"):
        value = getattr(args, name)
        require(value >= 1, f"{setting(name)} is {value}; expected 1 or more.")
    for name, first in (("seeds", TUNING), ("final_seeds", FINAL)):
        most = 1_000
        value = getattr(args, name)
        require(
            value <= most, f"{setting(name)} is {value}; expected at most {most:,}, numbered from {first}."
        )
    good = args.timeout is None or args.timeout > 0
    require(good, f"{setting('timeout')} is {args.timeout}; expected more than 0.")
    if args.cluster is not None:
        require_address(args.cluster)
    find(args.env, args.env_kwargs)
    base = _base(args).validate()
    space = space_of(base.recipe, base.steps, args.only, [*args.chosen()])
    require_installed("optuna", "qhat tune needs", "Optuna")
    from qhat.cli.studying import Studying

    command = shlex.join(["qhat", "tune", *words])
    place = (re.sub(r"[^\w.+-]", "-", args.env), folder_of(base.recipe_name))
    folder = args.study or Path("runs", "tune", *place)
    session = Studying(base, space, folder, command)
    outcome = session.run(
        args.trials, args.timeout, args.top, range(FINAL, FINAL + args.final_seeds), args.episodes
    )
    return outcome, session.exit_code


def _base(args: Tune) -> TrainConfig:
    """Return the configuration of a trial, before the searched settings are applied."""
    settings: dict[str, Any] = {} if args.recipe is None else {"recipe_name": args.recipe}
    if args.recipe is None:
        config = TrainConfig.of(args.env)
    else:
        config = TrainConfig(args.env, args.recipe, get(args.recipe))
    steps = args.steps or config.steps
    settings |= {
        "steps": steps,
        "eval_every": args.eval_every or max(1, steps // 10),
        "eval_episodes": args.eval_episodes,
        "seeds": args.seeds,
        "seed": TUNING,
        "env_kwargs": args.env_kwargs,
        "wrap": args.wrap,
        "cluster": args.cluster,
        # Trials are never resumed, so no checkpoint is written before the end.
        "save_every": 2**31 - 1,
    }
    recipe = dataclasses.replace(config.recipe, **args.chosen())
    return dataclasses.replace(config, recipe=recipe, **settings)


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the words without these flags, which do not change what is searched."""
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
