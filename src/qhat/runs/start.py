"""Starts a run: fresh, from another run's weights, with demonstrations, or where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.axes.axis import from_json, spell
from qhat.cluster.environment import COLUMNS
from qhat.cluster.loop import ActorLoop
from qhat.demonstrations.reading import Demonstrations, joined, read
from qhat.engine.feed import Feed
from qhat.engine.guard import NOTHING
from qhat.engine.host import HostLoop
from qhat.engine.loop import Loop
from qhat.engine.prefill import prefill, primed, rows_of
from qhat.engine.state import TrainState
from qhat.environments import info
from qhat.environments.base import Spec, laid_out
from qhat.environments.catalogue import is_from_python, marked, require_made_by_id
from qhat.environments.user_envs import from_python
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import SPAN, base_of, folder_of, label_of_run, spans_of
from qhat.recipes.parts import PARTS, names_of
from qhat.recipes.recipe import AXES
from qhat.runs import checkpoint, fed
from qhat.runs.floor import RECORDED, interval_of
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.manifest import read_about
from qhat.runs.pieces import Pieces
from qhat.runs.run import AGENT, load_best, spec_from_json, spec_to_json
from qhat.system.errors import UsageError, blaming, require, setting, warn
from qhat.system.files import quote, write_text

AnyLoop = Loop | HostLoop | ActorLoop
"""What runs a program."""
LOGGED = "demo_rows"
"""Name of the number of demonstrations' rows in config.json, where they have a share of every batch."""
FIXED = ("env", "recipe", "env_kwargs", "wrap", "seeds", "seed", "spec")
"""Settings that resuming cannot change."""
CHANGED = (
    "recipe_name", "steps", "stop_at", "stop_below", "on_nan", "log", "cluster", "actors", "actor_cpus",
    "learners",
)  # fmt: skip
"""Settings that resuming writes again; in older runs the name may disagree with the recipe."""


def begin(
    config: TrainConfig,
    loop: AnyLoop,
    spec: Spec,
    keys: Array,
    closing: contextlib.ExitStack,
    demonstrations: list[Demonstrations],
    feed: Feed | None = None,
) -> tuple[RunFolder, TrainState, dict[str, Any]]:
    """Return the folder, the state to train from, and the best weights so far.

    Args:
        keys: random keys of the seeds, `[S]`.
        closing: releases the folder's lock at the end of the run.
        demonstrations: what the run begins with; it is empty afterwards.
        feed: fills replay instead, where it has no room for them.
    """
    if config.resume:
        assert config.run_dir is not None
        folder = RunFolder.open(config.run_dir)
        closing.enter_context(sole(folder.path))
        return _resume(config, loop, spec, keys, folder)
    state = loop.init(keys)
    if config.init_from is not None:
        state = _warm_start(config, loop, state, config.init_from)
    about: dict[str, Any] = {LOGGED: loop.program.logged} if loop.program.logged else {}
    if demonstrations:
        if config.stop_below is not None and (found := interval_of(demonstrations)) is not None:
            about[RECORDED] = found
        if feed is None:
            state = prefill(loop.program, state, joined(demonstrations))
        demonstrations.clear()
    if feed is not None:
        state = feed.fill(state)
    folder = RunFolder.create(config.run_dir, config.env, folder_of(config.recipe_name))
    closing.enter_context(sole(folder.path))
    names = names_of(config.recipe)
    parts = {PARTS: names} if names else {}
    folder.describe({**config.to_json(), "spec": spec_to_json(spec), SPAN: config.steps, **parts, **about})
    folder.logged = columns_of(config)
    folder.start_tables()
    if feed is not None:
        fed.note(folder, feed.marks)
    weights = jax.tree.map(np.asarray, state.seeds.learner.online)
    S = config.seeds
    best = {"weights": weights, "score": np.full(S, -np.inf), "step": np.zeros(S, np.int64)}
    return folder, state, best


def _resume(
    config: TrainConfig, loop: AnyLoop, spec: Spec, keys: Array, folder: RunFolder
) -> tuple[RunFolder, TrainState, dict[str, Any]]:
    written = folder.read_config()
    written["spec"] = spec_to_json(spec_from_json(written.get("spec")).completed(spec))
    wanted = {**config.to_json(), "spec": spec_to_json(spec)}
    if is_from_python(spec.id) and not is_from_python(written["env"]):
        # An older run has no mark of an environment from Python; it gets one now.
        written |= {
            "env": marked(written["env"]),
            "spec": spec_to_json(from_python(_spec(folder, written))),
        }
    for name in FIXED:
        if written.get(name) != wanted[name]:
            other = _difference(name, written, wanted)
            raise UsageError(
                f"Run '{folder.path}' was trained with {other}; resuming keeps the run's settings, and only"
                f" {setting('steps')} may change. With other settings, a new run starts from its weights:"
                f" {setting('init_from', str(folder.path))}."
            )
    last, S = folder.last(), config.seeds
    shape = kept(loop, jax.eval_shape(loop.init, keys))
    best_shape = {
        "weights": shape.seeds.learner.online,
        "score": jax.ShapeDtypeStruct((S,), np.float64),
        "step": jax.ShapeDtypeStruct((S,), np.int64),
    }
    state = on_device(Pieces(shape).read(last))
    best = checkpoint.read_tree(last, "best", best_shape, finite=["weights"])
    at, step = int(state.clock.iterations), read_about(last)["step"]
    if at * config.recipe.num_envs != step:
        raise UsageError(
            f"'{last}' is damaged: its manifest has step {step:,} and its state step"
            f" {at * config.recipe.num_envs:,}."
        )
    folder.logged = columns_of(config)
    folder.rewind(at * config.recipe.num_envs)
    # A run that is longer than what is asked for stays so.
    wanted["steps"] = max(config.steps, min(step, int(written.get("steps", 0))))
    write_text(
        folder.config,
        json.dumps({**written, **{name: wanted[name] for name in CHANGED}}, indent=2) + "\n",
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, at)
    if not loop.environment.snapshots:
        state = loop.restart(state, keys)
    if written.get("on_nan") != config.on_nan:
        state = _forgiven(loop, state, keys)
    return folder, state, best


def recorded(config: TrainConfig, spec: Spec) -> list[Demonstrations]:
    """Read the recorded steps that the run begins with, from every source."""
    return [read(source, spec, config.recipe.behaviour.rewarded) for source in config.demos]


def require_whole(config: TrainConfig, demonstrations: Sequence[Demonstrations]) -> None:
    """Raise `UsageError` if logs are all that a run has, and no row of them says that an episode ended.

    Args:
        demonstrations: of each source.

    Warns:
        UserWarning: a recording breaks off without saying so.
    """
    named = config.demos if demonstrations else ()
    for source, episodes in zip(named, demonstrations, strict=True):
        if (sentence := episodes.breaks(source)) is not None:
            warn(sentence, stacklevel=3)
    if demonstrations and not config.recipe.training.acts:
        _require_ends(config.demos, demonstrations)


def _require_ends(sources: Sequence[str], demonstrations: Sequence[Demonstrations]) -> None:
    """Raise `UsageError` if no row of any source says that an episode ended."""
    marked = any(each.marked is not None and each.marked.any() for each in demonstrations)
    names = ", ".join(quote(source) for source in sources)
    require(
        marked,
        f"Demonstrations {names} have no end of an episode: none of"
        f" {sum(map(len, demonstrations)):,} rows is terminated or truncated, and where a task ends is what"
        " values rest on. Expected the marks; of a task that never ends, the last row of each recording as"
        " truncated. Nothing was stored.",
    )


def sized(config: TrainConfig, demonstrations: Sequence[Demonstrations], stack: int) -> TrainConfig:
    """Return the configuration; the replay of one that does not act holds all that was recorded."""
    recipe = config.recipe
    if recipe.training.acts:
        return config
    rows = rows_of(demonstrations, recipe.num_envs, stack)
    return dataclasses.replace(config, recipe=dataclasses.replace(recipe, replay_capacity=rows))


def logged_rows_of(config: TrainConfig, demonstrations: Sequence[Demonstrations], stack: int) -> int:
    """Return the rows of demonstrations that have a share of every batch; 0 where they have none."""
    if not config.recipe.demo_share:
        return 0
    if not config.resume:
        return rows_of(demonstrations, 1, stack)
    assert config.run_dir is not None
    folder = RunFolder.open(config.run_dir)
    rows = folder.read_config().get(LOGGED)
    if type(rows) is not int or not 0 < rows < 2**31:
        raise UsageError(
            f"'{folder.config}': {LOGGED} is {quote(rows)}; expected the rows of the demonstrations."
        )
    return rows


def columns_of(config: TrainConfig) -> tuple[str, ...]:
    """Return the columns that this run's metrics.csv has beside those of every run."""
    return (*config.log, *(COLUMNS if config.actors else ()))


def spec_of_run(config: TrainConfig, spec: Spec) -> Spec:
    """Return the spec to train with: a resumed run keeps its layout of observations.

    Warns:
        UserWarning: observations are changed in a way that their space does not show.
    """
    if config.resume:
        assert config.run_dir is not None
        written = RunFolder.open(config.run_dir).read_config().get("spec")
        known = isinstance(written, dict) and written.get("layout") is not None
        return laid_out(spec) if known else dataclasses.replace(spec, layout=None)
    spec = laid_out(spec)
    for note in spec.layout.notes(spec.id, config.recipe.normalise) if spec.layout else ():
        warn(note, stacklevel=2)
    return spec


def _spec(folder: RunFolder, written: dict[str, Any]) -> Spec:
    with blaming(f"'{folder.config}'"):
        return spec_from_json(written["spec"])


def horizon_of(config: TrainConfig) -> int:
    """Return the environment steps over which schedules run; a resumed run keeps its first value."""
    if not config.resume:
        return config.steps
    assert config.run_dir is not None
    written = RunFolder.open(config.run_dir).read_config()
    return (*spans_of(written), config.steps)[0]


def with_log(config: TrainConfig) -> TrainConfig:
    """Return the configuration, which logs what the run to resume logged too."""
    assert config.run_dir is not None
    names = RunFolder.open(config.run_dir).read_config().get("log", [])
    with blaming(f"'{config.run_dir / 'config.json'}'"):
        info.require_names(tuple(names) if isinstance(names, list) else names)
    return dataclasses.replace(config, log=tuple(dict.fromkeys([*names, *config.log])))


def step_reached(config: TrainConfig) -> int:
    """Return the step of the last checkpoint of the run to resume.

    Raises:
        UsageError: its environment was handed over from Python, and an id was given.
    """
    assert config.run_dir is not None
    folder = RunFolder.open(config.run_dir)
    require(
        not folder.read_config().get(AGENT),
        f"Run '{folder.path}' was written by an Agent, and its loop goes on in Python:"
        f" qhat.Agent.load('{folder.path}').",
    )
    if not is_from_python(config.env):
        how = f"it again in Python: qhat.train(env, run_dir='{folder.path}', resume=True)"
        require_made_by_id(folder.read_config()["env"], how)
    return read_about(folder.last())["step"]


def on_device(state: TrainState) -> TrainState:
    """Convert arrays to JAX's, one after the other, so that at most one exists twice."""
    leaves, structure = jax.tree.flatten(state)
    del state
    for index, leaf in enumerate(leaves):
        leaves[index] = jnp.asarray(leaf)
    return jax.tree.unflatten(structure, leaves)


def _forgiven(loop: AnyLoop, state: TrainState, keys: Array) -> TrainState:
    """Clear the faults; seeds that had one begin new episodes."""
    met = state.seeds.guard.what != NOTHING
    if loop.environment.snapshots and met.any():
        # A copy, as `restart` donates its argument.
        again = loop.restart(jax.tree.map(jnp.copy, state), keys).seeds

        def fresh(new: Array, old: Array) -> Array:
            return jnp.where(met.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        state = TrainState(state.clock, jax.tree.map(fresh, again, state.seeds))
    return eqx.tree_at(lambda whole: whole.seeds.guard.what, state, jnp.zeros_like(met, jnp.int32))


def _difference(name: str, run: dict[str, Any], config: dict[str, Any]) -> str:
    """Name the setting that differs, with both values if they are short."""
    old, wanted = run.get(name), config[name]
    if name == "recipe" and isinstance(old, dict):
        labels = label_of_run(run), config["recipe_name"]
        if base_of(labels[0]) != base_of(labels[1]):
            return f"recipe {labels[0]} and not {labels[1]}"
        name = next(key for key in (*wanted, *old) if old.get(key) != wanted.get(key))
        old, wanted = (_part(name, recipe.get(name)) for recipe in (old, wanted))
    if isinstance(old, dict | list) or isinstance(wanted, dict | list):
        return f"another {name}"
    return f"{name} {old} and not {wanted}"


def _part(axis: str, value: Any) -> Any:
    """Write a part of a recipe as on the command line; a part from outside the package does not change."""
    try:
        return spell(from_json(value, AXES[axis])) if axis in AXES else value
    except UsageError:
        return value


def kept(loop: AnyLoop, state: TrainState) -> TrainState:
    """Return the part of a state that a checkpoint stores: without environments that cannot be saved."""
    if loop.environment.snapshots or state.seeds.environment is None:
        return state
    return eqx.tree_at(lambda whole: whole.seeds.environment, state, replace_fn=lambda _: None)


def _warm_start(config: TrainConfig, loop: AnyLoop, state: TrainState, source: Path) -> TrainState:
    parameters = load_best(RunFolder.open(source), state.seeds.learner.online, config.recipe)
    target = config.recipe.target.first(parameters)
    learner = dataclasses.replace(state.seeds.learner, online=parameters, target=target)
    seeds = eqx.tree_at(lambda each: each.learner, state.seeds, learner)
    return TrainState(state.clock, primed(loop.program, seeds))
