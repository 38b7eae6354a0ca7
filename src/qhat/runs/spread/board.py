"""What the driver asks of all groups, in a Ray actor that their tasks read many times a second."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Notice:
    """The state of the board."""

    stop: bool = False
    """Stop now, with a checkpoint."""
    ends: int | None = None
    """Step of the evaluation at which every group stops, with a checkpoint."""
    answered: int = 0
    """Step up to which the driver has compared evaluations; groups that wait may go on from there."""
    waits: bool = True
    """Whether groups wait for the others after an evaluation."""
    save: int | None = None
    """Step of the evaluation at which every group writes a checkpoint now."""

    def releases(self, step: int) -> bool:
        """Whether a group that waits after its evaluation of `step` may go on."""
        return self.stop or not self.waits or step <= self.answered or self.ends_at(step)

    def ends_at(self, step: int) -> bool:
        """Whether a group stops after its evaluation of `step`."""
        return self.ends is not None and step >= self.ends


class Board:
    """Has the newest `Notice`."""

    def __init__(self):
        self._notice = Notice()

    def change(self, **fields: Any) -> None:
        """Change fields of the notice."""
        self._notice = dataclasses.replace(self._notice, **fields)

    def read(self) -> Notice:
        """Return the notice."""
        return self._notice
