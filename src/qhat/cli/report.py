"""`qhat report RUN…`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read
from qhat.cli.parts import with_parts
from qhat.evaluation.statistics.text import score_text
from qhat.reports.place import place_of, require_writable
from qhat.reports.reading import read_facts


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML report about one or several runs.

    Contains the score with its interval, warnings, curves, a film, configuration, system, and commands.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders."""
    out: Path | None = None
    """Output file, .html. Default: report.html in the run folder, or ./report.html for several runs."""
    episodes: int = 100
    """Number of fresh episodes per seed for the score."""
    no_video: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not film runs that have no film yet."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout: the file, and each run's score, diagnosis and findings."""


def run(words: Sequence[str]) -> int:
    """Parse, read, measure, write, print the path."""
    words, parts = with_parts(words)
    args = read(Report, words, "report")
    out = place_of(args.runs, args.out, args.episodes)
    for path in args.runs:
        read_facts(path, parts)
    require_writable(out)

    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True, highlight=False).status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.reports.report import report

        written = report(
            args.runs,
            out,
            episodes=args.episodes,
            video=not args.no_video,
            parts=parts,
            progress=lambda now: status.update(escape(now)),
        )
    made = written.runs
    if args.json:
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


def _words(score: Any) -> str:
    interval = "one seed, no interval"
    if score.ci95 is not None:
        interval = f"95% interval {score_text(score.ci95[0])} to {score_text(score.ci95[1])}"
    return f"IQM {score_text(score.iqm)} ({interval})"


def _outcome(one: Any) -> dict[str, Any]:
    measured = one.measured
    return {
        "run": str(one.facts.folder.path),
        "env": one.facts.env,
        "recipe": one.facts.label,
        "score": measured.score.to_json() if measured.score else None,
        "diagnosis": _json_safe(dataclasses.asdict(measured.diagnosis)) if measured.diagnosis else None,
        "effective": _json_safe(list(measured.effective)),
        "missing": measured.why,
        "findings": [dataclasses.asdict(found) for found in one.findings],
    }


def _json_safe(value: Any) -> Any:
    """Replace NaN and infinity by null, because JSON has neither."""
    if isinstance(value, dict):
        return {key: _json_safe(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_json_safe(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
