"""Sentences on what an environment gave: none refuses it, each says what may go wrong, and what to type."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qhat.environments.gymnasium.record import Entry
from qhat.system.errors import setting

FAR_LARGER = 1_000.0
"""Ratio of two entries' largest numbers from which a network sees one of them alone."""


def on_scales(name: str, entries: Sequence[Entry]) -> list[str]:
    """Say which entries drown others, where no bounds have them standardised."""
    known = [entry for entry in entries if 0 < entry.largest < math.inf and entry.dtype != "bool"]
    if len(known) < 2:
        return []
    small, large = (pick(known, key=lambda entry: entry.largest) for pick in (min, max))
    if large.largest < FAR_LARGER * small.largest:
        return []
    return [
        f"'{name}' gives '{large.name}' up to {large.largest:,.4g} beside '{small.name}' up to"
        f" {small.largest:,.4g}: a network sees the first alone. Scale them alike in the environment, or"
        f" set {setting('normalise', True)}."
    ]


def on_memory(name: str, reuses: bool) -> list[str]:
    """Say that observations are written over, which a loop of the user's own has to know."""
    if not reuses:
        return []
    return [
        f"'{name}' writes every observation over the one before: qhat train copies it; a loop of your own"
        " that keeps one has to copy it too."
    ]


def on_limit(name: str, limit: int | None, lengths: Sequence[int]) -> list[str]:
    """Say that episodes may never end."""
    if limit or lengths:
        return []
    return [
        f"'{name}' has no time limit, and none of its episodes ended: an evaluation then plays 100,000"
        f" steps, and a run's own as many as {setting('eval_every')}. Give it one:"
        f" {setting('env_kwargs', {'max_episode_steps': 1000}, 'max_episode_steps=1000')}."
    ]
