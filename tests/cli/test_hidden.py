"""`--hidden none`: no hidden layer after the torso, in every place where a command reads or writes it."""

from __future__ import annotations

import dataclasses
import re

import pytest

import qhat
from facts import some_facts
from qhat.cli.train import read_train
from qhat.reports import spelling
from qhat.studies.tuning import space
from qhat.system.errors import UsageError


@pytest.mark.parametrize(
    "words", [("CartPole-v1", "--hidden", "none"), ("--hidden", "none", "CartPole-v1"),
              ("CartPole-v1", "--hidden=none")],
)  # fmt: skip
def test_none_is_no_hidden_layer(words: tuple[str, ...]) -> None:
    config = read_train([*words, "--torso", "simba"], ())
    assert config.env == "CartPole-v1"
    assert config.recipe.hidden == ()


@pytest.mark.parametrize("words", ["none 64", "64 none", "64 64 none"])
def test_none_beside_widths_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match=re.escape("expected widths, for example 64 64, or none alone")):
        read_train(["CartPole-v1", "--hidden", *words.split()], ())


def test_other_numbers_are_never_none() -> None:
    with pytest.raises(UsageError, match="--bins is 'none'; expected a whole number"):
        read_train(["CartPole-v1", "--bins", "none"], ())


def test_a_report_advises_it_as_it_is_read() -> None:
    bro = qhat.recipes.get("bro")
    facts = some_facts(recipe=dataclasses.replace(bro, gamma=0.9), command="")
    words = spelling.words_of(facts)
    assert words[words.index("--hidden") + 1] == "none"
    assert read_train(words[2:], ()).recipe.hidden == ()


def test_tuning_leaves_a_network_without_hidden_layers_as_it_is() -> None:
    found = {each.name for each in space.space_of(qhat.recipes.get("bro"), 10_000)}
    assert not found & set(space.OF_HIDDEN)
    assert set(space.OF_HIDDEN) <= {each.name for each in space.space_of(qhat.recipes.get("decqn"), 10_000)}
    with pytest.raises(UsageError, match="the recipe has no hidden layer after its torso"):
        space.space_of(qhat.recipes.get("bro"), 10_000, only=("width",))
