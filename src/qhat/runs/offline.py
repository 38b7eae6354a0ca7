"""Scores a run's policies on recorded steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.demonstrations.reading import Demonstrations, joined, read
from qhat.evaluation import diagnosis
from qhat.evaluation.coverage import covered, looks, promises
from qhat.evaluation.fitted import UPDATES, Choose, OfflineEvaluation, OfflineScore, choose_by, to_go
from qhat.runs.folder import OFFLINE
from qhat.runs.run import Run
from qhat.system.files import write_text


def evaluated_offline(
    run: Run,
    sources: Sequence[str],
    checkpoint: str | int = "best",
    updates: int = UPDATES,
    progress: Callable[[str], None] = lambda _: None,
) -> list[OfflineScore]:
    """Return what each seed's policy earns, estimated by fitted Q evaluation from recorded steps.

    Args:
        sources: recorded steps, as `qhat learn` takes them.
        checkpoint: weights: `best`, `last`, or a checkpoint's step.
        updates: gradient updates of each of the networks that estimate it.
        progress: called with what is done now.

    Raises:
        UsageError: the data do not fit the run's environment, or are too few.
    """
    data = joined([read(source, run.spec) for source in sources])
    weights, recipe, scores = run.weights(checkpoint), run.program.recipe, []
    evaluation = OfflineEvaluation(recipe, run.spec, data, gamma=recipe.gamma, updates=updates)
    seeds = jax.tree.leaves(weights)[0].shape[0]
    for seed in range(seeds):
        progress(f"seed {seed + 1} of {seeds}")
        parameters = jax.tree.map(lambda leaf, seed=seed: jnp.asarray(leaf[seed]), weights)
        choose = choose_by(run.program.learner, parameters)
        score = evaluation.score(choose)
        scores.append(dataclasses.replace(score, **_beside(run, parameters, choose, data)))
    return scores


def _beside(run: Run, parameters: Any, choose: Choose, data: Demonstrations) -> dict[str, Any]:
    """Return which actions the data have of the policy's, and how its values compare with their returns."""
    learner, gamma = run.program.learner, run.program.recipe.gamma
    values, features = looks(learner, parameters)
    choices = choose(data.observation, data.legal)
    coverage = covered(data, choices, features, run.spec.actions.choices)
    if diagnosis.comparable(learner) or not run.program.recipe.behaviour.rewarded:
        return {"coverage": coverage}
    q = values(data.observation)
    taken = np.take_along_axis(q, data.action[..., None], axis=2)[..., 0].mean(axis=1)
    ends = np.flatnonzero(data.terminated | data.truncated) + 1
    rewards = np.asarray(run.program.learned(jnp.asarray(data.reward)))
    parts = [to_go(part, gamma) for part in np.split(rewards, ends) if len(part)]
    return {
        "coverage": coverage,
        "calibration": tuple(promises(data, taken, np.concatenate(parts), gamma)),
    }


def keep(
    folder: Path, sources: Sequence[str], checkpoint: str | int, scores: Sequence[OfflineScore]
) -> None:
    """Write the result into the run folder, for its report."""
    whole = {
        "data": list(sources), "checkpoint": str(checkpoint), "scores": [each.to_json() for each in scores],
    }  # fmt: skip
    write_text(folder / OFFLINE, json.dumps(whole, indent=1) + "\n")
