"""`qhat distil RUN --see GROUP`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from qhat.cli.parsing import read
from qhat.environments.catalogue import require_made_by_id
from qhat.evaluation.statistics.text import score_text
from qhat.runs.folder import RunFolder
from qhat.system.errors import require


@dataclasses.dataclass(frozen=True)
class Distil:
    """Teach a network that sees other groups of observations what a run's policy values.

    For robots: train on what the simulator knows (--env-kwargs group=critic), then distil to what the robot
    senses (--see actor), and export that.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of the teacher."""
    see: str
    """Groups of observations that the student sees, joined by +."""
    memory: str = "none"
    """The student's memory: none, gru, min_gru:units=64."""
    hidden: tuple[int, ...] | None = None
    """Widths of the student's layers. Default: the teacher's."""
    steps: int = 200_000
    """Environment steps."""
    copies: int = 64
    """Copies of the environment."""
    checkpoint: str = "best"
    """The teacher's weights: best, last, or the step of a kept checkpoint (see --keep)."""
    seed_index: int | None = None
    """Index of the teacher's seed, from 0. Default: the best seed."""
    seed: int = 0
    """Seed of the student's weights and episodes."""
    episodes: int = 20
    """Greedy episodes in which teacher and student are scored."""
    run_dir: Path | None = None
    """The student's folder. Default: runs/<env>/<recipe>/<date-time>."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, check, distil, print both scores."""
    args = read(Distil, words, "distil")
    for name in ("steps", "copies", "episodes"):
        value = getattr(args, name)
        require(value >= 1, f"--{name} is {value}; expected 1 or more.")
    folder = RunFolder.open(args.run)
    folder.checkpoint(args.checkpoint)
    require_made_by_id(folder.read_config()["env"], "an environment with an id")
    if args.run_dir is not None:
        RunFolder.require_unused(args.run_dir)

    from rich.console import Console

    from qhat.cli.stopping import StopOnSignal

    console = Console(stderr=True, highlight=False)
    with console.status("starting JAX") as status:
        from qhat.agent.distil import REPORT, distil
        from qhat.runs.run import Run

        over = StopOnSignal()
        more: dict[str, Any] = {} if args.hidden is None else {"hidden": args.hidden}
        student = distil(
            args.run, args.see, checkpoint=args.checkpoint, seed_index=args.seed_index, steps=args.steps,
            copies=args.copies, seed=args.seed, episodes=args.episodes, run_dir=args.run_dir,
            progress=status.update, over=over, memory=args.memory, **more,
        )  # fmt: skip
        report = json.loads((student.folder.path / REPORT).read_text(encoding="utf-8"))
        status.update("evaluating the teacher")
        opened = Run.open(args.run)
        teacher = opened.evaluate(args.episodes, args.checkpoint).per_seed[
            opened.seed_index(args.seed_index)
        ]
    # The student was judged when it was written, and no checkpoint was chosen by that.
    (score,), path = student.summary()["best_score"], student.folder.path
    if args.json:
        print(json.dumps({**report, "path": str(path), "teacher_return": teacher,
                          "student_return": score}))  # fmt: skip
        return over.exit_code
    print(f"{path}")
    print(f"  teacher    {score_text(teacher)}   (sees {report['teacher_saw']})")
    print(f"  student    {score_text(score)}   (sees {args.see}, {report['steps']:,} steps)")
    print(f"  alike      {report['same_actions']:.1%} of the last actions are the teacher's")
    print(f"\nnext:\n  qhat evaluate {path}   # more episodes\n  qhat export {path}     # for the robot")
    return over.exit_code
