"""`qhat report RUN…`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read
from qhat.reports.reading import read_facts
from qhat.runs.folder import write_text
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one run or several.

    Result with its interval, warnings, curves, film, configuration, system, and the commands to type.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders."""
    out: Path | None = None
    """File to write, .html; none is report.html in the run folder, or in this folder for several runs."""
    episodes: int = 100
    """Fresh episodes per seed for the score."""
    no_video: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not film the policy of a run that has no film yet."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout: the file, and every run's score, diagnosis and findings."""


def run(words: Sequence[str]) -> int:
    """Parse, read, measure, write, say where."""
    told = read(Report, words, "report")
    require(len(told.runs) > 0, "report needs a run folder; expected for example: qhat report runs/demo")
    require(told.episodes >= 1, f"--episodes is {told.episodes}; expected 1 or more.")
    alone = told.runs[0] / "report.html" if len(told.runs) == 1 else Path("report.html")
    out = told.out or alone
    require(out.suffix in (".html", ".htm"), f"--out is '{out}'; expected a file that ends in .html.")
    require(not out.is_dir(), f"--out is '{out}', which is a folder; expected a file.")
    twice = [
        path
        for at, path in enumerate(told.runs)
        if path.resolve() in [one.resolve() for one in told.runs[:at]]
    ]
    require(not twice, f"Run '{twice[0] if twice else ''}' is named twice; expected different runs.")
    facts = [read_facts(path) for path in told.runs]
    _make_room(out)

    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True, highlight=False).status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.cli.main import COMMANDS
        from qhat.reports.findings import findings
        from qhat.reports.measure import measure
        from qhat.reports.page import Told, page

        made = []
        for one in facts:
            name = escape(str(one.folder.path))
            measured = measure(
                one.folder.path,
                told.episodes,
                not told.no_video,
                lambda now, name=name: status.update(f"{name}: {now}"),
            )
            made.append(Told(one, measured, findings(one, measured)))
        text = page(made, COMMANDS)
    write_text(out, text)
    if told.json:
        print(json.dumps({"report": str(out), "runs": [_outcome(one) for one in made]}))
        return 0
    print(out)
    for one in made:
        score = one.measured.score
        print(
            f"  {one.facts.title}: {_words(score) if score else one.measured.why.get('score', 'no score')}"
        )
        for found in one.findings:
            if found.status == "warning":
                print(f"    warning: {found.found}")
    return 0


def _make_room(out: Path) -> None:
    """Find out now, not after the episodes, whether there is a place to write to."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        require(False, f"--out is '{out}', whose folder cannot be made: {error.strerror}.")
    require(
        os.access(out.parent, os.W_OK),
        f"'{out.parent}' cannot be written to; expected a folder that can: --out FILE names another.",
    )


def _words(score: Any) -> str:
    interval = "one seed, no interval"
    if score.ci95 is not None:
        interval = f"95% interval {score.ci95[0]:.1f} to {score.ci95[1]:.1f}"
    return f"IQM {score.iqm:.1f} ({interval})"


def _outcome(one: Any) -> dict[str, Any]:
    measured = one.measured
    return {
        "run": str(one.facts.folder.path),
        "env": one.facts.env,
        "recipe": one.facts.label,
        "score": measured.score.to_json() if measured.score else None,
        "diagnosis": _plain(dataclasses.asdict(measured.diagnosis)) if measured.diagnosis else None,
        "effective": _plain(list(measured.effective)),
        "missing": measured.why,
        "findings": [dataclasses.asdict(found) for found in one.findings],
    }


def _plain(value: Any) -> Any:
    """Let null stand for what is no number: JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
