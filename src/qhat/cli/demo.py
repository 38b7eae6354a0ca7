"""`make demo`: train Double + dueling + PER on CartPole, score it honestly, draw its curve."""

from __future__ import annotations

import sys
from pathlib import Path

from qhat.cli.main import main
from qhat.runs.folder import make_unused

ENV = "CartPole-v1"
RECIPE = "rainbow_lite"


def demo() -> None:
    """Run the three commands of the README in order, as a person would type them."""
    folder = make_unused(Path("runs") / "demo")
    for words in (
        ["train", ENV, "--recipe", RECIPE, "--seeds", "2", "--run-dir", str(folder)],
        ["evaluate", str(folder)],
        ["plot", str(folder)],
    ):
        print(f"\n$ qhat {' '.join(words)}", file=sys.stderr)
        try:
            main(words)
        except SystemExit as done:
            if done.code:
                raise
    print(f"\nThe policy is in {folder}/best, the learning curve in {folder}/progress.png.")
    print(f"Python:  qhat.evaluate('{folder}')   or   qhat.Agent(...): see README.md")


if __name__ == "__main__":
    demo()
