"""Settings by name, as `train`, `Agent` and `TrainConfig.of` take them: fields of a recipe and of a run.

The two classes are for editors and type checkers, which complete and check the names and values that a call
passes on. Defaults and documentation are in `Recipe` and `TrainConfig`; a test holds the names together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from qhat.axes.axis import AxisValue, parse
from qhat.axes.behaviour import Behaviour
from qhat.axes.bonus import Bonus
from qhat.axes.dense import Layer
from qhat.axes.explore import Explore
from qhat.axes.heads import Head
from qhat.axes.horizon import Horizon
from qhat.axes.joints import Joints
from qhat.axes.memory import Memory
from qhat.axes.merge import Merge
from qhat.axes.optimiser import Optimiser
from qhat.axes.policy import Policy
from qhat.axes.relabel import Relabel
from qhat.axes.reset import Reset
from qhat.axes.resolution import Resolution
from qhat.axes.sampler import Sampler
from qhat.axes.target import Target
from qhat.axes.torso import Torso
from qhat.axes.training import Training
from qhat.environments.wrappers import WRAPPERS, Wrapper
from qhat.recipes.habits import our_word
from qhat.recipes.recipe import AXES, Recipe
from qhat.system.errors import UsageError, near_miss, require, setting
from qhat.system.files import quote


class RecipeSettings(TypedDict, total=False):
    """Fields of `Recipe`. A part may be text, as in the shell: `explore="epsilon:end=0.01"`."""

    head: Head | str
    policy: Policy | str
    bonus: Bonus | str
    behaviour: Behaviour | str
    merge: Merge | str
    dense: Layer | str
    torso: Torso | str
    memory: Memory | str
    hidden: Sequence[int] | int
    layer_norm: bool
    n_step: int
    n_step_cut: float | None
    random_shift: int
    mirror: bool
    joints: Joints | str
    bins: Sequence[int] | int
    resolution: Resolution | str
    training: Training | str
    sampler: Sampler | str
    demo_share: float
    relabel: Relabel | str
    explore: Explore | str
    target: Target | str
    optimiser: Optimiser | str
    reset: Reset | str
    horizon: Horizon | str
    normalise: bool | None
    gamma: float
    learning_rate: float
    learning_rate_end: float | None
    learning_rate_steps: int | None
    max_gradient_norm: float | None
    batch_size: int
    replay_ratio: float
    replay_capacity: int
    learning_starts: int | None
    num_envs: int
    paper: str


class RunSettings(RecipeSettings, total=False):
    """Fields of `TrainConfig` too, but for the environment and the recipe."""

    recipe_name: str
    env_kwargs: Mapping[str, Any]
    wrap: Sequence[Wrapper | str] | Wrapper | str
    steps: int
    max_seconds: float | None
    stop_at: float | None
    stop_below: float | Literal["auto"] | None
    seeds: int
    seed: int
    eval_every: int
    eval_episodes: int
    save_every: int
    keep: int
    run_dir: Path | str | None
    resume: bool
    init_from: Path | str | None
    demos: Sequence[str] | str
    vector: Literal["sync", "async"]
    threads: int | None
    device: Literal["auto", "cpu", "cuda"]
    env_timeout: float
    on_nan: Literal["stop", "skip"]
    env_restarts: int
    tensorboard: bool
    track: str | None
    log: Sequence[str] | str
    cluster: str | None
    actors: int | None
    actor_cpus: float
    learners: int | None


NAMES = tuple(field.name for field in dataclasses.fields(Recipe))
"""Fields of a recipe."""


def require_known(settings: Mapping[str, Any], known: Sequence[str], caller: str) -> None:
    """Raise `UsageError` for the first setting that `caller` does not have.

    Args:
        caller: name of the function or class in errors: `train`.
    """
    for name, value in settings.items():
        if name in known:
            continue
        habit = our_word(name, value)
        hint = f" {habit}" if habit else near_miss(name, known) or _listing(known)
        raise UsageError(f"{caller} has no setting '{name}'.{hint}")


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe with fields changed by name. Parts may be text; widths and bins a list or a number.

    Raises:
        UsageError: text that spells no part.
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name in AXES and isinstance(value, str):
            value = parse(value, AXES[name])
        elif name in ("hidden", "bins"):
            value = _numbers(value)
        values[name] = value
    return dataclasses.replace(recipe, **values)


def wrappers_of(wrap: Any) -> tuple[Wrapper, ...]:
    """Read wrappers, each a value or text, alone or in a list.

    Raises:
        UsageError: one is neither, or text that spells no wrapper.
    """
    parts = list(wrap) if isinstance(wrap, list | tuple) else [wrap]
    read = [parse(part, WRAPPERS) if isinstance(part, str) else part for part in parts]
    for part in read:
        good = isinstance(part, AxisValue) and part.axis == "wrap"
        require(good, f"{setting('wrap')} has {quote(part)}; expected wrappers, as 'frame_stack:count=4'.")
    return tuple(read)


def read_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read settings of a run: wrappers and paths as text, `demos` and `log` as one text without a list."""
    values = dict(settings)
    if "wrap" in values:
        values["wrap"] = wrappers_of(values["wrap"])
    for name in ("demos", "log"):
        if name in values:
            listed = values[name]
            values[name] = (listed,) if isinstance(listed, str) else listed
            if isinstance(listed, list):
                values[name] = tuple(listed)
    for name in ("run_dir", "init_from"):
        if isinstance(values.get(name), str):
            values[name] = Path(values[name])
    return values


def _numbers(value: Any) -> Any:
    """A tuple of a list or of one number; anything else as it is, for the recipe's check to refuse."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list | range) else value


def _listing(known: Sequence[str]) -> str:
    return f" Its settings are {', '.join(known)}."
