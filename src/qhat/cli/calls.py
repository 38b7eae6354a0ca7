"""Commands that Python calls as functions: `qhat.doctor`, `qhat.learn`, `qhat.tune`, `qhat.benchmark`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from qhat.axes.actions import BINS
from qhat.axes.axis import AxisValue, spell
from qhat.axes.training import Logs
from qhat.cli.benchmark import Benchmark, benchmarked
from qhat.cli.doctor import require_meaning
from qhat.cli.learn import FIXED, RECIPE, learns_from_logs
from qhat.cli.parts import OtherParts, read_parts
from qhat.cli.tune import Tune, tuned
from qhat.demonstrations.sources import env_of, is_data, require_readable
from qhat.environments import options
from qhat.recipes import get
from qhat.recipes.presets import NAME as PRESET
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import RunSettings, require_known, wrappers_of
from qhat.system.errors import UsageError

if TYPE_CHECKING:
    from qhat.cli.checkup import Checkup
    from qhat.demonstrations.examined import Contents
    from qhat.environments.user_envs import EnvLike
    from qhat.runs.run import Run

Arguments = TypeVar("Arguments", Tune, Benchmark)


@overload
def doctor(env: Literal[""] = "") -> dict[str, Any]: ...


@overload
def doctor(*, data: str | Path) -> Contents: ...


@overload
def doctor(
    env: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    wrap: Any = (),
    bins: Sequence[int] = BINS,
    seconds: float = 3.0,
) -> Checkup: ...


def doctor(
    env: str = "",
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    wrap: Any = (),
    bins: Sequence[int] = BINS,
    seconds: float = 3.0,
    data: str | Path | None = None,
) -> Checkup | Contents | dict[str, Any]:
    """Check this machine, an environment by playing it with random actions, or recorded steps.

    Args:
        env: id of the environment. Default: check the machine and the installation.
        env_kwargs: options of the environment's constructor.
        wrap: wrappers, innermost first: values, or text as in the shell.
        bins: number of bins per joint, or one number for all joints.
        seconds: to play the environment.
        data: a source of recorded steps, as `qhat.learn` takes them, instead of an environment.

    Returns:
        what was found. Of an environment a `Checkup`: its `proposed` has settings that the environment
        needs. Of data `Contents`: its `troubles` say what training would learn wrongly, and what to write
        instead.

    Raises:
        UsageError: the environment is unknown or cannot be used; the data are not there or damaged.
    """
    if data is not None:
        if env or env_kwargs or wrap:
            raise UsageError(
                "data has no meaning with an environment; expected qhat.doctor(data=...) alone."
            )
        return _contents(str(data))
    if isinstance(env, str | Path) and is_data(str(env)):
        raise UsageError(f"'{env}' is recorded data; expected qhat.doctor(data={str(env)!r}).")
    from qhat.cli import checkup
    from qhat.environments.gymnasium.probe import require_sound
    from qhat.system import devices

    around, kwargs = wrappers_of(wrap), dict(env_kwargs or {})
    require_meaning(env, kwargs, around, tuple(bins), seconds)
    devices.prepare(1)
    if not env:
        return checkup.machine()
    found = checkup.examine(env, kwargs, seconds, around, tuple(bins))
    require_sound(found.findings)
    return found


def _contents(source: str) -> Contents:
    require_readable(source, rewards=False)
    from qhat.demonstrations.examined import examine
    from qhat.demonstrations.reading import raw

    return examine(source, raw(source))


def learn(
    data: str | Path | Sequence[str | Path],
    env: str | EnvLike | None = None,
    recipe: str | Recipe = RECIPE,
    **settings: Unpack[RunSettings],
) -> Run:
    """Learn a policy from recorded steps alone: `qhat.learn("car.npz", "MountainCar-v0", seeds=5)`.

    Nothing acts while it learns; a step of the run is a gradient update.

    Args:
        data: one source or several, as `qhat learn` takes them (docs/demonstrations.md).
        env: what plays the run's evaluations. Default: the environment that the data name.
        recipe: algorithm: `cql`, `bcq`, `iql`, `bc`, or another.
        settings: those of `qhat.train`.

    Raises:
        UsageError: a value has no meaning, or the data do not fit the environment; nothing was written.
    """
    from qhat.runs.train import train

    given: Any = settings
    for flag, why in FIXED.items():
        name = flag.removeprefix("--").replace("-", "_")
        if name in given and not (flag == "--training" and learns_from_logs(given[name])):
            raise UsageError(f"{name} has no meaning in qhat.learn: {why}. Leave it out.")
    sources = [str(each) for each in ([data] if isinstance(data, str | Path) else data)]
    if not sources:
        raise UsageError("qhat.learn has no data; expected a source, for example 'car.npz'.")
    for source in sources:
        require_readable(source, rewards=False)
    env = env or next((found for source in sources if (found := env_of(source))), None)
    if env is None:
        raise UsageError(
            f"'{sources[0]}' does not name its environment; expected qhat.learn({sources[0]!r}, env), the"
            " id of what plays the run's evaluations (qhat.envs)."
        )
    whole: Any = {"training": Logs(), **given, "demos": sources}
    base = get(recipe) if isinstance(recipe, str) and recipe != PRESET else recipe
    if isinstance(base, Recipe) and base.demo_share:
        # As on the command line: there are no other steps to share a batch with.
        whole.setdefault("demo_share", 0.0)
    return train(env, recipe, **whole)


def tune(env: str, recipe: str | None = None, **settings: Any) -> dict[str, Any]:
    """Tune an environment's hyperparameters with Optuna, and write a preset file.

    Args:
        env: id of the environment.
        recipe: name of the recipe to tune. Default: the environment's preset, or the default recipe.
        settings: options of `qhat tune --help`, by name: `trials=30`, `seeds=2`, `head="c51"`. `parts` are
            classes of parts from outside the package, for parts given as text.

    Returns:
        what `qhat tune --json` prints: trials, scores, and the path of the preset.

    Raises:
        UsageError: a value has no meaning.
    """
    args = _arguments(Tune, "tune", settings, env=env, recipe=recipe)
    return tuned(args, _words(args))[0]


def benchmark(suite: str, **settings: Any) -> dict[str, Any]:
    """Train a suite of tasks over several seeds, score them in fresh episodes, and write a table.

    Args:
        suite: name of the suite, for example `classic`.
        settings: options of `qhat benchmark --help`, by name: `seeds=5`, `only=("CartPole-v1",)`. `parts`
            are classes of parts from outside the package, for parts given as text.

    Returns:
        what `qhat benchmark --json` prints: scores by task, and the paths of the page and its data.

    Raises:
        UsageError: a value has no meaning.
    """
    return benchmarked(_arguments(Benchmark, "benchmark", settings, suite=suite))[0]


def _arguments(kind: type[Arguments], name: str, settings: dict[str, Any], **more: Any) -> Arguments:
    """Return a command's arguments from settings by name."""
    known = [field.name for field in dataclasses.fields(kind) if field.name not in (*more, "json")]
    require_known(settings, known, name)
    parts = settings.get("parts", ())
    values = read_parts({key: value for key, value in settings.items() if key != "parts"}, parts)
    for field, value in values.items():
        if field == "wrap":
            values[field] = wrappers_of(value)
        elif isinstance(value, list):
            values[field] = tuple(value)
        elif field in ("study", "run_dir", "out", "pin") and isinstance(value, str):
            values[field] = Path(value)
    return kind(**more, **values)


def _words(args: Tune) -> list[str]:
    """Return the words of the command line that does the same."""
    words, of_parts = [args.env], [field.name for field in dataclasses.fields(OtherParts)]
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if field.name in ("env", "study", "cluster", "json", *of_parts) or value in (
            None,
            field.default,
            {},
            (),
        ):
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if isinstance(value, Mapping):
            words += options.write_words(value)
        elif isinstance(value, tuple):
            words += [spell(part) if isinstance(part, AxisValue) else str(part) for part in value]
        else:
            words.append(str(value))
    return [*words, *args.words()]
