"""`qhat envs [PATTERN]`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.cli.parsing import read
from qhat.environments.catalogue import ENTRIES
from qhat.errors import UsageError, near_miss


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that qhat can train on."""

    pattern: tyro.conf.Positional[str] = ""
    """Only ids that contain this, in any case."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON array on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    told = read(Envs, words, "envs")
    found = [entry for entry in ENTRIES if told.pattern.lower() in entry.id.lower()]
    if not found:
        raise UsageError(
            f"No environment's id contains '{told.pattern}'."
            + near_miss(told.pattern, [entry.id for entry in ENTRIES])
        )
    if told.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in found]))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("environment", "backend", "observation", "actions", "scored in"):
        table.add_column(column)
    for entry in found:
        actions = f"{entry.choices} discrete" if entry.choices else "continuous (not yet)"
        judge = f"gymnasium {entry.reference}" if entry.reference else entry.backend
        table.add_row(entry.id, entry.backend, entry.observation, actions, judge)
    Console().print(table)
    return 0
