"""Writing the manifest of an `Agent`, and reading what it saved, also with an older qhat."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.acting import row_of
from qhat.agent.streams import Stream, Streams, Track, read_names
from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue
from qhat.engine.iteration import Program
from qhat.engine.prefill import primed
from qhat.engine.replay import linked
from qhat.engine.state import SeedState
from qhat.environments.observations import Observations, read_layout, read_space, write_observation
from qhat.recipes.recipe import Recipe
from qhat.runs import checkpoint
from qhat.system.errors import UsageError


def about(program: Program, steps: int, updates: int, acts: int, drawn: int = 0) -> dict[str, Any]:
    """Return the manifest of an agent, which `read_saved` reads."""
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
