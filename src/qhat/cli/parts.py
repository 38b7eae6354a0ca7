"""`--parts`: parts of recipes from outside the package, read before everything else."""

from __future__ import annotations

from collections.abc import Sequence

from qhat.axes.axis import AxisValue
from qhat.recipes.parts import load
from qhat.system.errors import require

FLAG = "--parts"


def with_parts(words: Sequence[str]) -> tuple[list[str], tuple[type[AxisValue], ...]]:
    """Return the words with one `--parts` at their end, and the classes that it names.

    Each `--parts` takes one word, names with commas between them, so that an environment's id may follow.
    """
    rest: list[str] = []
    names: list[str] = []
    after = iter(words)
    for word in after:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(after, "")
        require(
            value != "" and not value.startswith("--"), f"{FLAG} has no value; expected my_module:MyPart."
        )
        names += [name for name in value.split(",") if name]
    return [*rest, *([FLAG, *names] if names else [])], load(names)
