"""`qhat export RUN --cpp`: the program compiles, and acts as the Python runner does.

Needs a C++ compiler and onnxruntime's C++ headers; without them the tests are skipped, and say so. The
library is the one in onnxruntime's Python wheel.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import qhat
from exported import exported_cartpole
from qhat.deploy.cpp import Cpp, require_plain, write_program
from qhat.environments.wrappers import FrameStack
from qhat.runtime import Policy
from qhat.system.errors import UsageError
from tiny import TINY

HEADER = "onnxruntime_cxx_api.h"
PLACES = (
    os.environ.get("ONNXRUNTIME_INCLUDE", ""),
    str(Path(__file__).parents[2] / ".cache" / "onnxruntime"),
    "/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/usr/local/include",
)  # fmt: skip
OBSERVATIONS = 1_000


@functools.cache
def headers() -> str:
    """Where the headers are; skips a test without them, or with ones that are newer than the library."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: on Debian, apt install g++")
    found = [place for place in PLACES if place and (Path(place) / HEADER).is_file()]
    if not found:
        pytest.skip(
            f"no {HEADER}: on Debian 13, apt install libonnxruntime-dev; or set ONNXRUNTIME_INCLUDE"
        )
    text = (Path(found[0]) / "onnxruntime_c_api.h").read_text(encoding="utf-8")
    (version,) = re.findall(r"#define ORT_API_VERSION (\d+)", text)
    if int(version) > int(onnxruntime.__version__.split(".")[1]):
        pytest.skip(f"the headers in {found[0]} are newer (1.{version}) than the library")
    return found[0]


def library(folder: Path) -> Path:
    """Return a folder with the wheel's library under the names that a linker and a loader look for."""
    (shared,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    target = folder / "lib"
    target.mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (target / name).symlink_to(shared)
    return target


def compiled(source: Path, folder: Path) -> Path:
    include, lib, program = headers(), library(folder), folder / "policy"
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", include, str(source), "-o"]
    done = subprocess.run(
        [*command, str(program), f"-L{lib}", "-lonnxruntime", f"-Wl,-rpath,{lib}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return program


def answers(program: Path, graph: Path, observations: np.ndarray) -> np.ndarray:
    text = "\n".join(" ".join(repr(float(x)) for x in row.ravel()) for row in observations)
    done = subprocess.run([program, graph], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array([[float(x) for x in line.split()] for line in done.stdout.splitlines()])


def test_it_acts_as_the_python_runner_does(tmp_path: Path):
    folder = exported_cartpole()[1]
    source = write_program(folder) / "policy.cpp"
    assert len(source.read_text().splitlines()) <= 60
    program = compiled(source, tmp_path)
    observations = np.random.default_rng(0).normal(size=(OBSERVATIONS, 4)).astype(np.float32)
    got = answers(program, folder / "policy.onnx", observations)
    policy = Policy.load(folder, "onnxruntime", "ignore")
    np.testing.assert_array_equal(got[:, 0], [policy.act(one) for one in observations])
    assert set(got[:, 0]) == {0.0, 1.0}


def test_frames_and_commands_of_joints(tmp_path: Path):
    """A policy that stacks frames by itself, and moves a joint by commands."""
    headers()
    run = qhat.train(
        "Pendulum-v1", TINY, steps=400, wrap=(FrameStack(3),), bins=5, eval_every=400, eval_episodes=1,
        run_dir=tmp_path / "run",
    )  # fmt: skip
    made = qhat.export(run, tmp_path / "out", observations=200, targets=[Cpp()])
    program = compiled(made.targets["cpp"] / "policy.cpp", tmp_path)
    observations = np.random.default_rng(0).uniform(-1, 1, (OBSERVATIONS, 3)).astype(np.float32)
    got = answers(program, made.path / "policy.onnx", observations)
    policy = Policy.load(made.path, "onnxruntime", "ignore")
    np.testing.assert_allclose(got, [policy.act(one) for one in observations], rtol=1e-6)
    assert len(np.unique(got)) > 1


def test_cmake_builds_it(tmp_path: Path):
    if shutil.which("cmake") is None:
        pytest.skip("no cmake: on Debian, apt install cmake")
    target, root = write_program(exported_cartpole()[1]), tmp_path / "onnxruntime"
    include = headers()
    root.mkdir()
    library(root)
    (root / "include").symlink_to(include)
    for command in (
        ["-S", target, "-B", tmp_path / "build", f"-DONNXRUNTIME={root}"],
        ["--build", tmp_path / "build"],
    ):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    got = answers(tmp_path / "build" / "policy", target.parent / "policy.onnx", np.zeros((2, 4)))
    assert got.shape == (2, 1)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path):
    folder = exported_cartpole()[1]
    text = (write_program(folder) / "policy.cpp").read_text()
    (tmp_path / "policy.cpp").write_text(
        text[: text.index("int main")]
        + "int main(int, char** words) { Policy(words[1]).Act({0, 0, NAN, 0}); }\n"
    )
    program = compiled(tmp_path / "policy.cpp", tmp_path)
    done = subprocess.run([program, folder / "policy.onnx"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "a number is not finite" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"network": [{"op": "parts"}]}, "several pictures, or pictures and numbers; expected one array"),
        (
            {"actions": {"masked": True}},
            "has masks of legal actions; expected an environment without masks",
        ),
    ],
)
def test_what_it_cannot_run_is_refused(change: dict[str, Any], says: str):
    about = {"environment": {"id": "My-v0"}, "network": [{"op": "dense"}], "actions": {"masked": False}}
    require_plain(about)
    with pytest.raises(UsageError, match=says):
        require_plain({**about, **change})
