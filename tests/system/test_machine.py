"""Commands that install extras work from where qhat was installed."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from qhat.system import machine


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ({"dir_info": {"editable": True}, "url": "file:///x"}, "pip install -e '.[tune]'"),
        ({"archive_info": {}, "url": "https://x"}, "pip install 'qhat[tune]'"),
        (None, "pip install 'qhat[tune]'"),
    ],
)
def test_the_command_installs_from_the_same_place(monkeypatch, written, command):
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if written is None else json.dumps(written)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed())
    machine.from_checkout.cache_clear()
    try:
        assert machine.install_command("optuna") == command
    finally:
        machine.from_checkout.cache_clear()
