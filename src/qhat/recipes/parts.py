"""Parts of a recipe from outside the package, by the names of their classes: `my_module:LogCosh`.

A run's config.json records these names. Nothing is imported because a file says so: whoever reads the run
names the parts again.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qhat.axes.axis import AxisValue
from qhat.recipes.recipe import AXES, Recipe
from qhat.system.errors import UsageError, described, near_miss, require, spelled
from qhat.system.files import quote

PARTS = "parts"
"""Where config.json has the names, by axis; only in runs that use such parts."""


def names_of(recipe: Recipe) -> dict[str, str]:
    """Return the names of a recipe's parts that are not qhat's, by axis."""
    parts = {axis: type(getattr(recipe, axis)) for axis in AXES}
    return {
        axis: f"{kind.__module__}:{kind.__qualname__}"
        for axis, kind in parts.items()
        if kind not in AXES[axis]
    }


def kinds_of(recipe: Recipe) -> tuple[type[AxisValue], ...]:
    """Return the classes of a recipe's parts, with which its runs are opened."""
    return tuple(type(getattr(recipe, axis)) for axis in AXES)


def flags(names: Mapping[str, str]) -> list[str]:
    """Return the words with which a command names parts: `--parts my_module:LogCosh`, or none.

    Args:
        names: by axis, as `names_of` returns them.
    """
    return ["--parts", ",".join(names.values())] if names else []


def require_known(
    config: Mapping[str, Any], parts: Iterable[type[AxisValue]], what: str = "The run"
) -> None:
    """Raise `UsageError` for the first part of a run that neither qhat nor `parts` has.

    Args:
        config: the run's config.json, or another file with a recipe and `PARTS`.
        what: the subject of the error.
    """
    recipe, names = config.get("recipe"), config.get(PARTS)
    given = [(kind.axis, kind.name) for kind in parts]
    for axis, shipped in AXES.items():
        part = recipe.get(axis) if isinstance(recipe, Mapping) else None
        name = part.get("name") if isinstance(part, Mapping) else None
        where = names.get(axis) if isinstance(names, Mapping) else None
        # Without a record the name may as well be damaged or mistyped; the reader of the recipe says so.
        if not isinstance(where, str) or name in [kind.name for kind in shipped] or (axis, name) in given:
            continue
        kind = where.rpartition(":")[2]
        remedy = spelled(f"parts=({kind},)", f"--parts {where}")
        raise UsageError(
            f"{what} uses {axis} {name}, which is no part of qhat; expected {remedy}, as it was trained"
            " with."
        )


def load(names: Sequence[str]) -> tuple[type[AxisValue], ...]:
    """Import parts: `my_module:LogCosh` is one class, `my_module` all parts that the module defines.

    Raises:
        UsageError: the module cannot be imported, or has no such part.
    """
    found: dict[type[AxisValue], None] = {}
    for name in names:
        module, colon, wanted = name.partition(":")
        require(
            all(word.isidentifier() for word in module.split(".")),
            f"--parts is {quote(name)}; expected my_module:MyPart, or my_module.",
        )
        try:
            loaded = importlib.import_module(module)
        except Exception as error:
            raise UsageError(
                f"--parts {name}: '{module}' cannot be imported ({described(error)})."
            ) from None
        there: dict[str, Any] = {
            each: kind
            for each, kind in inspect.getmembers(loaded, inspect.isclass)
            if _is_part(kind) and (colon or kind.__module__ == loaded.__name__)
        }
        if colon and wanted not in there:
            raise UsageError(
                f"--parts {name}: '{module}' has no part '{wanted}', a dataclass that derives from one of"
                f" qhat.axes; it has {', '.join(there) or 'none'}." + near_miss(wanted, there)
            )
        require(bool(there), f"--parts {name}: '{module}' defines no part of a recipe.")
        found |= dict.fromkeys([there[wanted]] if colon else there.values())
    for kind in found:
        others = [other.name for other in (*AXES[kind.axis], *found) if other is not kind]
        require(
            kind.name not in others or kind in AXES[kind.axis],
            f"--parts: {kind.__qualname__} is called '{kind.name}', as another {kind.axis} is;"
            " expected another name.",
        )
    return tuple(found)


def _is_part(kind: type) -> bool:
    """Whether a class is a value of an axis, and not an axis itself."""
    return (
        issubclass(kind, AxisValue)
        and not inspect.isabstract(kind)
        and isinstance(getattr(kind, "name", None), str)
        and getattr(kind, "axis", None) in AXES
    )
