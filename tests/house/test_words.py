"""Keeps everyday words with a private meaning out of names, and inverted sentences out of the documents.

A name says what the thing is: `options`, `score_text`, `theirs`, and not `told` or `own`. The words are
`BANNED` in tools/house.py. Names of other libraries (`ALLOWED`) stay, and so do strings: fields of saved
files, keys of `--json`, ids.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import house
from places import ROOT

FOLDERS = ("src", "tests", "benchmarks", "tools")
ALLOWED = {"spin_once": "ROS 2's rclpy", "new_stage": "Omniverse's"}
"""Names with a banned word that are not ours, and whose they are."""
DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "concepts")
    for path in folder.glob("*.md")
    if path.name != "CHANGELOG.md"
)
PHRASES = (
    "gone on with", "goes on with", "innermost first", "by which the settings", "none is the seed",
    "of another composition", "none that it says", "from 0 to below", "takes EGL", "starts it by hand",
    "may do otherwise", "What becomes of", "a decision, p99", "in a thread of its own", "nobody is heard",
    "none is compare", "is taken as it is", "departs from the greedy", "settings began from",
    "had before", "stands around", "of the numbers too", "flatters", "not to be had",
)  # fmt: skip
"""Parts of sentences that had to be read twice, which plainer ones replaced."""


def with_banned_words(path: Path) -> Iterator[str]:
    names = [*house.identifiers(ast.parse(path.read_text(encoding="utf-8"))), (path.stem, 1)]
    for name, line in names:
        if house.banned(name) and name not in ALLOWED:
            yield f"{path.relative_to(ROOT)}:{line} {name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_are_plain(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = [each for path in paths for each in with_banned_words(path)]
    assert not found, f"{found[:20]}: say what the thing is; see tools/house.py for the words"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_have_no_such_sentence(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert not [phrase for phrase in PHRASES if phrase in text]
