"""A script without a main guard trains with processes: it is refused in one sentence.

Each process imports the main script. Protects against processes that train again, and against three
tracebacks that do not name the fix.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from places import ROOT

SCRIPT = """
import multiprocessing, os, pathlib, sys
with open("runs.txt", "a") as file:
    file.write(f"{os.getpid()}\\n")
import gymnasium, qhat

def make():
    return gymnasium.make("CartPole-v1")

def main():
    how = dict(steps=64, eval_every=64, eval_episodes=1, num_envs=2, learning_starts=32, hidden=8)
    qhat.train(make, "dqn", vector="async", run_dir="run", **how)
    print("trained")

"""
TRAIN = 'if __name__ == "__main__":'


def ran(folder: Path, text: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a script; return how it ended, and how often its top level ran."""
    (folder / "my_script.py").write_text(SCRIPT + text)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "my_script.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    return done, len((folder / "runs.txt").read_text().splitlines())


@pytest.mark.parametrize("call", ["main()", "with open('runs.txt'):\n    for _ in [1]:\n        main()"])
def test_a_call_at_the_top_level_is_refused_before_any_process_starts(call: str, tmp_path: Path):
    done, count = ran(tmp_path, call)
    assert done.returncode == 1
    assert count == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "each imports my_script.py, which would train again at its top level" in last
    assert TRAIN in last
    assert "vector='sync'" in last
    assert done.stderr.count("Traceback") == 1
    assert not (tmp_path / "run").exists()


def test_under_a_condition_that_is_no_guard_the_processes_end_silently(tmp_path: Path):
    done, count = ran(tmp_path, "if os.getpid() > 0:\n    main()")
    assert done.returncode == 1
    assert count <= 3, "the script and its two processes"
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.count(TRAIN) == 1


def test_a_guarded_script_trains(tmp_path: Path):
    done, _ = ran(tmp_path, f"{TRAIN}\n    main()")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"
