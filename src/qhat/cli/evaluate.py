"""`qhat evaluate RUN`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.axes.axis import spell
from qhat.cli.offline import show
from qhat.cli.parsing import read, values_of
from qhat.cli.parts import with_parts
from qhat.environments import options
from qhat.environments.catalogue import find, require_made_by_id
from qhat.evaluation.statistics.text import score_text
from qhat.recipes.config import OPTIONS
from qhat.runs.folder import RunFolder
from qhat.system.errors import require
from qhat.system.machine import install_extra


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run: play the greedy policy of every seed in fresh episodes.

    Uses Gymnasium's reference implementation of the environment where there is one.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 100
    """Episodes per seed."""
    checkpoint: str = "best"
    """Weights of each seed: best, last, or the step of a kept checkpoint (see --keep)."""
    env: str | None = None
    """Evaluate in another environment with the same spaces. Default: the run's environment."""
    env_kwargs: Annotated[Mapping[str, Any] | None, OPTIONS] = None
    """Options of the environment's constructor. Default: the run's options."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    offline: tuple[str, ...] = ()
    """Play nothing: estimate the return from recorded steps (docs/demonstrations.md): monday.npz."""
    updates: int = 5_000
    """Gradient updates of each network that estimates it, with --offline."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, evaluate, print."""
    options.read_words(values_of(words, "--env-kwargs"))
    words, parts = with_parts(words)
    args = read(Evaluate, words, "evaluate")
    require(args.episodes >= 1, f"--episodes is {args.episodes}; expected 1 or more.")
    require(args.seed >= 0, f"--seed is {args.seed}; expected 0 or more.")
    folder = RunFolder.open(args.run)
    folder.checkpoint(args.checkpoint)
    if args.offline:
        return show(args.run, args.offline, args.checkpoint, args.updates, args.json, parts)
    written = folder.read_config()
    if args.env is None:
        require_made_by_id(
            written["env"],
            f"it again in Python: qhat.evaluate('{args.run}', env=...); or an id that makes it, as --env"
            " gym:MODULE:ID",
        )
    kwargs = args.env_kwargs
    if kwargs is None:
        kwargs = {} if args.env else written.get("env_kwargs", {})
    entry = find(args.env or written["env"], kwargs)

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    words = f"playing {args.episodes} episodes per seed"
    with console.status(words) as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.environments.reference import judge_name, lacks
        from qhat.runs.run import Run

        opened = Run.open(args.run, parts)
        score = opened.evaluate(
            args.episodes, args.checkpoint, args.seed, args.env, kwargs,
            progress=lambda far: status.update(f"{words}: {far}"),
        )  # fmt: skip
    if args.json:
        print(json.dumps(score.to_json()))
        return 0
    reference = entry.reference if args.env else opened.spec.reference
    missing = lacks(reference)
    judge = judge_name(reference, entry.backend, entry.id)
    print(f"{args.run}  ({args.checkpoint} weights, {judge})")
    if opened.wrap:
        print(f"  wrapped    {', '.join(map(spell, opened.wrap))}")
    spread = "mean and standard deviation over episodes"
    print(f"  return     {score_text(score.mean_return)} ± {score_text(score.std_return)} ({spread})")
    if score.ci95 is None:
        more = "--seed 1, 2, … (one run each)" if written.get("actors") else "--seeds 5"
        print(f"  seeds      only one, so no interval; try: qhat train {more}")
    else:
        low, high = score.ci95
        print(f"  IQM        {score_text(score.iqm)}   (interquartile mean over seeds)")
        print(f"  interval   {score_text(low)} to {score_text(high)}   (95%, of the IQM, over seeds)")
        print(f"  per seed   {', '.join(score_text(value) for value in score.per_seed)}")
    if score.success_rate is not None and score.success_per_seed is not None:
        each = ", ".join(f"{rate:.1%}" for rate in score.success_per_seed)
        print(f"  success    {score.success_rate:.1%} of {score.attempts:,} attempts; per seed {each}")
    if score.saturation is not None:
        print(
            f"  joints     at their bounds in {', '.join(f'{share:.0%}' for share in score.saturation)} of"
            f" the steps; mean |Δ command| {score.smoothness:.3g}"
        )
    print(
        f"  episodes   {score.episodes} per seed, {score.mean_length:.0f} steps on average, greedy, fresh"
    )
    if score.broken:
        print(
            f"  broken     {score.broken} of the episodes stopped at a value that was not finite; they"
            " count with the return so far"
        )
    if score.cut:
        print(
            f"  cut        {score.cut} of the {score.episodes * len(score.per_seed)} episodes were cut"
            f" after {score.cut_at:,} steps, before their end; they count with the return so far"
        )
    if missing:
        print(f"  the reference {reference} was not used; to install it: {install_extra(missing)}")
    print(f"\nnext:\n  qhat plot {args.run}")
    return 0
