"""Commands that a report suggests next."""

from __future__ import annotations

import shlex

from qhat.axes.policy import Greedy
from qhat.axes.target import Hard
from qhat.environments.catalogue import is_from_python
from qhat.reports.reading import Facts
from qhat.reports.spelling import words_of

DROPPED = {"--run-dir": 1, "--resume": 0, "--json": 0}
"""Flags that a new run does not inherit, and the number of words after each."""


def again(facts: Facts, *changes: str) -> str:
    """Return the command that trains a new run with some settings changed.

    It is built from the run's command.txt, which is untrusted, so every word is quoted. If the run was not
    started by `qhat train`, it is built from the settings; empty if flags cannot express them.

    Args:
        changes: flags, each with at most one value.
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
    """Return the command that resumes the run; empty if only Python can."""
    if is_from_python(facts.env):
        return ""
    where = ["--resume", "--run-dir", str(facts.folder.path)]
    return shlex.join(["qhat", "train", facts.env, *where, *changes, *facts.parts])


def doctor(facts: Facts) -> str:
    """Return the command that checks the environment; empty if no id makes it."""
    return "" if is_from_python(facts.env) else shlex.join(["qhat", "doctor", facts.env])


def calmer(facts: Facts) -> str:
    """Return a command whose run should overestimate less."""
    recipe = facts.recipe
    if recipe is None:
        return ""
    if isinstance(recipe.policy, Greedy):
        return again(facts, "--policy", "double")
    if isinstance(recipe.target, Hard):
        return again(facts, "--target", f"hard:every={2 * recipe.target.every}")
    return again(facts, "--learning-rate", f"{recipe.learning_rate / 2:g}")


def steadier(facts: Facts) -> str:
    """Return a command whose run should lose less of what it learned."""
    recipe = facts.recipe
    if recipe is None:
        return ""
    if recipe.learning_rate_end is None:
        end, over = f"{recipe.learning_rate / 10:g}", str(max(facts.steps, 1))
        return again(facts, "--learning-rate-end", end, "--learning-rate-steps", over)
    return again(facts, "--learning-rate", f"{recipe.learning_rate / 2:g}")


def with_more_seeds(facts: Facts) -> str:
    """Return the command that trains other seeds: several, or the next one of a run with actors."""
    if facts.config.get("actors"):
        return again(facts, "--seed", str(facts.config.get("seed", 0) + 1))
    return again(facts, "--seeds", str(max(5, 2 * facts.seeds)))
