"""`qhat doctor [ENV]`."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from qhat.axes.actions import BINS
from qhat.axes.axis import parse, spell
from qhat.cli.parsing import read, values_of
from qhat.environments import options, wrappers
from qhat.environments.catalogue import find
from qhat.environments.wrappers import Wrapper
from qhat.recipes.config import OPTIONS, TrainConfig
from qhat.system.errors import require

if TYPE_CHECKING:
    from qhat.cli.checkup import Checkup
    from qhat.cli.proposals import Proposal
    from qhat.environments.gymnasium.probe import Findings

LONG = 10
"""Minutes of a run from which it is said how long it takes."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Look at this machine, or at an environment: play it with random actions and say what it does."""

    env: tyro.conf.Positional[str] = ""
    """Environment id; none is the machine and what is installed."""
    env_kwargs: Annotated[Mapping[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor."""
    wrap: tuple[Wrapper, ...] = ()
    """What stands around the environment, the innermost first."""
    bins: tuple[int, ...] = BINS
    """Commands of every joint, or one number for all."""
    seconds: float = 3.0
    """For which the environment is played."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, look, print; an environment that cannot be learned from is refused at the end.

    Returns 0. What cannot be used ends in a `UsageError` (exit status 2), an environment whose own code
    raised in a `QhatError` (1): the errors of `qhat train`.
    """
    for spelled in values_of(words, "--wrap"):
        parse(spelled, wrappers.WRAPPERS)
    options.read_words(values_of(words, "--env-kwargs"))
    told = read(Doctor, words, "doctor")
    require(
        math.isfinite(told.seconds) and told.seconds > 0,
        f"--seconds is {told.seconds}; expected more than 0.",
    )
    wrappers.validate(told.wrap)
    require(
        bool(told.bins) and min(told.bins) >= 2,
        f"--bins is {' '.join(map(str, told.bins))}; expected 2 or more for every joint.",
    )
    if told.env:
        find(told.env, told.env_kwargs)
    from rich.console import Console

    with Console(stderr=True).status(f"playing {told.env}" if told.env else "looking at the machine"):
        from qhat.system import devices

        devices.prepare(1)
        from qhat.cli import checkup
        from qhat.environments.gymnasium.probe import require_sound

        if not told.env:
            _print_machine(checkup.machine(), told.json)
            return 0
        found = checkup.examine(told.env, told.env_kwargs, told.seconds, told.wrap, told.bins)
    if told.json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)
    require_sound(found.findings)
    if not told.json:
        print(f"\nnext:\n  {_train(found.env, told, found.proposed)}")
    return 0


def _train(env_id: str, asked: Doctor, proposals: Sequence[Proposal] = ()) -> str:
    """Return the command that trains in what was looked at, with what is proposed, as a shell reads it."""
    from qhat.cli.proposals import with_words

    words = ["qhat", "train", env_id]
    if asked.env_kwargs:
        words += ["--env-kwargs", *options.write_words(asked.env_kwargs)]
    if asked.wrap:
        words += ["--wrap", *map(spell, asked.wrap)]
    if asked.bins != BINS:
        words += ["--bins", *map(str, asked.bins)]
    return shlex.join(with_words(words, proposals))


def _print_machine(about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(about))
        return
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    rows = [
        ("qhat", f"{about['qhat']}, Python {about['python']}"),
        ("packages", versions),
        ("machine", about["platform"]),
        ("cores", str(about["cores"])),
        ("memory", f"{about['memory_gib']} GiB, {about['memory_free_gib']} GiB free"),
        ("devices", ", ".join(about["devices"])),
        *((name, state) for name, state in about["extras"].items()),
        ("EnvPool, compiled", about["envpool_xla"]),
    ]
    _table(rows)
    print("\nnext:\n  qhat doctor CartPole-v1")


def _print(found: Checkup) -> None:
    from qhat.environments.gymnasium.probe import DOES

    seen = found.findings
    actions = "×".join(str(count) for count in found.actions)
    continuous = not found.action_space.endswith("discrete")
    actions += f" bins of {found.action_space}" if continuous else " discrete"
    mode = f"{seen.found.value}: it {DOES[seen.found]}" if seen.found else "not seen"
    mode += f" (it declares {seen.declared.value})" if seen.declared else ""
    last = {True: "yes", False: "no", None: "not seen"}[seen.final_observation]
    low, high = seen.rewards
    rewards = f"{low:g} to {high:g} in one step" if low < high else f"{low:g} in every step"
    copies = f"{seen.copies} {'copy' if seen.copies == 1 else 'copies'}"
    rows = [
        ("environment", f"{found.env} ({found.backend}), scored in {found.scored_in}"),
        ("observation", found.observation),
        *(("", entry) for entry in _entries(found)),
        ("actions", actions),
        ("action mask", found.masks),
        ("autoreset, as found", mode),
        ("true last observation", last),
        ("time limit", f"{seen.limit:,} steps" if seen.limit else "none that it says"),
        ("episodes", _episodes(seen.lengths)),
        ("rewards", "none" if math.isnan(low) else rewards),
        ("speed", f"{seen.steps_per_second:,.0f} steps/s with random actions, {copies}, one process"),
        *(("", line) for line in _takes(seen)),
        ("replay", f"{found.replay_bytes / 2**20:,.1f} MiB per seed, recipe {found.recipe}"),
    ]
    _table(rows)
    from rich.console import Console
    from rich.markup import escape

    for warning in (*found.notes, *seen.warnings):
        Console(highlight=False).print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    for each in found.proposed:
        words = escape(f"{each.flag} {each.value}: {each.why}.")
        Console(highlight=False).print(f"[green]proposed:[/] {words}", soft_wrap=True)


def _takes(seen: Findings) -> list[str]:
    """Say how long a run takes, where its environment alone makes it long."""
    minutes = TrainConfig.steps / max(seen.steps_per_second, 1e-9) / 60
    return [f"{TrainConfig.steps:,} steps take {minutes:,.0f} minutes at least"] if minutes >= LONG else []


def _entries(found: Checkup) -> list[str]:
    """Say of each entry its space, which numbers it had, and what it becomes."""
    lines = []
    for name, space, becomes in found.entries:
        low, high = found.given(name).values()
        given = "" if math.isnan(low) else f", given {low:,.6g} to {high:,.6g}"
        lines.append(f"{name}: {space}{given} → {becomes}")
    return lines


def _episodes(lengths: tuple[int, ...]) -> str:
    if not lengths:
        return "none ended"
    ordered = sorted(lengths)
    return (
        f"{len(ordered):,} ended, after {ordered[0]:,} to {ordered[-1]:,} steps, half of them within"
        f" {ordered[len(ordered) // 2]:,}"
    )


def _table(rows: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    for name, value in rows:
        table.add_row(name, escape(value))
    Console(highlight=False).print(table)
