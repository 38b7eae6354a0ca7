"""qhat: deep Q-networks for robots and discrete control. Importing it imports no JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qhat._version import __version__

if TYPE_CHECKING:
    from qhat import recipes
    from qhat.agent.agent import Agent
    from qhat.deploy.export import export
    from qhat.environments.jax.single import JaxEnvironment
    from qhat.recipes.config import TrainConfig
    from qhat.recipes.recipe import Recipe
    from qhat.reports.comparison.comparing import compare
    from qhat.reports.video import play
    from qhat.runs.run import Run, evaluate
    from qhat.runs.train import train
    from qhat.system.errors import QhatError, UsageError

_HOMES = {
    "Agent": "qhat.agent.agent",
    "JaxEnvironment": "qhat.environments.jax.single",
    "QhatError": "qhat.system.errors",
    "Recipe": "qhat.recipes.recipe",
    "Run": "qhat.runs.run",
    "TrainConfig": "qhat.recipes.config",
    "UsageError": "qhat.system.errors",
    "compare": "qhat.reports.comparison.comparing",
    "evaluate": "qhat.runs.run",
    "export": "qhat.deploy.export",
    "play": "qhat.reports.video",
    "train": "qhat.runs.train",
}

__all__ = [
    "Agent",
    "JaxEnvironment",
    "QhatError",
    "Recipe",
    "Run",
    "TrainConfig",
    "UsageError",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "play",
    "recipes",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name == "recipes":
        return importlib.import_module("qhat.recipes")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'qhat' has no attribute '{name}'")
