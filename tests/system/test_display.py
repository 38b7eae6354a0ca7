"""How values show themselves: short texts, and HTML in notebooks."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import qhat
from qhat import recipes
from qhat.evaluation.statistics import Score
from qhat.system.display import card, curve, short


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_shows_what_differs_from_the_default(name: str) -> None:
    recipe = recipes.get(name)
    shown = repr(recipe)
    assert len(shown) < 450
    for field in dataclasses.fields(recipe):
        differs = getattr(recipe, field.name) != field.default and field.name != "paper"
        assert (f"{field.name}=" in shown) == differs or field.name in ("epsilon",)
    assert repr(recipes.Recipe()) == "Recipe()"


def test_texts_are_short(trained_cartpole: qhat.Run) -> None:
    config = qhat.TrainConfig("CartPole-v1", steps=1_000)
    assert repr(config) == "TrainConfig('CartPole-v1', 'qhat', steps=1000)"
    assert repr(trained_cartpole) == f"Run('{trained_cartpole.folder.path}', 'CartPole-v1')"
    several = Score.of("CartPole-v1", [[1.0, 3.0], [3.0, 5.0]])
    assert repr(several).startswith("Score('CartPole-v1', 3 [")
    assert repr(Score.of("X-v0", [[1.0]])) == "Score('X-v0', 1, 1 seed(s) × 1)"


def well_formed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_a_run_shows_its_curve_and_what_to_do_next(trained_cartpole: qhat.Run) -> None:
    page = well_formed(trained_cartpole._repr_html_())
    svg = "{http://www.w3.org/2000/svg}"
    lines = page.findall(f".//{svg}polyline")
    assert len(lines) == 3  # two seeds and their mean
    words = "".join(page.itertext())
    for word in ("Run in CartPole-v1", "environment steps", "qhat.evaluate(run)", "qhat.export(run)"):
        assert word in words


def test_a_score_shows_its_interval() -> None:
    words = "".join(well_formed(Score.of("A<b>-v0", [[1.0, 3.0], [3.0, 5.0]])._repr_html_()).itertext())
    assert "Score in A<b>-v0" in words
    assert "3" in words
    assert "2 per seed, greedy, fresh" in words
    alone = "".join(well_formed(Score.of("X-v0", [[1.0]])._repr_html_()).itertext())
    assert "none: only one seed" in alone


def test_a_recipe_is_a_table() -> None:
    words = "".join(well_formed(recipes.get("rainbow")._repr_html_()).itertext())
    assert "Categorical" in words
    assert "replay_capacity" not in words


def test_a_curve_stays_within_its_picture() -> None:
    drawn = well_formed(curve([0.0, 50.0, 100.0], np.array([[1.0, 1.0, 1.0]]), "steps"))
    (line,) = drawn.findall(".//{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert all(0 <= x <= 520 and 0 <= y <= 190 for x, y in points)
    assert curve([5.0], np.zeros((1, 1)), "steps") == ""


def test_what_is_shown_is_escaped() -> None:
    assert "<script>" not in card("<script>", {"<script>": "<script>"}, "", [("<script>", "<script>")])
    assert short(3.5) == "3.5"
