"""Settings that an environment asks for, by what random actions found in it: words to type, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from qhat.environments.gymnasium.probe import Findings
from qhat.environments.reward_scale import LARGEST, SMALLEST, reward_factor
from qhat.recipes.recipe import Recipe

EPISODES = 200
"""Episodes that a run should have at least."""
SEEN_AT_START = 0.05
"""What a reward at the end of an episode should be worth at its beginning, at least."""
HIGHEST = 0.9995
"""Discount beyond which values hardly learn: it looks 2,000 steps ahead."""
RARE = 2.0
"""Steps of an episode with another reward than the commonest, at most, where rewards come at its end."""


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Words for `qhat train`."""

    flag: str
    value: str
    why: str

    def to_json(self) -> dict[str, str]:
        """Write it."""
        return dataclasses.asdict(self)


def proposed(
    found: Findings, recipe: Recipe, steps: int, replay: int, free: int, *, known: bool = False
) -> list[Proposal]:
    """Return what differs from a recipe and a length of a run for an environment that does this.

    Args:
        found: by random actions.
        recipe: that it would be trained with.
        steps: for which it would be trained.
        replay: bytes of the recipe's replay.
        free: bytes of memory that are not in use.
        known: whether it has a preset, which knows better than random actions do.
    """
    proposals = []
    if replay > free / 2:
        capacity = max(1, int(recipe.replay_capacity * free / 2 / replay) // 1_000) * 1_000
        why = (
            f"{recipe.replay_capacity:,} transitions take {replay / 2**30:,.1f} GiB, and"
            f" {free / 2**30:,.1f} GiB are free; a smaller picture takes less (its package's own option, or"
            " a gymnasium.wrappers.ResizeObservation)"
        )
        proposals.append(Proposal("--replay-capacity", str(capacity), why))
    if known:
        return proposals
    if (factor := reward_factor(found.largest_return)) is not None:
        why = (
            f"the largest discounted return was {found.largest_return:.2g}; expected {SMALLEST:g} to"
            f" {LARGEST:,.0f}. Scores stay in the task's own units"
        )
        proposals.append(Proposal("--wrap", f"reward_scale:factor={factor:g}", why))
    length = _length(found)
    if not length:
        return proposals
    if _pays_at_the_end(found, length) and recipe.gamma**length < SEEN_AT_START:
        gamma = min(round(SEEN_AT_START ** (1 / length), 4), HIGHEST)
        why = (
            f"hardly a step's reward differs from the others', and an episode has up to {length:,} steps:"
            f" with {recipe.gamma:g} what comes at its end is worth {recipe.gamma**length:.2g} of itself at"
            f" the start, with this {gamma**length:.2g}"
        )
        proposals.append(Proposal("--gamma", f"{gamma:g}", why))
    usual = sorted(found.lengths)[len(found.lengths) // 2] if found.lengths else length
    if usual * EPISODES > steps:
        wanted = math.ceil(usual * EPISODES / 10_000) * 10_000
        why = f"{steps:,} steps are {steps // usual:,} episodes of the {usual:,} steps that were usual"
        proposals.append(Proposal("--steps", str(wanted), why))
    return proposals


def with_words(words: Sequence[str], proposals: Sequence[Proposal]) -> list[str]:
    """Return a command with what is proposed; what was asked for goes first."""
    words = list(words)
    for each in proposals:
        if each.flag in words and each.flag == "--wrap":
            # The last of them, around the others.
            after = words.index(each.flag) + 1
            while after < len(words) and not words[after].startswith("--"):
                after += 1
            words.insert(after, each.value)
        elif each.flag not in words:
            words += [each.flag, each.value]
    return words


def _length(found: Findings) -> int:
    """Steps of the longest episode: its limit's, or what was seen."""
    return found.limit or max(found.lengths, default=0)


def _pays_at_the_end(found: Findings, length: int) -> bool:
    """Whether hardly a step has another reward than the rest, and lasting pays nothing."""
    low, high = found.rewards
    return not (low == high and low > 0) and found.others * length <= RARE
