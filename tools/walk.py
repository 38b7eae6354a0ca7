"""Put the lines into the links of docs/architecture.md: `python tools/walk.py`.

A link like [`Loop.compile`](../src/qhat/engine/loop.py#L70) names a function or a class, and the line where
its definition starts. The test of that page says when to run this.
"""

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
LINK = re.compile(r"\[`([\w.]+)`\]\((\.\./src/qhat/[\w/]+\.py)#L(\d+)\)")
Definition = ast.FunctionDef | ast.ClassDef


def definition(source: str, name: str) -> Definition:
    """Return the definition of a function or class, `Class.method` for a method.

    Raises:
        LookupError: the source has none of this name.
    """
    scope: list[ast.stmt] = ast.parse(source).body
    found: Definition | None = None
    for part in name.split("."):
        kinds = ast.FunctionDef, ast.ClassDef
        found = next((node for node in scope if isinstance(node, kinds) and node.name == part), None)
        if found is None:
            raise LookupError(f"there is no {name}")
        scope = found.body
    assert found is not None
    return found


def line_of(found: Definition) -> int:
    """Return the line of `def` or `class`, below its decorators."""
    return found.lineno


def refreshed(text: str) -> str:
    """Return the page with the line of every definition that it links to."""

    def link(match: re.Match[str]) -> str:
        name, file = match.group(1), match.group(2)
        source = (PAGE.parent / file).read_text(encoding="utf-8")
        return f"[`{name}`]({file}#L{line_of(definition(source, name))})"

    return LINK.sub(link, text)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
