"""What a saved `Agent` is read from, also one that an older qhat wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.acting import row_of
from qhat.agent.streams import Stream, Streams, Track, read_names
from qhat.engine.iteration import Program
from qhat.engine.replay import linked
from qhat.engine.state import SeedState
from qhat.runs import checkpoint


def rest(seed: SeedState) -> dict[str, Any]:
    """Return what is neither learned nor remembered."""
    return {"key": seed.key, "exploration": seed.exploration}


def read_seed(
    folder: Path, about: dict[str, Any], program: Program, like: SeedState, fresh: SeedState
) -> tuple[SeedState, dict[Stream, Any]]:
    """Read everything that learning goes on from, and the exploration of each stream.

    Args:
        like: shapes of an agent's state.
        fresh: a state of an agent that has done nothing.

    Raises:
        UsageError: a tree is damaged, missing or foreign.
    """
    # Before there were streams all of it was one.
    older = "streams" not in about
    names: list[Stream] = [0] if older else read_names(about, "exploring")
    explore = program.recipe.explore
    states = jax.eval_shape(lambda: explore.init(max(len(names), 1), program.actions))
    learner = checkpoint.read_tree(folder, "learner", like.learner, finite=("online", "target"))
    others = checkpoint.read_tree(folder, "rest", {"key": like.key, "exploration": states})
    seed = program.primed(dataclasses.replace(fresh, learner=learner, key=others["key"]))
    if about.get("replay"):
        ring = eqx.tree_at(lambda ring: ring.links, like.ring, None) if older else like.ring
        ring, sampler = checkpoint.read_tree(folder, "replay", (ring, like.sampler))
        ring = jax.tree.map(jnp.asarray, ring)
        seed = dataclasses.replace(seed, ring=linked.linked(ring) if older else ring, sampler=sampler)
    exploring = {name: row_of(others["exploration"], row) for row, name in enumerate(names)}
    return jax.tree.map(jnp.asarray, seed), exploring


def read_open(folder: Path, about: dict[str, Any], streams: Streams, seed: SeedState) -> None:
    """Let the streams that were open go on.

    Raises:
        UsageError: damaged data.
    """
    shape, dtype, _, _ = streams.layout
    if "streams" in about:
        names = read_names(about, "streams")
        if names:
            like = streams.forms(len(names))
            streams.go_on(names, checkpoint.read_tree(folder, "streams", like))
    elif about.get("open"):
        one = {"observation": jax.ShapeDtypeStruct(shape, dtype)}
        after = checkpoint.read_tree(folder, "open", one)["observation"]
        if about.get("replay"):
            slot = streams.at % streams.rows
            trace = 0.0 if seed.ring.seen is None else float(seed.ring.seen.trace[0])
            legal = None if seed.ring.legal is None else np.asarray(seed.ring.legal[slot])
            streams.open[0] = Track(streams.at - 1, after, legal, trace, shown=True)
