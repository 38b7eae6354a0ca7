"""Commands that a report says to type next."""

from __future__ import annotations

import shlex

from qhat.axes.policy import Greedy
from qhat.axes.target import Hard
from qhat.environments.catalogue import is_from_python
from qhat.reports.reading import Facts
from qhat.reports.spelling import words_of

DROPPED = {"--run-dir": 1, "--resume": 0, "--json": 0}
"""Flags that a new run does not take over, and how many words follow each."""


def again(facts: Facts, *changes: str) -> str:
    """Return the command that trains anew with some settings changed, in a folder of its own.

    It is made of the run's command.txt, which may be somebody else's: every word of it is quoted. Where
    something else than `qhat train` began the run, it is made of the settings; empty where no flags spell
    them.

    Args:
        changes: flags, each with one value or none.
    """
    try:
        words = shlex.split(facts.command)
    except ValueError:
        words = []
    if words[:2] != ["qhat", "train"]:
        words = words_of(facts)
        if not words:
            return ""
    drops, kept, skip = dict(DROPPED), [], 0
    for at, word in enumerate(changes):
        if word.startswith("--"):
            drops[word] = int(at + 1 < len(changes) and not changes[at + 1].startswith("--"))
    for word in words:
        name, equals, _ = word.partition("=")
        if skip:
            skip -= 1
        elif (flag := name.replace("_", "-")) in drops:
            skip = 0 if equals else drops[flag]
        else:
            kept.append(word)
    return shlex.join([*kept, *changes])


def on(facts: Facts, *changes: str) -> str:
    """Return the command that goes on with the run; empty where only Python can."""
    if is_from_python(facts.env):
        return ""
    where = ["--resume", "--run-dir", str(facts.folder.path)]
    return shlex.join(["qhat", "train", facts.env, *where, *changes])


def doctor(facts: Facts) -> str:
    """Return the command that looks at the environment; empty where no id makes it."""
    return "" if is_from_python(facts.env) else shlex.join(["qhat", "doctor", facts.env])


def calmer(facts: Facts) -> str:
    """Return the command of a run that overestimates less."""
    recipe = facts.recipe
    if recipe is None:
        return ""
    if isinstance(recipe.policy, Greedy):
        return again(facts, "--policy", "double")
    if isinstance(recipe.target, Hard):
        return again(facts, "--target", f"hard:every={2 * recipe.target.every}")
    return again(facts, "--learning-rate", f"{recipe.learning_rate / 2:g}")


def steadier(facts: Facts) -> str:
    """Return the command of a run that keeps what it has learned."""
    recipe = facts.recipe
    if recipe is None:
        return ""
    if recipe.learning_rate_end is None:
        end, over = f"{recipe.learning_rate / 10:g}", str(max(facts.steps, 1))
        return again(facts, "--learning-rate-end", end, "--learning-rate-steps", over)
    return again(facts, "--learning-rate", f"{recipe.learning_rate / 2:g}")
