"""Checks of a report: whether the network can still learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhat.axes.axis import spell
from qhat.axes.optimiser import AdamW
from qhat.axes.reset import Periodic, Reset
from qhat.reports.advice import again
from qhat.reports.finding import FINE, UNKNOWN, WARNING, Finding
from qhat.reports.measure import Measured
from qhat.reports.reading import Facts

DEAD = 0.5
"""Share of hidden units. A converged policy visits few kinds of states, so a quarter is common."""
GROWN = 10.0
"""Growth of a layer's weights. In networks of robots it was 7 with Adam, and 2.5 with AdamW."""
COLLAPSED = 0.1
"""Effective rank of the features, as a share of a fresh network's on the same observations.

A robot that stands still had 15%, and still learned."""
RESETS = 3
"""Resets, at the least, of a run that is advised to have some."""


def dead_units(facts: Facts, measured: Measured) -> Finding | None:
    diagnosis = measured.diagnosis
    if diagnosis is None or not diagnosis.dead:
        return None
    share = float(np.mean(diagnosis.dead))
    layers = ", ".join(f"{name} {each:.0%}" for name, each in sorted(diagnosis.dead_by_layer.items()))
    found = (
        f"{share:.0%} of the hidden units were 0 on all of {diagnosis.observations:,} observations"
        f" ({layers}; convolutions are not counted)."
    )
    if diagnosis.observations < 1_000:
        return Finding("Dead units", UNKNOWN, f"{diagnosis.observations:,} observations are too few.")
    if share <= DEAD:
        return Finding("Dead units", FINE, found)
    return Finding(
        "Dead units", WARNING, found,
        "No gradient reaches such a unit, so the network is effectively smaller (arXiv:2302.12902).",
        again(facts, "--layer-norm"),
    )  # fmt: skip


def plasticity(facts: Facts, measured: Measured) -> Finding | None:
    """Whether weights have grown, or features have collapsed, far beyond a fresh network's."""
    able = measured.diagnosis.plasticity if measured.diagnosis else None
    if able is None or facts.recipe is None or not (able.growth or able.rank):
        return None
    parts, worst, collapsed = [], max(able.growth, default=0.0), False
    if able.growth:
        layer = able.grown[int(np.argmax(able.growth))]
        parts.append(f"Weights are up to {worst:.1f} times as large as fresh ones ({layer}).")
    if able.rank:
        at = int(np.argmin(np.array(able.rank) / np.maximum(able.fresh_rank, 1e-9)))
        rank, fresh = able.rank[at], able.fresh_rank[at]
        collapsed = rank < COLLAPSED * fresh
        parts.append(
            f"The features' effective rank is {rank:.1f}, and {fresh:.1f} of a fresh network (worst seed)."
        )
    found = " ".join(parts)
    if worst < GROWN and not collapsed:
        return Finding("Plasticity", FINE, found)
    why = "The network fits new targets slowly (arXiv:2407.01800, arXiv:2010.14498)."
    if worst >= GROWN and not isinstance(facts.recipe.optimiser, AdamW):
        return Finding("Plasticity", WARNING, found, why, again(facts, "--optimiser", "adamw"))
    every = max(1, facts.recipe.scheduled(facts.steps).updates_in(facts.steps) // (RESETS + 1))
    reset: Reset = Periodic(every)
    if isinstance(facts.recipe.reset, Periodic):
        why += " It has resets; they come too seldom, or keep too much."
        reset = replace(
            facts.recipe.reset, every=min(every, max(1, facts.recipe.reset.every // 2)), last=None
        )
    return Finding("Plasticity", WARNING, found, why, again(facts, "--reset", spell(reset)))
