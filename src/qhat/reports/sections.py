"""The sections of a run's report: functions from facts and measurements to markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qhat.evaluation.statistics import Score
from qhat.reports import curves
from qhat.reports.actors import actors
from qhat.reports.finding import FINE, NOTE, UNKNOWN, WARNING, Finding
from qhat.reports.html import Html, command, data_uri, details, join, table, tag
from qhat.reports.measure import Measured
from qhat.reports.reading import Facts, Trace

SAYS = {WARNING: "Warning", NOTE: "Note", FINE: "Fine", UNKNOWN: "Not measured"}
LABELS = {"epsilon": "ε, share of actions that explore", "loss": "Loss", "q": "Mean Q(s, a) of the batches",
          "score": "Score of training episodes (exploring)"}  # fmt: skip


def lead(facts: Facts) -> str:
    """Describe in a line what was trained."""
    seeds = f"{facts.seeds} seed{'s' * (facts.seeds != 1)}"
    return f"{seeds} × {facts.steps:,} {facts.unit} · {facts.folder.path}"


def result(facts: Facts, measured: Measured) -> Html:
    """Return the score, its interval, and how it was measured."""
    score = measured.score
    if score is None:
        why = measured.why.get("score", "It was not requested.")
        return tag("p", "There is no score: ", why)
    shown = f"{score.iqm:.4g}"
    if score.ci95 is None:
        interval = tag("p", "Only one seed, so no interval.", class_="interval")
    else:
        interval = tag("p", f"95% interval {score.ci95[0]:.4g} to {score.ci95[1]:.4g}", class_="interval")
    hero = tag(
        "div",
        tag(
            "p",
            tag("span", shown, class_="number"),
            " ",
            tag("span", "IQM: interquartile mean over seeds", class_="unit"),
        ),
        interval,
        curves.strip(score.per_seed, score.iqm, score.ci95, facts.largest_score),
        class_="hero",
    )
    facts_ = tag("dl", *(part for name, value in _score_rows(score) for part in _pair(name, value)))
    seeds = _per_seed(facts, score, measured)
    honest = (
        f"{score.episodes:,} fresh greedy episodes per seed in {measured.judge}, with the weights that were"
        " best in the evaluations during training. None of these episodes was used to choose a checkpoint"
        " or a setting: their seeds start at 1,000,000. The interval is a stratified bootstrap over seeds"
        " (arXiv:2108.13264); it describes another set of seeds, not another episode."
    )
    return join([hero, facts_, seeds, tag("p", honest, class_="quiet")])


def _score_rows(score: Score) -> list[tuple[str, str]]:
    rows = [("Episodes", f"mean {score.mean_return:.4g}, standard deviation {score.std_return:.4g}")]
    if score.mean_length is not None:
        cut = f"; {score.cut:,} were cut at {score.cut_at:,}" if score.cut else ""
        rows.append(("Length", f"{score.mean_length:,.0f} steps on average{cut}"))
    if score.success_rate is not None:
        rows.append(("Success", f"{score.success_rate:.1%} of {score.attempts:,} attempts"))
    if score.saturation is not None:
        joints = ", ".join(f"{share:.0%}" for share in score.saturation)
        rows.append(("At their bounds", f"joints in {joints} of the steps"))
    if score.smoothness is not None:
        rows.append(("Smoothness", f"mean |Δ command| {score.smoothness:.3g} from step to step"))
    return rows


def _pair(name: str, value: Any) -> tuple[Html, Html]:
    return tag("dt", name), tag("dd", value)


def _per_seed(facts: Facts, score: Score, measured: Measured) -> Html:
    summary = measured.summary or {}
    best, at = (list(summary.get(name, ())) for name in ("best_score", "best_step"))
    head = ["Seed", "Mean return"]
    head += ["Success"] if score.success_per_seed else []
    head += ["Best evaluation", "At step"] if best else []
    rows = []
    for seed, mean in enumerate(score.per_seed):
        row = [facts.first_seed + seed, f"{mean:.4g}"]
        row += [f"{score.success_per_seed[seed]:.1%}"] if score.success_per_seed else []
        if best:
            row += ["–" if best[seed] is None else f"{best[seed]:.4g}", f"{at[seed]:,}"]
        rows.append(row)
    return details("Every seed", table("Scores of every seed", head, rows))


def warnings(found: Sequence[Finding]) -> Html:
    """Return the findings, the worst first, and a table of all checks."""
    urgent = [one for one in found if one.status in (WARNING, NOTE)]
    cards = [
        tag(
            "li",
            tag(
                "p",
                tag("strong", SAYS[one.status], class_="badge"),
                " ",
                tag("span", one.name, class_="what"),
            ),
            tag("p", one.found),
            tag("p", one.why) if one.why else "",
            join([tag("p", "Type:", class_="for"), command(one.next)]) if one.next else "",
            class_=f"finding {one.status}",
        )
        for one in urgent
    ]
    passed = sum(one.status == FINE for one in found)
    first = (
        tag("ul", *cards, class_="findings") if cards else tag("p", f"None: all {passed} checks passed.")
    )
    rows = [[one.name, SAYS[one.status], one.found] for one in found]
    every = table("All checks", ["Check", "Status", "Found"], rows, numbers=False)
    return join([first, details(f"All {len(found)} checks", every)])


def drawn(facts: Facts) -> Html:
    """Return the learning curve, its numbers as a table, and the other curves of the training."""
    parts: list[Html] = []
    evaluated = facts.evaluated
    if evaluated is None:
        parts.append(tag("p", "There is no learning curve: no evaluation is complete yet."))
    else:
        seeds = len(evaluated.score)
        name = f"IQM of {seeds} seeds" if seeds > 1 else "the only seed"
        line = curves.of_evaluations(evaluated, name)
        parts.append(curves.legend([line], seeds=True))
        y_label, largest = "Score of the greedy evaluations in training", facts.largest_score
        parts.append(curves.chart([line], "Learning curve", y_label, largest=largest, unit=facts.unit))
        if seeds == 1:
            parts.append(tag("p", "Only one seed, so no interval.", class_="quiet"))
        parts.append(details("The curve as a table", _numbers(line, evaluated.score, facts)))
    logged = [name for name in facts.traces if name not in LABELS]
    small = [
        _small(name, trace, facts.unit)
        for name in (*LABELS, *logged)
        if (trace := facts.traces.get(name)) is not None
    ]
    if small:
        parts.append(tag("div", *small, class_="charts"))
        parts.append(tag("p", "Bold: mean over seeds; thin: each seed.", class_="quiet"))
    parts.append(actors(facts.folder.metrics))
    return join(parts)


def _small(name: str, trace: Trace, unit: str) -> Html:
    line = curves.of_trace(trace, "mean of the seeds" if len(trace.value) > 1 else "the only seed")
    label = LABELS.get(name, f"{name}, mean over steps")
    return curves.chart([line], label, label, small=True, unit=unit)


def _numbers(line: curves.Line, score: Any, facts: Facts) -> Html:
    seeds = [f"Seed {facts.first_seed + at}" for at in range(len(score))]
    head = [
        "Step",
        "IQM",
        *(["95% low", "95% high"] if line.band else []),
        *(seeds if len(seeds) > 1 else []),
    ]
    rows = []
    for at, step in enumerate(line.x):
        band = [f"{end[at]:.4g}" for end in line.band] if line.band else []
        each = [f"{seed[at]:.4g}" for seed in score] if len(seeds) > 1 else []
        rows.append([f"{step:,.0f}", f"{line.y[at]:.4g}", *band, *each])
    return table("Scores of the greedy evaluations in training", head, rows)


def film(measured: Measured) -> Html:
    """Return the film of the policy, or why there is none."""
    shot = measured.film
    if shot is None:
        return tag("p", "There is no film. ", measured.why.get("film", "The run has none."))
    video = tag(
        "video",
        "This browser shows no video.",
        # The fragment makes browsers show the first frame before it plays.
        src=data_uri("video/mp4", shot.content) + "#t=0.001",
        controls=True,
        muted=True,
        playsinline=True,
        preload="metadata",
        aria_label="The greedy policy in its environment",
    )
    words = f"{shot.name}: the greedy policy of the best seed. One episode proves little."
    return tag("figure", video, tag("figcaption", words))
