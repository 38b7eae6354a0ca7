"""What a run trains in, and what plays its evaluations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from qhat.environments import limits
from qhat.environments.base import Environment, Spec
from qhat.environments.catalogue import find, is_from_python
from qhat.environments.contract import require_contract
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.reference import make_reference, reference_builder
from qhat.environments.user_envs import EnvLike, from_python, judge_of, name_of, spec_of, wrap_given
from qhat.evaluation.play import LONGEST_EPISODE, Judge
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import chosen
from qhat.system.errors import near_miss, require
from qhat.system.files import quote


def configured(
    env: str | EnvLike, name: str, config: TrainConfig | None, settings: dict[str, Any]
) -> TrainConfig:
    """Return what to train with. Raises `UsageError` for a setting that there is not, or another `env`."""
    known = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "env"]
    for setting in settings:
        require(setting in known, f"train has no setting '{setting}'." + near_miss(setting, known))
    require(
        isinstance(config, TrainConfig | None),
        f"config is {quote(config)}; expected a TrainConfig, or settings by their names: steps=50_000.",
    )
    require(
        config is None or not isinstance(env, str) or config.env == env,
        f"env is '{env}' and config.env '{config.env if config else ''}'; expected the same.",
    )
    if config is None:
        return TrainConfig.of(name, **settings)
    return dataclasses.replace(config, env=name, **chosen(settings, name))


@dataclasses.dataclass(frozen=True)
class Worlds:
    """Both, ready to play."""

    environment: Environment | HostEnvironment
    judge: Judge
    spec: Spec
    """The environment's, marked where it was handed over from Python."""
    limit: int
    """Steps after which the judge's episodes are cut by itself; 0 where it does not say so."""


@contextlib.contextmanager
def open_worlds(
    env: str | EnvLike, config: TrainConfig, judge: Judge | None, devices: int, since: int
) -> Iterator[Worlds]:
    """Make what is not there yet, and close at the end what was made.

    Args:
        devices: over which the seeds are spread.
        since: step that the run goes on from.
    """
    # What is handed over is looked at before anything is made of it.
    looked = require_contract(env) if isinstance(env, Environment) else 0
    # Before anything that stays open is made: some close what all of their kind share, as pygame's window.
    declared = _declared(env, config, judge)
    made, player = _environment_and_player(env, config, judge, devices, since)
    try:
        require(
            made.num_envs == config.recipe.num_envs,
            f"The environment has {made.num_envs} copies and the recipe num_envs"
            f" {config.recipe.num_envs}; expected as many.",
        )
        if judge is not None:
            spec_of(judge, wrap=(), bins=made.spec.actions.choices).require_fits(made.spec)
        limit = declared if declared is not None else looked
        if declared is None and (judge is not None or not isinstance(env, Environment)):
            limit = _limit(player)
        yield Worlds(made, player, made.spec if isinstance(env, str) else from_python(made.spec), limit)
    finally:
        for each in (made, player):
            if isinstance(each, HostEnvironment) and not isinstance(env, HostEnvironment | VectorEnv):
                each.close()


def _declared(env: str | EnvLike, config: TrainConfig, judge: Judge | None) -> int | None:
    """Return what one that is made to be asked says, and is closed; `None` where `_limit` has to say."""
    player = judge
    if player is None and isinstance(env, str):
        entry = find(env, config.env_kwargs)
        return entry.limit if entry.backend == "gym" and not entry.batch else None
    alone = isinstance(env, str | Environment | HostEnvironment | VectorEnv)
    if player is None and not alone and (isinstance(env, gymnasium.Env) or callable(env)):
        player = judge_of(env, config.wrap)
    if player is None or isinstance(player, Environment | HostEnvironment):
        return None
    return _asked(player)


def _limit(judge: Judge) -> int:
    """Steps after which what plays the evaluations cuts episodes by itself; 0 where it declares none."""
    if isinstance(judge, Environment | HostEnvironment):
        if not is_from_python(judge.spec.id, judge.spec.backend):
            return judge.spec.limit or LONGEST_EPISODE
        return require_contract(judge) if isinstance(judge, Environment) else judge.spec.limit
    return _asked(judge)


def _asked(judge: str | Callable[[], Any]) -> int:
    made = (functools.partial(make_reference, judge) if isinstance(judge, str) else judge)()
    try:
        return limits.declared_by(made)
    finally:
        made.close()


def _environment_and_player(
    env: str | EnvLike, config: TrainConfig, judge: Judge | None, devices: int, since: int
) -> tuple[Environment | HostEnvironment, Judge]:
    numbers = range(config.seed, config.seed + config.seeds)
    num_envs, hosted = config.recipe.num_envs, (config.vector, config.env_timeout, config.env_restarts)
    task: dict[str, Any] = {"options": config.env_kwargs, "wrap": config.wrap}
    bins = config.recipe.bins
    if not isinstance(env, str):
        require(
            not config.env_kwargs,
            f"env_kwargs is {config.env_kwargs}, and the environment is made already; expected none.",
        )
        require(
            judge is not None or not isinstance(env, Environment) or env.snapshots,
            f"'{name_of(env)}' lives outside the program: an evaluation would reset it in the middle of the"
            " training's episodes. Expected judge=, another one.",
        )
        player = judge or judge_of(env, config.wrap)
        return wrap_given(env, num_envs, numbers, since, *hosted, config.wrap, bins), player
    made = make_any(env, num_envs, numbers, devices, since, *hosted, **task, bins=bins)
    if judge is not None:
        return made, judge
    if isinstance(made, HostEnvironment) and made.spec.reference:
        return made, reference_builder(made.spec, **task)
    # Other episodes than the training's, whose seeds are numbered from 0.
    judges = range(2**31 + config.seed, 2**31 + config.seed + config.seeds)
    return made, make_any(env, config.eval_episodes, judges, since=since, **task, bins=bins)


def no_limit(worlds: Worlds, cut: int) -> str:
    """Say what becomes of evaluations in an environment without a time limit."""
    how = "gymnasium.wrappers.TimeLimit(env, N) sets one"
    if isinstance(worlds.judge, Environment):
        how = "Spec(..., limit=N) declares one"
    elif not is_from_python(worlds.spec.id):
        how = "--env-kwargs max_episode_steps=N sets one"
    return (
        f"'{worlds.spec.id}' declares no time limit: the run's own evaluations cut an episode after {cut:,}"
        f" steps, and say how many they cut. {how}; a larger --eval-every plays longer ones."
    )


def is_python(env: str | EnvLike, config: TrainConfig) -> bool:
    """Whether the environment is Gymnasium's, and may run anything in its step."""
    if isinstance(env, str):
        return find(env, config.env_kwargs).backend == "gym"
    return not isinstance(env, Environment)
