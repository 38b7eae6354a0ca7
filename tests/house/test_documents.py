"""Every path, link, test and `qhat` name in the documents exists."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from places import ROOT, SOURCE, TESTS

DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "concepts")
    for path in folder.glob("*.md")
    if path.name != "CHANGELOG.md"
)
FOLDERS = (ROOT, SOURCE, TESTS, TESTS / "support")
"""Where a path in a sentence may start."""
ROOMS = {path.name for path in SOURCE.iterdir()}
FIRST = {"src", "tests", "tools", "benchmarks", "docs"} | ROOMS - {"runs"}
"""First folders of paths in the repository; `runs/` is also where users keep their runs."""
PATH = re.compile(r"`(?:.*python )?((?:[\w-]+/)+(?:[\w.-]+\.\w+)?)(?:::(\w+))?[^`\s]*`")
BARE_PATH = re.compile(r"\b((?:src|tests|tools|benchmarks)/[\w./-]*\w/?)")
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([\w-]+))?\)")
IN_THE_BROWSER = {"docs/web.md"}
"""Documents in which `qhat` is also an object of a page's console."""
NAME = re.compile(r"(?<![\w/.-])qhat((?:\.[A-Za-z_]\w*)+)")


def by_name(documents: list[Path]) -> Any:
    return pytest.mark.parametrize("page", documents, ids=lambda page: str(page.relative_to(ROOT)))


def heading_ids(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_links(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        there = page.parent / target if target else page
        if not there.exists():
            yield target
        elif anchor and there.suffix == ".md" and anchor not in heading_ids(there):
            yield f"{target}#{anchor}"


def wrong_paths(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for name, function in [*PATH.findall(text), *((name, "") for name in BARE_PATH.findall(text))]:
        if name.partition("/")[0] not in FIRST:
            continue
        found = [folder / name for folder in FOLDERS if (folder / name).exists()]
        if not found:
            yield name
        elif function and f"def {function}(" not in found[0].read_text(encoding="utf-8"):
            yield f"{name}::{function}"


def resolve(name: str) -> bool:
    """Whether `qhat` has the module, class, function or attribute of a dotted name."""
    found: Any = importlib.import_module("qhat")
    for part in name.strip(".").split("."):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except ImportError:
                return False
        if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
            return False
        found = getattr(found, part, None)
    return True


@by_name(DOCUMENTS)
def test_links_lead_somewhere(page: Path) -> None:
    assert not list(wrong_links(page))


@by_name(DOCUMENTS)
def test_paths_exist(page: Path) -> None:
    assert not list(wrong_paths(page))


@by_name([page for page in DOCUMENTS if str(page.relative_to(ROOT)) not in IN_THE_BROWSER])
def test_names_of_qhat_exist(page: Path) -> None:
    names = set(NAME.findall(page.read_text(encoding="utf-8")))
    assert not sorted(f"qhat{name}" for name in names if not resolve(name))


def test_mistakes_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One page\n[a](#one-page) [b](#two) [c](gone.md) [d](https://example.org)\n"
        "`src/qhat/nothing.py` `tests/agent/test_agent.py::test_nothing` `axes/policy.py` tests/nowhere/\n"
    )
    assert list(wrong_links(page)) == ["#two", "gone.md"]
    assert sorted(set(wrong_paths(page))) == [
        "src/qhat/nothing.py", "tests/agent/test_agent.py::test_nothing", "tests/nowhere/",
    ]  # fmt: skip
    assert resolve(".Agent.act")
    assert resolve(".recipes.DEFAULT")
    assert not resolve(".recipe.Recipe")
