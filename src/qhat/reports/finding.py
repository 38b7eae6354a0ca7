"""The result of a check of a report."""

from __future__ import annotations

import dataclasses

FINE, NOTE, WARNING, UNKNOWN = "fine", "note", "warning", "not measured"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: str
    found: str
    """What was found, as a sentence with its number."""
    why: str = ""
    """Why it matters."""
    next: str = ""
    """The next command to type; empty if there is none."""
