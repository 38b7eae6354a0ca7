"""The distribution of a run over the cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from qhat.environments.make import make_any
from qhat.environments.pictured import pictured
from qhat.environments.user_envs import source_of
from qhat.recipes.config import TrainConfig
from qhat.runs.threads import threads_for
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


@pytest.mark.parametrize(
    ("env", "settings", "threads"),
    [
        ("CartPole-v1", {}, 1),
        ("envpool:CartPole-v1", {}, 1),
        ("gymnax:Breakout-MinAtar", {}, 1),
        ("CartPole-v1", {"hidden": (256, 256), "batch_size": 32}, 1),
        ("CartPole-v1", {"hidden": (256, 256), "batch_size": 256}, None),
        ("CartPole-v1", {"head": "implicit", "hidden": (64, 64), "batch_size": 32}, 1),
        ("CartPole-v1", {"head": "implicit", "hidden": (512, 512), "batch_size": 32}, None),
        ("CartPole-v1", {"torso": "bronet:width=256", "hidden": (), "batch_size": 256}, None),
        ("CartPole-v1", {"torso": "simba:width=256", "hidden": (), "batch_size": 64}, None),
        ("CartPole-v1", {"torso": "simba:width=128", "hidden": (), "batch_size": 64}, 1),
        ("envpool:Pong-v5", {}, None),
        ("envpool:Pong-v5", {"torso": "data_efficient"}, None),
        ("gym:CartPole-v1", {}, None),
        ("gym:CartPole-v1", {"torso": "mlp"}, None),
    ],
)
def test_a_seed_has_every_core_where_a_product_is_large(env, settings, threads):
    recipe = TrainConfig.of(env, **settings).validate().recipe
    assert threads_for(recipe, source_of(env).has_pictures()) == threads


def test_pictures_are_known_of_what_is_made_already():
    vector, pixels = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    small = gym.spaces.Box(0, 255, (10, 10, 4), np.uint8)
    both = gym.spaces.Dict({"camera": pixels, "joints": vector})
    stacked = gym.spaces.Box(-1, 1, (4, 360))
    spaces = (vector, pixels, small, both, stacked, gym.spaces.Tuple((vector, small)), None)
    assert [pictured(space) for space in spaces] == [False, True, False, True, False, False, True]


@pytest.mark.parametrize(
    ("env_id", "pictures"),
    [("CartPole-v1", False), ("envpool:Pong-v5", True), ("envpool:HopperHop-v1", False)],
)
def test_pictures_are_known_of_an_id_and_of_its_spec(env_id: str, pictures: bool):
    made = make_any(env_id, 1, range(1), 1)
    assert pictured(made.spec) == source_of(env_id).has_pictures() == pictures
    made.close()


@pytest.mark.parametrize(("given", "threads"), [("", "1"), ("threads=2,", "2")])
def test_a_small_network_trains_on_one_thread(tmp_path, given: str, threads: str):
    folder = str(tmp_path / "run")
    script = f"import qhat\nqhat.train('CartPole-v1', steps=1200, {given} run_dir={folder!r})"
    environment = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=300)
    assert json.loads((tmp_path / "run" / "system.json").read_text())["threads"] == int(threads)
