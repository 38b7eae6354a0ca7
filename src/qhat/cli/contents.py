"""What `qhat doctor DATA` prints of recorded steps."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from qhat.cli.tables import console, print_rows
from qhat.demonstrations.sources import env_of, require_readable
from qhat.system.errors import UsageError

if TYPE_CHECKING:
    from qhat.demonstrations.examined import Contents

SHOWN = 12
"""Choices of which the share is shown."""


def show(source: str, as_json: bool) -> int:
    """Print what a source holds; refuse what training would refuse, after printing."""
    require_readable(source, rewards=False)
    from rich.console import Console

    with Console(stderr=True).status(f"reading {source}"):
        from qhat.demonstrations.examined import examine
        from qhat.demonstrations.reading import raw

        found = examine(source, raw(source))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)
    if not found.usable:
        first = next(trouble for trouble in found.troubles if trouble.spoils)
        raise UsageError(f"'{source}' cannot be learned from: {first.found}.")
    if not as_json:
        env = env_of(source)
        there = "" if env else " --env ENV"
        print(f"\nnext:\n  qhat learn {shlex.quote(source)}{there}")
    return 0


def _print(found: Contents) -> None:
    from rich.markup import escape

    shortest, median, longest = found.lengths
    low, mean, high = found.returns
    ends = (
        f"{found.episodes:,}: {found.terminated:,} terminated, {found.truncated:,} truncated,"
        f" {found.unmarked:,} not marked"
    )
    rows = [
        ("data", found.source),
        ("steps", f"{found.rows:,}"),
        ("episodes", ends),
        ("lengths", f"{shortest:,} to {longest:,} steps, the median {median:,}"),
        ("returns", f"{low:.4g} to {high:.4g}, the mean {mean:.4g}"),
        ("rewards", f"{found.rewards[0]:.4g} to {found.rewards[1]:.4g} in one step"),
        ("observation", found.observation),
        ("actions", found.action),
    ]
    shares = [f"{name} {share:.0%}" for name, share in found.shares[:SHOWN]]
    if shares:
        rows.append(("taken", ", ".join(shares) + (", …" if len(found.shares) > SHOWN else "")))
    print_rows(rows)
    for trouble in found.troubles:
        console().print(f"[yellow]warning:[/] {escape(trouble.found)}.", soft_wrap=True)
        console().print(f"    [green]fix:[/] {escape(trouble.fix)}", soft_wrap=True)
