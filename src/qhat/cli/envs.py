"""`qhat envs [PATTERN]`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.cli.parsing import read
from qhat.cli.tables import console
from qhat.environments.catalogue import BACKENDS, Entry, entries, envs, find
from qhat.system.errors import UsageError, near_miss
from qhat.system.machine import install_extra

LONGEST = 40
"""Maximum lines of an unfiltered list."""


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that qhat can train on, or show one in full."""

    pattern: tyro.conf.Positional[str] = ""
    """Only ids that contain this text (case-insensitive). An id itself is shown in full, also one of
    Gymnasium's registry or gym:my_module:MyRobot-v0."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON array on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse and print."""
    args = read(Envs, words, "envs")
    found = envs(args.pattern)
    exact = next((entry for entry in found if entry.id == args.pattern), None)
    if not found:
        exact = _in_registry(args.pattern)
        found = [exact]
    if args.json:
        print(json.dumps([{"id": entry.id, **dataclasses.asdict(entry)} for entry in found]))
        return 0
    if exact is not None:
        from qhat.cli.environment_details import show

        show(exact, [entry.id for entry in found if entry is not exact])
        return 0
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = found if args.pattern else found[:LONGEST]
    longest = max(len(entry.id) for entry in shown)
    for column in ("environment", "backend", "observation", "actions", "scored in", ""):
        # Ids are copied by users, so this column is never cut.
        table.add_column(column, min_width=longest if column == "environment" else None)
    for entry in shown:
        scored_in = f"gymnasium {entry.reference}" if entry.reference else entry.backend
        lacks = install_extra(entry.lacks) if entry.lacks else ""
        table.add_row(entry.id, entry.backend, entry.observation, entry.actions, scored_in, lacks)
    console().print(table)
    if len(shown) < len(found):
        print(f"\nand {len(found) - len(shown):,} more; filter them, for example: qhat envs Lunar")
    print(f"\nnext:\n  qhat envs {shown[0].id}    # in full")
    return 0


def _in_registry(name: str) -> Entry:
    """Return an environment of Gymnasium's registry. Raises `UsageError` if nothing has this name."""
    backend = next((one for one in BACKENDS if one.name == name.rstrip(":")), None)
    if backend is not None and not backend.entries():
        raise UsageError(
            f"Tasks of '{backend.name}' are not listed before it is started; expected an id of it, with"
            f" {backend.name}: before the name."
        )
    try:
        return find(name)
    except UsageError as error:
        if ":" in name or "is not known" not in str(error):
            raise
    raise UsageError(
        f"No environment's id contains '{name}'." + near_miss(name, [entry.id for entry in entries()])
    )
