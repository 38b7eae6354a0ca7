"""Make the golden run of this version: `python tools/golden.py` in the project's folder, at its release.

It goes into tests/golden/VERSION and stays: test_golden.py reads, scores and resumes it ever after.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import qhat
from qhat import recipes

PLACE = Path("tests/golden")


def main() -> None:
    """Train a run that has a bit of everything, and write down what a reader has to find in it."""
    recipe = dataclasses.replace(
        recipes.get("rainbow"), hidden=(8,), num_envs=2, replay_capacity=200, learning_starts=50,
        batch_size=8, normalise=True,
    )  # fmt: skip
    folder = PLACE / qhat.__version__
    if folder.exists():
        shutil.rmtree(folder)
    run = qhat.train(
        "CartPole-v1",
        recipe_name="rainbow", recipe=recipe, steps=400, seeds=2, eval_every=200, eval_episodes=2,
        save_every=200, run_dir=folder / "run",
    )  # fmt: skip
    observation = [0.01, -0.02, 0.03, 0.04]
    found = {
        "weights_sha256": {which: run.weights_sha256(which) for which in ("best", "last")},
        "observation": observation,
        "q_values": run.policy(seed_index=0).q_values(observation).tolist(),
        "summary": run.summary(),
    }
    (folder / "found.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (folder / "run" / "lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
