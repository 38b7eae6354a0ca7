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
from qhat.cli.contents import show
from qhat.cli.parsing import read, values_of
from qhat.cli.tables import console, print_rows
from qhat.demonstrations.sources import is_data
from qhat.environments import options, wrappers
from qhat.environments.catalogue import find
from qhat.environments.wrappers import Wrapper
from qhat.recipes.config import OPTIONS, TrainConfig
from qhat.system.errors import require, setting

if TYPE_CHECKING:
    from qhat.cli.checkup import Checkup
    from qhat.cli.proposals import Proposal
    from qhat.environments.gymnasium.probe import Findings

LONG = 10
"""Runs that take at least this many minutes have their duration printed."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check this machine, an environment by playing it with random actions, or recorded steps."""

    env: tyro.conf.Positional[str] = ""
    """Environment id, or data (docs/demonstrations.md): car.npz. Default: check the machine."""
    env_kwargs: Annotated[Mapping[str, Any], OPTIONS] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor."""
    wrap: tuple[Wrapper, ...] = ()
    """Wrappers, innermost first."""
    bins: tuple[int, ...] = BINS
    """Number of bins per joint, or one number for all joints."""
    seconds: float = 3.0
    """Seconds to play the environment."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, print; refuse an unusable environment after printing.

    Returns 0. Raises the same errors as `qhat train`: `UsageError` (exit status 2) for an environment that
    cannot be used, `QhatError` (1) for one that raised an exception.
    """
    for spelled in values_of(words, "--wrap"):
        parse(spelled, wrappers.WRAPPERS)
    options.read_words(values_of(words, "--env-kwargs"))
    args = read(Doctor, words, "doctor")
    if is_data(args.env):
        for flag, given in (("--wrap", args.wrap), ("--env-kwargs", args.env_kwargs)):
            require(not given, f"{flag} has no meaning for data, which no environment makes. Leave it out.")
        return show(args.env, args.json)
    require_meaning(args.env, args.env_kwargs, args.wrap, args.bins, args.seconds)
    from rich.console import Console

    with Console(stderr=True).status(f"playing {args.env}" if args.env else "checking the machine"):
        from qhat.system import devices

        devices.prepare(1)
        from qhat.cli import checkup
        from qhat.environments.gymnasium.probe import require_sound

        if not args.env:
            _print_machine(checkup.machine(), args.json)
            return 0
        found = checkup.examine(args.env, args.env_kwargs, args.seconds, args.wrap, args.bins)
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)
    require_sound(found.findings)
    if not args.json:
        print(f"\nnext:\n  {_train(found.env, args, found.proposed)}")
    return 0


def require_meaning(
    env: str,
    env_kwargs: Mapping[str, Any],
    wrap: tuple[Wrapper, ...],
    bins: tuple[int, ...],
    seconds: float,
) -> None:
    """Raise `UsageError` for the first argument that has no meaning."""
    good = math.isfinite(seconds) and seconds > 0
    require(good, f"{setting('seconds')} is {seconds}; expected more than 0.")
    wrappers.validate(wrap)
    require(
        bool(bins) and min(bins) >= 2,
        f"{setting('bins')} is {' '.join(map(str, bins))}; expected 2 or more for every joint.",
    )
    if env:
        find(env, env_kwargs)


def _train(env_id: str, args: Doctor, proposals: Sequence[Proposal] = ()) -> str:
    """Return the shell command that trains in this environment with the proposals."""
    from qhat.cli.proposals import with_words

    words = ["qhat", "train", env_id]
    if args.env_kwargs:
        words += ["--env-kwargs", *options.write_words(args.env_kwargs)]
    if args.wrap:
        words += ["--wrap", *map(spell, args.wrap)]
    if args.bins != BINS:
        words += ["--bins", *map(str, args.bins)]
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
    print_rows(rows)
    print("\nnext:\n  qhat doctor CartPole-v1")


def _print(found: Checkup) -> None:
    from qhat.environments.gymnasium.probe import DOES

    findings = found.findings
    actions = "×".join(str(count) for count in found.actions)
    continuous = not found.action_space.endswith("discrete")
    actions += f" bins of {found.action_space}" if continuous else " discrete"
    mode = f"{findings.found.value}: it {DOES[findings.found]}" if findings.found else "not observed"
    mode += f" (it declares {findings.declared.value})" if findings.declared else ""
    last = {True: "yes", False: "no", None: "not observed"}[findings.final_observation]
    low, high = findings.rewards
    rewards = f"{low:g} to {high:g} in one step" if low < high else f"{low:g} in every step"
    copies = f"{findings.copies} {'copy' if findings.copies == 1 else 'copies'}"
    rows = [
        ("environment", f"{found.env} ({found.backend}), scored in {found.scored_in}"),
        ("observation", found.observation),
        *(("", entry) for entry in _entries(found)),
        ("actions", actions),
        ("action mask", found.masks),
        ("autoreset, observed", mode),
        ("true last observation", last),
        ("time limit", f"{findings.limit:,} steps" if findings.limit else "none declared"),
        ("episodes", _episodes(findings.lengths)),
        ("rewards", "none" if math.isnan(low) else rewards),
        ("speed", f"{findings.steps_per_second:,.0f} steps/s with random actions, {copies}, one process"),
        *(("", line) for line in _duration(findings)),
        ("replay", f"{found.replay_bytes / 2**20:,.1f} MiB per seed, recipe {found.recipe}"),
    ]
    print_rows(rows)
    from rich.markup import escape

    for warning in (*found.notes, *findings.warnings):
        console().print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    for each in found.proposed:
        words = escape(f"{each.flag} {each.value}: {each.why}.")
        console().print(f"[green]proposed:[/] {words}", soft_wrap=True)


def _duration(findings: Findings) -> list[str]:
    """Say how long a run takes, if the environment alone makes it long."""
    minutes = TrainConfig.steps / max(findings.steps_per_second, 1e-9) / 60
    return [f"{TrainConfig.steps:,} steps take {minutes:,.0f} minutes at least"] if minutes >= LONG else []


def _entries(found: Checkup) -> list[str]:
    """Describe each entry: its space, the observed range, and how it is encoded."""
    lines = []
    for name, space, becomes in found.entries:
        low, high = found.given(name).values()
        given = "" if math.isnan(low) else f", observed {low:,.6g} to {high:,.6g}"
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
