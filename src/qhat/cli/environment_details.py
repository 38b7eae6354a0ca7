"""One environment in full, for `qhat envs NAME`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from qhat.cli.tables import print_rows
from qhat.cli.train_help import shown
from qhat.environments.catalogue import Entry
from qhat.environments.named import known_names
from qhat.environments.reference import lacks
from qhat.environments.scales import CONTROL, SCALES, largest_score
from qhat.recipes import DEFAULT, get
from qhat.recipes.labels import base_of, label_of
from qhat.recipes.presets import preset_of
from qhat.system.machine import EXTRAS, install_command

OTHERS = 6
"""Other ids that are named."""


def show(entry: Entry, others: Sequence[str]) -> None:
    """Print an environment.

    Args:
        others: ids that contain the same name.
    """
    observations, actions = known_names(entry.name)
    limit = entry.limit or _limit(entry)
    rows = [
        ("observation", entry.observation),
        *([("", ", ".join(observations))] if observations else []),
        ("actions", entry.actions),
        *([("", ", ".join(actions))] if actions else []),
        ("time limit", f"{limit:,} steps" if limit else "not known before it is made: qhat doctor"),
        ("trained in", entry.backend),
        ("scored in", f"gymnasium {entry.reference}" if entry.reference else entry.backend),
        *_settings(entry.id),
    ]
    rows += [("needs", need) for need in _needs(entry)]
    if scores := _scores(entry):
        rows.append(("scores", scores))
    if others:
        more = f" and {len(others) - OTHERS:,} more" if len(others) > OTHERS else ""
        rows.append(("similar ids", ", ".join(others[:OTHERS]) + more))
    print(entry.id + "\n")
    print_rows(rows)
    print(
        f"\nnext:\n  qhat train {entry.id}\n  qhat train {entry.id} --help    # its settings\n"
        f"  qhat doctor {entry.id}          # its behaviour and speed here"
    )


def _limit(entry: Entry) -> int:
    """Return the steps after which the reference cuts an episode; 0 where its registry does not say so."""
    import gymnasium

    spec = gymnasium.registry.get(entry.reference or entry.name)
    return (spec.max_episode_steps if spec else None) or 0


def _settings(env: str) -> list[tuple[str, str]]:
    """Return rows with the settings that `qhat train` uses without others."""
    preset = preset_of(env)
    if preset is None:
        return [("settings", f"recipe {DEFAULT} (no preset)")]
    base = base_of(label_of(preset.recipe, spans=(preset.steps,)))
    rows = [("settings", f"a preset (docs/presets.md): recipe {base}, {preset.steps:,} steps, and")]
    for field in dataclasses.fields(preset.recipe):
        value = getattr(preset.recipe, field.name)
        if field.name != "paper" and value != getattr(get(base), field.name):
            rows.append(("", f"--{field.name.replace('_', '-')} {shown(value) or 'none'}"))
    return rows


def _needs(entry: Entry) -> list[str]:
    """Return what has to be installed first."""
    found = []
    if entry.lacks:
        module = next(module for module, extra in EXTRAS.items() if extra == entry.lacks)
        found.append(f"{install_command(module)} (to train)")
    if lacks(entry.reference):
        found.append(f"{install_command('minatar')} (to score)")
    return found


def _scores(entry: Entry) -> str:
    """Say what scores mean, as far as that is known."""
    name, parts = entry.reference or entry.name, []
    # The scale of dm_control begins at 0, which is nobody's score.
    if name in SCALES and name not in CONTROL:
        chance, solved = SCALES[name]
        parts = [f"a random policy has {chance:g}", f"{solved:g} counts as solved"]
    largest = largest_score(entry.name, entry.reference)
    parts += [f"{largest:g} is the largest possible"] if largest is not None else []
    return ", ".join(parts)
