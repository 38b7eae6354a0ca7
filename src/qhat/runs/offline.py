"""Scores a run's policies on recorded steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from qhat.demonstrations.reading import joined, read
from qhat.evaluation.fitted import UPDATES, OfflineEvaluation, OfflineScore, choose_by
from qhat.runs.run import Run


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
        scores.append(evaluation.score(choose_by(run.program.learner, parameters)))
    return scores
