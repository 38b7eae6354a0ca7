"""CartPole-v1 by every recipe: `python benchmarks/recipes.py` writes docs/results/recipes.md.

Each recipe trains ten seeds with its own defaults. `--keep docs/results/recipes.json` goes on from rows
that are done. Every seed's best checkpoint (chosen by its own
evaluations in the compiled twin) plays 100 fresh greedy episodes of Gymnasium's CartPole-v1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

import qhat
from qhat.recipes import RECIPES

BAR = 475.0
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Train and judge every recipe; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="number of the first seed")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=[], help="recipes; all unless given")
    parser.add_argument("--keep", type=Path, help="file of rows that are done: go on from it")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "recipes.md")
    options = parser.parse_args()
    done = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    for name in options.only or RECIPES:
        recipe = RECIPES[name]
        if name in done or recipe.relabel.happens or recipe.resolution.name != "full":
            # CartPole has no goals, and no joints with a range.
            continue
        done[name] = row(name, options.seeds, options.seed, options.steps)
        print(done[name], flush=True)
        if options.keep:
            options.keep.write_text(json.dumps(done, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.keep or not options.only:
        rows = [done.get(name, f"| {name} | not run yet | | | | |") for name in RECIPES]
        options.out.write_text(_page(options, rows), encoding="utf-8")


def row(name: str, seeds: int, first: int, steps: int) -> str:
    """Return a recipe's line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = qhat.TrainConfig(
            "CartPole-v1", name, qhat.recipes.get(name), steps=steps, seeds=seeds, seed=first,
            eval_every=5_000, run_dir=Path(folder) / "run",
        )  # fmt: skip
        run = qhat.train("CartPole-v1", config)
        cells = []
        for which in ("best", "last"):
            score = qhat.evaluate(run, episodes=100, checkpoint=which)
            reached = sum(value >= BAR for value in score.per_seed)
            low, high = score.ci95 or (float("nan"), float("nan"))
            cells.append(f"{reached} of {seeds} | {score.iqm:.0f} [{low:.0f}, {high:.0f}]")
            if which == "best":
                cells.append(", ".join(f"{value:.0f}" for value in sorted(score.per_seed)[:3]))
    return f"| {name} | {' | '.join(cells)} |"


def _page(options: argparse.Namespace, lines: list[str]) -> str:
    return "\n".join(
        [
            "# CartPole-v1 by every recipe",
            "",
            f"Seeds {options.seed} to {options.seed + options.seeds - 1}, {options.steps:,} steps each,"
            f" {datetime.date.today()}.",
            "Every policy plays 100 fresh greedy episodes of Gymnasium's CartPole-v1. `best` is the",
            "checkpoint that the seed's own evaluations (20 episodes every 5,000 steps, in the compiled",
            "twin) chose, `last` the one at the end.",
            "",
            f"    python benchmarks/recipes.py --seeds {options.seeds} --seed {options.seed}"
            f" --steps {options.steps}",
            "",
            f"| recipe | best: seeds ≥ {BAR:.0f} | IQM [95% interval] | lowest three |"
            f" last: seeds ≥ {BAR:.0f} | IQM [95% interval] |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
