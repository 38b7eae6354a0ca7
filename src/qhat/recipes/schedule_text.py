"""What of a recipe changes during a run, in words: where it is, and where it goes."""

from __future__ import annotations

from qhat.axes.axis import Schedule
from qhat.recipes.recipe import AXES, Recipe

FIXED = "Schedules count the run's steps; more --steps does not stretch them."


def schedules(recipe: Recipe, step: int, steps: int) -> list[str]:
    """Return a line for each schedule of a run that is at environment step `step` of `steps`."""
    recipe = recipe.scheduled(steps)
    rate, end = recipe.learning_rate, recipe.learning_rate_end
    rates = Schedule(
        "learning rate", rate, rate if end is None else end, recipe.learning_rate_steps or steps
    )
    found = {axis: getattr(recipe, axis).schedules(steps) for axis in AXES}
    explores = found.pop("explore")
    # Exploration first, as it matters most to who reads on.
    ordered = [
        *(explores if recipe.training.acts else []),
        rates,
        *(each for part in found.values() for each in part),
    ]
    return [_line(schedule, step, steps) for schedule in ordered]


def _line(schedule: Schedule, step: int, steps: int) -> str:
    """Say where a schedule is at `step` of `steps`."""
    name, start, end, over = schedule

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
