"""Logs a run's numbers to a service too: one small protocol, and an adapter for each service.

`metrics.csv` and `eval.csv` are always written. A tracker gets the same numbers, and never stops a run.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from qhat.recipes.config import TrainConfig
from qhat.system.errors import UsageError, near_miss, require, setting, warn
from qhat.system.files import read_json, write_text
from qhat.system.machine import install_extra

IDS = "tracking.json"
"""File in a run folder with the run's id in each service, so that a resumed run continues there."""
PROJECT = "qhat"
NAMES: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", install_extra("tensorboard")),
    "wandb": ("wandb", "pip install wandb"),
    "mlflow": ("mlflow", "pip install mlflow"),
    "trackio": ("trackio", "pip install trackio"),
}
"""The module that each tracker needs, and the command that installs it."""


@runtime_checkable
class Tracker(Protocol):
    """Gets the numbers of a run during training."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin, or continue where an earlier session stopped.

        Args:
            config: the run's configuration, as in config.json.
            folder: the run folder.
            step: environment step at which the run continues; 0 for a new run. Later steps that were
                logged before are logged again.
        """
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of an environment step; numbers that are not finite are left out."""
        ...

    def finish(self) -> None:
        """End this session."""
        ...


def require_known(names: Sequence[str]) -> None:
    """Raise `UsageError` for the first tracker that does not exist or is not installed."""
    for name in names:
        if name not in NAMES:
            raise UsageError(
                f"{setting('track')} is '{name}'; expected one of {', '.join(NAMES)}."
                + near_miss(str(name), NAMES)
            )
        module, command = NAMES[name]
        require(
            importlib.util.find_spec(module) is not None,
            f"{setting('track', name)} needs {module}, which is not installed; type: {command}",
        )


def trackers_of(config: TrainConfig) -> list[Tracker]:
    """Return the trackers that a configuration names.

    Raises:
        UsageError: a tracker does not exist, or is not installed.
    """
    names = [*(["tensorboard"] if config.tensorboard else []), *([config.track] if config.track else [])]
    require_known(names)
    kinds = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio}
    return [kinds[name]() for name in dict.fromkeys(names)]


class Tracking:
    """Gives the rows of a run's tables to all of its trackers."""

    def __init__(self, trackers: Iterable[Tracker]):
        self._trackers = list(trackers)

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin."""
        self._each("start", config, folder, step)

    def rows(self, rows: Sequence[Mapping[str, Any]], kind: str = "") -> None:
        """Log rows of a table, in the order of their steps.

        A number of one seed is `train/loss/seed-0`; `train/loss` is its mean over all seeds at that step.

        Args:
            kind: name of the numbers, if the rows have no column `kind`.
        """
        if not self._trackers:
            return
        by_step: dict[int, dict[str, list[float]]] = {}
        for row in rows:
            kinds = {"episode": "episode", "progress": "train", "actor": "actors"}
            name = kind or kinds[row["kind"]]
            each = f"actor-{row['actor']}" if name == "actors" else f"seed-{row['seed_index']}"
            values = by_step.setdefault(int(row["step"]), {})
            for field, number in _numbers(row):
                for tag in (f"{name}/{field}", f"{name}/{field}/{each}"):
                    values.setdefault(tag, []).append(number)
        for step in sorted(by_step):
            means = {tag: float(np.mean(numbers)) for tag, numbers in by_step[step].items()}
            self._each("log", step, means)

    def finish(self) -> None:
        """End."""
        self._each("finish")

    def _each(self, method: str, *args: Any) -> None:
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*args)
            except Exception as error:
                # Any error of a service's library: a run of hours must not end for its sake.
                self._trackers.remove(tracker)
                name = type(tracker).__name__
                warn(
                    f"{name} failed and gets no more numbers of this run ({type(error).__name__}: {error});"
                    " the run and its tables continue.",
                    stacklevel=2,
                )


def _numbers(row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for field, value in row.items():
        if field in ("kind", "step", "seed_index", "actor"):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue  # Empty, or a list with a number for each joint.
        if math.isfinite(number):
            yield field, number


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Open a new event file; TensorBoard ignores entries of older files after `step`."""
        writer: Any = importlib.import_module("tensorboardX").SummaryWriter
        purge = {"purge_step": step + 1} if step else {}
        self._writer = writer(str(folder / "tensorboard"), **purge)
        self._writer.add_text("config", f"```\n{json.dumps(dict(config), indent=2)}\n```", step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """wandb; offline with WANDB_MODE=offline."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin a run of project qhat, or continue it."""
        wandb: Any = importlib.import_module("wandb")
        name = _id(folder, "wandb", lambda: uuid.uuid4().hex)
        # Its files stay in ./wandb: they have links, which a run folder may not have.
        settings = {"project": PROJECT, "name": folder.name, "config": dict(config)}
        self._run = wandb.init(**settings, id=name, resume="allow")
        # wandb accepts each step only one time, and a resumed run repeats some.
        self._run.define_metric("*", step_metric="env_step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._run.log({**values, "env_step": step})

    def finish(self) -> None:
        """End the session."""
        self._run.finish()


class MLflow:
    """mlflow, at MLFLOW_TRACKING_URI."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin a run of experiment qhat, or continue it."""
        mlflow: Any = importlib.import_module("mlflow")
        self._client = mlflow.MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        home = known.experiment_id if known else self._client.create_experiment(PROJECT)

        def begin() -> str:
            run = self._client.create_run(home, run_name=folder.name)
            for key, value in _flat(config):
                self._client.log_param(run.info.run_id, key, value)
            return run.info.run_id

        self._id = _id(folder, "mlflow", begin)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        for tag, value in values.items():
            self._client.log_metric(self._id, tag, value, step=step)

    def finish(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


class Trackio:
    """trackio, which by default stores its data on this machine."""

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        """Begin a run of project qhat, or continue it."""
        trackio: Any = importlib.import_module("trackio")
        name = _id(folder, "trackio", lambda: f"{folder.name}-{uuid.uuid4().hex[:8]}")
        self._module = trackio
        trackio.init(project=PROJECT, name=name, config=dict(config), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._module.log(dict(values), step=step)

    def finish(self) -> None:
        """End the session."""
        self._module.finish()


def _id(folder: Path, service: str, make: Any) -> str:
    """Return a run's id in a service; make one if there is none."""
    path = folder / IDS
    try:
        known = read_json(path)
    except FileNotFoundError:
        known = {}
    good = isinstance(known, dict) and all(isinstance(value, str) for value in known.values())
    require(good, f"'{path}' is damaged; expected names and ids.")
    if service not in known:
        known[service] = make()
        write_text(path, json.dumps(known, indent=1) + "\n")
    return known[service]


def _flat(config: Mapping[str, Any], within: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value
