"""Faults of real machines: kills, full disks, a second process in the same folder.

Protects saved runs: other projects lose the old checkpoint while they write the new one.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from places import SUPPORT
import qhat
from everything import everything
from full import FULL
from qhat import recipes
from qhat.recipes.config import TrainConfig
from qhat.runs import checkpoint, checkpoints
from qhat.runs.folder import RunFolder
from qhat.runs.lock import sole
from qhat.runs.progress import Progress
from qhat.runs.run import Run
from qhat.system.errors import QhatError, UsageError

TINY = dataclasses.replace(
    recipes.get("qhat"), hidden=(8,), num_envs=1, replay_ratio=0.25, replay_capacity=1_000, n_step=1,
    learning_starts=50, batch_size=16,
).scheduled()  # fmt: skip
WORDS = (
    "--hidden", "8", "--num-envs", "1", "--replay-ratio", "0.25", "--replay-capacity", "1000",
    # Schedules of their own: those that follow a run are another length's.
    "--explore", "epsilon:start=1,end=0.1,steps=5000", "--learning-starts", "1000",
    "--learning-rate-steps", "50000",
)  # fmt: skip
KILLS = 200 if FULL else 3


def config(folder: Path | None, **settings: object) -> TrainConfig:
    fields = {"steps": 1_000, "eval_every": 500, "eval_episodes": 1, "save_every": 200, **settings}
    return TrainConfig("CartPole-v1", recipe=TINY, run_dir=folder, **fields)


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qhat", "train", "CartPole-v1", "--run-dir", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output


def wait_until_saved(process: subprocess.Popen[str], folder: Path, after: int = 0) -> None:
    """Wait for a checkpoint beyond step `after`, or for the end of the process."""
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if (folder / "last").exists() and int((folder / "last").read_text()) > after:
            return
        time.sleep(0.01)
    assert process.poll() is not None, "the run neither saved nor ended"


def test_a_run_that_is_killed_at_any_instant_resumes_and_ends_as_if_it_never_was(tmp_path: Path):
    """SIGKILL, mostly during a write, as there is a checkpoint every 100 steps."""
    draw = random.Random(0)
    folder, steps, killed, reached = tmp_path / "run", 20_000 * (KILLS // 3), 0, 0
    words = (*WORDS, "--save-every", "100", "--eval-every", str(steps), "--eval-episodes", "1")
    while killed < KILLS and reached < steps:
        resume = ("--resume",) if (folder / "last").exists() else ()
        process = started(folder, *words, "--steps", str(steps), *resume)
        wait_until_saved(process, folder, reached)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), "the run before left what resumes"
        run = Run.open(folder)
        step = run.summary()["step"]
        assert step > reached, "a kill costs one save interval, and this run has had several"
        for which in ("last", "best"):
            assert np.isfinite(np.concatenate([x.ravel() for x in _leaves(run, which)])).all()
        killed, reached = killed + 1, step
    assert killed == KILLS
    finish(started(folder, *words, "--steps", str(reached + 500), "--resume"))
    finish(started(whole := tmp_path / "whole", *words, "--steps", str(reached + 500)))
    assert Run.open(folder).weights_sha256() == Run.open(whole).weights_sha256()


def _leaves(run: Run, which: str) -> list[np.ndarray]:
    return list(checkpoint.flatten(run.weights(which)).values())


def test_a_folder_that_is_trained_in_is_refused_and_a_crash_gives_it_back(tmp_path: Path):
    folder = tmp_path / "run"
    words = (*WORDS, "--save-every", "500", "--eval-every", "500", "--eval-episodes", "1")
    first = started(folder, *words, "--steps", "100000000")
    wait_until_saved(first, folder)
    second = started(folder, "--resume", "--steps", "200000000")
    _, output = second.communicate(timeout=120)
    assert second.returncode == 2
    assert "is in use: another process trains there" in " ".join(output.split())
    assert first.poll() is None
    first.kill()
    first.communicate()
    step = Run.open(folder).summary()["step"]
    finish(started(folder, "--resume", "--steps", str(step + 200)))
    assert Run.open(folder).summary()["step"] == step + 200


def test_two_runs_of_one_process_do_not_share_a_folder_either(tmp_path: Path):
    run = qhat.train("CartPole-v1", config(tmp_path / "run"))
    with sole(run.folder.path), pytest.raises(UsageError, match="is in use"):
        qhat.train("CartPole-v1", config(tmp_path / "run", steps=1_200, resume=True))
    again = qhat.train("CartPole-v1", config(tmp_path / "run", steps=1_200, resume=True))
    assert again.summary()["step"] == 1_200


def test_as_many_checkpoints_stay_as_asked_for_and_each_can_be_scored(tmp_path: Path):
    run = qhat.train("CartPole-v1", config(tmp_path / "run", keep=3))
    assert run.folder.steps() == [600, 800, 1_000]
    hashes = {which: run.weights_sha256(which) for which in ("600", "800", "1000", "last")}
    assert hashes["1000"] == hashes["last"]
    assert len(set(hashes.values())) == 3
    assert run.evaluate(2, "800").episodes == 2
    with pytest.raises(UsageError, match=r"has no checkpoint '700'; expected one of best, last, 600, 800"):
        run.evaluate(2, "700")
    qhat.train("CartPole-v1", config(tmp_path / "run", keep=1, steps=1_100, resume=True))
    assert run.folder.steps() == [1_100]
    with pytest.raises(UsageError, match="keep is 0"):
        config(tmp_path / "other", keep=0).validate()


def test_a_disk_that_takes_no_more_leaves_the_checkpoint_before(tmp_path: Path):
    """The system refuses writes: no file of this process may grow beyond a page."""
    folder, soft = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(now: Progress) -> None:
        if now.step == 600:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, soft[1]))

    try:
        with pytest.raises(QhatError, match="cannot be written") as raised:
            qhat.train("CartPole-v1", config(folder), progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert raised.value.exit_code == 1
    assert not isinstance(raised.value, UsageError)
    assert "is whole" in str(raised.value)
    assert Run.open(folder).summary()["step"] == 600
    assert [each.name for each in (folder / "checkpoints").iterdir()] == ["600"], "nothing half-written"
    resumed = qhat.train("CartPole-v1", config(folder, resume=True))
    whole = qhat.train("CartPole-v1", config(tmp_path / "whole"))
    assert resumed.weights_sha256() == whole.weights_sha256()


SMALL_DISK = """
import pathlib, subprocess, sys
sys.path[:0] = {tests!r}
import qhat
from test_reliability import config
disk = pathlib.Path({disk!r})
ballast = disk / "ballast"

def fill(now):
    if now.step == 600:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError:
                pass

try:
    qhat.train("CartPole-v1", config(disk / "run"), progress=fill)
except qhat.QhatError as error:
    print(error.exit_code, error)
print(qhat.Run.open(disk / "run").summary()["step"])
ballast.unlink()
print(qhat.train("CartPole-v1", config(disk / "run", resume=True)).summary()["step"])
try:
    recipe = qhat.recipes.get("qhat")
    qhat.train("CartPole-v1", qhat.TrainConfig("CartPole-v1", recipe=recipe, run_dir=disk / "large"))
except qhat.QhatError as error:
    print(error.exit_code, error)
print((disk / "large").exists())
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
try:
    qhat.train("CartPole-v1", config(disk / "run", resume=True, steps=1_200))
except qhat.QhatError as error:
    print(error.exit_code, error)
"""


def test_a_small_disk_that_fills_up_and_one_that_is_read_only(tmp_path: Path):
    """A real disk of 2 MiB, in a separate namespace."""
    allowed = shutil.which("unshare") and subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=False
    )
    if not allowed or allowed.returncode:
        pytest.skip("mounting a disk of one's own needs Linux with user namespaces")
    script = tmp_path / "script.py"
    (disk := tmp_path / "disk").mkdir()
    script.write_text(SMALL_DISK.format(tests=[str(Path(__file__).parent), str(SUPPORT)], disk=str(disk)))
    command = f"mount -t tmpfs -o size=2m none {disk} && {sys.executable} {script}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    full, step, resumed, forecast, made, fixed = done.stdout.splitlines()
    assert full.startswith("1 ")
    assert "No space left on device" in full
    assert "is whole" in full
    assert (step, resumed) == ("600", "1000")
    assert forecast.startswith("2 Checkpoints of this run take ")
    assert "has 1 MiB free" in forecast or "has 2 MiB free" in forecast
    assert made == "False"
    assert fixed.startswith("2 Run folder")
    assert fixed.endswith("cannot be written to: Read-only file system.")


def test_space_is_looked_up_where_the_folder_will_be(tmp_path: Path):
    checkpoints.require_space(tmp_path / "not" / "yet" / "there", 1_000)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(UsageError, match=r"Checkpoints of this run take .* MiB free; lower keep"):
        checkpoints.require_space(tmp_path / "not" / "yet", 2 * free)


class Backwards(datetime.datetime):
    """A clock that moves back by an hour whenever it is read."""

    looks = 0

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        Backwards.looks += 1
        return datetime.datetime(2030, 1, 2, 12) - datetime.timedelta(hours=Backwards.looks)


def test_a_clock_that_moves_back_loses_and_reorders_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    every: dict[str, object] = {"eval_every": 300, "keep": 3}
    whole = qhat.train("CartPole-v1", config(tmp_path / "whole", **every))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qhat.runs.folder.datetime.datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: Backwards.now().timestamp())
    first = qhat.train("CartPole-v1", config(None, steps=600, **every))
    # What is there was written in the future, the oldest of it last.
    for age, path in enumerate(sorted(first.folder.path.rglob("*"))):
        os.utime(path, (4e9 - age, 4e9 - age))
    resumed = dataclasses.replace(config(first.folder.path, **every), resume=True)
    again = qhat.train("CartPole-v1", resumed)
    assert again.folder.steps() == [600, 800, 1_000]
    assert everything(again.folder.path) == everything(whole.folder.path)
    same = [RunFolder.create(None, "CartPole-v1", "qhat").path]
    Backwards.looks -= 1
    same.append(RunFolder.create(None, "CartPole-v1", "qhat").path)
    assert len({*same, first.folder.path}) == 3, "a second that comes twice has two folders"


def test_the_wall_clock_decides_no_result():
    """Durations come from clocks that never go back.

    The date is in names of new folders and in records; the age of files decides a hint and the film shown.
    """
    source = Path(qhat.__file__).parent
    asks = re.compile(
        r"\btime\.time\(|\bdatetime\.|\bst_[amc]time\b|getmtime|time\.(local|gm)time|time_ns\("
    )
    lines = [
        (path.name, line.strip())
        for path in source.rglob("*.py")
        # Its times say which compiled programs to keep, and a kept program is the compiled one.
        if path.name != "compilation_cache.py"
        for line in path.read_text().splitlines()
        if asks.search(line)
    ]
    assert sorted(lines) == [
        ("benchmark.py", 'now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")'),
        ("final.py", '"date": datetime.date.today().isoformat(),'),
        ("folder.py", "newest = max(within, key=lambda each: each.stat().st_mtime).parent"),
        ("folder.py", 'now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")'),
        ("measure.py", "newest = max(found, key=lambda file: file.stat().st_mtime)"),
        (
            "running.py",
            'scores = {"step": step, "episodes": episodes, "date": datetime.date.today().isoformat()}',
        ),
    ]


def test_a_checkpoint_of_another_format_is_refused_in_a_sentence(tmp_path: Path):
    run = qhat.train("CartPole-v1", config(tmp_path / "run", steps=200))
    for folder in (run.folder.best, run.folder.last()):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "format": checkpoint.FORMAT + 1}))
    sentence = rf"has checkpoint format {checkpoint.FORMAT + 1}; this qhat reads {checkpoint.FORMAT}\."
    for use in (
        run.weights,
        lambda: run.weights("last"),
        run.summary,
        lambda: qhat.train("CartPole-v1", config(tmp_path / "run", steps=400, resume=True)),
    ):
        with pytest.raises(UsageError, match=sentence):
            use()
    table = (run.folder.metrics).read_text()
    assert table.splitlines()[-1].split(",")[2] == "200", "and the run is as it was"


@pytest.mark.parametrize("place", ["/proc/qhat", "/dev/null/qhat"])
def test_a_folder_that_cannot_be_made_is_one_sentence(place: str):
    with pytest.raises(UsageError, match=f"Run folder '{place}' cannot be made"):
        RunFolder.create(Path(place), "CartPole-v1", "qhat")
