"""Protects the table of export targets: each has its flag, and a target from outside works too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import qhat
from exported import exported_cartpole
from outside import Summary
from qhat.cli.export import Export
from qhat.deploy.targets import TARGETS
from qhat.system.errors import UsageError


def test_every_target_has_a_flag_of_its_name():
    fields = {field.name: field.default for field in dataclasses.fields(Export)}
    for target in TARGETS:
        assert fields.get(target.name) is False, f"cli/export.py has no --{target.name}"
    assert len({target.name for target in TARGETS}) == len(TARGETS)


def test_a_target_from_outside_writes_into_the_folder(tmp_path: Path):
    run, _ = exported_cartpole()
    made = qhat.export(run, tmp_path / "out", observations=200, targets=[Summary()])
    assert made.targets == {"summary": tmp_path / "out" / "summary.txt"}
    assert made.targets["summary"].read_text() == "[2]"
    assert made.to_json()["summary"] == str(tmp_path / "out" / "summary.txt")


@dataclasses.dataclass(frozen=True)
class Never(Summary):
    """A target that refuses every run."""

    name: ClassVar[str] = "never"

    def require(self, config: Mapping[str, Any]) -> None:
        raise UsageError("never.")


def test_a_target_that_refuses_a_run_does_so_before_anything_is_written(tmp_path: Path):
    run, _ = exported_cartpole()
    with pytest.raises(UsageError, match="never"):
        qhat.export(run, tmp_path / "out", targets=[Never()])
    assert not (tmp_path / "out").exists()
