"""Learning from the newest steps, without a replay to draw from, as the recipe's training says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Array

from qhat.engine.learner import Metrics
from qhat.engine.rollout import learn_rollout
from qhat.engine.state import Clock, SeedState
from qhat.engine.streaming import learn_step

if TYPE_CHECKING:
    from qhat.engine.iteration import Program


def learn_newest(program: Program, clock: Clock, seed: SeedState, key: Array) -> tuple[SeedState, Metrics]:
    """Do the updates that are due, if there are."""
    learn = learn_step if program.recipe.training.streams else learn_rollout
    return learn(program, clock, seed, key)
