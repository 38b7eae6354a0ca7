"""Where a report is written; checked before anything slow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from qhat.system.errors import require, setting


def place_of(folders: Sequence[Path], out: Path | str | None, episodes: int) -> Path:
    """Return the file that a report goes to. Raises `UsageError` for arguments that have no meaning."""
    require(len(folders) > 0, "A report needs a run folder; expected for example runs/demo.")
    require(episodes >= 1, f"{setting('episodes')} is {episodes}; expected 1 or more.")
    default = folders[0] / "report.html" if len(folders) == 1 else Path("report.html")
    target = default if out is None else Path(out)
    ends = target.suffix in (".html", ".htm")
    require(ends, f"{setting('out')} is '{target}'; expected a file that ends in .html.")
    require(not target.is_dir(), f"{setting('out')} is '{target}', which is a folder; expected a file.")
    places = [folder.resolve() for folder in folders]
    repeated = [folder for at, folder in enumerate(folders) if places[at] in places[:at]]
    named = repeated[0] if repeated else ""
    require(not repeated, f"Run '{named}' is named twice; expected different runs.")
    return target


def require_writable(target: Path) -> None:
    """Refuse an unwritable path now, not after the episodes."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"its folder cannot be created: {error.strerror}"
        require(False, f"{setting('out')} is '{target}', and {why}.")
    require(
        os.access(target.parent, os.W_OK),
        f"'{target.parent}' is not writable; name a file in another folder with {setting('out', 'FILE')}.",
    )
