"""The run folder: all of a run, in files that people and programs can read."""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qhat.environments.catalogue import is_from_python, marked
from qhat.recipes.upgrades import upgraded
from qhat.system import devices
from qhat.system.errors import UsageError, near_miss, require, setting
from qhat.system.files import (
    open_plain,
    quote,
    read_json,
    read_text,
    require_plain_tree,
    write_text,
    writing,
)
from qhat.system.machine import processor, versions

DEPTH = 3
"""Levels of a run folder with files that qhat writes: checkpoints/STEP/manifest.json."""

OFFLINE = "offline.json"
"""File of what policies are worth by recorded steps, as last estimated; not there before."""
METRICS = (
    "kind",
    "seed_index",
    "step",
    "score",
    "length",
    "epsilon",
    "loss",
    "q",
    "gradient_norm",
    "clipped",
    "broken",
    "skipped",
    "steps_per_second",
)
EVALUATIONS = (
    "step",
    "seed_index",
    "mean_return",
    "std_return",
    "episodes",
    "mean_length",
    "success_rate",
    "saturation",
    "smoothness",
    "cut",
)


class RunFolder:
    """Paths of a run, and the writing of its tables."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.csv"
        self.evaluations = path / "eval.csv"
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.figure = path / "progress.png"
        self.logged: tuple[str, ...] = ()
        """Names of values of `info` with a column in metrics.csv."""

    @staticmethod
    def create(path: Path | None, env: str, recipe: str) -> RunFolder:
        """Make a new run folder.

        Raises:
            UsageError: the folder is not empty, or cannot be made.
        """
        RunFolder.require_unused(path)
        if path is None:
            now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            path = make_unused(Path("runs") / re.sub(r"[^\w.+-]", "-", env) / recipe / now)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"Run folder '{path}' cannot be made: {error.strerror}.") from None
        return RunFolder(path)

    @staticmethod
    def require_unused(path: Path | None) -> None:
        """Raise `UsageError` if something exists at `path` already."""
        if path is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
            require(path.is_dir(), f"'{path}' is a file; expected a folder for the run.")
            require(
                (path / "config.json").exists(),
                f"Folder '{path}' is not empty, and no run; expected a new one: name another"
                f" {setting('run_dir')}.",
            )
            raise UsageError(
                f"Run folder '{path}' exists already; expected a new one. Add {setting('resume', True)}"
                " to continue"
                f" that run, or name another {setting('run_dir')}."
            )

    @staticmethod
    def open(path: Path) -> RunFolder:
        """Open an existing run. Raises `UsageError` if there is none."""
        run = RunFolder(path)
        try:
            is_folder, has_config = path.is_dir(), run.config.exists()
        except OSError as error:
            raise UsageError(f"Run folder '{path}' cannot be read: {error.strerror}.") from None
        if not is_folder:
            raise UsageError(f"There is no run folder '{path}'.{_nearest(path)}")
        if not has_config and (path / "learner.safetensors").exists():
            raise UsageError(
                f"'{path}' is a saved Agent; expected a run: qhat.Agent.load('{path}').to_run(env) writes"
                " one."
            )
        if not has_config:
            raise UsageError(f"'{path}' is no run folder: it has no config.json.{_newest(path)}")
        require_plain_tree(path, DEPTH)
        return run

    def read_config(self) -> dict[str, Any]:
        """Return config.json. Raises `UsageError` if it is damaged."""
        try:
            config = read_json(self.config)
        except FileNotFoundError:
            raise UsageError(f"'{self.config}' is missing: the run is damaged.") from None
        if not isinstance(config, dict) or not {"env", "recipe", "spec"} <= set(config):
            raise UsageError(f"'{self.config}' is not a run's configuration: fields are missing.")
        config = {"env_kwargs": {}, "wrap": [], **config}
        for name, kind in {
            "env": str,
            "recipe": dict,
            "spec": dict,
            "env_kwargs": dict,
            "wrap": list,
        }.items():
            require(
                isinstance(config[name], kind),
                f"'{self.config}' is damaged: {name} is {quote(config[name])}, of the wrong type.",
            )
        spec = config["spec"]
        if is_from_python(config["env"], spec.get("backend")):
            # Older runs have no mark; no id makes their environments either.
            named = {name: marked(spec[name]) for name in ("id",) if isinstance(spec.get(name), str)}
            config |= {"env": marked(config["env"]), "spec": {**spec, **named, "reference": None}}
        return {**config, "recipe": upgraded(config["recipe"], f"'{self.config}'")}

    def describe(self, config: Mapping[str, Any]) -> None:
        """Write config.json, command.txt and system.json."""
        write_text(self.config, json.dumps(config, indent=2) + "\n")
        # `qhat` itself, or `python -m qhat`.
        is_qhat = "qhat" in (Path(sys.argv[0]).stem, Path(sys.argv[0]).parent.name)
        command = ["qhat", *sys.argv[1:]] if is_qhat else sys.argv
        write_text(self.path / "command.txt", shlex.join(command) + "\n")
        write_text(self.path / "system.json", json.dumps(_system(), indent=2) + "\n")

    def start_tables(self) -> None:
        """Write the headers of metrics.csv and eval.csv."""
        write_text(self.metrics, ",".join(self._fields(self.metrics)) + "\n")
        write_text(self.evaluations, ",".join(EVALUATIONS) + "\n")

    def append(self, table: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to metrics.csv or eval.csv."""
        fields = self._fields(table)
        with writing(table), table.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([row.get(field, "") for field in fields] for row in rows)

    def rewind(self, step: int) -> None:
        """Remove table rows later than `step`: a resumed run writes them again."""
        # Read both before writing either.
        tables = (self.metrics, self.evaluations)
        texts = {table: _until(table, self._fields(table), step) for table in tables}
        for table, text in texts.items():
            write_text(table, text)

    def _fields(self, table: Path) -> tuple[str, ...]:
        return (*METRICS, *self.logged) if table == self.metrics else EVALUATIONS

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, the newest last."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(each.name) for each in self.checkpoints.iterdir() if _is_step(each.name))

    def checkpoint(self, which: str | int) -> Path:
        """Return the folder of the weights `which`: `best`, `last`, or a checkpoint's step.

        Raises:
            UsageError: there is no such checkpoint.
        """
        which = str(which)
        if which in ("best", "last"):
            return self.best if which == "best" else self.last()
        steps = [str(step) for step in self.steps()]
        if which not in steps:
            known = ", ".join(["best", "last", *steps])
            raise UsageError(f"Run '{self.path}' has no checkpoint '{which}'; expected one of {known}.")
        return self.checkpoints / which

    def last(self) -> Path:
        """Return the last complete checkpoint. Raises `UsageError` if there is none."""
        try:
            name = read_text(self.path / "last", most=100).strip()
        except FileNotFoundError:
            raise UsageError(f"Run '{self.path}' has no checkpoint yet.") from None
        if not _is_step(name):
            raise UsageError(f"'{self.path / 'last'}' is damaged: {name!r} is no checkpoint's name.")
        return self.checkpoints / name

    def set_last(self, step: int) -> None:
        """Point `last` to the checkpoint of `step`."""
        write_text(self.path / "last", f"{step}\n")


def path_of(run: Any) -> Path:
    """Return the folder of a run, or a path. Raises `UsageError` for something else, such as an `Agent`."""
    folder = getattr(run, "folder", None)
    if isinstance(folder, RunFolder):
        return folder.path
    if hasattr(run, "to_run"):
        raise UsageError(f"{run!r} has no run folder; expected a run: agent.to_run(env) writes one.")
    good = isinstance(run, str | Path)
    require(good, f"{quote(run)} is no run; expected a run, or the path of its folder.")
    return Path(run)


def _is_step(name: str) -> bool:
    """Whether a name is a step: at most 10 digits."""
    return name.isascii() and name.isdigit() and len(name) <= 10


def _until(table: Path, fields: tuple[str, ...], step: int) -> str:
    """Return a table without the rows later than `step`."""
    try:
        with open_plain(table) as file:
            text = file.read().decode("utf-8")
        # A kill may leave half a line at the end; it is removed too.
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UsageError(f"'{table}' cannot be read: the run is damaged.") from None
    kept = [row for row in rows if _is_step(at := row.get("step") or "") and int(at) <= step]
    lines = [",".join(fields), *(",".join(row.get(field) or "" for field in fields) for row in kept)]
    return "\n".join(lines) + "\n"


def _nearest(path: Path) -> str:
    """Return a hint: the folder beside a missing one with a similar name."""
    try:
        beside = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    return near_miss(path.name, beside)


def _newest(path: Path) -> str:
    """Return a hint: the newest run within a folder, for a path that ends too early (runs/CartPole-v1)."""
    within = [each for depth in ("*", "*/*", "*/*/*") for each in path.glob(f"{depth}/config.json")]
    if not within:
        return ""
    newest = max(within, key=lambda each: each.stat().st_mtime).parent
    return f" It holds runs; the newest is '{newest}'."


def make_unused(path: Path) -> Path:
    """Make `path`, or `path_2` and so on, as two runs may start in the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}_{number}")


def _system() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": devices.cores(),
        "threads": devices.in_use(),
        "computes_with": devices.named(),
        "packages": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
