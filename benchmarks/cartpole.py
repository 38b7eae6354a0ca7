"""CartPole-v1, the default recipe, many seeds: `python benchmarks/cartpole.py` writes docs/results.

Every seed's best checkpoint (chosen by its own evaluations) and its last are judged on 100 fresh
episodes of Gymnasium's CartPole-v1: of a run of 50,000 environment steps and of one of 100,000.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path

import qhat

BAR = 475.0
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Train for either length, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="number of the first seed")
    parser.add_argument("--recipe", default=qhat.recipes.DEFAULT)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "cartpole.md")
    args = parser.parse_args()
    recipe = qhat.recipes.get(args.recipe)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Two runs, as people type them: schedules follow the length of each.
        for steps in (50_000, 100_000):
            config = qhat.TrainConfig(
                "CartPole-v1", args.recipe, recipe, steps=steps, seeds=args.seeds, seed=args.seed,
                run_dir=Path(folder) / str(steps),
            )  # fmt: skip
            run = qhat.train("CartPole-v1", config)
            for which in ("best", "last"):
                score = qhat.evaluate(run, episodes=100, checkpoint=which)
                reached = sum(value >= BAR for value in score.per_seed)
                low, high = score.ci95 or (float("nan"), float("nan"))
                worst = ", ".join(f"{value:.0f}" for value in sorted(score.per_seed)[:4])
                row = f"| {steps:,} | {which} | {reached} of {args.seeds} | {score.iqm:.1f}"
                rows.append(f"{row} [{low:.1f}, {high:.1f}] | {worst} |")
                print(rows[-1], flush=True)
    args.out.write_text(_page(args, rows))


def _page(args: argparse.Namespace, rows: list[str]) -> str:
    command = (
        f"python benchmarks/cartpole.py --recipe {args.recipe} --seeds {args.seeds} --seed {args.seed}"
    )
    seeds = f"seeds {args.seed} to {args.seed + args.seeds - 1}"
    return "\n".join(
        [
            "# CartPole-v1 with the default recipe",
            "",
            f"Recipe `{args.recipe}`, {seeds}, {datetime.date.today()}. Each policy plays 100 fresh greedy",
            "episodes of Gymnasium's CartPole-v1; `best` is the checkpoint that the seed's own evaluations",
            "(20 episodes every 2,500 steps, in the compiled twin) chose. Either length is a run of its",
            "own.",
            "",
            f"    {command}",
            "",
            f"| steps | checkpoint | seeds with mean ≥ {BAR:.0f} | IQM [95% interval] | lowest four |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
