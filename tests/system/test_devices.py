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


POOL = """
import os
from qhat.system import devices
devices.cores = lambda: 6
devices.prepare({arguments})
print(devices.in_use())
"""


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [("1", 6), ("3", 3), ("1, 2", 8), ("3, 1", 4), ("1, threads=2", 2), ("1, 1, threads=1", 2)],
)
def test_one_device_has_every_core_and_several_have_one_each(arguments: str, threads: int):
    script = POOL.format(arguments=arguments)
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == f"{threads}\n"


def test_there_is_a_device_per_seed_and_no_more_than_cores(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    assert [devices.devices_for(seeds) for seeds in (1, 3, 4, 9)] == [1, 3, 4, 4]
    assert [devices.devices_for(seeds, threads=2) for seeds in (1, 3)] == [1, 2]
