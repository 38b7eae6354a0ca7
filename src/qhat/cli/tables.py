"""Prints tables: within the terminal's width, and whole into a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED = 10_000
"""Columns of a page that is no terminal: no cell is cut or wrapped."""


def console() -> Console:
    """Return a console on stdout."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED)


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    for name, value in rows:
        table.add_row(name, escape(value))
    console().print(table)
