"""What a user finds without opening the source: completion, help, docstrings and types."""

import dataclasses
import inspect
import json
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qhat
from places import ROOT, SOURCE
from qhat import chapter, recipes

CLASSES = [getattr(qhat, name) for name in qhat.__all__ if inspect.isclass(getattr(qhat, name))]
USER = """
import numpy as np
import qhat
from qhat.chapter import PERMemory, RainbowDQN

run = qhat.train("CartPole-v1", steps=1_000)
reveal_type(run)
reveal_type(qhat.Run.open("runs/x"))
reveal_type(qhat.evaluate(run))
reveal_type(qhat.evaluate(run).mean_return)
reveal_type(qhat.export(run))
reveal_type(qhat.export(run).path)
reveal_type(qhat.compare([run]))
reveal_type(qhat.TrainConfig("CartPole-v1").recipe)
reveal_type(qhat.recipes.get("dqn"))
reveal_type(qhat.recipes.dqn.gamma)
agent = qhat.Agent(4, 2)
reveal_type(agent)
reveal_type(agent.q_values(np.zeros(4)))
reveal_type(agent.replay())
reveal_type(qhat.Agent.load("x"))
reveal_type(RainbowDQN(4, 2).act(np.zeros(4)))
reveal_type(PERMemory(8).sample(2))
reveal_type(qhat.UsageError("x"))
reveal_type(qhat.__version__)
"""
"""A program of a user, outside the package; every type in it is known."""


def test_completion_offers_the_public_names() -> None:
    assert dir(qhat) == sorted(qhat.__all__)
    assert set(recipes.RECIPES) < set(dir(recipes))
    assert all(hasattr(recipes, name) for name in dir(recipes))


def test_help_lists_every_public_name_with_a_line() -> None:
    text = qhat.__doc__ or ""
    listed = [line for line in text.splitlines() if line.startswith("    ")]
    lines = {line.split()[0].partition("(")[0].removeprefix("qhat."): line for line in listed}
    assert set(lines) == set(qhat.__all__) - {"__version__"}
    assert all(len(line.split()) > 3 for line in lines.values())
    shown = pydoc.plain(pydoc.render_doc(qhat))
    assert "qhat.train(" in shown


def without_docstring(kind: type) -> Iterator[str]:
    """Public methods of a class of ours that say nothing; a base class may say it."""
    for name, member in inspect.getmembers(kind):
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not (inspect.isfunction(function) or inspect.ismethod(function)):
            continue
        if function.__module__.startswith("qhat") and not inspect.getdoc(getattr(kind, name)):
            yield f"{kind.__name__}.{name}"


def field_documents(kind: type) -> str:
    """The source of the classes that a dataclass has its fields from."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("qhat")]
    return "".join(inspect.getsource(base) for base in ours)


@pytest.mark.parametrize("name", [*qhat.__all__, *(f"chapter.{name}" for name in chapter.__all__)])
def test_every_public_name_says_what_it_is(name: str) -> None:
    value: Any = qhat
    for part in name.split("."):
        value = chapter if part == "chapter" else getattr(value, part)
    if name == "__version__":
        return
    assert inspect.getdoc(value), name
    if inspect.isclass(value):
        assert not list(without_docstring(value))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if dataclasses.is_dataclass(kind)])
def test_every_field_says_what_it_is(kind: type) -> None:
    lines = [line.strip() for line in field_documents(kind).splitlines()]
    for field in dataclasses.fields(kind):
        at = next(index for index, line in enumerate(lines) if line.startswith(f"{field.name}:"))
        assert lines[at + 1].startswith('"""'), f"{kind.__name__}.{field.name} has no docstring"


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_types_are_known_outside_the_package(tmp_path: Path) -> None:
    """`__getattr__`, which imports names when they are asked for, must not hide what they are."""
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    settings = {"extraPaths": [str(ROOT / "src")], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    words = ["--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)]
    command = [sys.executable, "-m", "pyright", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    said = json.loads(done.stdout)["generalDiagnostics"]
    wrong = [each["message"] for each in said if each["severity"] == "error"]
    assert not wrong
    revealed = [each["message"].rpartition(" is ")[2].strip('"') for each in said]
    assert len(revealed) == USER.count("reveal_type(")
    assert not [each for each in revealed if each in ("Any", "Unknown") or "Unknown" in each]
