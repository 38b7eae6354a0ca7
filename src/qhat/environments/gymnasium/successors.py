"""Whether successors at episodes' ends are the next episodes' first observations, where it can be known.

A successor that equals the next start proves nothing by itself: the true last observation may look like
one. So what is refused has to be impossible, or next to it, for a right environment:

- starts are drawn anew, and every successor equals the very one that was drawn;
- where a time limit cut, which leaves the task's dynamics alone, the last step is one that no other step is
  like: a jump, or one that the same actions never took from the same observations.

Where starts never vary, an episode that terminates says nothing; nor is its successor learned from, whose
value is 0.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Shaped

from qhat.environments.gymnasium.probe import FEW, MOST
from qhat.environments.gymnasium.starts import SLACK, Starts

ENOUGH, DIFFERENT, PLACES = 20, 5, 3
"""Ends to judge by; those whose start has to be another one; observations from which a step was taken."""
DOUBT = math.log(1e-9)
"""Log of the chance that a right environment has to look like a wrong one."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """What T steps of N copies under random actions brought."""

    before: Float[np.ndarray, "T N D"]
    """Observations that were acted on."""
    successor: Float[np.ndarray, "T N D"]
    observation: Float[np.ndarray, "T N D"]
    same: Bool[np.ndarray, "T N"]
    """Whether `successor` and `observation` are equal in every number."""
    place: Shaped[np.ndarray, "T N"]
    """A number that is equal where the observations acted on are; so are the next two."""
    choice: Shaped[np.ndarray, "T N"]
    """The same of the observations acted on and the actions."""
    reached: Shaped[np.ndarray, "T N"]
    """The same of the successors."""
    terminated: Bool[np.ndarray, "T N"]
    truncated: Bool[np.ndarray, "T N"]
    real: Bool[np.ndarray, "T N"]

    @property
    def ends(self) -> Bool[np.ndarray, "T N"]:
        """Whether the step ended an episode."""
        return (self.terminated | self.truncated) & self.real

    @property
    def cut(self) -> Bool[np.ndarray, "T N"]:
        """Whether a time limit did."""
        return self.truncated & ~self.terminated & self.real

    @property
    def limit(self) -> int:
        """Steps of the longest episode that a time limit cut; 0 where none was."""
        longest = 0
        for copy in range(self.ends.shape[1]):
            at = np.flatnonzero(self.ends[:, copy])
            lengths = np.diff(at, prepend=-1)[self.cut[at, copy]]
            longest = max(longest, int(lengths.max(initial=0)))
        return longest


def replaced(rows: Rows, starts: Float[np.ndarray, "K D"]) -> str:
    """Return how it is known that successors at ends are the next starts; empty where it is not.

    Args:
        starts: first observations of fresh episodes.
    """
    ends, inside = rows.ends, rows.real & ~rows.ends
    # Where the step after an end is the reset, the last observation is what there is to see.
    if not rows.real.all() or ends.sum() < ENOUGH or not inside.any() or not rows.same[ends].all():
        return ""
    known = Starts.of(starts, rows.successor)
    if known.fresh(rows.observation)[ends].mean() < MOST:
        return ""
    if _drawn(rows, known):
        return "they are drawn anew, and it is always the one that was drawn"
    if _jumps(rows, inside):
        return "no other step goes as far"
    if _elsewhere(rows, inside):
        return "from the same observations the same actions lead elsewhere"
    return ""


def _drawn(rows: Rows, known: Starts) -> bool:
    """Whether starts vary from episode to episode of a copy, and look like nothing within one."""
    ends, different, inside = rows.ends, 0, rows.real & ~rows.ends
    varied = np.zeros(ends.shape[1], bool)
    for copy in range(ends.shape[1]):
        _, counts = np.unique(rows.reached[ends[:, copy], copy], return_counts=True)
        varied[copy] = len(counts) > 1
        different += int(counts.sum() - counts.max(initial=0))
    if different < DIFFERENT or ends[:, varied].sum() < ENOUGH:
        return False
    return bool(known.fresh(rows.successor)[inside].mean() <= FEW)


def _jumps(rows: Rows, inside: np.ndarray) -> bool:
    """Whether steps that a time limit cut go farther than all others."""
    if rows.cut.sum() < DIFFERENT or inside.sum() < ENOUGH:
        return False
    moved = np.abs(rows.successor - rows.before)
    farthest, spread = moved[inside].max(axis=0), rows.successor[rows.real].std(axis=0)
    beyond = (moved[rows.cut] > SLACK * farthest + 1e-5 * spread + 1e-12).any(axis=-1)
    return bool(beyond.mean() >= MOST)


def _elsewhere(rows: Rows, inside: np.ndarray) -> bool:
    """Whether steps that a time limit cut went where none did from the same observation and action."""
    places_reached: dict[int, list[int]] = {}
    for choice, reached in zip(rows.choice[inside].tolist(), rows.reached[inside].tolist(), strict=True):
        places_reached.setdefault(choice, []).append(reached)
    doubt, places = 0.0, set()
    ends = (part[rows.cut].tolist() for part in (rows.place, rows.choice, rows.reached))
    for place, choice, reached in zip(*ends, strict=True):
        if choice in places_reached:
            chance = (places_reached[choice].count(reached) + 1) / (len(places_reached[choice]) + 2)
            doubt += math.log(chance)
            places |= {place} if chance <= FEW else set()
    return doubt < DOUBT and len(places) >= PLACES
