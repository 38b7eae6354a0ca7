"""Names of the streams of an `Agent`: one for each robot."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhat.system.errors import UsageError, require

MOST_STREAMS = 4_096
"""Number of streams of which an agent keeps the state."""

Stream = int | str


def read_stream(stream: Any, single: bool = False) -> Stream:
    """Read the name of a stream: a whole number or a text; with `single`, only 0 is one."""
    require(
        not single or (stream == 0 and not isinstance(stream, bool)),
        f"stream is {stream!r}, and training is stream, which learns from the steps of one robot as they"
        " follow each other; expected stream=0. An Agent with replay takes several.",
    )
    if type(stream) is int:
        return stream
    whole = isinstance(stream, int | np.integer) and not isinstance(stream, bool)
    require(
        whole or isinstance(stream, str),
        f"stream is {stream!r}; expected a whole number or a text, one for each robot.",
    )
    return stream if isinstance(stream, str) else int(stream)


def read_names(about: dict[str, Any], field: str) -> list[Stream]:
    """Read the names of streams from a manifest; an older one without the field has none."""
    names = about.get(field, [])
    good = isinstance(names, list) and all(type(name) in (int, str) for name in names)
    if not good or len(set(names)) != len(names):
        raise UsageError(f"its {field} are damaged; expected a list of numbers and texts.")
    return names
