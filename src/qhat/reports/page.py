"""A report as one HTML page: results, warnings, how to reproduce them. The page loads nothing."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Sequence
from importlib import resources

from qhat._version import __version__
from qhat.reports import curves, sections, settings
from qhat.reports.finding import NOTE, WARNING, Finding
from qhat.reports.html import Html, document, join, table, tag
from qhat.reports.measure import Measured
from qhat.reports.offline import offline
from qhat.reports.reading import Facts


@dataclasses.dataclass(frozen=True)
class RunReport:
    """One run of a report."""

    facts: Facts
    measured: Measured
    findings: list[Finding]


def page(runs: Sequence[RunReport], commands: Collection[str]) -> str:
    """Return the HTML of one run, or of several runs with an overview.

    Args:
        commands: existing commands of `qhat`; only these are suggested.
    """
    style = resources.files("qhat.reports").joinpath("report.css").read_text(encoding="utf-8")
    if len(runs) == 1:
        facts = runs[0].facts
        title, sub = facts.title, sections.lead(facts)
        parts = _sections(runs[0], commands, "", 2)
        links = [(key, name) for key, name, _ in parts]
        body = join(section for _, _, section in parts)
    else:
        title = f"{len(runs)} runs"
        sub = ", ".join(dict.fromkeys(report.facts.env for report in runs))
        links = [("overview", "Overview"), ("curves", "Curves")]
        links += [(f"run-{at}", report.facts.title) for at, report in enumerate(runs, 1)]
        body = join(
            [
                _overview(runs, commands),
                _together(runs),
                *(_run_section(at, report, commands) for at, report in enumerate(runs, 1)),
            ]
        )
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    contents = tag("ul", *(tag("li", tag("a", name, href=f"#{key}")) for key, name in links))
    header = tag(
        "header", tag("p", "qhat report", class_="brand"), tag("h1", title), tag("p", sub, class_="lead")
    )
    footer = tag(
        "footer", tag("p", f"Made by qhat {__version__}. This page loads nothing and runs no script.")
    )
    nav = tag("nav", contents, aria_label="Sections")
    return document(
        f"{title} – qhat report",
        style,
        skip,
        header,
        nav,
        tag("main", body, id="content", tabindex="-1"),
        footer,
    )


def _sections(
    report: RunReport, commands: Collection[str], prefix: str, level: int
) -> list[tuple[str, str, Html]]:
    """Return the key, name and content of every section of a run."""
    facts, measured = report.facts, report.measured
    parts = [
        ("result", "Result", sections.result(facts, measured)),
        ("findings", "Warnings", sections.warnings(report.findings)),
        ("curves", "Curves", sections.drawn(facts)),
        *_of_logs(facts),
        ("film", "Film", sections.film(measured)),
        ("configuration", "Configuration", settings.configuration(facts)),
        ("system", "System", settings.system(facts)),
        ("reproduce", "Reproduce", settings.reproduce(facts)),
        ("next", "Next", settings.next_commands(facts, report.findings, commands)),
    ]
    return [
        (prefix + key, name, _section(prefix + key, name, content, level)) for key, name, content in parts
    ]


def _of_logs(facts: Facts) -> list[tuple[str, str, Html]]:
    found = offline(facts.folder)
    return [] if found is None else [("logs", "By recorded steps", found)]


def _section(key: str, name: str, content: Html, level: int = 2, class_: str | None = None) -> Html:
    title = tag(f"h{level}", name, id=f"{key}-title")
    return tag("section", title, content, id=key, class_=class_, aria_labelledby=f"{key}-title")


def _run_section(at: int, report: RunReport, commands: Collection[str]) -> Html:
    key = f"run-{at}"
    parts = [part for _, _, part in _sections(report, commands, f"{key}-", 3)]
    lead = tag("p", sections.lead(report.facts), class_="lead")
    return _section(key, report.facts.title, join([lead, *parts]), class_="run")


def _overview(runs: Sequence[RunReport], commands: Collection[str]) -> Html:
    rows = []
    for at, report in enumerate(runs, 1):
        score = report.measured.score
        interval = f"{score.ci95[0]:.4g} to {score.ci95[1]:.4g}" if score and score.ci95 else "–"
        warnings, notes = (
            sum(finding.status == status for finding in report.findings) for status in (WARNING, NOTE)
        )
        rows.append(
            [
                tag("a", report.facts.title, href=f"#run-{at}"),
                f"{score.iqm:.4g}" if score else "no score",
                interval,
                len(score.per_seed) if score else report.facts.seeds,
                f"{report.facts.steps:,}",
                f"{warnings}, {notes} note(s)" if notes else str(warnings),
                str(report.facts.folder.path),
            ]
        )
    head = ["Run", "IQM", "95% interval", "Seeds", "Steps", "Warnings", "Folder"]
    parts = [table("Scores in fresh greedy episodes", head, rows)]
    if len({report.facts.env for report in runs}) > 1:
        units = "Scores of different environments have different units and cannot be compared."
        parts.append(tag("p", units, class_="quiet"))
    elif "compare" in commands:
        line = shlex.join(["qhat", "compare", *(str(report.facts.folder.path) for report in runs)])
        parts.append(settings.typed("Compare the runs:", line))
    return _section("overview", "Overview", join(parts))


def _together(runs: Sequence[RunReport]) -> Html:
    """Return one figure per environment with the curves of all its runs."""
    parts: list[Html] = []
    for env in dict.fromkeys(report.facts.env for report in runs):
        parts.append(tag("h3", env))
        same_env = [report.facts for report in runs if report.facts.env == env]
        names = [facts.label for facts in same_env]
        lines = []
        for facts in same_env:
            if facts.evaluated is not None:
                name = facts.label
                name += f" ({facts.folder.path})" if names.count(name) > 1 else ""
                lines.append(curves.of_evaluations(facts.evaluated, name, len(lines), each=False))
        if lines:
            parts.append(curves.legend(lines, seeds=False))
            y_label = "Score of the greedy evaluations in training, IQM over seeds"
            parts.append(curves.chart(lines, env, y_label, largest=same_env[0].largest_score))
        else:
            parts.append(tag("p", "No run in this environment has been evaluated yet."))
    words = "Bands are 95% intervals over seeds. Each run's section has the numbers as a table."
    return _section("curves", "Curves", join([*parts, tag("p", words, class_="quiet")]))
