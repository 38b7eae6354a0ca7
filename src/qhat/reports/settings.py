"""The sections of a run's report about its settings, its machine, and the next commands."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from qhat.axes.axis import AxisValue, spell
from qhat.environments.options import write_words
from qhat.recipes.presets import NAME as PRESET
from qhat.reports.advice import on
from qhat.reports.finding import WARNING, Finding
from qhat.reports.html import Html, command, details, join, table, tag
from qhat.reports.reading import Facts
from qhat.reports.spelling import OF_A_RUN, default_of, words_of
from qhat.system.files import quote


def typed(words: str, line: str) -> Html:
    """Return a command with its purpose."""
    return join([tag("p", words, class_="for"), command(line)])


def configuration(facts: Facts) -> Html:
    """Return every setting; those that differ from the nearest named recipe are marked."""
    rows = list(_settings(facts))
    changed = [row for row in rows if row[3]]
    origin = "the preset's" if facts.base == PRESET else f"those of the recipe {facts.base}"
    known = facts.baseline is not None
    parts: list[Html] = []
    if not known:
        parts.append(
            tag(
                "p",
                f"The settings are not compared with those of {facts.base}: this version cannot read all of"
                " them.",
            )
        )
    if changed:
        body = [[name, tag("mark", value), default] for name, value, default, _ in changed]
        parts.append(
            table(
                f"Settings that differ from {origin} and from qhat train's defaults",
                ["Setting", "This run", "Default"],
                body,
                numbers=False,
            )
        )
    elif known:
        parts.append(tag("p", f"No setting differs from {origin} and qhat train's defaults."))
    body = [
        [
            name,
            join([tag("mark", value), " ", tag("span", f"default {default}", class_="was")])
            if differs
            else value,
        ]
        for name, value, default, differs in rows
    ]
    parts.append(
        details(
            f"All {len(rows)} settings",
            table("Every setting of the run", ["Setting", "Value"], body, numbers=False),
        )
    )
    return join(parts)


def _settings(facts: Facts) -> Iterable[tuple[str, str, str, bool]]:
    """Yield flag, value, default, and whether value and default differ."""
    if facts.recipe is None:
        for name, value in sorted(facts.config["recipe"].items()):
            yield _flag(name), quote(value), "", False
    else:
        for field in dataclasses.fields(facts.recipe):
            if field.name == "paper":
                continue
            value = _spelled(getattr(facts.recipe, field.name))
            default = value if facts.baseline is None else _spelled(getattr(facts.baseline, field.name))
            yield _flag(field.name), value, default, value != default
    for name in OF_A_RUN:
        if name in facts.config:
            value, default = _spelled(facts.config[name]), _spelled(default_of(facts, name))
            yield _flag(name), value, default, value != default
    if facts.recipe is not None and facts.recipe.paper:
        yield "paper", facts.recipe.paper, "", False


def _spelled(value: Any) -> str:
    if isinstance(value, AxisValue):
        return spell(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        rest = ",".join(f"{key}={_spelled(part)}" for key, part in value.items() if key != "name")
        return f"{value['name']}:{rest}" if rest else value["name"]
    if isinstance(value, Mapping):
        return " ".join(write_words(value)) or "none"
    if isinstance(value, tuple | list):
        return " ".join(_spelled(part) for part in value) or "none"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def system(facts: Facts) -> Html:
    """Return the machine and the versions."""
    about = facts.system
    if not about:
        return tag("p", "system.json cannot be read: the machine and the versions are unknown.")
    packages = about.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    rows = [
        [name, str(value)]
        for name, value in about.items()
        if name != "packages" and value not in ("", None)
    ]
    rows += [[name, str(version)] for name, version in packages.items()]
    return table("Machine and versions of the training", ["What", "Value"], rows, numbers=False)


def reproduce(facts: Facts) -> Html:
    """Return the command that reproduces the run."""
    if not facts.command:
        return tag("p", "command.txt cannot be read: the command of the run is unknown.")
    packages = facts.system.get("packages")
    version = packages.get("qhat") if isinstance(packages, dict) else None
    parts = [typed("The run was started with:", facts.command)]
    if not facts.command.startswith("qhat train ") and (words := words_of(facts)):
        parts.append(typed("The same with all settings as flags:", shlex.join(words)))
    parts.append(
        tag(
            "p",
            f"With qhat {version}" if version else "With the same version of qhat",
            ", the packages above and the same kind of processor it gives the same numbers"
            " (docs/determinism.md)."
            " An existing run folder is never overwritten: choose another --run-dir.",
            class_="quiet",
        )
    )
    return join(parts)


def next_commands(facts: Facts, found: Sequence[Finding], commands: Collection[str]) -> Html:
    """Return the next commands to type."""
    folder = str(facts.folder.path)
    offers = [
        ("play", "Watch the policy:", ["qhat", "play", folder]),
        ("evaluate", "Score it in more episodes:", ["qhat", "evaluate", folder, "--episodes", "1000"]),
        ("plot", "Plot the curve:", ["qhat", "plot", folder]),
        ("compare", "Compare it with another run:", ["qhat", "compare", folder, "OTHER_RUN"]),
        ("export", "Export the policy:", ["qhat", "export", folder]),
    ]
    parts = [typed("Train it longer:", on(facts, "--steps", str(2 * max(facts.steps, 1))))]
    parts += [
        typed(words, shlex.join([*line, *(facts.parts if name != "plot" else [])]))
        for name, words, line in offers
        if name in commands
    ]
    if any(one.status == WARNING and one.next for one in found):
        parts.insert(0, tag("p", "Run the commands of the warnings above first."))
    return join(parts)
