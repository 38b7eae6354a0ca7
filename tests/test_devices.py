"""How a run is laid over the cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qhat import devices

ASK = "from qhat import devices; print(devices.devices_for({seeds}))"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not tied to cores here")
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_process_that_may_use_one_core_has_one_device(seeds: int):
    one = min(os.sched_getaffinity(0))
    words = [sys.executable, "-c", ASK.format(seeds=seeds)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, {one})
    )
    assert done.stdout == "1\n"


def test_there_is_a_device_per_seed_and_no_more_than_cores(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    assert [devices.devices_for(seeds) for seeds in (1, 3, 4, 9)] == [1, 3, 4, 4]
