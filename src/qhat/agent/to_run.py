"""Writes the weights of an `Agent` as a run folder, which every verb for runs takes."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qhat.agent.made import played
from qhat.engine.iteration import Program
from qhat.environments.base import Spec
from qhat.environments.user_envs import EnvLike, source_of
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import SPAN, folder_of, label_of
from qhat.recipes.parts import PARTS, names_of
from qhat.recipes.recipe import HORIZON
from qhat.runs import checkpoints
from qhat.runs.card import card
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.manifest import read_about
from qhat.runs.run import AGENT, Run, spec_to_json
from qhat.runs.tables import evaluation_rows
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import write_text


@dataclasses.dataclass(frozen=True)
class Situation:
    """What an agent has reached."""

    program: Program
    online: Any
    """Its weights, leaves `[1, ...]`."""
    seed: int
    steps: int
    episodes: Sequence[tuple[int, float, int]]
    """Of each finished training episode: the agent's step at its end, its score and its length."""


def write_run(
    now: Situation,
    env: str | EnvLike,
    run_dir: Path | None,
    env_kwargs: Mapping[str, Any],
    episodes: int,
    progress: Callable[[str], None],
) -> Run:
    """Evaluate the weights in `env`, and write them and the scores to a run folder, new or the agent's.

    Raises:
        UsageError: `env` has other spaces, or the folder is of something else.
    """
    program = now.program
    name = source_of(env, env_kwargs).name
    old = None if run_dir is None or not (run_dir / "config.json").exists() else RunFolder.open(run_dir)
    if old is None:
        RunFolder.require_unused(run_dir)
    else:
        _require_same(old, name, now)
    options: dict[str, Any] = {"episodes": episodes, "seed": SEED, "progress": progress}
    fresh = played(program, now.online, env, env_kwargs, **options)
    spaces: dict[str, Any] = {"actions": program.actions, "layout": program.layout, "dtype": program.dtype}
    spec = dataclasses.replace(fresh.spec, **spaces, stack=1, masked=program.masked)
    config = _config(now, name, spec, env_kwargs, episodes)
    folder = RunFolder.create(run_dir, name, folder_of(config.recipe_name)) if old is None else old
    names = names_of(config.recipe)
    parts = {PARTS: names} if names else {}
    with sole(folder.path):
        best = _best(now, folder, float(fresh.played.returns.mean()), old is None)
        if old is None:
            folder.start_tables()
        folder.describe(
            {**config.to_json(), "spec": spec_to_json(spec), SPAN: config.steps, AGENT: True, **parts}
        )
        # What an evaluation of the same step wrote is written again.
        folder.rewind(now.steps - 1)
        folder.append(folder.metrics, _episode_rows(now, folder))
        rows = evaluation_rows(now.steps, fresh.played, fresh.commanded)
        folder.append(folder.evaluations, rows)
        about = {
            "step": now.steps, "env": name, "recipe": config.recipe.to_json(),
            "best_score": [best["score"]], "best_step": [best["step"]], "halted": [False],
        }  # fmt: skip
        numbers = {"score": np.array([best["score"]]), "step": np.array([best["step"]], np.int64)}
        trees = {"weights": now.online, "best": {**best, **numbers}}
        checkpoints.save(folder, now.steps, trees, best["weights"], about)
        run = Run(folder, program, spec, dict(env_kwargs))
        write_text(folder.path / "README.md", card(folder.path, run.summary(), config, True, of_agent=True))
    return run


SEED = 3_000_000
"""Seed of the first episode; training, scores and exports use other seeds."""


def _config(
    now: Situation, name: str, spec: Spec, env_kwargs: Mapping[str, Any], episodes: int
) -> TrainConfig:
    recipe, steps = now.program.recipe, max(now.steps, 1)
    config = TrainConfig(
        name, recipe=recipe, steps=steps, seed=now.seed, eval_episodes=episodes, env_kwargs=dict(env_kwargs)
    )
    label = label_of(recipe, name, spec.shape, spec.layout, (HORIZON, steps))
    object.__setattr__(config, "recipe_name", label)
    return config


def _require_same(folder: RunFolder, name: str, now: Situation) -> None:
    """Raise `UsageError` unless the folder is this agent's, and not later than it."""
    config = folder.read_config()
    other = (
        "was written by qhat.train"
        if not config.get(AGENT)
        else f"is of environment {config['env']} and not {name}"
        if config["env"] != name
        else "is of another recipe"
        if config["recipe"] != now.program.recipe.to_json()
        else ""
    )
    require(
        not other, f"Run '{folder.path}' {other}; expected another {setting('run_dir')}. It is as it was."
    )
    reached = read_about(folder.last())["step"]
    require(
        reached <= now.steps,
        f"Run '{folder.path}' has reached step {reached:,}, and the agent {now.steps:,}; expected another"
        f" {setting('run_dir')}.",
    )


def _best(now: Situation, folder: RunFolder, score: float, first: bool) -> dict[str, Any]:
    """Return the best weights until now, with their score and step. Of equal scores the latest counts."""
    best = {"weights": jax.tree.map(np.asarray, now.online), "score": score, "step": now.steps}
    if first:
        return best
    about = read_about(folder.last())
    (before,), (step,) = about["best_score"], about["best_step"]
    if before is None or score >= before or step == now.steps:
        return best
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), now.online)
    weights = checkpoints.checkpoint.read_tree(folder.best, "weights", like, finite=[""])
    return {"weights": weights, "score": before, "step": step}


def _episode_rows(now: Situation, folder: RunFolder) -> list[dict[str, Any]]:
    """Rows of the episodes that metrics.csv does not have."""
    try:
        with folder.metrics.open(newline="") as file:
            last = max((int(row["step"]) for row in csv.DictReader(file)), default=0)
    except (KeyError, ValueError):
        raise UsageError(f"'{folder.metrics}' cannot be read: the run is damaged.") from None
    same = {"kind": "episode", "seed_index": 0}
    return [
        {**same, "step": step, "score": score, "length": length}
        for step, score, length in now.episodes
        if step > last
    ]
