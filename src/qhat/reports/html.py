"""HTML in which everything is escaped that is not said to be markup.

What a run's files say comes from strangers: a recipe's name may be a script. `tag` escapes every child and
every attribute; only what `tag` itself returned is taken as it is.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import Any

VOID = ("meta", "link", "br", "hr")


class Html(str):
    """Markup: text that has been escaped where it had to be."""


def text(value: Any) -> Html:
    """Escape; what has no picture of its own (controls, marks that turn the direction) becomes �."""
    if isinstance(value, Html):
        return value
    shown = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value))
    return Html(html.escape(shown))


def join(parts: Iterable[Any]) -> Html:
    """Put parts one after the other."""
    return Html("".join(text(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return an element. Of attributes `class_` loses its last mark, and `aria_label` is `aria-label`.

    An attribute that is None or False is left out, one that is True has no value.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{join(children)}</{name}>")


def table(
    caption: Any,
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    numbers: bool = True,
    first: str = "row",
) -> Html:
    """Return a table that scrolls by itself where it is wider than the page.

    Args:
        numbers: whether all cells but a row's first are numbers.
        first: scope of a row's first cell.
    """
    columns = [tag("th", cell, scope="col") for cell in head]
    body = [
        tag("tr", tag("th", row[0], scope=first), *(tag("td", cell) for cell in row[1:])) for row in rows
    ]
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *columns)),
        tag("tbody", *body),
        class_="numbers" if numbers else "words",
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def details(summary: Any, *children: Any) -> Html:
    """Return what is shown on demand."""
    return tag("details", tag("summary", summary), *children)


def command(line: str) -> Html:
    """Return a command to type."""
    return tag("pre", tag("code", line), tabindex="0")


def data_uri(kind: str, content: bytes) -> Html:
    """Return a file as an address that holds it."""
    return Html(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def document(title: str, style: str, *body: Any) -> Html:
    """Return a whole page, which can load nothing and run nothing.

    Its policy allows this one style sheet, by its hash, and pictures and films that the page itself holds.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    )
    return Html("<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n")
