"""`qhat train --help`: settings in groups, with the defaults of the recipe or environment typed with it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import shutil
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from qhat.axes.axis import AxisValue, spell, write_field
from qhat.cli.numbers import REAL, SWITCH, WHOLE, flags_of
from qhat.cli.parsing import PARTS
from qhat.environments.options import write_words

GROUPS: dict[str, tuple[str, ...]] = {
    "run": (
        "steps", "max_seconds", "stop_at", "stop_below", "seeds", "seed", "eval_every", "eval_episodes",
        "resume", "init_from", "on_nan", "threads", "device",
    ),
    "algorithm": (
        "recipe_name", "preset", "parts", "head", "policy", "bonus", "behaviour", "joints", "n_step",
        "n_step_cut", "gamma", "target", "optimiser", "reset", "horizon", "learning_rate",
        "learning_rate_end", "learning_rate_steps", "max_gradient_norm",
    ),
    "network": ("hidden", "torso", "memory", "merge", "dense", "layer_norm"),
    "exploration": ("explore",),
    "replay": (
        "training", "sampler", "relabel", "batch_size", "replay_ratio", "replay_capacity",
        "learning_starts", "random_shift", "mirror", "demos", "demo_share",
    ),
    "environment": (
        "env_kwargs", "wrap", "num_envs", "normalise", "bins", "resolution", "vector",
        "env_timeout", "env_restarts",
    ),
    "cluster": ("cluster", "actors", "actor_cpus", "learners"),
    "output": ("run_dir", "save_every", "keep", "video", "tensorboard", "track", "log", "json"),
}  # fmt: skip
"""Fields of `Train` and of its recipe, by group."""
FLAGS = {"recipe_name": "recipe"}
"""Fields whose flag is another word."""
KINDS = {WHOLE: "N", REAL: "X", SWITCH: ""}
WIDEST = 108
INDENT = 6


def page(default: Any, about: str) -> str:
    """Return the help page.

    Args:
        default: a `Train`, whose values are the defaults shown.
        about: where these defaults are from.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    wrap = functools.partial(textwrap.fill, width=width, break_on_hyphens=False, break_long_words=False)
    what, *more = inspect.cleandoc(type(default).__doc__ or "").split("\n\n")
    parts = ["usage: qhat train ENV [--SETTING VALUE ...]", wrap(what), wrap(about)]
    parts += [wrap(" ".join(paragraph.split())) for paragraph in more]
    for group, names in GROUPS.items():
        parts.append("\n".join([f"{group}:", *(_setting(default, name, wrap) for name in names)]))
    parts.append(
        "next:\n  qhat train CartPole-v1\n  qhat recipes NAME    # a recipe in full\n"
        "  qhat envs NAME       # an environment in full"
    )
    return "\n\n".join(parts)


def _setting(default: Any, name: str, wrap: Any) -> str:
    """Return the lines of one setting."""
    value = getattr(default, name) if hasattr(default, name) else getattr(default.recipe, name)
    home = type(default) if hasattr(default, name) else type(default.recipe)
    flag = "--" + FLAGS.get(name, name).replace("_", "-")
    text = documentation(home)[name]
    default_text = shown(value)
    first = f"  {flag} {_metavar(home, name, flag)}".rstrip()
    indent = " " * INDENT
    lines = [first]
    text += f" [{default_text}]" if default_text else ""
    lines.append(wrap(text, initial_indent=indent, subsequent_indent=indent))
    deeper = {"initial_indent": indent + "  ", "subsequent_indent": indent + "    "}
    for kind in PARTS.get(name, ()):
        if keys := keys_of(kind):
            lines.append(wrap(f"{kind.name}: {keys}", **deeper))
    return "\n".join(lines)


def keys_of(kind: type[AxisValue]) -> str:
    """Return the keys of a part with their defaults: `start=1.0, end=0.05`; '' if it has none."""
    fields = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return ", ".join(
        field.name if field.default is dataclasses.MISSING else f"{field.name}={_written(field.default)}"
        for field in fields
    )


def in_full(value: AxisValue) -> str:
    """Write a part with all its keys."""
    fields = dataclasses.fields(value)  # pyright: ignore[reportArgumentType]
    keys = [f"{field.name}={_written(getattr(value, field.name))}" for field in fields]
    return value.name + (":" + ",".join(keys) if keys else "")


def _written(item: Any) -> str:
    return "none" if item is None else write_field(item)


def _metavar(home: type, name: str, flag: str) -> str:
    """Return what stands for the value: `N`, `{sync,async}`, `{epsilon,greedy}[:KEY=VALUE,...]`."""
    if name in PARTS:
        names = "{" + ",".join(kind.name for kind in PARTS[name]) + "}"
        return f"{names}[:KEY=VALUE,...]" + (" ..." if name == "wrap" else "")
    hint = typing.get_type_hints(home)[name]
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(typing.get_args(hint)) + "}"
    if name == "env_kwargs":
        return "KEY=VALUE ..."
    wanted, several, _ = dict(flags_of(home))[flag]
    kind = KINDS.get(wanted, "NAME" if name in ("recipe_name", "track", "log") else "PATH")
    return f"{kind} ..." if several else kind


def shown(value: Any) -> str:
    """Return a default as it can be typed; '' for what is off or empty."""
    if isinstance(value, AxisValue):
        return spell(value)
    if isinstance(value, Mapping):
        return " ".join(write_words(value))
    if isinstance(value, tuple):
        return " ".join(shown(part) for part in value)
    if value is None or value is False:
        return ""
    return "on" if value is True else str(value)


@functools.cache
def documentation(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, and of those that it derives from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            found |= dict(_texts(each))
    return found


def _texts(kind: type) -> Iterator[tuple[str, str]]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())
