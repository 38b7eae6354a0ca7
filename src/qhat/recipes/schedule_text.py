"""What of a recipe changes while a run goes on, in words: where it is, and where it goes."""

from __future__ import annotations

from qhat.axes.explore import EpsilonGreedy
from qhat.axes.sampler import Prioritised
from qhat.recipes.recipe import Recipe

FIXED = "Schedules count environment steps; more --steps does not stretch them."


def schedules(recipe: Recipe, step: int, steps: int) -> list[str]:
    """Return a line for each schedule of a run that is at environment step `step` of `steps`."""
    recipe, lines = recipe.scheduled(steps), []
    if isinstance(explore := recipe.explore, EpsilonGreedy):
        lines.append(_line("ε", explore.start, explore.end, explore.steps or 0, step, steps))
    rate, end = recipe.learning_rate, recipe.learning_rate_end
    lines.append(
        _line(
            "learning rate",
            rate,
            rate if end is None else end,
            recipe.learning_rate_steps or steps,
            step,
            steps,
        )
    )
    if isinstance(sampler := recipe.sampler, Prioritised):
        lines.append(_line("replay's β", sampler.beta, 1.0, sampler.steps, step, steps))
    return lines


def _line(name: str, start: float, end: float, over: int, step: int, steps: int) -> str:
    """Say where a line from `start` at step 0 to `end` at step `over` is."""

    def at(step: int) -> str:
        return f"{start + step / over * (end - start):.3g}"

    if start == end or over == 0:
        return f"{name} {end:.3g} throughout"
    if step >= over:
        return f"{name} {end:.3g} since step {over:,}"
    if steps >= over:
        return f"{name} {at(step)}, reaches {end:.3g} at step {over:,}"
    beyond = f"{end:.3g} would be at step {over:,}"
    if step >= steps:
        return f"{name} {at(step)}, where the run ends; {beyond}"
    return f"{name} {at(step)}, ends at {at(steps)} with the run; {beyond}"
