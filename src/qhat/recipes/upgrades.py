"""Recipes as earlier versions wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhat.axes.axis import to_json
from qhat.axes.behaviour import NoBehaviour
from qhat.axes.horizon import Fixed
from qhat.axes.memory import NoMemory
from qhat.axes.optimiser import Adam
from qhat.axes.relabel import NoRelabel
from qhat.axes.reset import NoReset
from qhat.axes.resolution import Full
from qhat.axes.training import Replay
from qhat.system.errors import require
from qhat.system.files import quote


def upgraded(data: Mapping[str, Any], source: str = "A recipe") -> dict[str, Any]:
    """Return what `Recipe.to_json` of an earlier version wrote, as this version writes it.

    Args:
        source: the file it is from, for errors.
    """
    # Of runs that knew none of these.
    parts = {
        "reset": NoReset(), "relabel": NoRelabel(), "horizon": Fixed(), "resolution": Full(),
        "training": Replay(), "memory": NoMemory(), "behaviour": NoBehaviour(),
    }  # fmt: skip
    added = {axis: to_json(part) for axis, part in parts.items()}
    values = {"n_step_cut": None, "random_shift": 0, "mirror": False, "demo_share": 0.0, **added, **data}
    if isinstance(values["n_step_cut"], bool):
        # Of runs that knew Watkins's alone.
        values["n_step_cut"] = 0.0 if values["n_step_cut"] else None
    if "adam_epsilon" in values:
        # Of 0.1.0's first runs, which knew no other optimiser.
        require(
            "optimiser" not in values,
            f"{source} has both adam_epsilon ({quote(values['adam_epsilon'])}) and an optimiser; expected"
            " the optimiser alone, as adam:epsilon=….",
        )
        values["optimiser"] = {"name": Adam.name, "epsilon": values.pop("adam_epsilon")}
    explore = values.get("explore")
    if isinstance(explore, Mapping) and "apart" in explore and "per_factor" not in explore:
        # The name until 0.2.0.
        values["explore"] = {("per_factor" if key == "apart" else key): it for key, it in explore.items()}
    return values
