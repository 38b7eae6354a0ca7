"""`qhat play RUN`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read, values_of
from qhat.cli.parts import with_parts
from qhat.environments import options
from qhat.environments.catalogue import require_made_by_id
from qhat.evaluation.statistics.text import score_text
from qhat.recipes.config import OPTIONS
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Play:
    """Film a run's greedy policy.

    Plays in the reference environment where there is one. MuJoCo renders off-screen with EGL.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    video: Path | None = None
    """Output file, .mp4. Default: videos/best.mp4 in the run folder."""
    episodes: int = 1
    """Number of episodes to film."""
    checkpoint: str = "best"
    """Weights to play: best, last, or the step of a kept checkpoint (see --keep)."""
    seed_index: int | None = None
    """Index of the seed, from 0. Default: the best seed."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    every: int | None = None
    """Environment steps per frame. Default: 1, or 2 if an episode may have more than 500 steps."""
    fps: float | None = None
    """Frames per second. Default: the environment's real-time rate."""
    log: tuple[str, ...] = ()
    """Print means over each episode of these values of the environment's info, as info.distance;
    repeatable. Default: those that the training logged."""
    env_kwargs: Annotated[Mapping[str, Any] | None, OPTIONS] = None
    """Options of the environment's constructor. Default: the run's options."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, film, print the path."""
    options.read_words(values_of(words, "--env-kwargs"))
    words, parts = with_parts(words)
    args = read(Play, words, "play")
    require(args.episodes >= 1, f"--episodes is {args.episodes}; expected 1 or more.")
    require(args.seed >= 0, f"--seed is {args.seed}; expected 0 or more.")
    require(args.every is None or args.every >= 1, f"--every is {args.every}; expected 1 or more steps.")
    require(args.fps is None or args.fps > 0, f"--fps is {args.fps}; expected more than 0.")
    require(
        args.video is None or args.video.suffix == ".mp4",
        f"--video is '{args.video}'; expected a file that ends in .mp4.",
    )
    folder = RunFolder.open(args.run)
    folder.last()
    folder.checkpoint(args.checkpoint)
    require_made_by_id(
        folder.read_config()["env"],
        f"it again in Python: qhat.play('{args.run}', env=make), with a function that makes a Gymnasium"
        " environment of render_mode='rgb_array'",
    )

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting JAX") as status:
        from qhat.system import devices

        devices.prepare(1)
        from qhat.reports.video import play
        from qhat.runs.run import Run

        video = play(
            Run.open(args.run, parts),
            args.video,
            episodes=args.episodes,
            checkpoint=args.checkpoint,
            seed_index=args.seed_index,
            seed=args.seed,
            env_kwargs=args.env_kwargs,
            every=args.every,
            fps=args.fps,
            log=args.log or None,
            progress=lambda count: status.update(f"{count:,} frames"),
        )
    if args.json:
        print(json.dumps({**dataclasses.asdict(video), "path": str(video.path)}))
        return 0
    each = ", ".join(
        f"{score_text(score)} in {steps:,} steps"
        for score, steps in zip(video.returns, video.lengths, strict=True)
    )
    print(f"{video.path}")
    print(f"  seed index {video.seed_index}, {args.checkpoint} weights, greedy; return {each}")
    for name, means in video.logged.items():
        each = ", ".join("none" if mean is None else f"{mean:.4g}" for mean in means)
        print(f"  {name} {each} (mean of each episode)")
    return 0
