"""The checks of a report: each returns a finding with its number, why it matters, and the next command.

A new check is one function here and one row of `FINDINGS` (docs/extending.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from qhat.axes.explore import EpsilonGreedy
from qhat.axes.sampler import Prioritised
from qhat.evaluation.statistics import iqm
from qhat.reports.advice import again, calmer, doctor, on, steadier, with_more_seeds
from qhat.reports.finding import FINE, NOTE, UNKNOWN, WARNING, Finding
from qhat.reports.measure import Measured
from qhat.reports.plasticity import dead_units, plasticity
from qhat.reports.reading import CLIPPED, Facts

OVERESTIMATED = 0.1
"""Q is too large when the mean of Q minus return exceeds this share of a return's size."""
EFFECTIVE = 0.1
"""Effective share of replay, below which batches repeat too much."""
EPSILON = 0.2
"""Largest ε at the end of a run."""
WIDE = 0.2
"""Largest width of the interval, as a share of the learned range."""
COLLAPSE = 0.25
"""Largest loss at the end, as a share of the learned range."""
RISING = 0.05
"""Largest growth over the last quarter of the evaluations, as a share of the learned range."""


def findings(facts: Facts, measured: Measured) -> list[Finding]:
    """Run every check of `FINDINGS`; return the results, the worst first."""
    results = [check(facts, measured) for check in FINDINGS]
    order = (WARNING, NOTE, UNKNOWN, FINE)
    return sorted(
        (finding for finding in results if finding is not None),
        key=lambda finding: order.index(finding.status),
    )


def _scored(facts: Facts, measured: Measured) -> Finding | None:
    if measured.score is None:
        why = measured.why.get("score", "It was not requested.")
        return Finding(
            "Score", WARNING, f"The run has no score. {why}", "Without a score the policy cannot be judged."
        )
    broken = measured.score.broken
    if not broken:
        return None
    return Finding(
        "Score", WARNING, f"{broken} of the score's episodes stopped at a value that was not finite.",
        "They count with the return so far.", doctor(facts),
    )  # fmt: skip


def _cut(facts: Facts, measured: Measured) -> Finding | None:
    score = measured.score
    if score is None or not score.cut:
        return None
    sets = "" if facts.config.get("env_kwargs") else again(facts, "--env-kwargs", "max_episode_steps=1000")
    return Finding(
        "Length", WARNING,
        f"{score.cut:,} of the score's {score.episodes * len(score.per_seed):,} episodes were cut after"
        f" {score.cut_at:,} steps, before their end.",
        "They count with the return so far. The environment has no time limit; the policy may be stuck.",
        sets,
    )  # fmt: skip


def _interval(facts: Facts, measured: Measured) -> Finding | None:
    score = measured.score
    if score is None:
        return None
    more = with_more_seeds(facts)
    if score.ci95 is None:
        return Finding(
            "Interval", NOTE, "One seed was trained, so the score has no interval.",
            "Another seed may do much better or worse; one seed cannot show how much.", more,
        )  # fmt: skip
    width = score.ci95[1] - score.ci95[0]
    scale, seeds = _learned(facts) or abs(score.iqm), len(score.per_seed)
    found = f"The 95% interval over {seeds} seeds is {width:.4g} wide"
    found += f", {width / scale:.0%} of the learned range." if scale else "; all scores are 0."
    if width <= WIDE * scale or not scale:
        return Finding("Interval", FINE, found)
    return Finding(
        "Interval", WARNING, found,
        "The seeds differ too much for so few of them: a smaller difference to another run means nothing.",
        more,
    )  # fmt: skip


def _overestimation(facts: Facts, measured: Measured) -> Finding:
    name, diagnosis = "Q against returns", measured.diagnosis
    if diagnosis is None or measured.compared or not diagnosis.q:
        reason = measured.compared or measured.why.get("diagnosis", "")
        if diagnosis is not None and not reason:
            reason = (
                f"no state had {diagnosis.horizon:,} more steps before its episode was cut or the record"
                " ended; a return needs that many to be known to 1%"
            )
        return Finding(name, UNKNOWN, f"Q was not compared with returns: {reason.rstrip('.')}.")
    bias, scale = float(np.mean(diagnosis.bias)), diagnosis.scale
    share = bias / scale if scale else math.copysign(math.inf, bias) if bias else 0.0
    found = (
        f"Q(s, a) of the greedy actions is {np.mean(diagnosis.q):.4g} on average, and the return that"
        f" follows {np.mean(diagnosis.value):.4g} (discounted, {diagnosis.states:,} states of fresh"
        f" episodes)" + (f": {share:+.1%} of a return." if scale else ".")
    )
    if share <= OVERESTIMATED or not _above_zero(diagnosis.bias, diagnosis.error):
        return Finding(name, FINE, found)
    if abs(float(np.mean(diagnosis.q))) < abs(float(np.mean(diagnosis.value))):
        return Finding(
            name, WARNING, f"Q has not come down to the returns yet. {found}",
            "A new network returns values near 0; until it has learned, actions look better than they are.",
            on(facts, "--steps", str(2 * max(facts.steps, 1))),
        )  # fmt: skip
    return Finding(
        name, WARNING, f"Q is too large. {found}",
        "The maximum over noisy estimates favours those that are too large (arXiv:1509.06461), so the"
        " policy takes actions that only look good.",
        calmer(facts),
    )  # fmt: skip


def _above_zero(bias: Sequence[float], error: Sequence[float]) -> bool:
    """Whether the mean is above 0 by two standard errors, over seeds or over one seed's copies."""
    if len(bias) > 1:
        return float(np.mean(bias)) > 2 * float(np.std(bias, ddof=1)) / math.sqrt(len(bias))
    return math.isnan(error[0]) or bias[0] > 2 * error[0]


def _learned(facts: Facts) -> float:
    """Return the range of the evaluation scores during training: the learned range."""
    return float(np.ptp(iqm(facts.evaluated.score, axis=0))) if facts.evaluated else 0.0


def _collapse(facts: Facts, _: Measured) -> Finding | None:
    evaluated = facts.evaluated
    if evaluated is None or len(evaluated.step) < 2:
        return None
    seeds = np.arange(len(evaluated.score))
    at = evaluated.score.argmax(axis=1)
    best, last = evaluated.score[seeds, at], evaluated.score[:, -1]
    noise = np.hypot(evaluated.error[seeds, at], evaluated.error[:, -1])
    lost = (best - last) / np.maximum(best - evaluated.score.min(axis=1), 1e-12)
    fell = (lost > COLLAPSE) & (best - last > 3 * noise)
    worst = int(lost.argmax())
    if not fell.any() and lost[worst] > COLLAPSE:
        below = best[worst] - last[worst]
        return Finding(
            "End",
            FINE,
            f"The last evaluations were up to {below:.4g} below the best ones, within their spread.",
        )
    if not fell.any():
        return Finding(
            "End", FINE, f"At the end no seed had lost more than {lost[worst]:.0%} of its learned range."
        )
    worst = int(np.where(fell, lost, -1).argmax())
    return Finding(
        "End", WARNING,
        f"{fell.sum()} of {len(seeds)} seed(s) ended worse than their best: seed"
        f" {facts.first_seed + worst} had {best[worst]:.4g} at step {evaluated.step[at[worst]]:,.0f} and"
        f" {last[worst]:.4g} at step {evaluated.step[-1]:,.0f}.",
        "Training is not stable; the score above uses the best checkpoints, so it hides this.",
        steadier(facts),
    )  # fmt: skip


def _rising(facts: Facts, _: Measured) -> Finding | None:
    evaluated = facts.evaluated
    if evaluated is None or len(evaluated.step) < 4:
        return None
    quarter = max(1, len(evaluated.step) // 4)
    late, before = evaluated.score[:, -quarter:], evaluated.score[:, -2 * quarter : -quarter]
    gain = late.mean(axis=1) - before.mean(axis=1)
    if len(gain) > 1:
        error = float(np.std(gain, ddof=1)) / math.sqrt(len(gain))
    else:
        error = float(np.sqrt(np.square(evaluated.error[:, -2 * quarter :]).sum())) / quarter
    grown, learned = float(gain.mean()), _learned(facts)
    found = (
        f"Over the last quarter of the evaluations the score went {_up(grown)},"
        f" {abs(grown) / learned if learned else 0:.0%} of the learned range."
    )
    if grown <= RISING * learned or grown <= 2 * error:
        return Finding("Still rising", FINE, found)
    steps = 2 * max(facts.steps, int(evaluated.step[-1]))
    return Finding(
        "Still rising", NOTE, found, "The run ended while it was still improving.",
        on(facts, "--steps", str(steps)),
    )  # fmt: skip


def _up(grown: float) -> str:
    return f"{'up' if grown >= 0 else 'down'} by {abs(grown):.4g}"


def _epsilon(facts: Facts, _: Measured) -> Finding | None:
    trace = facts.traces.get("epsilon")
    explore = facts.recipe.scheduled(facts.steps).explore if facts.recipe else None
    if trace is None or not isinstance(explore, EpsilonGreedy):
        return None
    last, over = float(np.nanmax(trace.value[:, -1])), explore.steps or 0
    found = f"ε was {last:.3g} at the end; its schedule ends at {explore.end:.3g} at step {over:,}."
    if last <= explore.end + 0.01 and last <= EPSILON:
        return Finding("ε at the end", FINE, found)
    if last > explore.end + 0.01:
        return Finding(
            "ε at the end", WARNING, found,
            "The run ended while it still explored, so replay is full of the results of random actions.",
            on(facts, "--steps", str(2 * over)),
        )  # fmt: skip
    return Finding(
        "ε at the end", WARNING, found,
        f"One action in {1 / last:.0f} stays random, so long sequences of good actions are rare.",
        again(facts, "--explore", f"epsilon:start={explore.start:g},end=0.05,steps={over}"),
    )  # fmt: skip


def _clipped(facts: Facts, _: Measured) -> Finding | None:
    if facts.recipe is None or facts.recipe.head.name not in ("categorical", "hl_gauss"):
        return None
    name = facts.recipe.head.name
    found = f"{facts.clipped:.2%} of the targets' mass lay outside the support of {name} at the end."
    if facts.clipped <= CLIPPED:
        return Finding("Support", FINE, found)
    why = "It was moved to the outermost atoms, so values there are wrong."
    if facts.recipe.head.calibrates:
        why += " The support widens automatically, but only as far as the observed rewards can sum."
    return Finding("Support", WARNING, found, why, again(facts, "--head", f"{name}:v_min=LOW,v_max=HIGH"))


def _effective(facts: Facts, measured: Measured) -> Finding | None:
    if facts.recipe is None or not isinstance(facts.recipe.sampler, Prioritised):
        return None
    if not measured.effective:
        reason = measured.why.get("effective", measured.why.get("score", ""))
        return Finding("Replay", UNKNOWN, f"The priorities were not read. {reason}")
    share, alpha = min(measured.effective), facts.recipe.sampler.alpha
    if not all(map(math.isfinite, measured.effective)):
        return Finding("Replay", UNKNOWN, "Nothing in replay has a priority.")
    found = (
        f"With priorities (α = {alpha:g}) the effective sample size of replay is {share:.0%} of its size"
        " (worst seed)."
    )
    if share >= EFFECTIVE:
        return Finding("Replay", FINE, found)
    return Finding(
        "Replay", WARNING, found, "Batches repeat the same few transitions.",
        again(facts, "--sampler", f"prioritised:alpha={alpha / 2:g}"),
    )  # fmt: skip


def _halted(facts: Facts, measured: Measured) -> Finding | None:
    halted = (measured.summary or {}).get("halted", [])
    which = ", ".join(str(facts.first_seed + at) for at, stopped in enumerate(halted) if stopped)
    if not which:
        return None
    return Finding(
        "Halted", WARNING, f"Seed(s) {which} of {len(halted)} stopped at a value that was not finite.",
        "They keep their earlier weights and count in the score; faults/ has the steps before.",
        on(facts, "--on-nan", "skip"),
    )  # fmt: skip


def _broken(facts: Facts, _: Measured) -> Finding | None:
    if not (facts.broken or facts.skipped):
        return None
    return Finding(
        "Numbers", WARNING,
        f"{facts.broken:,} training episode(s) were discarded, and {facts.skipped:,} row(s) or update(s)"
        " were skipped.",
        "The environment's values, a loss or a gradient were not finite, or a process died; nothing was"
        " learned from them.",
        doctor(facts),
    )  # fmt: skip


def _files(facts: Facts, _: Measured) -> Finding | None:
    if facts.troubles:
        return Finding(
            "Files", WARNING, " ".join(facts.troubles),
            "The run is incomplete or damaged; this page shows what can be read.",
        )  # fmt: skip
    if facts.evaluated is not None:
        reached = int(facts.evaluated.step[-1])
        if reached >= facts.steps:
            return None
        return Finding(
            "Files", NOTE, f"The run was last evaluated at step {reached:,} of {facts.steps:,}.",
            "It was stopped, or its tables are truncated; this page shows what can be read.", on(facts),
        )  # fmt: skip
    return Finding(
        "Files", NOTE, "eval.csv has no complete evaluation yet.",
        "Without an evaluation there is no curve and no best checkpoint.", on(facts),
    )  # fmt: skip


Check = Callable[[Facts, Measured], Finding | None]
"""A check returns `None` where it does not apply."""

FINDINGS: tuple[Check, ...] = (
    _scored, _cut, _interval, _overestimation, _collapse, _rising, _epsilon, _clipped, dead_units,
    plasticity, _effective, _halted, _broken, _files,
)  # fmt: skip
"""Every check of a report, in the order in which equally bad findings are listed."""
