"""`qhat play RUN`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read, values_of
from qhat.environments import options
from qhat.environments.catalogue import require_made_by_id
from qhat.recipes.config import OPTIONS
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Play:
    """Film a run's greedy policy.

    In the reference environment, where there is one. MuJoCo's robots are drawn off screen, by EGL.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    video: Path | None = None
    """File to write, .mp4; none is videos/best.mp4 in the run folder."""
    episodes: int = 1
    """Episodes, one after the other."""
    checkpoint: str = "best"
    """Which weights: best, last, or the step of a checkpoint that is there (--keep)."""
    seed_index: int | None = None
    """Whose policy, from 0; none is the seed with the best evaluation of its own."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    every: int | None = None
    """Steps per picture; none is 1, and 2 where an episode may have more than 500 steps."""
    fps: float | None = None
    """Pictures per second; none is as fast as the environment says its steps are."""
    env_kwargs: Annotated[Mapping[str, Any] | None, OPTIONS] = None
    """Options of the environment's constructor in place of the run's own; none is the run's own."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, play, film, say where."""
    options.read_words(values_of(words, "--env-kwargs"))
    told = read(Play, words, "play")
    require(told.episodes >= 1, f"--episodes is {told.episodes}; expected 1 or more.")
    require(told.seed >= 0, f"--seed is {told.seed}; expected 0 or more.")
    require(told.every is None or told.every >= 1, f"--every is {told.every}; expected 1 or more steps.")
    require(told.fps is None or told.fps > 0, f"--fps is {told.fps}; expected more than 0.")
    require(
        told.video is None or told.video.suffix == ".mp4",
        f"--video is '{told.video}'; expected a file that ends in .mp4.",
    )
    folder = RunFolder.open(told.run)
    folder.last()
    folder.checkpoint(told.checkpoint)
    require_made_by_id(
        folder.read_config()["env"],
        f"it again in Python: qhat.play('{told.run}', env=make), with a function that makes a Gymnasium"
        " environment of render_mode='rgb_array'",
    )

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.reports.video import play

        video = play(
            told.run, told.video, episodes=told.episodes, which=told.checkpoint, seed_index=told.seed_index,
            seed=told.seed, options=told.env_kwargs, every=told.every, fps=told.fps,
            progress=lambda count: status.update(f"{count:,} pictures"),
        )  # fmt: skip
    if told.json:
        print(json.dumps({**dataclasses.asdict(video), "path": str(video.path)}))
        return 0
    each = ", ".join(
        f"{score:.1f} in {steps:,} steps" for score, steps in zip(video.returns, video.lengths, strict=True)
    )
    print(f"{video.path}")
    print(f"  seed index {video.seed_index}, {told.checkpoint} weights, greedy; return {each}")
    return 0
