"""Everything in a run folder that does not depend on time."""

import csv
import json
from pathlib import Path
from typing import Any

from qhat.runs.run import Run


def everything(folder: Path) -> dict[str, Any]:
    """Return the last checkpoint's manifest, which has the SHA-256 of all saved files, and all rows."""
    manifest = json.loads((Run.open(folder).folder.last() / "manifest.json").read_text())
    tables = {}
    for name in ("metrics.csv", "eval.csv"):
        with (folder / name).open() as file:
            tables[name] = [{**row, "steps_per_second": None} for row in csv.DictReader(file)]
    names = {name.split("-")[0].removesuffix(".safetensors") for name in manifest["sha256"]}
    assert names == {"state", "best", "weights", "replay"}
    return {**manifest, **tables}
