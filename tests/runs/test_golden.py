"""A run of every released version is read, played and continued.

Protects people's runs from the next version of qhat. The runs are made by tools/golden.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from places import TESTS
import qhat
from qhat.runs.run import Run

VERSIONS = sorted(path for path in (TESTS / "golden").iterdir() if path.is_dir())


def test_there_is_one_of_this_version():
    assert qhat.__version__ in {path.name for path in VERSIONS}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)
def test_a_golden_run_is_what_it_was(version: Path, tmp_path: Path):
    found = json.loads((version / "found.json").read_text())
    run = Run.open(version / "run")
    # A key that older versions did not write.
    assert run.summary() == {"stopped_by": None, **found["summary"]}
    for which, digest in found["weights_sha256"].items():
        assert run.weights_sha256(which) == digest
    # Another processor may add in another order.
    q = run.policy(seed_index=0).q_values(np.array(found["observation"], np.float32))
    np.testing.assert_allclose(q, found["q_values"], rtol=1e-5)
    assert run.evaluate(episodes=2).episodes == 2

    shutil.copytree(version / "run", tmp_path / "run")
    written = run.folder.read_config()
    config = qhat.TrainConfig(
        "CartPole-v1", written["recipe_name"], run.program.recipe, steps=written["steps"] + 100,
        seeds=written["seeds"], eval_every=200, eval_episodes=2, save_every=200,
        run_dir=tmp_path / "run", resume=True,
    )  # fmt: skip
    assert qhat.train("CartPole-v1", config).summary()["step"] == written["steps"] + 100
