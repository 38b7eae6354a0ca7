"""The actors of a run, as a table of its report."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from qhat.cluster.environment import COLUMNS
from qhat.reports.html import Html, details, join, table
from qhat.reports.reading import rows_of


@dataclasses.dataclass
class Sum:
    """What the rows of one actor say together."""

    node: str = ""
    rates: list[float] = dataclasses.field(default_factory=list)
    staleness: float = 0.0
    lost: float = 0.0

    @property
    def rate(self) -> float:
        """Mean of its steps/s."""
        return sum(self.rates) / len(self.rates)


def actors(metrics: Path) -> Html:
    """Return the table; empty for a run without actors.

    Args:
        metrics: the run's metrics.csv.
    """
    found: dict[int, Sum] = {}
    waiting = store = 0.0
    for kind, rate, number, *words in rows_of(metrics, ("kind", "steps_per_second", *COLUMNS)):
        if kind != "actor" or not number.isdigit():
            continue
        node, staleness, waits, used, lost = words
        one = found.setdefault(int(number), Sum())
        one.node = node or one.node
        one.rates.append(_number(rate))
        one.staleness = max(one.staleness, _number(staleness))
        one.lost += _number(lost)
        waiting, store = max(waiting, _number(waits)), max(store, _number(used))
    if not found:
        return join([])
    rows = [
        [
            number,
            one.node,
            f"{sum(one.rates) / len(one.rates):,.0f}",
            f"{one.staleness:,.0f}",
            f"{one.lost:g}",
        ]
        for number, one in sorted(found.items())
    ]
    head = ["Actor", "Node", "Steps/s", "Oldest weights, in updates", "Processes lost"]
    caption = (
        f"What each actor did: at most {waiting:,.0f} steps waited for the learner, and the object stores"
        f" had at most {store:,.1f} MiB"
    )
    return details(f"{len(found)} actors", table(caption, head, rows))


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
