"""The run folder of the whole: written from the folders of the groups as they reach the same steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

from qhat.recipes.config import TrainConfig
from qhat.recipes.parts import kinds_of
from qhat.recipes.recipe import Recipe
from qhat.runs.card import NEW_EPISODES, card
from qhat.runs.folder import RunFolder
from qhat.runs.run import Run
from qhat.runs.spread.groups import BEFORE, FOLDER
from qhat.runs.spread.member import Member
from qhat.runs.spread.merging import has_state, merge
from qhat.runs.spread.parcels import FAULTS
from qhat.runs.spread.tables import Row, merge_tables
from qhat.runs.start import CHANGED
from qhat.runs.tracking import Tracking
from qhat.system.errors import UsageError
from qhat.system.files import read_json, write_text

MINE = (
    "seeds", "seed", "max_seconds", "stop_at", "keep", "run_dir", "threads", "device", "tensorboard",
    "track", "cluster", "init_from", "demos",
)  # fmt: skip
"""Settings that the driver has, and not the groups."""


class Whole:
    """The folder of a run on a cluster."""

    def __init__(
        self, folder: RunFolder, config: TrainConfig, members: Sequence[Member], tracking: Tracking
    ):
        self.folder, self._config, self._members, self._tracking = folder, config, members, tracking
        self._parts = [(member.group, member.folder) for member in members]
        self._merged = self._step_of_state()
        self._begins, self._is_described = self._merged, False
        self._tracked = self._merged

    @property
    def step(self) -> int:
        """Step of the last checkpoint of the whole."""
        return int(self.folder.last().name)

    @property
    def run(self) -> Run:
        """The run; it may have no checkpoint yet."""
        return Run.open(self.folder.path, kinds_of(self._config.recipe))

    def begin(self, group_config: str) -> None:
        """Write config.json and its companions when the first group has its own; later ones are alike."""
        if self._is_described:
            return
        self._is_described = True
        written, mine = json.loads(group_config), self._config.to_json()
        if self._config.resume:
            kept = read_json(self.folder.config)
            changed = {name: written[name] for name in CHANGED}
            changed |= {name: mine[name] for name in CHANGED if name in MINE}
            write_text(self.folder.config, json.dumps({**kept, **changed}, indent=2) + "\n")
        else:
            whole = {**written, **{name: mine[name] for name in MINE}}
            self.folder.describe(whole)
            self.folder.logged = self._config.log
            self.folder.start_tables()
        self._tracking.start(self._config.to_json(), self.folder.path, self._begins)

    def merge(self) -> None:
        """Write a checkpoint of the newest step that every group has, if it is new."""
        step = self._common()
        if step is None or step <= self._merged:
            return
        self._write(step, None)

    def close(self, by: str | None) -> Run | None:
        """Merge a last time; return the run, or `None` if a group has no checkpoint.

        Args:
            by: the setting that ended the run.
        """
        if not all(member.has_checkpoint for member in self._members):
            return None
        step = self._common()
        if step is not None and (step > 0 or self._merged == 0):
            self._write(step, by)
        elif not self._merged:
            at = merge(self.folder, self._parts, None, self._config.keep, by)
            self._write_tables(at)
        run = self.run
        self._describe(run)
        if all(member.newest == self._merged for member in self._members):
            shutil.rmtree(self.folder.path / FOLDER)
        return run

    def _write(self, step: int, by: str | None) -> None:
        merge(self.folder, self._parts, step, self._config.keep, by)
        self._merged = step
        self._write_tables(step)
        for member in self._members:
            member.prune(step)

    def _write_tables(self, step: int) -> None:
        before = self.folder.path / FOLDER / BEFORE
        metrics, evaluations = merge_tables(self.folder, self._parts, step, before)
        self._tracking.rows(self._new(metrics))
        self._tracking.rows(self._new(evaluations), "evaluation")
        self._tracked = max(self._tracked, step)
        for _, folder in self._parts:
            for path in (folder.path / FAULTS).glob("*"):
                (self.folder.path / FAULTS).mkdir(exist_ok=True)
                shutil.copyfile(path, self.folder.path / FAULTS / path.name)

    def _new(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [dict(row) for row in rows if int(row["step"]) > self._tracked]

    def _common(self) -> int | None:
        """Return the newest step of which every group has a checkpoint."""
        steps = [
            {step for step in member.folder.steps() if step <= member.newest}
            for member in self._members
            if member.has_checkpoint
        ]
        if len(steps) < len(self._members):
            return None
        return max(set.intersection(*steps), default=None)

    def _step_of_state(self) -> int:
        """Return the step of the last checkpoint that training can continue from; 0 if there is none."""
        try:
            last = self.folder.last()
        except UsageError:
            return 0
        return int(last.name) if has_state(last) else 0

    def _describe(self, run: Run) -> None:
        """Write the card."""
        written = self.folder.read_config()
        kinds = kinds_of(self._config.recipe)
        config = self._config.fitted(
            Recipe.from_json(written["recipe"], kinds), run.spec, written.get("steps", self._config.steps)
        )
        cards = [folder.path / "README.md" for _, folder in self._parts]
        new = any(path.exists() and NEW_EPISODES in path.read_text(encoding="utf-8") for path in cards)
        write_text(
            self.folder.path / "README.md", card(self.folder.path, run.summary(), config, snapshots=not new)
        )
