"""Trains with the given settings and prints forecast and used memory; `test_memory.py` starts it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import qhat
from qhat.runs import train as experiment
from qhat.runs.job import Job
from qhat.runs.progress import Progress
from qhat.system.host_memory import resident


def main() -> None:
    """Train; print one JSON object."""
    env, settings, recipe, folder = (
        sys.argv[1],
        json.loads(sys.argv[2]),
        json.loads(sys.argv[3]),
        sys.argv[4],
    )
    config = qhat.TrainConfig.of(env, **settings, run_dir=Path(folder))
    config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **recipe))
    forecasts, rss = [], []
    prepare = experiment.prepare

    def watched(*arguments: Any) -> Job:
        job = prepare(*arguments)
        forecasts.append(job.memory)
        return job

    def look(progress: Progress) -> None:
        rss.append((progress.step, resident()))

    experiment.prepare = watched
    qhat.train(env, config, progress=look)
    print(json.dumps({"forecast": forecasts[0], "rss": rss}))


if __name__ == "__main__":
    main()
