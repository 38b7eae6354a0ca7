"""Gymnasium's registry: what an id stands for, and why nothing can be made of it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv

from qhat.environments import options as constructor
from qhat.environments.gymnasium import api as gymnasium_api
from qhat.system.errors import UsageError, described, near_miss, setting, spelled
from qhat.system.machine import install_extra


def spec_of(name: str) -> EnvSpec | None:
    """Return what is registered under an id, which may be `module:Env-v0`, once the module is imported."""
    return gymnasium.registry.get(name.rpartition(":")[2])


def is_batch(name: str) -> bool:
    """Whether only a vector environment is registered, as GPU simulators do."""
    spec = spec_of(name)
    return spec is not None and spec.entry_point is None


def make_batch(name: str, count: int, options: Mapping[str, Any]) -> VectorEnv:
    """Make a vector environment of `count` copies. Raises `UsageError` where Gymnasium cannot."""
    try:
        made = gymnasium.make_vec(name, num_envs=count, **options)
    except Exception as error:
        raise refusal(name, error, options) from None
    if made.num_envs != count:
        made.close()
        raise UsageError(
            f"Environment '{name}' gave {made.num_envs} copies where {count} were asked for; expected as"
            " many: its vector_entry_point takes num_envs."
        )
    return made


def refusal(name: str, error: Exception, options: Mapping[str, Any]) -> UsageError:
    """Say why Gymnasium cannot make an environment, and what to type."""
    if isinstance(error, TypeError) and (missing := _missing(name, options)):
        words = " ".join(f"{each}=..." for each in missing)
        python = "env_kwargs={" + ", ".join(f"'{each}': ..." for each in missing) + "}"
        return UsageError(
            f"Environment '{name}' needs {', '.join(missing)}, which its constructor has no default for;"
            f" expected {spelled(python, f'--env-kwargs {words}')}."
        )
    if isinstance(error, TypeError) and (known := constructor.of_gymnasium(name)) is not None:
        constructor.require_known(options, known, name)
    what = described(error)
    if gymnasium_api.is_of_caller(error):
        return UsageError(
            f"Environment '{name}' is none of Gymnasium's ({what}); expected a subclass of gymnasium.Env"
            " that has action_space and observation_space, made of gymnasium.spaces."
        )
    return UsageError(f"Environment '{name}' cannot be made by Gymnasium ({what}).{_hint(name, error)}")


def not_registered(name: str) -> UsageError | None:
    """Say that a module was imported and does not register an id; `None` for an id without a module."""
    module, colon, env_id = name.rpartition(":")
    if not colon:
        return None
    said = (
        f"Environment '{name}' is not known: the module '{module}' was imported and registers no '{env_id}'"
    )
    if _imports_old_gym(module):
        return UsageError(
            f"{said} with gymnasium; it imports gym, the old package, where its environments are."
            " Expected `import gymnasium as gym` in it, or, for a package of others, shimmy's wrapper: pip"
            f" install 'shimmy[gym-v26]', and gym:shimmy:GymV26Environment-v0 {setting('env_kwargs')}"
            f" env_id={name}."
        )
    registered = [other for other, spec in gymnasium.registry.items() if _is_of(spec, module)]
    has = f"; it registers {', '.join(sorted(registered)[:10])}" if registered else ""
    hint = near_miss(env_id, registered) or f" Expected gymnasium.register('{env_id}', ...) in it."
    return UsageError(f"{said}{has}.{hint}")


def _missing(name: str, options: Mapping[str, Any]) -> list[str]:
    """Names that a constructor needs and is not given."""
    spec = spec_of(name)
    entry = (spec.entry_point or spec.vector_entry_point) if spec else None
    if spec is None or entry is None:
        return []
    takes = inspect.signature(load_env_creator(entry) if isinstance(entry, str) else entry).parameters
    given = {*spec.kwargs, *options, "num_envs"}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        each.name
        for each in takes.values()
        if each.kind in named and each.default is each.empty and each.name not in given
    ]


def _hint(name: str, error: Exception) -> str:
    module, colon, _ = name.partition(":")
    if isinstance(error, ModuleNotFoundError):
        if module == "shimmy":
            return f" Type: {install_extra('dm-control')}"
        if colon and f"'{module}'" in str(error):
            return f" Expected {module}.py in this folder or on PYTHONPATH, or an installed package."
    if "render_mode" in str(error):
        return f" Type: {setting('env_kwargs', {'render_mode': 'rgb_array'}, 'render_mode=rgb_array')}"
    return ""


def _is_of(spec: EnvSpec, module: str) -> bool:
    entry = spec.entry_point or spec.vector_entry_point
    home = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    return home.split(".")[0] == module.split(".")[0]


def _imports_old_gym(module: str) -> bool:
    """Whether a module's source, or a file beside its package's own, imports `gym`, installed or not."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False  # `__main__`, or no name of a module.
    if found is None or not found.origin or not found.origin.endswith(".py"):
        return False
    origin = Path(found.origin)
    files = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
    return any(_imports(file, "gym") for file in files)


def _imports(file: Path, package: str) -> bool:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return False  # Of another Python, a template, or unreadable.
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        if any(each.split(".")[0] == package for each in names):
            return True
    return False
