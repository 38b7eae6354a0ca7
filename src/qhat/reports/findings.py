"""What a report warns of: every check with its number, why it matters, and what to type next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from qhat.axes.explore import EpsilonGreedy
from qhat.axes.sampler import Prioritised
from qhat.evaluation.statistics import iqm
from qhat.reports.advice import again, calmer, doctor, on, steadier
from qhat.reports.measure import Measured
from qhat.reports.reading import CLIPPED, Facts

FINE, NOTE, WARNING, UNKNOWN = "fine", "note", "warning", "not measured"
OVERESTIMATED = 0.1
"""Mean of Q minus return, as a share of a return's size, from which Q is too large."""
DEAD = 0.5
"""Share of hidden units. A policy that has settled sees few kinds of states: a quarter is common."""
EFFECTIVE = 0.1
"""Share of replay that batches are made of."""
EPSILON = 0.2
"""ε at a run's end."""
WIDE = 0.2
"""Width of the interval, as a share of what was learned."""
COLLAPSE = 0.25
"""How much of what was learned is lost at the end."""
RISING = 0.05
"""Growth over the last quarter of the evaluations, as a share of what was learned."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check."""

    name: str
    status: str
    found: str
    """A sentence with its number."""
    why: str = ""
    """Why it matters."""
    next: str = ""
    """A command to type."""


def findings(facts: Facts, measured: Measured) -> list[Finding]:
    """Make every check; the worst come first."""
    told = [
        _scored(facts, measured),
        _cut(facts, measured),
        _interval(facts, measured),
        _overestimation(facts, measured),
        _collapse(facts),
        _rising(facts),
        _epsilon(facts),
        _clipped(facts),
        _dead(facts, measured),
        _effective(facts, measured),
        _halted(facts, measured),
        _broken(facts),
        _files(facts),
    ]
    order = (WARNING, NOTE, UNKNOWN, FINE)
    return sorted((one for one in told if one is not None), key=lambda one: order.index(one.status))


def _scored(facts: Facts, measured: Measured) -> Finding | None:
    if measured.score is None:
        why = measured.why.get("score", "It was not asked for.")
        return Finding(
            "Score", WARNING, f"The run has no score. {why}", "Without one nothing is known of it."
        )
    broken = measured.score.broken
    if not broken:
        return None
    return Finding(
        "Score", WARNING, f"{broken} of the score's episodes broke off at a number that was not finite.",
        "They count with what they had until then.", doctor(facts),
    )  # fmt: skip


def _cut(facts: Facts, measured: Measured) -> Finding | None:
    score = measured.score
    if score is None or not score.cut:
        return None
    sets = "" if facts.config.get("env_kwargs") else again(facts, "--env-kwargs", "max_episode_steps=1000")
    return Finding(
        "Length", WARNING,
        f"{score.cut:,} of the score's {score.episodes * len(score.per_seed):,} episodes were cut after"
        f" {score.cut_at:,} steps: they were not over.",
        "They count with what they had until then: the environment has no time limit, and the policy may be"
        " stuck.", sets,
    )  # fmt: skip


def _interval(facts: Facts, measured: Measured) -> Finding | None:
    score = measured.score
    if score is None:
        return None
    more = again(facts, "--seeds", str(max(5, 2 * facts.seeds)))
    if score.ci95 is None:
        return Finding(
            "Interval", NOTE, "One seed was trained, so the score has no interval.",
            "Another seed may do much better or worse: nothing here says how much.", more,
        )  # fmt: skip
    width = score.ci95[1] - score.ci95[0]
    share = width / (_learned(facts) or max(abs(score.iqm), 1e-12))
    seeds = len(score.per_seed)
    found = f"The 95% interval over {seeds} seeds is {width:.4g} wide, {share:.0%} of what was learned."
    if share <= WIDE:
        return Finding("Interval", FINE, found)
    return Finding(
        "Interval", WARNING, found,
        "Seeds differ too much for so few of them: a smaller difference to another run says nothing.",
        more,
    )  # fmt: skip


def _overestimation(facts: Facts, measured: Measured) -> Finding:
    name, told = "Q against returns", measured.diagnosis
    if told is None or measured.compared or not told.q:
        reason = measured.compared or measured.why.get("diagnosis", "")
        if told is not None and not reason:
            reason = (
                f"no state had {told.horizon:,} more steps before its episode was cut or the record ended;"
                " a return takes them to be known to a hundredth"
            )
        return Finding(name, UNKNOWN, f"Q was not compared with returns: {reason.rstrip('.')}.")
    bias, scale = float(np.mean(told.bias)), max(told.scale, 1e-12)
    share = bias / scale
    found = (
        f"Q(s, a) of the greedy actions is {np.mean(told.q):.4g} on average, and the return that follows"
        f" {np.mean(told.value):.4g} (discounted, {told.states:,} states of fresh episodes): {share:+.1%}"
        " of a return."
    )
    if share <= OVERESTIMATED or not _above_zero(told.bias, told.error):
        return Finding(name, FINE, found)
    if abs(float(np.mean(told.q))) < abs(float(np.mean(told.value))):
        return Finding(
            name, WARNING, f"Q has not come down to the returns yet. {found}",
            "A network begins with values near 0: until it has learned, actions look better than they are.",
            on(facts, "--steps", str(2 * max(facts.steps, 1))),
        )  # fmt: skip
    return Finding(
        name, WARNING, f"Q is too large. {found}",
        "The maximum over noisy estimates favours those that are too large (arXiv:1509.06461); actions that"
        " only look good are taken.",
        calmer(facts),
    )  # fmt: skip


def _above_zero(bias: Sequence[float], error: Sequence[float]) -> bool:
    """Whether the mean over seeds is above 0 by two standard errors: of seeds, or of one seed's copies."""
    if len(bias) > 1:
        return float(np.mean(bias)) > 2 * float(np.std(bias, ddof=1)) / math.sqrt(len(bias))
    return math.isnan(error[0]) or bias[0] > 2 * error[0]


def _learned(facts: Facts) -> float:
    """How far the scores of the run's own evaluations are apart: what there was to learn, so far."""
    return float(np.ptp(iqm(facts.evaluated.score, axis=0))) if facts.evaluated else 0.0


def _collapse(facts: Facts) -> Finding | None:
    told = facts.evaluated
    if told is None or len(told.step) < 2:
        return None
    seeds = np.arange(len(told.score))
    at = told.score.argmax(axis=1)
    best, last = told.score[seeds, at], told.score[:, -1]
    noise = np.hypot(told.error[seeds, at], told.error[:, -1])
    lost = (best - last) / np.maximum(best - told.score.min(axis=1), 1e-12)
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
            "End", FINE, f"At the end no seed had lost more than {lost[worst]:.0%} of what it had learned."
        )
    worst = int(np.where(fell, lost, -1).argmax())
    return Finding(
        "End", WARNING,
        f"{fell.sum()} of {len(seeds)} seed(s) ended worse than they had been: seed"
        f" {facts.first_seed + worst} had {best[worst]:.4g} at step {told.step[at[worst]]:,.0f} and"
        f" {last[worst]:.4g} at step {told.step[-1]:,.0f}.",
        "The score here is of the best checkpoints, so it hides this; training is not stable.",
        steadier(facts),
    )  # fmt: skip


def _rising(facts: Facts) -> Finding | None:
    told = facts.evaluated
    if told is None or len(told.step) < 4:
        return None
    quarter = max(1, len(told.step) // 4)
    late, before = told.score[:, -quarter:], told.score[:, -2 * quarter : -quarter]
    gain = late.mean(axis=1) - before.mean(axis=1)
    if len(gain) > 1:
        error = float(np.std(gain, ddof=1)) / math.sqrt(len(gain))
    else:
        error = float(np.sqrt(np.square(told.error[:, -2 * quarter :]).sum())) / quarter
    grown, learned = float(gain.mean()), max(_learned(facts), 1e-12)
    found = (
        f"Over the last quarter of the evaluations the score went {_up(grown)},"
        f" {abs(grown) / learned:.0%} of what was learned."
    )
    if grown / learned <= RISING or grown <= 2 * error:
        return Finding("Still rising", FINE, found)
    steps = 2 * max(facts.steps, int(told.step[-1]))
    return Finding(
        "Still rising", NOTE, found, "The run ended before it had learned what it could.",
        on(facts, "--steps", str(steps)),
    )  # fmt: skip


def _up(grown: float) -> str:
    return f"{'up' if grown >= 0 else 'down'} by {abs(grown):.4g}"


def _epsilon(facts: Facts) -> Finding | None:
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
            "The run ended while it still explored: replay is full of random actions' consequences.",
            on(facts, "--steps", str(2 * over)),
        )  # fmt: skip
    return Finding(
        "ε at the end", WARNING, found,
        f"One action in {1 / last:.0f} is random to the end: long runs of right ones are seldom seen.",
        again(facts, "--explore", f"epsilon:start={explore.start:g},end=0.05,steps={over}"),
    )  # fmt: skip


def _clipped(facts: Facts) -> Finding | None:
    if facts.recipe is None or facts.recipe.head.name not in ("categorical", "hl_gauss"):
        return None
    name = facts.recipe.head.name
    found = f"{facts.clipped:.2%} of the targets' mass lay beyond the support of {name} at the end."
    if facts.clipped <= CLIPPED:
        return Finding("Support", FINE, found)
    why = "It counts as the outermost atoms, so values there are wrong."
    if facts.recipe.head.calibrates:
        why += " The support widens by itself, but no further than the rewards seen can sum to."
    remedy = again(facts, "--head", f"{name}:v_min=LOW,v_max=HIGH")
    return Finding("Support", WARNING, found, why, remedy)


def _dead(facts: Facts, measured: Measured) -> Finding | None:
    told = measured.diagnosis
    if told is None or not told.dead:
        return None
    share = float(np.mean(told.dead))
    layers = ", ".join(f"{name} {each:.0%}" for name, each in sorted(told.dead_by_layer.items()))
    found = (
        f"{share:.0%} of the hidden units were 0 on all of {told.observations:,} observations ({layers};"
        " convolutions are not counted)."
    )
    if told.observations < 1_000:
        return Finding("Dead units", UNKNOWN, f"{told.observations:,} observations are too few to tell.")
    if share <= DEAD:
        return Finding("Dead units", FINE, found)
    return Finding(
        "Dead units", WARNING, found,
        "No gradient reaches such a unit: the network is smaller than it was made (arXiv:2302.12902).",
        again(facts, "--layer-norm"),
    )  # fmt: skip


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
        f"Priorities (α = {alpha:g}) make replay as large as {share:.0%} of it would be, drawn uniformly"
        " (effective sample size, the worst seed's)."
    )
    if share >= EFFECTIVE:
        return Finding("Replay", FINE, found)
    return Finding(
        "Replay", WARNING, found, "Batches are made of the same few transitions again and again.",
        again(facts, "--sampler", f"prioritised:alpha={alpha / 2:g}"),
    )  # fmt: skip


def _halted(facts: Facts, measured: Measured) -> Finding | None:
    halted = (measured.summary or {}).get("halted", [])
    which = ", ".join(str(facts.first_seed + at) for at, one in enumerate(halted) if one)
    if not which:
        return None
    return Finding(
        "Halted", WARNING, f"Seed(s) {which} of {len(halted)} stopped at a number that was not finite.",
        "They keep the weights from before it, and count in the score; faults/ has the steps before.",
        on(facts, "--on-nan", "skip"),
    )  # fmt: skip


def _broken(facts: Facts) -> Finding | None:
    if not (facts.broken or facts.skipped):
        return None
    return Finding(
        "Numbers", WARNING,
        f"{facts.broken:,} training episode(s) were given up, and {facts.skipped:,} row(s) or update(s)"
        " were left out.",
        "The environment's numbers, a loss or a gradient were not finite, or a process was lost; nothing of"
        " it was learned.",
        doctor(facts),
    )  # fmt: skip


def _files(facts: Facts) -> Finding | None:
    if facts.troubles:
        return Finding(
            "Files", WARNING, " ".join(facts.troubles),
            "The run is half-written or damaged; this page has what is whole.",
        )  # fmt: skip
    if facts.evaluated is not None:
        reached = int(facts.evaluated.step[-1])
        if reached >= facts.steps:
            return None
        return Finding(
            "Files", NOTE, f"The run was last evaluated at step {reached:,} of {facts.steps:,}.",
            "It was stopped, or its tables are cut off; this page has what is whole.", on(facts),
        )  # fmt: skip
    return Finding(
        "Files", NOTE, "eval.csv has no complete evaluation yet.",
        "Without one there is no curve, and no best checkpoint.", on(facts),
    )  # fmt: skip
