"""Reference implementations that Gymnasium does not know by itself."""

from __future__ import annotations

import importlib

from qhat.environments.extras import EXTRAS, defer_plotting, installed

MINATAR = "MinAtar/"


def lacks(reference: str | None) -> str | None:
    """The extra of qhat's that a reference needs and that is not installed, if one is missing."""
    missing = reference is not None and reference.startswith(MINATAR) and not installed("minatar")
    return EXTRAS["minatar"] if missing else None


def register(reference: str) -> None:
    """Let Gymnasium know a reference's id, where its package leaves that to the user."""
    import gymnasium

    if reference.startswith(MINATAR) and reference not in gymnasium.registry:
        defer_plotting()
        importlib.import_module("minatar.gym").register_envs()
