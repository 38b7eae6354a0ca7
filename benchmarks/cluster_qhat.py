"""qhat with actors on a local Ray cluster, by the rules of its peers there. Prints one JSON object.

The defaults of `qhat train`: Double DQN, two layers of 64, uniform replay of 100,000, batch 64, returns of
up to 3 steps, Adam 1e-3 falling to 1e-4 in 50,000 steps, target every 500 updates, one update per
environment step. Of two actors the epsilons fall to 0.4 and 0.0007. They also play the evaluations.
The cache of XLA is empty, so that compilation is in the time.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
sys.path.insert(0, str(PEERS))

# First, as it notes when the process began.
import cluster_rules  # noqa: E402 # pyright: ignore[reportMissingImports]
from slow_environment import Slow  # noqa: E402 # pyright: ignore[reportMissingImports]


def cartpole(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Train until the goal, the time limit, or the end of the default number of steps."""
    import qhat

    curve = cluster_rules.Curve()

    def progress(now: Any) -> None:
        if now.step:
            curve.note_steps()

    def callback(now: Any) -> bool:
        return curve.add(now.step, now.mean)

    run = qhat.train(
        "gym:CartPole-v1",
        seed=options.seed,
        eval_every=cluster_rules.EVALUATE_EVERY,
        eval_episodes=cluster_rules.EPISODES,
        max_seconds=options.max_seconds,
        progress=progress,
        callback=callback,
        **settings,
    )
    steps = run.summary()["step"]
    recipe = run.program.recipe
    return curve.result(steps, round(steps * recipe.replay_ratio))


def slow(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Time the steps after the warm-up."""
    import qhat

    steps = options.warmup + options.steps
    noted: list[tuple[float, int]] = []

    def progress(now: Any) -> None:
        if now.step >= options.warmup and not now.playing:
            noted.append((time.perf_counter(), now.step))

    run = qhat.train(
        Slow,
        steps=steps,
        seed=options.seed,
        eval_every=steps,
        eval_episodes=1,
        progress=progress,
        **settings,
    )
    # The last note comes after the evaluation that ends the run.
    began, first = noted[0]
    latest = began + options.timed_seconds
    ended, last = max(each for each in noted if each[0] <= latest and each[1] < steps)
    return {
        "steps_per_second": (last - first) / (ended - began),
        "steps": last - first,
        "updates": round((last - first) * run.program.recipe.replay_ratio),
        "seconds": ended - began,
    }


def main() -> None:
    """Read the command line, start Ray, measure, and print one JSON object."""
    options = cluster_rules.parser(__doc__).parse_args()
    # Ray's processes import the task.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PEERS), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "cache")
        # What qhat imports when it trains; the clock begins after the imports.
        for module in ("jax", "equinox", "optax", "gymnasium", "qhat.runs.train"):
            __import__(module)
        from qhat.cluster.connection import connected

        warnings.simplefilter("ignore")
        with connected("local"):
            settings = {
                "run_dir": Path(folder) / "run",
                "actors": options.runners,
                "actor_cpus": cluster_rules.CPUS_PER_RUNNER,
                "cluster": "local",
            }
            measured = (cartpole if options.task == "cartpole" else slow)(options, settings)
    print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
