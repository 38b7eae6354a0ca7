"""What `qhat evaluate RUN --offline DATA` prints: what a policy is worth, without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qhat.axes.axis import AxisValue
from qhat.demonstrations.sources import require_readable
from qhat.evaluation.statistics.text import score_text
from qhat.system.errors import require


def show(
    folder: Path,
    sources: Sequence[str],
    checkpoint: str,
    updates: int,
    as_json: bool,
    parts: Sequence[type[AxisValue]] = (),
) -> int:
    """Estimate what every seed's policy earns, from recorded steps alone."""
    require(updates >= 1, f"--updates is {updates}; expected 1 or more.")
    for source in sources:
        require_readable(source)

    from rich.console import Console

    with Console(stderr=True, highlight=False).status("reading the data") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.runs.offline import evaluated_offline, keep
        from qhat.runs.run import Run

        run = Run.open(folder, tuple(parts))
        scores = evaluated_offline(run, sources, checkpoint, updates, progress=status.update)
    try:
        keep(folder, sources, checkpoint, scores)
    except OSError as error:
        print(f"qhat: the report of {folder} will not have this: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps([score.to_json() for score in scores]))
        return 0
    first = scores[0]
    print(f"{folder}  ({checkpoint} weights, {first.steps:,} recorded steps, {first.episodes:,} episodes)")
    print(f"  discounted return from the first step, γ {first.gamma:g}, with a 95% interval over episodes")
    low, high = first.behaviour_interval
    print(f"  recorded   {score_text(first.behaviour)}  ({score_text(low)} to {score_text(high)})")
    for index, score in enumerate(scores):
        low, high = score.interval
        each = f"{score_text(score.value)}  ({score_text(low)} to {score_text(high)})"
        print(f"  seed {index:<5} {each}   {score.verdict}")
        if (weighted := score.weighted) is not None:
            low, high = weighted.interval
            each = f"{score_text(weighted.value)}  ({score_text(low)} to {score_text(high)})"
            print(
                f"  weighted   {each}   doubly robust; {weighted.effective:.1f} episodes' worth of weight"
            )
    for index, score in enumerate(scores):
        near = score.coverage.untried if score.coverage else score.unseen
        print(
            f"  actions {index:<2} as recorded in {score.agreement:.0%} of the steps; {score.unseen:.0%} of"
            f" them nobody took anywhere, {near:.0%} nobody in like observations"
        )
    for index, score in enumerate(scores):
        if score.calibration:
            low, high = score.calibration[0], score.calibration[-1]
            print(
                f"  values {index:<3} lowest tenth {low.promised:.3g}, returned {low.returned:.3g}; highest"
                f" {high.promised:.3g}, returned {high.returned:.3g} (of recorded actions)"
            )
    print(f"\nnext:\n  qhat evaluate {folder}    # where an environment can play it")
    print(f"  qhat report {folder}      # with actions and values as tables")
    return 0
