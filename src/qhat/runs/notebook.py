"""The progress bar of a training that is called in a notebook."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Callable
from typing import Any

from qhat.runs.progress import Progress

WIDTH = 320
"""Of the bar, in pixels."""


def notebook_progress() -> Callable[[Progress], None] | None:
    """Return what draws progress below the notebook's cell; `None` outside a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    return Bar(sys.modules["IPython"]).show


class Bar:
    """One line of HTML that is replaced as a training goes on."""

    def __init__(self, ipython: Any):
        self._html = ipython.display.HTML
        self._handle = ipython.display.display(self._html(""), display_id=True)

    def show(self, now: Progress) -> None:
        """Draw the state of a run in place of the last one."""
        self._handle.update(self._html(drawn(now)))


def drawn(now: Progress) -> str:
    """Return a run's progress as HTML."""
    share = min(now.step / now.steps, 1.0) if now.steps else 1.0
    words = [f"{now.step:,} of {now.steps:,} steps", f"{now.steps_per_second:,.0f} steps/s"]
    for name, value in (("training score", now.score), ("greedy", now.evaluation)):
        if math.isfinite(value):
            words.append(f"{name} {value:.4g}")
    words += [now.playing] if now.playing else []
    filled = f"<span style='display:block;height:100%;width:{share:.1%};background:#0b3c5d'></span>"
    bar = f"<span style='display:inline-block;width:{WIDTH}px;height:0.8em;background:#ddd'>{filled}</span>"
    faults = "".join(f"<br>{html.escape(sentence)}" for sentence in now.faults)
    return f"<div>{bar} {html.escape(' · '.join(words))}{faults}</div>"
