"""Settings of `qhat train`: every default, with its documentation; the command line is made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

import tyro

from qhat.axes.axis import AxisValue, to_json
from qhat.environments import info, options, wrappers
from qhat.environments.wrappers import Wrapper
from qhat.recipes import DEFAULT
from qhat.recipes.checks import OF_A_RUN, require_placement, require_reachable, with_a_copy_each
from qhat.recipes.labels import chosen, label_of, recipe_of, require_named
from qhat.recipes.presets import first_seed, preset_of, read_preset
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import NAMES, RunSettings, changed, read_run, require_known
from qhat.system.devices import require_device
from qhat.system.display import short
from qhat.system.errors import require, setting
from qhat.system.files import quote

if TYPE_CHECKING:
    from qhat.environments.base import Spec

BY_NAME = Recipe()
"""Stands for the recipe with the name `recipe_name`; it is compared by identity."""
COPIES = 1_000_000
"""Largest number of environments, of all seeds together."""
OPTIONS = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[KEY=VALUE [KEY=VALUE ...]]",
    instance_from_str=options.read_words,
    is_instance=lambda value: value is None or isinstance(value, Mapping),
    str_from_instance=lambda value: options.write_words(value or {}),
)
"""How the command line reads and shows the options of an environment."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    env: tyro.conf.Positional[str]
    """Environment id; `qhat envs` lists them."""
    recipe_name: Annotated[str, tyro.conf.arg(name="recipe")] = DEFAULT
    """Algorithm to train (see `qhat recipes`)."""
    # Alone it chooses the recipe. Beside one it is replaced by the label of that value (see labels.py).
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = BY_NAME
    """The algorithm as a value or a name. Default: the recipe of `recipe_name`."""
    env_kwargs: Annotated[Mapping[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor, for example `gravity=-5.0`; values are JSON or text."""
    wrap: tuple[Wrapper, ...] = ()
    """Wrappers, innermost first, for example `frame_stack:count=4`."""
    steps: int = 50_000
    """Environment steps per seed."""
    max_seconds: float | None = None
    """Stop after this many seconds, with a checkpoint. Default: no limit."""
    stop_at: float | None = None
    """Stop at the first evaluation with at least this mean score over all seeds, with a checkpoint."""
    stop_below: float | Literal["auto"] | None = None
    """Stop, with a checkpoint, at the first evaluation in which any seed's score is below this. auto: the
    lower end of the 95% interval of the mean return of the demonstrations' episodes."""
    seeds: int = 1
    """Independent seeds trained at once, each with its own weights, keys and environments."""
    seed: int = 0
    """Number of the first seed; a seed's result does not depend on others. dm_control's presets begin at
    100, as they were chosen on lower ones."""
    eval_every: int = 2_500
    """Environment steps between the run's evaluations (greedy, fresh episodes)."""
    eval_episodes: int = 20
    """Episodes per seed of each evaluation, which also chooses the best checkpoint."""
    save_every: int = 50_000
    """Environment steps between checkpoints; there is always one at the end."""
    keep: int = 1
    """Number of the newest checkpoints that stay in the run folder; the best weights always stay."""
    run_dir: Path | None = None
    """Run folder. Default: runs/<env>/<recipe>/<date-time>."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue from the last checkpoint of the run folder."""
    init_from: Path | None = None
    """Start every seed from this run's best weights."""
    demos: tuple[str, ...] = ()
    """Demonstrations to put into replay before the first step: .npz files, or minari: and an id."""
    vector: Literal["sync", "async"] = "sync"
    """Step the copies of a gym: environment in this process (sync), or each in a process (async)."""
    threads: int | None = None
    """Cores to use. Default: one per seed; for a single seed all, or one where the network is small."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What JAX computes on. auto: a GPU if JAX finds one, else the processor (docs/gpu.md)."""
    env_timeout: float = 60.0
    """Seconds after which a step of a gym: environment counts as hanging."""
    on_nan: Literal["stop", "skip"] = "stop"
    """At a number that is not finite: stop that seed, or skip such rows and continue."""
    env_restarts: int = 10
    """Number of restarts of the processes of async copies after one of them died or hung."""
    tensorboard: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write TensorBoard's event files into the run folder."""
    track: str | None = None
    """Also log to wandb, mlflow or trackio (docs/tracking.md)."""
    log: tuple[str, ...] = ()
    """Values of the environment's info to write into metrics.csv, for example info.distance; repeatable."""
    cluster: str | None = None
    """Ray cluster to train on: auto, local, or HOST:PORT of its head node (docs/cluster.md)."""
    actors: int | None = None
    """Processes on the cluster that step a gym: environment for one learner. Default: no such processes."""
    actor_cpus: float = 1.0
    """Cores that an actor takes; less than 1 where its simulator waits."""
    learners: int | None = None
    """Devices that share each batch, with actors. Default: the GPUs that JAX finds; one on a processor."""

    def __post_init__(self) -> None:
        """Resolve the recipe and its name.

        Raises:
            UsageError: a name that is no recipe's.
        """
        recipe = self.recipe
        if recipe is BY_NAME:
            recipe = recipe_of(self.recipe_name, self.env)
        elif isinstance(recipe, str):
            require(
                self.recipe_name in (DEFAULT, recipe),
                f"recipe is '{recipe}' and recipe_name {quote(self.recipe_name)}; expected one: leave the"
                " other out.",
            )
            recipe = recipe_of(recipe, self.env)
        elif not self.resume:
            # A run from an earlier version may have any name, and goes on under its label.
            require_named(self.recipe_name)
        object.__setattr__(self, "recipe", recipe)
        if isinstance(recipe, Recipe):
            recipe = with_a_copy_each(recipe, self.actors)
            object.__setattr__(self, "recipe", recipe)
        # The command line's defaults have no environment yet.
        if isinstance(recipe, Recipe) and isinstance(self.env, str):
            object.__setattr__(self, "recipe_name", label_of(recipe, self.env, spans=self._spans))

    def __repr__(self) -> str:
        """Return what differs from the defaults."""
        name = repr(self.recipe_name) if isinstance(self.recipe_name, str) else short(self.recipe)
        rest = short(self, hide=("env", "recipe", "recipe_name")).partition("(")[2][:-1]
        return f"TrainConfig({self.env!r}, {name}{', ' if rest else ''}{rest})"

    @property
    def _spans(self) -> tuple[int, ...]:
        # Not yet validated.
        return (self.steps,) if isinstance(self.steps, int) and self.steps > 0 else ()

    def fitted(self, recipe: Recipe, spec: Spec, span: int) -> TrainConfig:
        """Return the configuration with the given recipe, which fits the observations, and its label.

        Args:
            span: environment steps over which schedules run.
        """
        config = dataclasses.replace(self, recipe=recipe)
        label = label_of(recipe, self.env, spec.shape, spec.layout, (span,))
        object.__setattr__(config, "recipe_name", label)
        return config

    @staticmethod
    def of(
        env: str,
        recipe: str | Recipe | None = None,
        *,
        preset_file: Path | str | None = None,
        parts: Sequence[type[AxisValue]] = (),
        **settings: Unpack[RunSettings],
    ) -> TrainConfig:
        """Return the configuration of an environment: its preset, if it has one, changed by `settings`.

        Args:
            recipe: a recipe, or its name. Default: the preset's, or `qhat`.
            preset_file: file that `qhat tune` wrote, used instead of the preset.
            parts: classes of that file's parts from outside the package.
            settings: fields of the run or of its recipe, by their names: `seeds=8`, `gamma=0.98`,
                `policy="double"`.

        Raises:
            UsageError: the recipe or a setting is unknown, or there are two recipes.
        """
        require(isinstance(env, str), f"env is {quote(env)}; expected an id.")
        return TrainConfig._of(env, recipe, settings, preset_file, parts)

    def changed(self, env: str, recipe: str | Recipe | None, settings: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration for `env` with another recipe or other settings, as `of` reads them."""
        run, parts = _sorted(recipe, settings)
        config = dataclasses.replace(self, env=env, **chosen(run, env))
        return config._with_parts(parts)

    def _with_parts(self, parts: Mapping[str, Any]) -> TrainConfig:
        return dataclasses.replace(self, recipe=changed(self.recipe, parts)) if parts else self

    @staticmethod
    def _of(
        env: str,
        recipe: str | Recipe | None,
        settings: Mapping[str, Any],
        preset_file: Path | str | None,
        kinds: Sequence[type[AxisValue]] = (),
    ) -> TrainConfig:
        run, parts = _sorted(recipe, settings)
        values, defaults = chosen(run, env), {}
        if preset_file is not None:
            require(
                "recipe_name" not in settings and not isinstance(recipe, str),
                "preset_file has no meaning with the name of a recipe, because both choose the settings;"
                " leave one out.",
            )
            defaults = read_preset(Path(preset_file), kinds).settings()
        elif preset := preset_of(env):
            defaults = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
            defaults["seed"] = first_seed(env)
        return TrainConfig(env, **{**defaults, **values})._with_parts(parts)

    def validate(self) -> TrainConfig:
        """Return self, or raise `UsageError` for the first value that has no meaning."""
        for name in ("steps", "seeds", "eval_every", "eval_episodes", "save_every", "keep"):
            value = getattr(self, name)
            require(
                isinstance(value, int) and not isinstance(value, bool) and value >= 1,
                f"{setting(name)} is {quote(value)}; expected a whole number of 1 or more.",
            )
        require(
            self.threads is None or (type(self.threads) is int and 1 <= self.threads <= 1024),
            f"{setting('threads')} is {quote(self.threads)}; expected a whole number from 1 to 1024. Leave"
            " it out: qhat takes every core where that helps.",
        )
        require_device(self.device)
        self._validate_types()
        last = self.seed + self.seeds - 1
        require(
            self.seed >= 0 and last < 2**31,
            f"{setting('seed')} is {self.seed} and the last seed {last}; expected 0 to 2147483647.",
        )
        require(
            self.steps < 2**31,
            f"{setting('steps')} is {self.steps}; expected at most 2147483647 (per seed).",
        )
        require(
            not (self.resume and self.demos),
            f"{setting('demos')} has no meaning with {setting('resume')}, which continues with the run's"
            " replay. Leave it out.",
        )
        require(
            not (self.resume and self.init_from),
            f"{setting('init_from')} has no meaning with {setting('resume')}, which continues with the"
            " run's weights.",
        )
        require(
            self.max_seconds is None or self.max_seconds > 0,
            f"{setting('max_seconds')} is {self.max_seconds}; expected more than 0.",
        )
        require_reachable(self)
        require_placement(self)
        require(
            self.vector in ("sync", "async"),
            f"{setting('vector')} is {self.vector}; expected sync or async.",
        )
        require(
            self.on_nan in ("stop", "skip"), f"{setting('on_nan')} is {self.on_nan}; expected stop or skip."
        )
        require(
            self.env_timeout > 0,
            f"{setting('env_timeout')} is {self.env_timeout}; expected more than 0 seconds.",
        )
        require(
            self.env_restarts >= 0, f"{setting('env_restarts')} is {self.env_restarts}; expected 0 or more."
        )
        require(
            not self.resume or self.run_dir is not None,
            f"{setting('resume')} needs {setting('run_dir')}, the folder of the run to continue.",
        )
        options.check(self.env_kwargs)
        wrappers.validate(self.wrap)
        self.recipe.validate()
        for fits_the_run in OF_A_RUN:
            fits_the_run(self)
        for name, copies in (("num_envs", self.recipe.num_envs), ("eval_episodes", self.eval_episodes)):
            require(
                self.seeds * copies <= COPIES,
                f"{setting(name)} is {copies} and {setting('seeds')} {self.seeds}; expected at most"
                f" {COPIES:,} environments together.",
            )
        return self

    def _validate_types(self) -> None:
        """Raise `UsageError` for types that the command line cannot produce."""
        require(isinstance(self.env, str), f"env is {quote(self.env)}; expected an id.")
        require(
            isinstance(self.recipe, Recipe),
            f"recipe is {quote(self.recipe)}; expected a name, or a Recipe as qhat.recipes.get('dqn')"
            " returns.",
        )
        good = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        require(good, f"{setting('seed')} is {quote(self.seed)}; expected a whole number.")
        for name in ("max_seconds", "stop_at", "env_timeout"):
            value = getattr(self, name)
            good = isinstance(value, int | float) and not isinstance(value, bool)
            require(
                good or (value is None and name != "env_timeout"),
                f"{setting(name)} is {quote(value)}; expected a number.",
            )
        good = isinstance(self.tensorboard, bool) and isinstance(self.track, str | None)
        require(
            good,
            f"{setting('tensorboard')} is {self.tensorboard} and {setting('track')} {quote(self.track)};"
            " expected a name.",
        )
        good = isinstance(self.demos, tuple) and all(isinstance(source, str) for source in self.demos)
        require(good, f"{setting('demos')} is {quote(self.demos)}; expected a list of paths.")
        info.require_names(self.log)

    def to_json(self) -> dict[str, Any]:
        """Write the configuration with every default."""
        written = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **written,
            "recipe": self.recipe.to_json(),
            "env_kwargs": dict(self.env_kwargs),
            "wrap": [to_json(part) for part in self.wrap],
            "run_dir": None,
            "init_from": str(self.init_from) if self.init_from else None,
            "demos": list(self.demos),
            "log": list(self.log),
        }


def _sorted(
    recipe: str | Recipe | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the run, with its recipe if there is one, and those of the recipe."""
    fields = [
        field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("env", "recipe")
    ]
    require_known(settings, (*fields, *NAMES), "train")
    run = read_run({name: value for name, value in settings.items() if name not in NAMES})
    if recipe is not None:
        run["recipe"] = recipe
    return run, {name: value for name, value in settings.items() if name in NAMES}
