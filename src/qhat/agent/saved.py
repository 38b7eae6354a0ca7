"""Writing the manifest of an `Agent`, and reading what it saved, also with an older qhat."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.acting import row_of
from qhat.agent.arguments import require_replay
from qhat.agent.made import fresh_state, prepared
from qhat.agent.recalls import Recalls
from qhat.agent.stream_names import Stream, read_names
from qhat.agent.streams import Streams, Track
from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue
from qhat.engine.iteration import Program
from qhat.engine.prefill import primed
from qhat.engine.replay import linked
from qhat.engine.state import SeedState
from qhat.environments.observations import Observations, read_layout, read_space, write_observation
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import NAMES, changed, require_known
from qhat.runs import checkpoint
from qhat.system.errors import QhatError, UsageError, blaming, require
from qhat.system.files import quote

NETWORK = (
    "head",
    "memory",
    "merge",
    "dense",
    "torso",
    "hidden",
    "layer_norm",
    "joints",
    "bins",
    "resolution",
    "normalise",
)
"""Settings that weights were learned with."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What an `Agent` starts from."""

    program: Program
    seed: SeedState
    counts: tuple[int, ...]
    """Steps, updates, acts, and numbers drawn."""
    exploring: dict[Stream, Any]
    """State of exploration of each stream."""
    number: int
    """The seed."""
    since: int = 0
    """Steps that a run did before, of which replay has none."""
    acting: Any = None
    """Weights that explore, where they are not the learner's."""
    streams: Callable[[Streams], None] = lambda _: None
    """Reopens the streams that were open."""
    recalls: Callable[[Recalls], None] = lambda _: None
    """Restores the states of the memory."""


def about(program: Program, steps: int, updates: int, acts: int, drawn: int = 0) -> dict[str, Any]:
    """Return the manifest of an agent, which `read_agent` reads."""
    return {
        "recipe": program.recipe.to_json(),
        "observation": write_observation(program.shape, program.dtype, program.layout),
        "actions": program.actions.to_json(),
        "masked": program.masked,
        "steps": steps,
        "updates": updates,
        "acts": acts,
        "drawn": drawn,
    }


def write_agent(folder: Path, trees: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write an agent. Raises `QhatError` where the disk does not take it; an older one there stays."""
    try:
        checkpoint.write(folder, trees, manifest)
    except OSError as error:
        raise QhatError(f"'{folder}' cannot be written: {error.strerror or error}.") from error


def read_saved(
    about: Mapping[str, Any], parts: Iterable[type[AxisValue]]
) -> tuple[Recipe, tuple[tuple[int, ...], str, Actions, bool], Observations | None, tuple[int, ...]]:
    """Read the manifest of an agent: recipe, spaces, layout of observations, and its four counts.

    Args:
        parts: classes of the recipe's parts from outside the package.

    Raises:
        UsageError: a field is missing or damaged.
    """
    try:
        shape, dtype = read_space(about["observation"]["shape"], about["observation"]["dtype"])
        layout = read_layout(about["observation"].get("layout"), shape, dtype)
        counts = (about["steps"], about["updates"], about["acts"], about.get("drawn", 0))
        masked, actions = about.get("masked", False), Actions.from_json(about["actions"])
        flags = (masked, *(about.get(name, False) for name in ("replay", "open", "acting")))
        known = all(type(count) is int and 0 <= count < 2**31 for count in counts)
        if not known or not all(isinstance(flag, bool) for flag in flags):
            raise TypeError
        recipe = Recipe.from_json(about["recipe"], parts)
    except UsageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise UsageError(
            "its manifest lacks fields, or they are damaged. The policy of a run folder is"
            " qhat.Run.open(folder).policy()."
        ) from None
    return (
        dataclasses.replace(recipe, num_envs=1).validate(),
        (shape, dtype, actions, masked),
        layout,
        counts,
    )


def read_agent(folder: Path, parts: Iterable[type[AxisValue]], settings: Mapping[str, Any]) -> Loaded:
    """Read a saved agent, with `settings` changed in its recipe.

    Raises:
        UsageError: there is none, or it is damaged, or a setting does not fit what was saved.
    """
    manifest = checkpoint.read_manifest(folder)
    with blaming(f"'{folder}' is not a saved agent"):
        recipe, spaces, layout, counts = read_saved(manifest, parts)
        for field in ("streams", "exploring", "recalling"):
            read_names(manifest, field)
        for name in ("seed", "since"):
            value = manifest.get(name, 0)
            good = type(value) is int and 0 <= value < 2**31
            require(good, f"{name} is {quote(value)}; expected a whole number.")
        number, since = manifest.get("seed", 0), manifest.get("since", 0)
        program = Program.of(recipe, *spaces, layout=layout)
    with blaming(f"'{folder}'"):
        like = prepared(program)
    fresh = jax.jit(functools.partial(fresh_state, program))(jax.random.key(0))
    seed, exploring = read_seed(folder, manifest, program, like, fresh)
    acting = None
    if manifest.get("acting"):
        online = checkpoint.read_tree(folder, "acting", like.learner.online, finite=[""])
        acting = dataclasses.replace(seed.learner, online=jax.tree.map(jnp.asarray, online))
    if settings:
        other = Program.of(changed_recipe(recipe, settings, folder), *spaces, layout=layout)
        _require_fits(folder, program, other, settings, bool(manifest.get("replay")))
        if jax.tree.structure(other.recipe.explore.init(1, other.actions)) != jax.tree.structure(
            recipe.explore.init(1, program.actions)
        ):
            exploring = {}
        if not manifest.get("replay"):
            again = jax.jit(functools.partial(fresh_state, other))(jax.random.key(0))
            seed = dataclasses.replace(seed, ring=again.ring, sampler=again.sampler)
            seed = primed(other, seed)
        program = other
    reopen = functools.partial(read_open_streams, folder, manifest, seed=seed)
    restore = functools.partial(read_recalls, folder, manifest)
    return Loaded(program, seed, counts, exploring, number, since, acting, reopen, restore)


def changed_recipe(recipe: Recipe, settings: Mapping[str, Any], source: Path) -> Recipe:
    """Return the recipe of what `source` has, with other settings.

    Raises:
        UsageError: a setting that there is not, or one that the weights were learned with.
    """
    for name in ("num_envs", "steps"):
        require(name not in settings, f"{name} is no setting of Agent.load: the caller's loop decides it.")
    require_known(settings, NAMES, "Agent.load")
    other = changed(recipe, settings).validate()
    require_replay(other)
    for name in NETWORK:
        old, new = (getattr(each, name) for each in (recipe, other))
        require(
            old == new,
            f"{name} is {new!r}, and the weights of '{source}' were learned with {old!r}; expected the"
            " same. A new Agent learns with others.",
        )
    return dataclasses.replace(other, num_envs=1)


def _require_fits(
    folder: Path, saved: Program, other: Program, settings: Mapping[str, Any], replay: bool
) -> None:
    """Raise `UsageError` for the settings that change the form of what was saved."""

    def forms(program: Program, part: str) -> Any:
        state = jax.eval_shape(functools.partial(fresh_state, program), jax.random.key(0))
        return state.learner if part == "optimiser" else (state.ring, state.sampler)

    for part in ("optimiser", "replay") if replay else ("optimiser",):
        old, new = (forms(program, part) for program in (saved, other))
        if jax.tree.structure(old) == jax.tree.structure(new) and all(
            (a.shape, a.dtype) == (b.shape, b.dtype)
            for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        ):
            continue
        names = ", ".join(settings)
        fix = "save it with replay=False, which takes them" if part == "replay" else "leave them out"
        raise UsageError(
            f"The {part} that '{folder}' has saved does not fit the new {names}; expected settings that"
            f" keep its form, or {fix}."
        )


def rest(seed: SeedState) -> dict[str, Any]:
    """Return the state beside the learner and replay: the random key, and the exploration."""
    return {"key": seed.key, "exploration": seed.exploration}


def read_seed(
    folder: Path, about: dict[str, Any], program: Program, like: SeedState, fresh: SeedState
) -> tuple[SeedState, dict[Stream, Any]]:
    """Read the state of learning, and the state of exploration of each stream.

    Args:
        like: shapes of an agent's state.
        fresh: the state of a new agent.

    Raises:
        UsageError: a tree is damaged or missing, or has other shapes.
    """
    # An older agent has one stream, without a name.
    older = "streams" not in about
    names: list[Stream] = [0] if older else read_names(about, "exploring")
    explore = program.recipe.explore
    states = jax.eval_shape(lambda: explore.init(max(len(names), 1), program.actions))
    learner = checkpoint.read_tree(folder, "learner", like.learner, finite=("online", "target"))
    others = checkpoint.read_tree(folder, "rest", {"key": like.key, "exploration": states})
    seed = primed(program, dataclasses.replace(fresh, learner=learner, key=others["key"]))
    if about.get("replay"):
        ring = eqx.tree_at(lambda ring: ring.links, like.ring, None) if older else like.ring
        ring, sampler = checkpoint.read_tree(folder, "replay", (ring, like.sampler))
        ring = jax.tree.map(jnp.asarray, ring)
        seed = dataclasses.replace(seed, ring=linked.linked(ring) if older else ring, sampler=sampler)
    exploring = {name: row_of(others["exploration"], row) for row, name in enumerate(names)}
    return jax.tree.map(jnp.asarray, seed), exploring


def read_recalls(folder: Path, about: dict[str, Any], recalls: Recalls) -> None:
    """Restore the states of the memory of each stream. Raises `UsageError`: the data is damaged."""
    if names := read_names(about, "recalling"):
        recalls.restore(names, checkpoint.read_tree(folder, "recalls", recalls.shapes(len(names))))


def read_open_streams(folder: Path, about: dict[str, Any], streams: Streams, seed: SeedState) -> None:
    """Reopen the streams that were open when the agent was saved.

    Raises:
        UsageError: the data is damaged.
    """
    shape, dtype, _, _ = streams.layout
    if "streams" in about:
        names = read_names(about, "streams")
        if names:
            like = streams.shapes(len(names))
            streams.reopen(names, checkpoint.read_tree(folder, "streams", like))
    elif about.get("open"):
        one = {"observation": jax.ShapeDtypeStruct(shape, dtype)}
        after = checkpoint.read_tree(folder, "open", one)["observation"]
        if about.get("replay"):
            slot = streams.at % streams.rows
            trace = 0.0 if seed.ring.outlook is None else float(seed.ring.outlook.trace[0])
            legal = None if seed.ring.legal is None else np.asarray(seed.ring.legal[slot])
            streams.open[0] = Track(streams.at - 1, after, legal, trace, in_replay=True)
