"""Texts about ε, the step size and β in a longer run agree with the numbers.

Protects against a resumed run whose schedules restart or stretch without a message.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest

from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.optimiser import rate_at
from qhat.axes.sampler import Prioritised
from qhat.engine.learner import Learner
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.recipes.schedule_text import schedules

RECIPE = dataclasses.replace(
    recipes.get("per_dqn"), explore=EpsilonGreedy(1.0, 0.1, 10_000), sampler=Prioritised(steps=50_000),
    learning_rate=1e-3, learning_rate_end=1e-4, learning_rate_steps=40_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "steps", "lines"),
    [
        (5_000, 60_000, ["ε 0.55, reaches 0.1 at step 10,000",
                         "learning rate 0.000888, reaches 0.0001 at step 40,000",
                         "replay's β 0.46, reaches 1 at step 50,000"]),
        (50_000, 60_000, ["ε 0.1 since step 10,000", "learning rate 0.0001 since step 40,000",
                          "replay's β 1 since step 50,000"]),
        (10_000, 20_000, ["ε 0.1 since step 10,000",
                          "learning rate 0.000775, ends at 0.00055 with the run;"
                          " 0.0001 would be at step 40,000",
                          "replay's β 0.52, ends at 0.64 with the run; 1 would be at step 50,000"]),
        (20_000, 20_000, ["ε 0.1 since step 10,000",
                          "learning rate 0.00055, where the run ends; 0.0001 would be at step 40,000",
                          "replay's β 0.64, where the run ends; 1 would be at step 50,000"]),
    ],
)  # fmt: skip
def test_each_schedule_has_its_line(step: int, steps: int, lines: list[str]):
    assert schedules(RECIPE, step, steps) == lines


def test_constants_appear_one_time_and_missing_parts_not_at_all():
    recipe = dataclasses.replace(recipes.get("noisy_dqn"), learning_rate_end=None)
    assert schedules(recipe, 10, 20) == ["learning rate 0.001 throughout"]
    recipe = dataclasses.replace(recipe, explore=EpsilonGreedy(0.3, 0.1, 0))
    assert schedules(recipe, 10, 20) == ["ε 0.1 throughout", "learning rate 0.001 throughout"]


@pytest.mark.parametrize("step", [0, 7_000, 45_000])
def test_the_words_are_what_the_program_does(step: int):
    def number(line: str) -> float:
        return float(line.split(",")[0].split(" since")[0].split()[-1])

    at = jnp.int32(step)
    epsilon, rate, beta = map(number, schedules(RECIPE, step, 60_000))
    assert epsilon == pytest.approx(float(RECIPE.explore.epsilon(at)), rel=6e-3)
    learner = Learner.of(RECIPE, (4,), Actions((2,)))
    assert rate == pytest.approx(float(rate_at(learner.recipe, at)), rel=6e-3)
    weights = RECIPE.sampler.weights(jnp.array([1.0, 2.0]), at)
    assert beta == pytest.approx(-float(jnp.log2(weights[1])), rel=6e-3)


def test_no_schedule_depends_on_the_total():
    """Otherwise a run with more steps would differ from one that was started with as many."""
    short, long = (TrainConfig.of("CartPole-v1", steps=steps) for steps in (1_000, 900_000))
    assert short.recipe == long.recipe


def test_schedules_follow_the_run() -> None:
    """A short run is not all exploration, and a long one explores for longer."""
    for steps, explores, starts in (
        (5_000, 1_250, 100),
        (50_000, 12_500, 1_000),
        (1_000_000, 250_000, 1_000),
    ):
        recipe = recipes.get(recipes.DEFAULT).scheduled(steps)
        assert isinstance(recipe.explore, EpsilonGreedy)
        assert (recipe.explore.steps, recipe.learning_starts) == (explores, starts)
        assert recipe.learning_rate_steps == steps
        assert recipe.scheduled(7) == recipe, "what has its numbers keeps them"


def test_an_explicit_number_does_not_follow_the_run() -> None:
    recipe = Recipe(explore=EpsilonGreedy(steps=70), learning_starts=30, learning_rate_steps=11)
    assert recipe.scheduled(1_000_000) == recipe
