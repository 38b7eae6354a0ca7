"""What recorded steps say of a run's policies, as a section of its report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from qhat.reports.html import Html, details, join, table, tag
from qhat.runs.folder import OFFLINE, RunFolder
from qhat.system.errors import UsageError, in_shell
from qhat.system.files import read_json

MOST = 64
"""Factors, and choices of a factor, up to which each has a row."""


def offline(folder: RunFolder) -> Html | None:
    """Return what `qhat evaluate --offline` found last; `None` if it was never asked."""
    path = folder.path / OFFLINE
    if not path.is_file():
        return None
    try:
        whole = read_json(path)
        return _section(whole["data"], str(whole["checkpoint"]), whole["scores"])
    except UsageError as error:
        return tag("p", "There is no estimate: ", in_shell(error))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError):
        words = f"'{path}' is damaged; qhat evaluate {folder.path} --offline DATA writes it again."
        return tag("p", "There is no estimate: ", words)


def _section(data: Sequence[Any], checkpoint: str, scores: Sequence[Mapping[str, Any]]) -> Html:
    first = scores[0]
    low, high = first["behaviour_interval"]
    lead = (
        f"Discounted return from the first step (γ = {_short(first['gamma'])}) with the {checkpoint}"
        f" weights, estimated by fitted Q evaluation from {int(first['steps']):,} recorded steps in"
        f" {int(first['episodes']):,} episodes: {', '.join(map(str, data))}. The recorded episodes return"
        f" {_short(first['behaviour'])} (95% interval {_short(low)} to {_short(high)})."
    )
    rows = []
    for seed, score in enumerate(scores):
        low, high = score["interval"]
        near = (score["coverage"] or {}).get("untried")
        rows.append([
            str(seed), _short(score["value"]), f"{_short(low)} to {_short(high)}",
            _share(score["agreement"]), _share(score["unseen"]), "–" if near is None else _share(near),
        ])  # fmt: skip
    head = ["Seed", "Estimate", "95% interval", "As recorded", "Nobody tried", "Nobody tried nearby"]
    said = [tag("li", f"Seed {seed}: {score['verdict']}.") for seed, score in enumerate(scores)]
    parts = [tag("p", lead), tag("ul", *said), table("What each seed's policy is worth", head, rows)]
    note = (
        "As recorded: share of the recorded steps in which the policy does what was recorded. Nobody tried:"
        " share of its actions that nobody took anywhere, or in the recorded observations that are nearest"
        " in its network's features. The value of such an action is a guess."
    )
    parts.append(tag("p", note, class_="quiet"))
    parts += [part for seed, score in enumerate(scores) for part in _of_seed(seed, score)]
    return join(parts)


def _of_seed(seed: int, score: Mapping[str, Any]) -> list[Html]:
    """Return tables of one seed's actions, and of what its values promise."""
    parts = []
    if coverage := score["coverage"]:
        rows = []
        pairs = zip(coverage["recorded"], coverage["chosen"], strict=True)
        for factor, (recorded, chosen) in itertools.islice(enumerate(pairs), MOST):
            several = len(coverage["recorded"]) > 1
            for action, (there, here) in enumerate(zip(recorded[:MOST], chosen[:MOST], strict=True)):
                name = f"joint {factor}, choice {action}" if several else str(action)
                rows.append([name, _share(there), _share(here)])
        caption = "Actions in the recorded steps"
        inner = table(caption, ["Action", "Recorded", "Of the policy"], rows)
        parts.append(details(f"Actions of seed {seed}", inner))
    if bins := score["calibration"]:
        rows = [
            [str(at), _short(each["promised"]), _short(each["returned"]), f"{int(each['steps']):,}"]
            for at, each in enumerate(bins, 1)
        ]
        head = ["Tenth", "Q(s, a) of the recorded action", "Return from there on", "Steps"]
        words = (
            "A policy that is better than the recordings may promise more than these returned. Of episodes"
            " that are cut, steps near the end are left out."
        )
        inner = [table("Values and recorded returns, from low values to high ones", head, rows)]
        parts.append(details(f"Calibration of seed {seed}", *inner, tag("p", words, class_="quiet")))
    return parts


def _short(value: Any) -> str:
    number = float(value)
    return f"{number:.4g}" if math.isfinite(number) else "not finite"


def _share(value: Any) -> str:
    share = float(value)
    return f"{share:.0%}" if math.isfinite(share) else "not finite"
