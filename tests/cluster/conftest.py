"""Fixtures of the tests of actors."""

from __future__ import annotations

from typing import Any

import pytest

from qhat.runs.checkpoints import Checkpoints


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The states of the checkpoints, in order."""
    states: list[Any] = []
    save = Checkpoints.save

    def keep(self: Checkpoints, step: int, state: Any, *rest: Any) -> Any:
        states.append(state)
        return save(self, step, state, *rest)

    monkeypatch.setattr(Checkpoints, "save", keep)
    return states
