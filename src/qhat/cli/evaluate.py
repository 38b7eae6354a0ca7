"""`qhat evaluate RUN`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read, values_of
from qhat.environments import options
from qhat.environments.catalogue import find, require_made_by_id
from qhat.recipes.config import OPTIONS
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run: the greedy policy of every seed in fresh episodes.

    The episodes are Gymnasium's own where the environment has a reference there.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 100
    """Episodes per seed."""
    checkpoint: str = "best"
    """Which weights of each seed: best, last, or the step of a checkpoint that is there (--keep)."""
    env: str | None = None
    """Another environment with the same spaces; none is the run's own."""
    env_kwargs: Annotated[Mapping[str, Any] | None, OPTIONS] = None
    """Options of the environment's constructor in place of the run's own; none is the run's own."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, evaluate, print."""
    options.read_words(values_of(words, "--env-kwargs"))
    told = read(Evaluate, words, "evaluate")
    require(told.episodes >= 1, f"--episodes is {told.episodes}; expected 1 or more.")
    require(told.seed >= 0, f"--seed is {told.seed}; expected 0 or more.")
    folder = RunFolder.open(told.run)
    folder.checkpoint(told.checkpoint)
    written = folder.read_config()
    if told.env is None:
        require_made_by_id(
            written["env"],
            f"it again in Python: qhat.evaluate('{told.run}', env=...); or an id that makes it, as --env"
            " gym:MODULE:ID",
        )
    kwargs = told.env_kwargs
    if kwargs is None:
        kwargs = {} if told.env else written.get("env_kwargs", {})
    entry = find(told.env or written["env"], kwargs)

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    words = f"playing {told.episodes} episodes per seed"
    with console.status(words) as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.environments.reference import judge_name, lacks
        from qhat.runs.run import Run

        opened = Run.open(told.run)
        score = opened.evaluate(
            told.episodes, told.checkpoint, told.seed, told.env, kwargs,
            progress=lambda far: status.update(f"{words}: {far}"),
        )  # fmt: skip
    if told.json:
        print(json.dumps(score.to_json()))
        return 0
    reference = entry.reference if told.env else opened.spec.reference
    missing = lacks(reference)
    judge = judge_name(reference, entry.backend, entry.id)
    print(f"{told.run}  ({told.checkpoint} weights, {judge})")
    print(
        f"  return     {score.mean_return:.1f} ± {score.std_return:.1f} (mean and spread of the episodes)"
    )
    if score.ci95 is None:
        print("  seeds      one, so no interval: another seed may do otherwise (train --seeds 5)")
    else:
        low, high = score.ci95
        print(f"  IQM        {score.iqm:.1f}   (mean of the seeds' middle half)")
        print(f"  interval   {low:.1f} to {high:.1f}   (95%, of the IQM, over seeds)")
        print(f"  per seed   {', '.join(f'{value:.1f}' for value in score.per_seed)}")
    if score.success_rate is not None and score.success_per_seed is not None:
        each = ", ".join(f"{rate:.1%}" for rate in score.success_per_seed)
        print(f"  success    {score.success_rate:.1%} of {score.attempts:,} tries; per seed {each}")
    if score.saturation is not None:
        print(
            f"  joints     at their bounds {', '.join(f'{share:.0%}' for share in score.saturation)} of the"
            f" steps; mean |Δ command| {score.smoothness:.3g}"
        )
    print(
        f"  episodes   {score.episodes} per seed, {score.mean_length:.0f} steps on average, greedy, fresh"
    )
    if score.broken:
        print(
            f"  broken     {score.broken} of the episodes broke off at a number that was not finite; they"
            " count with what they had until then"
        )
    if score.cut:
        print(
            f"  cut        {score.cut} of the {score.episodes * len(score.per_seed)} episodes were not over"
            f" after {score.cut_at:,} steps and were cut there: they count with what they had until then"
        )
    if missing:
        print(f"  the reference {reference} was not played: pip install 'qhat[{missing}]'")
    print(f"\nnext:\n  qhat plot {told.run}")
    return 0
