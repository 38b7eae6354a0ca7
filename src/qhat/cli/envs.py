"""`qhat envs [PATTERN]`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.cli.parsing import read
from qhat.environments.catalogue import entries
from qhat.system.errors import UsageError, near_miss

LONGEST = 40
"""Maximum lines of an unfiltered list."""


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that qhat can train on."""

    pattern: tyro.conf.Positional[str] = ""
    """Only ids that contain this text (case-insensitive)."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON array on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    args = read(Envs, words, "envs")
    found = [entry for entry in entries() if args.pattern.lower() in entry.id.lower()]
    if not found:
        raise UsageError(
            f"No environment's id contains '{args.pattern}'."
            + near_miss(args.pattern, [entry.id for entry in entries()])
        )
    if args.json:
        print(json.dumps([{"id": entry.id, **dataclasses.asdict(entry)} for entry in found]))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = found if args.pattern else found[:LONGEST]
    longest = max(len(entry.id) for entry in shown)
    for column in ("environment", "backend", "observation", "actions", "scored in", ""):
        # Ids are copied by users, so this column is never cut.
        table.add_column(column, min_width=longest if column == "environment" else None)
    for entry in shown:
        scored_in = f"gymnasium {entry.reference}" if entry.reference else entry.backend
        lacks = f"pip install 'qhat[{entry.lacks}]'" if entry.lacks else ""
        table.add_row(entry.id, entry.backend, entry.observation, entry.actions, scored_in, lacks)
    Console().print(table)
    if len(shown) < len(found):
        print(f"\nand {len(found) - len(shown):,} more; filter them, for example: qhat envs Lunar")
    return 0
