"""Counts the operations that a compiled program executes, from XLA's text of it."""

from __future__ import annotations

import re
from collections import Counter

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
"""Instructions without work at run time."""
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\((.*)$")
CALLED = re.compile(r"(condition|body|to_apply)=%?([\w.-]+)")
TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"(\d+)"')
SMALL = "xla_cpu_small_call"
"""Mark of a call that XLA compiles to one function."""
Lines = list[tuple[str, str]]


def computations(text: str) -> tuple[dict[str, Lines], str]:
    """Return the instructions of every computation, as kind and text, and the name of the first to run."""
    found: dict[str, Lines] = {}
    name, entry = "", ""
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            is_entry = line.startswith("ENTRY ")
            name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
            entry, found[name] = name if is_entry else entry, []
        elif name and (match := INSTRUCTION.match(line)):
            found[name].append((match[1], line))
    return found, entry


def executed(text: str) -> Counter[str]:
    """Count the operations that XLA starts in one iteration of the program's main loop, by kind.

    A call of a small loop is one operation: XLA compiles it to one function. A loop of unknown length
    counts as one turn where it is the loop of updates, directly in the main loop, and as none below that:
    the loop of repeated draws. `turn` counts the operations inside the loops of known length.
    """
    found, entry = computations(text)
    first = found[entry] + [
        inner for kind, line in found[entry] if kind == "call"
        for inner in found[dict(CALLED.findall(line))["to_apply"]]
    ]  # fmt: skip
    bodies = [dict(CALLED.findall(line)) for kind, line in first if kind == "while"]
    if not bodies:
        return Counter()
    main = max(bodies, key=lambda called: len(found[called["body"]]))
    return _count(found, main["body"], 1) + _count(found, main["condition"], 1)


def _count(found: dict[str, Lines], name: str, depth: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for kind, line in found[name]:
        if kind in FREE:
            continue
        total["product" if kind == "dot" or "kind=kCustom" in line else kind] += 1
        called = dict(CALLED.findall(line))
        if kind == "call" and SMALL not in line:
            total += _count(found, called["to_apply"], depth)
        if kind == "while":
            known = TRIPS.search(line)
            trips = int(known[1]) if known else int(depth == 1)
            inside = _times(_count(found, called["body"], depth + 1), trips)
            inside += _times(_count(found, called["condition"], depth + 1), trips + 1)
            total += Counter(turn=inside.total()) if known else inside
    return total


def _times(counts: Counter[str], factor: int) -> Counter[str]:
    return Counter({kind: count * factor for kind, count in counts.items()})
