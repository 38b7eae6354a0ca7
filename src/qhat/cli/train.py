"""`qhat train ENV`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from qhat import recipes
from qhat.axes.axis import AxisValue
from qhat.cli.numbers import plain
from qhat.cli.parsing import read, value_of
from qhat.cli.parts import check_spelling, with_parts
from qhat.cli.stopping import StopOnSignal
from qhat.demonstrations.sources import require_readable
from qhat.environments.catalogue import find
from qhat.environments.info import require_backend
from qhat.recipes.checks import require_recorded
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import base_of, recipe_of
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.presets import preset_of, read_preset
from qhat.runs.folder import RunFolder
from qhat.runs.resumed import settings_of_run
from qhat.runs.tracking import trackers_of
from qhat.system.errors import UsageError, require

Parts = tuple[type[AxisValue], ...]
"""Parts of recipes from outside the package."""


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train an agent with Q-learning and write a run folder.

    Below each setting with several values are their keys: --explore epsilon:end=0.05,steps=10000.
    """

    preset: Path | None = None
    """Use the settings of this preset file, written by `qhat tune`, as defaults."""
    video: tyro.conf.FlagCreatePairsOff[bool] = False
    """Film the final policy: videos/last.mp4 in the run folder."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout; progress goes to stderr."""


def run(words: Sequence[str]) -> int:
    """Parse, check everything that can be checked early, then import JAX and train."""
    started = time.perf_counter()
    words, parts = with_parts(words)
    args = read_train(words, parts)
    fields = dataclasses.fields(TrainConfig)
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields})
    config.validate()
    require_recorded(config)
    entry = find(config.env, config.env_kwargs)
    require_backend(config.log, config.env, entry.backend)
    if not config.resume:
        RunFolder.require_unused(config.run_dir)
    for path in (config.init_from, config.run_dir if config.resume else None):
        if path is not None:
            RunFolder.open(path)

    trackers_of(config)
    for source in config.demos:
        require_readable(source, config.recipe.behaviour.rewarded)
    if args.video:
        _require_video()
    stop = StopOnSignal()
    from qhat.cli.progress import TrainingScreen

    screen = TrainingScreen(config, entry, started)
    with screen.starting():
        from qhat.runs.train import Interrupted, train
    interrupted = False
    with screen.live():
        try:
            trained = train(config.env, config, progress=screen.update, should_stop=stop)
        except Interrupted as stopped:
            trained, interrupted = stopped.run, True
    outcome = screen.close(trained, interrupted)
    if args.video and not outcome["interrupted"]:
        outcome["video"] = _film(outcome["run"], parts)
    if args.json:
        print(json.dumps(outcome))
    return stop.exit_code or int(outcome["stopped_by"] == "stop_below")


def _require_video() -> None:
    """Raise `UsageError` before training rather than after it if no film can be made."""
    from qhat.environments.off_screen import prepare_drawing
    from qhat.reports.encoder import require_encoder

    prepare_drawing()
    require_encoder()


def _film(folder: str, parts: Parts) -> str:
    from rich.console import Console

    from qhat.reports.video import play
    from qhat.runs.run import Run

    run = Run.open(folder, parts)
    with Console(stderr=True, highlight=False).status("filming") as status:
        video = play(run, checkpoint="last", progress=lambda count: status.update(f"{count:,} frames"))
    print(video.path, file=sys.stderr)
    return str(video.path)


def read_train(words: Sequence[str], parts: Parts = ()) -> Train:
    """Parse; the defaults are those of `TrainConfig.of(env, recipe)`, as in Python."""
    _require_environment_first(words)
    if "--help" in words or "-h" in words:
        print(_help(words))
        raise SystemExit(0)
    if (path := value_of(words, "--preset")) is not None:
        return read(Train, words, "train", _from_file(words, Path(path), parts), parts)
    args = read(Train, words, "train", _defaults(words, parts), parts)
    name = value_of(words, "--recipe")
    if name == PRESET:
        recipe_of(name, args.env)
    if args.resume or preset_of(args.env) is None:
        return args
    return read(Train, words, "train", _of_preset(args.env, name), parts)


def _require_environment_first(words: Sequence[str]) -> None:
    """Raise `UsageError` if a recipe is where the environment should be: `qhat train dqn CartPole-v1`."""
    named = [
        word for word in _places(words) if word.lower().replace("-", "_") in (*recipes.RECIPES, PRESET)
    ]
    if not named:
        return
    others = [word for word in _places(words) if word not in named]
    env, name = (others or ["CartPole-v1"])[0], named[0].lower().replace("-", "_")
    raise UsageError(
        f"'{named[0]}' is a recipe, and qhat train takes the environment's id there; expected: qhat train"
        f" {env} --recipe {name}"
    )


def _places(words: Sequence[str]) -> list[str]:
    """Return the words before the first option: the environment, and what was typed beside it."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), words))


def _help(words: Sequence[str]) -> str:
    """Return the help page, whose defaults are those of what was typed with it."""
    from qhat.cli.train_help import page

    rest = [word for word in words if word not in ("--help", "-h")]
    env = next(iter(_places(plain(Train, rest, "train"))), None)
    name, path = value_of(rest, "--recipe"), value_of(rest, "--preset")
    if path is not None:
        return page(_from_file(rest, Path(path)), f"The defaults in brackets are those of '{path}'.")
    if env is not None:
        find(env)
        if name in (None, PRESET) and preset_of(env) is not None:
            about = f"The defaults in brackets are those of {env}'s preset (docs/presets.md)"
            return page(_of_preset(env), f"{about}; --recipe qhat has the general ones.")
        if name is not None and preset_of(env) is not None:
            about = f"The defaults in brackets are those of recipe {name}, the steps {env}'s."
            return page(_of_preset(env, name), about)
    name = name or recipes.DEFAULT
    default = Train(env=env or "", recipe_name=name, recipe=recipe_of(name, env))
    about = f"The defaults in brackets are those of recipe {name}"
    about += "." if env else "; some environments have others: qhat train ENV --help."
    return page(default, about)


def _of_preset(env: str, recipe: str | None = None) -> Train:
    """Return an environment's preset as defaults; another recipe keeps its steps and evaluations."""
    defaults = TrainConfig.of(env, recipe)
    fields = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    return Train(**{**fields, "env": tyro.MISSING})


def _from_file(words: Sequence[str], path: Path, parts: Parts = ()) -> Train:
    """Return the settings of a preset file as defaults."""
    for flag in ("--recipe", "--resume"):
        require(
            not any(word.partition("=")[0] == flag for word in words),
            f"--preset cannot be combined with {flag}: both set the defaults; leave one out.",
        )
    settings = read_preset(path, parts).settings()
    check_spelling(words, parts)
    return Train(env=tyro.MISSING, preset=path, **settings)


def _defaults(words: Sequence[str], parts: Parts) -> Train:
    """Return the defaults given by `--recipe` or by the run to resume."""
    check_spelling(words, parts)
    env: Any = tyro.MISSING
    if "--resume" in words and (folder := value_of(words, "--run-dir")):
        called, kept = settings_of_run(Path(folder), parts)
        defaults = Train(**kept)
        name = value_of(words, "--recipe")
        if name in (None, base_of(called), base_of(defaults.recipe_name)):
            return defaults
        # Resuming refuses another recipe, unless other flags restore the run's settings.
        return dataclasses.replace(defaults, recipe=recipe_of(name, defaults.env))
    name = value_of(words, "--recipe") or recipes.DEFAULT
    recipe = recipes.get(recipes.DEFAULT if name == PRESET else name)
    return Train(env=env, recipe_name=name, recipe=recipe)
