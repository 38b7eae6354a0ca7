"""What a notebook shows, in a real kernel: a bar while it trains, then the run, its score, a recipe."""

import dataclasses
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from qhat.runs.notebook import drawn, notebook_progress
from qhat.runs.progress import Progress

CELLS = (
    "import qhat",
    "run = qhat.train('CartPole-v1', steps=600, eval_every=300, hidden=(8,), seeds=2, run_dir='run')",
    "run",
    "qhat.evaluate(run, episodes=3)",
    "qhat.recipes.rainbow",
    "print(len(qhat.recipes.__dir__()), 'JaxEnvironment' in dir(qhat))",
)
HALF = Progress(
    step=500, steps=1_000, seconds=1.0, score=20.5, evaluation=math.nan, epsilon=0.5, loss=0.1, clipped=0.0,
    broken=0, faults=(), steps_per_second=1234.0, torso="auto",
)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """The outputs of every cell."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def html_of(output: Any) -> str:
    text = output["data"]["text/html"]
    return "".join(ElementTree.fromstring(text).itertext())


def test_training_draws_one_bar_that_ends_full(shown: list[list[Any]]) -> None:
    (bar,) = shown[1]
    assert "600 of 600 steps" in html_of(bar)
    assert "width:100.0%" in bar["data"]["text/html"]


def test_a_run_a_score_and_a_recipe_are_shown(shown: list[list[Any]]) -> None:
    run, score, recipe = (outputs[-1] for outputs in shown[2:5])
    assert "polyline" in run["data"]["text/html"]
    assert run["data"]["text/plain"] == "Run('run', 'CartPole-v1')"
    assert "qhat.export(run)" in html_of(run)
    assert "95% interval" in html_of(score)
    assert score["data"]["text/plain"].startswith("Score('CartPole-v1', ")
    assert "Categorical()" in html_of(recipe)
    assert shown[5][0]["text"].endswith("True\n")


def test_nothing_is_drawn_outside_a_notebook() -> None:
    assert notebook_progress() is None


def test_the_bar_says_where_a_run_is() -> None:
    words = drawn(HALF)
    assert "width:50.0%" in words
    assert "500 of 1,000 steps · 1,234 steps/s · training score 20.5" in words
    assert "greedy" not in words
    halted = drawn(dataclasses.replace(HALF, faults=("Seed 0 <halted>.",), evaluation=30.0))
    assert "Seed 0 &lt;halted&gt;." in halted
    assert "greedy 30" in halted
