"""The distribution of a run over the cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qhat.system import devices

TIED = """
import os
from qhat.system import devices
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print([devices.devices_for(seeds) for seeds in (1, 2, 5)])
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="processes are not tied to cores on this system"
)
def test_a_process_that_may_use_one_core_has_one_device():
    done = subprocess.run([sys.executable, "-c", TIED], capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 1, 1]\n"


def test_there_is_a_device_per_seed_and_no_more_than_cores(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    assert [devices.devices_for(seeds) for seeds in (1, 3, 4, 9)] == [1, 3, 4, 4]
