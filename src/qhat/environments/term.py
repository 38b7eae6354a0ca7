"""A term of a robot's observation: what one of its sensors gives, and what training made of it."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Term:
    """What a sensor gives at a step, clipped, then scaled; beside it what it gave before, oldest first.

    At an episode's first step what was before is the first reading.
    """

    name: str
    size: int
    """Numbers of one reading."""
    history: int = 1
    """Readings that are shown."""
    clip: tuple[float, float] | None = None
    """Lowest and highest number, before it is scaled."""
    scale: tuple[float, ...] = (1.0,)
    """What readings are multiplied by: one number, or one for each of theirs."""

    def to_json(self) -> dict[str, Any]:
        """Write it as policy.json has it."""
        clip = None if self.clip is None else list(self.clip)
        return {**dataclasses.asdict(self), "clip": clip, "scale": list(self.scale)}
