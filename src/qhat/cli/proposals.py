"""Proposes settings for an environment from what random actions found in it: flags to type, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from qhat.environments.gymnasium.probe import Findings
from qhat.environments.reward_scale import LARGEST, SMALLEST, reward_factor
from qhat.recipes.recipe import Recipe

EPISODES = 200
"""Minimum number of episodes that a run should have."""
WORTH_AT_START = 0.05
"""Minimum discounted weight, at the start of an episode, of a reward at its end."""
HIGHEST = 0.9995
"""Largest discount proposed, a horizon of 2,000 steps: values learn slowly above it."""
RARE = 2.0
"""Rewards count as sparse when at most this many steps of an episode differ from the commonest reward."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A flag of `qhat train`, its value, and why it is proposed."""

    flag: str
    value: str
    why: str

    def to_json(self) -> dict[str, str]:
        """Return it as JSON."""
        return dataclasses.asdict(self)


def proposed(
    found: Findings, recipe: Recipe, steps: int, replay: int, free: int, *, known: bool = False
) -> list[Proposal]:
    """Return the settings that this environment needs and that the recipe or the length of the run lack.

    Args:
        found: what random actions found.
        recipe: recipe to train with.
        steps: environment steps to train for.
        replay: bytes of the recipe's replay buffer.
        free: free bytes of memory.
        known: whether the environment has a preset; then only memory is checked.
    """
    proposals = []
    if replay > free / 2:
        capacity = max(1, int(recipe.replay_capacity * free / 2 / replay) // 1_000) * 1_000
        why = (
            f"{recipe.replay_capacity:,} transitions take {replay / 2**30:,.1f} GiB, and"
            f" {free / 2**30:,.1f} GiB are free; a smaller image takes less (an option of its package, or"
            " gymnasium.wrappers.ResizeObservation)"
        )
        proposals.append(Proposal("--replay-capacity", str(capacity), why))
    if known:
        return proposals
    if (factor := reward_factor(found.largest_return)) is not None:
        why = (
            f"the largest discounted return was {found.largest_return:.2g}; expected {SMALLEST:g} to"
            f" {LARGEST:,.0f}. Scores keep the task's units"
        )
        proposals.append(Proposal("--wrap", f"reward_scale:factor={factor:g}", why))
    length = _length(found)
    if not length:
        return proposals
    if _pays_at_the_end(found, length) and recipe.gamma**length < WORTH_AT_START:
        gamma = min(round(WORTH_AT_START ** (1 / length), 4), HIGHEST)
        why = (
            f"rewards are sparse, and an episode has up to {length:,} steps: with gamma {recipe.gamma:g} a"
            f" reward at its end is worth {recipe.gamma**length:.2g} of itself at the start, with this"
            f" value {gamma**length:.2g}"
        )
        proposals.append(Proposal("--gamma", f"{gamma:g}", why))
    usual = sorted(found.lengths)[len(found.lengths) // 2] if found.lengths else length
    if usual * EPISODES > steps:
        wanted = math.ceil(usual * EPISODES / 10_000) * 10_000
        why = f"{steps:,} steps are only {steps // usual:,} episodes of the median {usual:,} steps"
        proposals.append(Proposal("--steps", str(wanted), why))
    return proposals


def with_words(words: Sequence[str], proposals: Sequence[Proposal]) -> list[str]:
    """Return a command with the proposals added; flags that the user gave take precedence."""
    words = list(words)
    for each in proposals:
        if each.flag in words and each.flag == "--wrap":
            # Last in the list: the outermost wrapper.
            after = words.index(each.flag) + 1
            while after < len(words) and not words[after].startswith("--"):
                after += 1
            words.insert(after, each.value)
        elif each.flag not in words:
            words += [each.flag, each.value]
    return words


def _length(found: Findings) -> int:
    """Steps of the longest episode: the time limit, or the longest observed."""
    return found.limit or max(found.lengths, default=0)


def _pays_at_the_end(found: Findings, length: int) -> bool:
    """Whether rewards are sparse, and no reward is given for merely lasting longer."""
    low, high = found.rewards
    return not (low == high and low > 0) and found.others * length <= RARE
