"""CartPole-v1 by `qhat train` with its defaults: cold wall-clock and the score it leads to.

Cold: a new process and an empty compilation cache, so that imports and compilation are in the time.
The evaluation, 100 fresh episodes by `qhat evaluate`, is not timed. Prints one JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def qhat(*arguments: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run the `qhat` beside this Python and return the JSON object that it prints."""
    program = shutil.which("qhat", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("There is no `qhat` beside this Python; expected `make setup` to install it.")
    done = subprocess.run([program, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"`qhat {' '.join(arguments)}` ended with status {done.returncode}.")
    return json.loads(done.stdout)


def measure(seed: int, steps: int, episodes: int) -> dict[str, Any]:
    """Train one run from cold, evaluate it, and return its time and scores."""
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        start = time.perf_counter()
        qhat(
            *("train", "CartPole-v1", "--steps", str(steps), "--seed", str(seed)),
            *("--run-dir", run, "--json"),
            environment=environment,
        )
        seconds = time.perf_counter() - start
        scores = qhat("evaluate", run, "--episodes", str(episodes), "--json", environment=environment)
    return {
        "seconds": seconds,
        "mean_return": scores["mean_return"],
        "per_seed": scores["per_seed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(measure(options.seed, options.steps, options.episodes)))


if __name__ == "__main__":
    main()
