"""Follows docs/architecture.md from the command line to the gradient: each function names the next."""

import ast
import itertools

import house
import walk
from places import ROOT

PAGE = ROOT / "docs" / "architecture.md"
HOPS = house.links_under(PAGE, house.TO_THE_GRADIENT)
"""Links of the list, in its order."""
CALLED_AS = {"Loop.compile": "advance"}
"""What a function is called as by the one before it, where that is what it returns and not itself."""


def names_in(source: str, name: str) -> set[str]:
    """Return every name that a function or what is defined within it uses."""
    found = walk.definition(source, name)
    nodes = list(ast.walk(found))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_each_function_names_the_next():
    assert len(HOPS) > 5
    for now, then in itertools.pairwise(HOPS):
        names = names_in(now.path.read_text(encoding="utf-8"), now.name)
        name = CALLED_AS.get(then.name, then.name.rpartition(".")[2])
        assert name in names, f"{now.name} does not name {name}, of {then.name}"
    last = HOPS[-1]
    assert "value_and_grad" in names_in(last.path.read_text(encoding="utf-8"), last.name)


def test_what_is_called_under_another_name_defines_it():
    for hop in HOPS:
        if hop.name in CALLED_AS:
            walk.definition(hop.path.read_text(encoding="utf-8"), f"{hop.name}.{CALLED_AS[hop.name]}")


def test_the_way_is_short():
    assert len(HOPS) <= 12
    assert len({hop.path for hop in HOPS}) <= 6


def test_links_are_to_the_lines_of_their_definitions():
    text = PAGE.read_text(encoding="utf-8")
    assert text == walk.refreshed(text), "lines have moved; type: python tools/walk.py"


def test_one_update_is_read_in_an_hour():
    counts = house.reading(PAGE)
    assert int(counts["files_of_update"]) <= 6
    assert int(counts["lines_of_update"]) <= 900
