"""Checks of a run's settings that need more than the values themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from qhat.axes.axis import spell
from qhat.axes.explore import NoExploration
from qhat.axes.horizon import Receding
from qhat.axes.reset import Periodic
from qhat.axes.resolution import Growing
from qhat.environments.catalogue import is_from_python
from qhat.environments.scales import largest_score
from qhat.system.devices import dividing
from qhat.system.errors import require, setting
from qhat.system.files import quote
from qhat.system.ray_address import require_address

if TYPE_CHECKING:
    from qhat.recipes.config import TrainConfig
    from qhat.recipes.recipe import Recipe

AUTO = "auto"
"""A `stop_below` that the demonstrations say."""
MOST_ACTORS = 10_000
"""Largest number of actors of one learner."""


def with_a_copy_each(recipe: Recipe, actors: Any) -> Recipe:
    """Return the recipe with at least as many environments as there are actors to step them."""
    few = (
        type(actors) is int
        and type(recipe.num_envs) is int
        and 1 <= recipe.num_envs < actors <= MOST_ACTORS
    )
    return dataclasses.replace(recipe, num_envs=actors) if few else recipe


def require_reachable(config: TrainConfig) -> None:
    """Raise `UsageError` for a `stop_at` that no evaluation can reach."""
    if config.stop_at is None:
        return
    require(
        math.isfinite(config.stop_at),
        f"{setting('stop_at')} is {config.stop_at}; expected a finite score, or none.",
    )
    changed = config.env_kwargs or config.wrap or is_from_python(config.env)
    largest = None if changed else largest_score(config.env)
    require(
        largest is None or config.stop_at <= largest,
        f"{setting('stop_at')} is {config.stop_at:g}, and the largest possible score of '{config.env}' is"
        f" {largest or 0:g}; expected at most that.",
    )


def require_floor(config: TrainConfig) -> None:
    """Raise `UsageError` for a `stop_below` without meaning."""
    floor, name = config.stop_below, setting("stop_below")
    if floor is None:
        return
    good = isinstance(floor, int | float) and not isinstance(floor, bool) and math.isfinite(floor)
    require(
        good or floor == AUTO,
        f"{name} is {quote(floor)}; expected a finite score, {AUTO}, or none.",
    )
    require(
        floor != AUTO or not config.resume,
        f"{name} {AUTO} has no meaning with {setting('resume')}: its number is in the run's config.json."
        " Leave it out, or give a number.",
    )
    require(
        floor == AUTO or config.stop_at is None or floor < config.stop_at,
        f"{name} is {floor} and {setting('stop_at')} {config.stop_at}; expected less.",
    )


def require_together(config: TrainConfig) -> None:
    """Raise `UsageError` for what a run of which groups of seeds train on a cluster does not do."""
    if config.cluster is None or config.actors is not None:
        return
    for name, value in (("demo_share", config.recipe.demo_share), ("stop_below", config.stop_below)):
        require(
            value is None or (name == "demo_share" and not value),
            f"{setting(name, value)} has no meaning for seeds that {setting('cluster')} spreads over"
            " machines; expected one machine. Leave one of them out.",
        )


def require_placement(config: TrainConfig) -> None:
    """Raise `UsageError` for a cluster, or actors, that cannot be."""
    if config.cluster is not None:
        require_address(config.cluster)
    cpus, count = config.actor_cpus, config.actors
    require(
        isinstance(cpus, int | float) and not isinstance(cpus, bool) and 0 < cpus <= 1024,
        f"{setting('actor_cpus')} is {quote(cpus)}; expected a number of cores from 0.01 to 1024.",
    )
    require_learners(config)
    if count is None:
        return
    require(
        isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MOST_ACTORS,
        f"{setting('actors')} is {quote(count)}; expected a whole number from 1 to {MOST_ACTORS:,}. Without"
        " it, the environments are stepped in the learner's process.",
    )
    require_address(config.cluster or "local")
    require(
        config.seeds == 1,
        f"{setting('actors')} and {setting('seeds', config.seeds)} have no meaning together: actors feed"
        f" one learner. Train one seed at a time, or leave {setting('actors')} out.",
    )
    require(
        count > 1 or not isinstance(config.recipe.explore, NoExploration),
        f"{setting('actors', 1)} with {setting('explore', 'greedy')} never tries another action: actors act"
        f" in NumPy, without the noise of layers. Expected {setting('explore', 'epsilon')}, or"
        f" {setting('actors', 2)} or more, which have an ε each.",
    )
    require(
        config.recipe.num_envs % count == 0,
        f"{setting('num_envs', config.recipe.num_envs)} cannot be shared by {setting('actors', count)};"
        f" expected a multiple, such as {setting('num_envs', count)}: one environment for each.",
    )


def require_resets(config: TrainConfig) -> None:
    """Raise `UsageError` for resets of which none falls into the run."""
    reset = config.recipe.reset
    if not isinstance(reset, Periodic):
        return
    recipe = config.recipe.scheduled(config.steps)
    updates, last = _updates(config), recipe.reset.scheduled(0)
    assert isinstance(last, Periodic)
    assert last.last is not None, "it was scheduled"
    rest = f", and none falls into its last {reset.every:,}" if reset.last is None else ""
    every = max(1, min(updates, updates if reset.last is None else reset.last) // 4)
    good = setting("reset", spell(dataclasses.replace(reset, every=every)))
    require(
        reset.every <= min(updates, last.last),
        f"{setting('reset', spell(reset))} resets nothing: the run has {updates:,} updates{rest}. Expected"
        f" {good}, or a longer run.",
    )


def require_replay(config: TrainConfig) -> None:
    """Raise `UsageError` for what needs replay, of a recipe that has none."""
    if config.recipe.training.replays:
        return
    name = setting("training", spell(config.recipe.training))
    for field, needs in (("demos", "fill"), ("actors", "are stored in"), ("learners", "draw from")):
        value = getattr(config, field)
        require(not value, f"{name} has no replay that {setting(field)} {needs}; leave it out.")


def require_memory(config: TrainConfig) -> None:
    """Raise `UsageError` for steps that come without the states of a memory."""
    if not config.recipe.memory.remembers:
        return
    name = setting("memory", spell(config.recipe.memory))
    for field, why in (
        ("demos", "has stored no states for their observations"),
        ("actors", "is not carried by actors, which act in NumPy"),
        ("learners", "has sequences that devices cannot share"),
    ):
        value = getattr(config, field)
        require(not value, f"{name} {why}; leave {setting(field)} out.")


def require_growth(config: TrainConfig) -> None:
    """Raise `UsageError` for commands that come into use after the run's end."""
    resolution, updates = config.recipe.resolution, _updates(config)
    if not isinstance(resolution, Growing) or resolution.last is None:
        return
    fit = dataclasses.replace(resolution, last=None)
    require(
        resolution.last <= updates,
        f"{setting('resolution', spell(resolution))} has all commands in use after {resolution.last:,}"
        f" updates, and the run has {updates:,}; expected no more than these, or"
        f" {setting('resolution', spell(fit))}, which follows the run.",
    )


def require_horizon(config: TrainConfig) -> None:
    """Raise `UsageError` for an n and a γ that never are the recipe's."""
    horizon, reset, updates = config.recipe.horizon, config.recipe.reset, _updates(config)
    if not isinstance(horizon, Receding):
        return
    several = isinstance(reset, Periodic) and reset.every < updates
    most = min(reset.every, updates) if isinstance(reset, Periodic) else updates
    why = f"weights are reset every {most:,} updates" if several else f"the run has {updates:,}"
    require(
        horizon.updates <= most,
        f"{setting('horizon', spell(horizon))} comes to the recipe's n and γ after {horizon.updates:,}"
        f" updates, and {why}; expected no more than these, for example"
        f" {setting('horizon', spell(dataclasses.replace(horizon, updates=max(1, most // 4))))}.",
    )


def require_acting(config: TrainConfig) -> None:
    """Raise `UsageError` for what needs steps, of a run that takes none."""
    if config.recipe.training.acts:
        return
    name = setting("training", config.recipe.training.name)
    for field in ("actors", "learners", "log"):
        value = getattr(config, field)
        require(not value, f"{name} steps no environment; leave {setting(field)} out.")


def require_recorded(config: TrainConfig) -> None:
    """Raise `UsageError` for a new run without the recorded steps that it is to learn from."""
    training, share = config.recipe.training, config.recipe.demo_share
    require(
        not share or config.resume or bool(config.demos),
        f"{setting('demo_share', share)} takes a share of every batch from demonstrations, and there are"
        f" none; expected {setting('demos')}: .npz files, or minari: and an id. Without them:"
        f" {setting('demo_share', 0.0)}.",
    )
    require(
        config.stop_below != AUTO or config.resume or bool(config.demos),
        f"{setting('stop_below', AUTO)} takes the interval of the demonstrations' returns, and there are"
        f" none; expected {setting('demos')}, or a number, as {setting('stop_below', 100.0)}.",
    )
    require(
        training.acts or config.resume or bool(config.demos),
        f"{setting('training', training.name)} learns from recorded steps alone, and there are none;"
        f" expected {setting('demos')}: .npz files, or others (docs/demonstrations.md).",
    )


def require_rollouts(config: TrainConfig) -> None:
    """Raise `UsageError` for a run that ends before its first rollout does."""
    recipe = config.recipe
    size = recipe.training.every(recipe) * recipe.num_envs
    require(
        recipe.training.replays or config.steps >= size,
        f"{setting('training', spell(recipe.training))} with {setting('num_envs', recipe.num_envs)} learns"
        f" from {size:,} steps at a time, and the run has {config.steps:,}; expected"
        f" {setting('steps', size)} or more.",
    )


OF_A_RUN = (
    require_replay, require_memory, require_resets, require_growth, require_horizon, require_rollouts,
    require_acting, require_floor, require_together,
)  # fmt: skip
"""What else a run's settings have to be."""


def _updates(config: TrainConfig) -> int:
    return config.recipe.scheduled(config.steps).updates_in(config.steps)


def require_learners(config: TrainConfig) -> None:
    """Raise `UsageError` for a number of devices that cannot share a batch."""
    count, batch = config.learners, config.recipe.batch_size
    if count is None:
        return
    require(
        type(count) is int and count >= 1,
        f"{setting('learners')} is {quote(count)}; expected a whole number of 1 or more: the devices that"
        " share each batch.",
    )
    require(
        config.actors is not None,
        f"{setting('learners', count)} has no meaning without {setting('actors')}: only the batches of a"
        " learner with actors are shared by devices. Leave it out.",
    )
    if type(batch) is int and batch >= 1:
        fits = dividing(batch, min(count, batch))
        require(
            batch % count == 0,
            f"{setting('batch_size', batch)} cannot be shared by {setting('learners', count)}; expected a"
            f" number that divides it, such as {setting('learners', fits)}.",
        )
