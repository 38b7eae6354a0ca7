"""Keeps everyday words with a private meaning out of names.

A name says what the thing is: `options`, `score_text`, `theirs`, and not `told` or `own`. The words are
`BANNED` in tools/house.py. Only rooms in `CLEAN` are checked. Names of other libraries (`ALLOWED`) stay.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import house
from places import ROOT

CLEAN = ("src/qhat/robots", "tests/agent")
ALLOWED = {"spin_once": "ROS 2's rclpy"}
"""Names with a banned word that are not ours, and whose they are."""


def with_banned_words(path: Path) -> Iterator[str]:
    names = [*house.identifiers(ast.parse(path.read_text(encoding="utf-8"))), (path.stem, 1)]
    for name, line in names:
        if house.banned(name) and name not in ALLOWED:
            yield f"{path.relative_to(ROOT)}:{line} {name}"


@pytest.mark.parametrize("room", CLEAN)
def test_names_are_plain(room: str) -> None:
    found = [each for path in sorted((ROOT / room).rglob("*.py")) for each in with_banned_words(path)]
    assert not found, f"{found[:20]}: say what the thing is; see tools/house.py for the words"


def test_clean_rooms_are_there() -> None:
    assert not [room for room in CLEAN if not any((ROOT / room).rglob("*.py"))]
