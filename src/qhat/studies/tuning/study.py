"""A study's folder: the search, and every finished trial.

Everything is JSON. Optuna's own storage is not used, so only JSON is ever read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qhat.axes.axis import AxisValue
from qhat.recipes.parts import require_known
from qhat.recipes.recipe import Recipe
from qhat.recipes.upgrades import upgraded
from qhat.studies.tuning.space import Dimension, applied
from qhat.system.errors import QhatError, UsageError, blaming, require, setting
from qhat.system.files import parse_json, quote, read_json, read_text, write_text

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
STATES = (COMPLETE, PRUNED, FAILED)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run with settings from the space."""

    params: dict[str, Any]
    state: str
    value: float | None
    """Mean of the last evaluations; None if it failed."""
    evaluations: tuple[tuple[int, float], ...]
    """Environment step and mean return over seeds of each evaluation during training."""
    seconds: float
    why: str = ""
    """Why it failed."""

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON."""
        return dataclasses.asdict(self)


class Study:
    """The folder of a study."""

    def __init__(self, path: Path):
        self.path = path
        self.about = path / "study.json"
        self.log = path / "trials.jsonl"
        self.preset = path / "preset.json"
        self.page = path / "README.md"

    def begin(self, about: dict[str, Any], kinds: Sequence[type[AxisValue]] = ()) -> None:
        """Write the description of the search, or check that it matches the existing one.

        Args:
            kinds: classes of the recipe's parts.

        Raises:
            UsageError: the folder holds another study or something else.
        """
        about = json.loads(json.dumps(about))
        if self.about.exists():
            written = read_json(self.about)
            require(isinstance(written, dict), f"'{self.about}' is damaged; expected an object.")
            if isinstance(written.get("recipe"), dict):
                with blaming(f"'{self.about}'"):
                    require_known(written, kinds, "The study")
                written["recipe"] = upgraded(written["recipe"], f"'{self.about}'")
            for name, value in about.items():
                old, field = written.get(name), name
                if old != value and isinstance(old, dict) and isinstance(value, dict):
                    key = next(key for key in (*value, *old) if old.get(key) != value.get(key))
                    old, value, field = old.get(key), value.get(key), f"{name}'s {key}"
                require(
                    old == value,
                    f"Study '{self.path}' was started with {field} {quote(old)}, not {quote(value)};"
                    f" expected the same, or another {setting('study')}.",
                )
            return
        require(
            not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())),
            f"'{self.path}' exists and is not a study; name another folder with {setting('study')}.",
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"Study '{self.path}' cannot be created: {error.strerror}.") from None
        write_text(self.about, json.dumps(about, indent=2) + "\n")

    def add(self, trial: Trial) -> None:
        """Append a trial to the log."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial.to_json()) + "\n")
        except OSError as error:
            raise QhatError(f"'{self.log}' cannot be written: {error.strerror}.") from error

    def trials(self, space: Sequence[Dimension], recipe: Recipe, steps: int) -> list[Trial]:
        """Return the finished trials. An incomplete last line, left by a kill, is dropped.

        Raises:
            UsageError: a line is damaged, or belongs to another space.
        """
        try:
            text = read_text(self.log)
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_text(self.log, whole)
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            where = f"'{self.log}', line {number}"
            trial = _trial(parse_json(line, self.log), where)
            applied(space, recipe, trial.params, steps)
            found.append(trial)
        return found


def _trial(data: Any, where: str) -> Trial:
    names = {field.name for field in dataclasses.fields(Trial)}
    require(isinstance(data, dict) and set(data) == names, f"{where} is damaged; expected {sorted(names)}.")
    evaluations = data["evaluations"]
    good = (
        isinstance(data["params"], dict)
        and data["state"] in STATES
        and (_is_number(data["value"]) or (data["value"] is None and data["state"] == FAILED))
        and isinstance(evaluations, list)
        and all(
            isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in evaluations
        )
        and _is_number(data["seconds"])
        and isinstance(data["why"], str)
    )
    require(good, f"{where} is damaged: a value has the wrong type.")
    value = None if data["value"] is None else float(data["value"])
    pairs = tuple((int(step), float(score)) for step, score in evaluations)
    return Trial(data["params"], data["state"], value, pairs, float(data["seconds"]), data["why"])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
