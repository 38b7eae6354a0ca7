"""Makes the state of an `Agent` from a run: from simulation to the robot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qhat.agent.made import fresh_state, prepared
from qhat.agent.saved import Loaded, changed_recipe, read_agent
from qhat.axes.axis import AxisValue, spell
from qhat.axes.behaviour import NoBehaviour
from qhat.axes.relabel import NoRelabel
from qhat.axes.training import Replay
from qhat.engine.iteration import Program
from qhat.engine.prefill import primed
from qhat.environments.base import laid_out
from qhat.runs.folder import path_of
from qhat.runs.run import Run
from qhat.system.errors import require, setting, warn
from qhat.system.files import current_folder


def loaded_from(
    path: Any,
    parts: Iterable[type[AxisValue]],
    checkpoint: str | int,
    seed_index: int | None,
    settings: Mapping[str, Any],
) -> Loaded:
    """Read what an agent goes on from: a run, or what `Agent.save` wrote.

    Raises:
        UsageError: there is neither, or an argument does not fit it.
    """
    folder = path_of(path)
    exists = folder.name != "" and current_folder(folder).exists()
    require(exists, f"There is no run and no saved agent '{folder}'.")
    if (folder / "config.json").exists():
        run = Run.open(folder, tuple(parts))
        return _of_run(run, checkpoint, run.seed_index(seed_index), settings)
    for name, given in (("checkpoint", checkpoint != "best"), ("seed_index", seed_index is not None)):
        require(
            not given, f"{name} is for a run, and '{folder}' is a saved agent, of one state; leave it out."
        )
    return read_agent(folder, parts, settings)


def _of_run(run: Run, checkpoint: str | int, at: int, settings: Mapping[str, Any]) -> Loaded:
    """Read the weights of seed `at`; ε and β go on from their step. Replay and optimiser are new.

    Raises:
        UsageError: there is no such checkpoint, or a setting changes the network.

    Warns:
        UserWarning: wrappers stood around the run's environment.
    """
    path, about = run.folder.path, run.summary()
    recipe = run.program.recipe
    training = recipe.training if recipe.training.streams else Replay()
    # The caller's loop decides how often it learns: any number that one environment can have.
    ratio = recipe.replay_ratio
    ratio = float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
    # An agent has no recorded steps.
    behaviour = NoBehaviour() if recipe.behaviour.needs_logged else recipe.behaviour
    recipe = dataclasses.replace(
        recipe, num_envs=1, replay_ratio=ratio, relabel=NoRelabel(), training=training, demo_share=0.0,
        behaviour=behaviour,
    )  # fmt: skip
    recipe = changed_recipe(recipe, settings, path)
    spec = laid_out(run.spec)
    if run.wrap:
        wrap = ", ".join(setting("wrap", spell(part)) for part in run.wrap)
        warn(
            f"Run '{path}' was trained with {wrap}: give the agent what leaves these wrappers, observations"
            " and rewards.",
            stacklevel=3,
        )
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, spec.masked, layout=spec.layout)
    prepared(program)
    number = run.folder.read_config()["seed"] + at
    fresh = jax.jit(lambda key: fresh_state(program, key))(jax.random.key(number))
    online = jax.tree.map(lambda leaf: jnp.asarray(leaf[at]), run.weights(checkpoint))
    target = program.recipe.target.first(online)
    seed = dataclasses.replace(
        fresh, learner=dataclasses.replace(fresh.learner, online=online, target=target)
    )
    steps = about["step"] if checkpoint == "last" else about["best_step"][at]
    steps = int(checkpoint) if str(checkpoint).isdigit() else steps
    return Loaded(program, primed(program, seed), (steps, 0, 0, 0), {}, number, since=steps)
