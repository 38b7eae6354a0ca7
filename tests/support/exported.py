"""Exported folders of tiny runs, which all tests of a process share."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import gymnasium

import qhat
import qhat.robots
from qhat.deploy.ros2 import write_package
from qhat.deploy.web import write_page
from qhat.runs.run import Run


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="qhat-exported-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def exported_cartpole() -> tuple[Run, Path]:
    """A run, and its exported folder with the page."""
    run = qhat.train(
        "CartPole-v1", steps=2_000, eval_every=1_000, eval_episodes=2, run_dir=_folder() / "cart"
    )
    folder = qhat.export(run, observations=500).path
    write_page(folder)
    return run, folder


@functools.cache
def exported_robot() -> tuple[Run, Path]:
    """The same for the mobile robot with its preset (normalised layers), with page and package."""
    run = qhat.train(
        "TurtleBot3-v0", steps=2_000, eval_every=1_000, eval_episodes=2, run_dir=_folder() / "robot"
    )
    # Gymnasium's form of it steps faster than it compiles, for so few observations.
    env = functools.partial(gymnasium.make, "qhat/TurtleBot3-v0")
    folder = qhat.export(run, observations=500, env=env).path
    write_page(folder)
    write_package(folder)
    return run, folder
