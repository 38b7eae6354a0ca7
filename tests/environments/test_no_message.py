"""An error without a message names the file and the line."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from qhat.environments.catalogue import find
from qhat.system.errors import UsageError


class Refusing(gymnasium.Env):
    def __init__(self, **_: object):
        raise AssertionError


def test_an_assertion_without_words_is_found(monkeypatch: pytest.MonkeyPatch):
    spec = EnvSpec("Refusing-v0", Refusing)
    monkeypatch.setitem(gymnasium.registry, "Refusing-v0", spec)
    with pytest.raises(UsageError, match=r"AssertionError in .*test_no_message\.py, line \d+\)"):
        find("Refusing-v0")
