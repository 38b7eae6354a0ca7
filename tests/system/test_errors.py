"""Sentences that name settings are spelled for their reader: Python, or the shell."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from typing import Any

import pytest

from qhat.system.errors import QhatWarning, UsageError, blaming, in_shell, setting, spelled, warn


def test_a_sentence_has_both_spellings_and_each_reader_gets_one():
    sentence = (
        f"{setting('batch_size')} is 0; try {setting('hidden', (64, 64), '64 64')} or"
        f" {setting('normalise', False)} or {setting('resume', True)}, or"
        f" {spelled('Run.open', 'qhat report')}."
    )
    error = UsageError(sentence)
    assert str(error) == (
        "batch_size is 0; try hidden=(64, 64) or normalise=False or resume=True, or Run.open."
    )
    assert in_shell(error) == (
        "--batch-size is 0; try --hidden 64 64 or --no-normalise or --resume, or qhat report."
    )


def test_an_error_that_quotes_another_keeps_both_spellings():
    with pytest.raises(UsageError) as caught, blaming("config.json"):
        raise UsageError(f"{setting('gamma')} is 2.")
    assert str(caught.value) == "config.json: gamma is 2."
    assert in_shell(caught.value) == "config.json: --gamma is 2."


def test_a_warning_is_spelled_for_python_and_points_at_its_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(f"Add {setting('on_nan', 'skip')}.", stacklevel=1)
    assert caught[0].category is QhatWarning
    assert str(caught[0].message) == "Add on_nan='skip'."
    assert in_shell(str(caught[0].message)) == "Add on_nan='skip'."
    assert caught[0].filename == __file__


BAD: list[dict[str, Any]] = [
    {"steps": 0}, {"seed": -1}, {"seeds": 10**7}, {"max_seconds": 0}, {"keep": 0}, {"vector": "both"},
    {"on_nan": "go"}, {"env_timeout": 0}, {"env_restarts": -1}, {"resume": True}, {"track": "mlfow"},
    {"cluster": "atuo"}, {"actors": 0}, {"actors": 2, "seeds": 2}, {"actor_cpus": 0}, {"actors": 10**6},
    {"demos": ("a.npz",), "resume": True, "run_dir": "runs/x"}, {"wrap": 3}, {"gamma": 2}, {"hidden": 0},
    {"n_step": 0}, {"n_step_cut": -1}, {"batch_size": 10**6}, {"bins": [1]}, {"learning_rate": 0},
    {"replay_ratio": 0.3}, {"replay_capacity": 2}, {"learning_starts": -1}, {"explore": "greedy"},
    {"policy": "softmaks"}, {"head": "c52"}, {"merge": 7}, {"torso": "nature:width=3"}, {"stepps": 3},
    {"seed": "x"}, {"layer_norm": 3}, {"env_kwargs": 3}, {"demos": 3}, {"wrap": "frame_stak"},
    {"threads": 0}, {"threads": 1000}, {"device": "gpu"}, {"device": "cuda"}, {"random_shift": -1},
    {"random_shift": 4}, {"learners": 0}, {"learners": 2}, {"actors": 1, "learners": 3},
    {"actors": 1, "explore": "greedy", "dense": "noisy"},
]  # fmt: skip


def test_python_errors_never_speak_of_flags():
    # In a process without the tests' type checks, which would refuse some of these first.
    script = f"""
import json, qhat
for settings in {BAD!r}:
    try:
        qhat.train("CartPole-v1", **settings)
    except qhat.UsageError as error:
        print(json.dumps([list(settings), str(error)]))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    refused = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(refused) == len(BAD)
    for names, sentence in refused:
        assert "--" not in sentence
        assert any(name in sentence for name in names)


def test_the_shell_speaks_of_flags():
    words = ["train", "CartPole-v1", "--replay-ratio", "0.3"]
    ran = subprocess.run([sys.executable, "-m", "qhat", *words], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith("qhat: --replay-ratio 0.3 with --num-envs 1 asks for 0.3 updates per")
