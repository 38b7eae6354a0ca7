"""What a run trains in, and what plays its evaluations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhat.environments import info, limits
from qhat.environments.base import Environment, Spec
from qhat.environments.catalogue import is_from_python
from qhat.environments.host import HostEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.recorded import Recorded
from qhat.environments.reference import make_reference, reference_builder
from qhat.environments.user_envs import EnvLike, Source, from_python, source_of, spec_of
from qhat.evaluation.play import LONGEST_EPISODE, Judge
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.resumed import resumed
from qhat.system.errors import require, setting, spelled
from qhat.system.files import quote
from qhat.system.ray_address import LOCAL

if TYPE_CHECKING:
    from qhat.cluster.environment import ActorEnvironment


def configured(
    env: str | EnvLike,
    name: str,
    recipe: str | Recipe | TrainConfig | None,
    config: TrainConfig | None,
    settings: Mapping[str, Any],
) -> TrainConfig:
    """Return what to train with. Raises `UsageError` for a setting that there is not, or another `env`."""
    if isinstance(recipe, TrainConfig):
        require(config is None, "There are two configurations; expected one.")
        recipe, config = None, recipe
    require(
        isinstance(recipe, str | Recipe | None),
        f"recipe is {quote(recipe)}; expected a name, a Recipe as qhat.recipes.get('dqn') returns, or a"
        " TrainConfig. Settings have their names: steps=50_000.",
    )
    require(
        isinstance(config, TrainConfig | None),
        f"config is {quote(config)}; expected a TrainConfig, or settings by their names: steps=50_000.",
    )
    require(
        config is None or not isinstance(env, str) or config.env == env,
        f"env is '{env}' and config.env '{config.env if config else ''}'; expected the same.",
    )
    if config is None and settings.get("resume") and isinstance(settings.get("run_dir"), str | Path):
        return resumed(name, recipe, settings)
    if config is None:
        return TrainConfig.of(name, recipe, **settings)
    return config.changed(name, recipe, settings)


@dataclasses.dataclass(frozen=True)
class Worlds:
    """Both, ready to play."""

    environment: Environment | HostEnvironment | ActorEnvironment
    judge: Judge | ActorEnvironment
    spec: Spec
    """The environment's, marked where it was handed over from Python."""
    limit: int
    """Steps after which the judge's episodes are cut by itself; 0 where it does not say so."""


@contextlib.contextmanager
def open_worlds(
    source: Source, config: TrainConfig, judge: Judge | None, devices: int, since: int
) -> Iterator[Worlds]:
    """Make what is not there yet, and close at the end what was made.

    Args:
        judge: what plays the evaluations, if not what the source says.
        devices: over which the seeds are spread.
        since: step that the run continues from.
    """
    require(
        source.by_id or not config.env_kwargs,
        f"env_kwargs is {config.env_kwargs}, and the environment is made already; expected none.",
    )
    # What is handed over is checked, and asked for its limit, before anything is made that stays open: some
    # environments close what all of their kind share, as pygame's window.
    looked = source.look()
    player = source.judge(config.wrap) if judge is None else judge
    declared = looked if judge is None else None
    if declared is None and player is not None:
        declared = _limit(player)
    numbers = range(config.seed, config.seed + config.seeds)
    args = MakeArgs(
        config.recipe.num_envs, numbers, devices, since, config.vector, config.env_timeout,
        config.env_restarts, config.env_kwargs, config.wrap, config.recipe.bins, config.log,
    )  # fmt: skip
    source.require_copies(config.recipe.num_envs * config.seeds)
    with contextlib.ExitStack() as opened:
        made = _hired(source, config, args, opened) if config.actors else source.make(args)
        if source.closes:
            opened.callback(made.close)
        require(
            made.num_envs == config.recipe.num_envs,
            f"The environment has {made.num_envs} copies and the recipe num_envs"
            f" {config.recipe.num_envs}; expected as many.",
        )
        info.require_backend(config.log, source.name, made.spec.backend)
        info.require_known(config.log, made.logs, source.name)
        if judge is not None:
            spec_of(judge, wrap=(), bins=made.spec.actions.choices).require_fits(made.spec)
        if player is None:
            player = _player_beside(made, source, config, since)
            if isinstance(player, Environment | HostEnvironment):
                opened.callback(player.close)
        limit = _limit(player) if declared is None else declared
        if not config.recipe.training.acts:
            made = Recorded(made.spec)
        # Where actors step the environment, they play the evaluations too.
        judging = made if judge is None and config.actors else player
        yield Worlds(made, judging, made.spec if source.by_id else from_python(made.spec), limit)


def _hired(
    source: Source, config: TrainConfig, args: MakeArgs, opened: contextlib.ExitStack
) -> ActorEnvironment:
    """Let actors on a cluster step the environment.

    Raises:
        UsageError: it cannot be made on a node, or the cluster does not suit.
    """
    from qhat.cluster.connection import connected
    from qhat.cluster.environment import ActorEnvironment

    assert config.actors is not None
    build = source.build_on_node()
    nodes = opened.enter_context(connected(config.cluster or LOCAL))
    return ActorEnvironment(source.name, build, args, config.actors, config.actor_cpus, nodes)


def _limit(judge: Judge) -> int:
    """Steps after which what plays the evaluations cuts episodes by itself; 0 where it declares none."""
    if not isinstance(judge, Environment | HostEnvironment):
        made = (functools.partial(make_reference, judge) if isinstance(judge, str) else judge)()
        try:
            return limits.declared_by(made)
        finally:
            made.close()
    if is_from_python(judge.spec.id, judge.spec.backend):
        return source_of(judge).look() or judge.spec.limit
    return judge.spec.limit or LONGEST_EPISODE


def _player_beside(
    made: Environment | HostEnvironment | ActorEnvironment, source: Source, config: TrainConfig, since: int
) -> Judge:
    """Make what plays the evaluations of what an id made: the reference, or other episodes of the same."""
    if not isinstance(made, Environment) and made.spec.reference:
        return reference_builder(made.spec, options=config.env_kwargs, wrap=config.wrap)
    # Other episodes than the training's, whose seeds are numbered from 0.
    numbers = range(2**31 + config.seed, 2**31 + config.seed + config.seeds)
    more = {"options": config.env_kwargs, "wrap": config.wrap, "bins": config.recipe.bins}
    return source.make(MakeArgs(config.eval_episodes, numbers, since=since, **more))


def no_limit(worlds: Worlds, cut: int) -> str:
    """Say how evaluations end in an environment without a time limit."""
    how = "gymnasium.wrappers.TimeLimit(env, N) sets one"
    if isinstance(worlds.judge, Environment):
        how = "limit = N in a JaxEnvironment, or Spec(..., limit=N), declares one"
    elif not is_from_python(worlds.spec.id):
        how = (
            spelled("env_kwargs={'max_episode_steps': N}", "--env-kwargs max_episode_steps=N") + " sets one"
        )
    return (
        f"'{worlds.spec.id}' declares no time limit: the run's own evaluations cut an episode after {cut:,}"
        f" steps, and say how many they cut. {how}; a larger {setting('eval_every')} plays longer ones."
    )
