"""HTML that escapes everything except markup made by `tag`.

A run's files are untrusted: a recipe's name may be a script. `tag` escapes every child and every attribute;
only values that `tag` itself returned are inserted unescaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import Any

VOID = ("meta", "link", "br", "hr")


class Html(str):
    """Markup: text that is already escaped."""


def text(value: Any) -> Html:
    """Escape text; unprintable characters (controls, direction marks) become �."""
    if isinstance(value, Html):
        return value
    shown = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value))
    return Html(html.escape(shown))


def join(parts: Iterable[Any]) -> Html:
    """Concatenate parts."""
    return Html("".join(text(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return an element. The attribute `class_` is written `class`, and `aria_label` as `aria-label`.

    An attribute that is None or False is omitted; one that is True has no value.
    """
    attribute_text = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{attribute_text}>")
    return Html(f"<{name}{attribute_text}>{join(children)}</{name}>")


def table(
    caption: Any,
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    numbers: bool = True,
    first: str = "row",
) -> Html:
    """Return a table that scrolls if it is wider than the page.

    Args:
        numbers: whether all cells except the first of a row are numbers.
        first: scope of the first cell of a row.
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
    """Return a collapsible block."""
    return tag("details", tag("summary", summary), *children)


def command(line: str) -> Html:
    """Return a command to type."""
    return tag("pre", tag("code", line), tabindex="0")


def data_uri(kind: str, content: bytes) -> Html:
    """Return a file as a data URI."""
    return Html(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def document(title: str, style: str, *body: Any) -> Html:
    """Return a complete page that can neither load nor run anything.

    Its content security policy allows only this style sheet, by its hash, and embedded images and videos.
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
