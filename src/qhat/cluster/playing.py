"""Evaluations on a cluster: the actors play the greedy episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qhat.cluster.crew import Crew
from qhat.cluster.slots import Slot, reason
from qhat.evaluation.outcomes import Played

PATIENCE = 0.1
"""Seconds between two looks at what came."""


def played(
    crew: Crew,
    weights: np.ndarray,
    numbers: Sequence[int],
    longest: int,
    waiting: Callable[[np.ndarray], None],
) -> Played:
    """Let the actors of a crew play; return the episodes, leaves `[1, E]`.

    The share of a lost actor goes to another one, or to its successor.

    Args:
        weights: of the network, joined to one vector.
        numbers: that seed the episodes.
        longest: steps after which an episode is cut.
        waiting: called many times a second with the episodes that are not over; what it raises ends this.

    Raises:
        QhatError: an actor was lost again and again.
    """
    import ray
    from ray.exceptions import RayError

    each = -(-len(numbers) // len(crew.slots))
    shares = [list(numbers[at : at + each]) for at in range(0, len(numbers), each)]
    vector, missing = ray.put(weights), list(range(len(shares)))
    asked: dict[Any, tuple[int, Slot, int]] = {}
    found: dict[int, Played] = {}
    while missing or asked:
        crew.greet(0.0 if asked else PATIENCE)
        ready = [slot for slot in crew.slots if slot.facts is not None]
        for number in missing if ready else ():
            slot = ready[number % len(ready)]
            given = (crew.behaviour, vector, shares[number], longest)
            asked[slot.handle.play.remote(*given)] = (number, slot, slot.incarnation)
        missing = [] if ready else missing
        for ref in ray.wait(list(asked), num_returns=1, timeout=PATIENCE)[0] if asked else ():
            number, slot, incarnation = asked.pop(ref)
            try:
                found[number] = ray.get(ref)
            except RayError as error:
                missing.append(number)
                crew.lose(slot, incarnation, reason(error))
        rest = [number not in found for number in range(len(shares)) for _ in shares[number]]
        waiting(np.array(rest))
    crew.rested()
    parts = zip(*(found[number] for number in range(len(shares))), strict=True)
    return Played(*(np.concatenate(part, axis=1) for part in parts))
