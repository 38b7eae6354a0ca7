"""What a user finds without opening the source: completion, help, docstrings and types."""

import dataclasses
import inspect
import json
import os
import pydoc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import qhat
from places import ROOT, SOURCE
from qhat import chapter, recipes

Checker = Callable[[str, Path], tuple[dict[int, str], list[str]]]
CLASSES = [getattr(qhat, name) for name in qhat.__all__ if inspect.isclass(getattr(qhat, name))]
USER = """
import dataclasses
import gymnasium
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
reveal_type(qhat.doctor("CartPole-v1").proposed)
reveal_type(qhat.doctor())
reveal_type(qhat.doctor(data="car.npz").troubles)
reveal_type(qhat.play(run))
reveal_type(qhat.plot(run))
reveal_type(qhat.report([run]))
reveal_type(qhat.envs("cart"))
reveal_type(qhat.tune("CartPole-v1", trials=2))
reveal_type(qhat.benchmark("classic", seeds=1))
reveal_type(dataclasses.replace(qhat.TrainConfig.of("CartPole-v1", "dqn", gamma=0.98), seeds=3))
reveal_type(qhat.train(lambda: gymnasium.make("CartPole-v1"), qhat.recipes.dqn, hidden=[32]))
reveal_type(qhat.evaluate(agent, "CartPole-v1", episodes=3))
"""
"""A program of a user, outside the package; every type in it is known."""
MISTAKES = """
import qhat

qhat.trian("CartPole-v1")
qhat.train("CartPole-v1", gama=0.98)
qhat.train("CartPole-v1", steps="many")
qhat.train("CartPole-v1", vector="asink")
qhat.Agent(4, 2, seeds=3)
qhat.recipes.dqm
qhat.evaluate("runs/x").iqn
qhat.export("runs/x", target=("onnx",))
qhat.doctor("CartPole-v1")["cores"]
"""
"""A program with a mistake in each line below the import."""


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


def in_pyright(text: str, tmp_path: Path) -> tuple[dict[int, str], list[str]]:
    """Check a program with pyright; return its errors by line, and the types that it reveals."""
    (tmp_path / "user.py").write_text(text, encoding="utf-8")
    settings = {"extraPaths": [str(ROOT / "src")], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    words = ["--pythonpath", sys.executable, "--outputjson", "-p", str(tmp_path)]
    command = [sys.executable, "-m", "pyright", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    said = json.loads(done.stdout)["generalDiagnostics"]
    wrong = {
        each["range"]["start"]["line"] + 1: each["message"] for each in said if each["severity"] == "error"
    }
    shown = [each["message"] for each in said if each["severity"] == "information"]
    return wrong, [each.rpartition(" is ")[2].strip('"') for each in shown]


def in_mypy(text: str, tmp_path: Path) -> tuple[dict[int, str], list[str]]:
    """Do the same with mypy, as strict as it can be."""
    (tmp_path / "user.py").write_text(text, encoding="utf-8")
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(ROOT / ".cache" / "mypy")]
    command = [sys.executable, "-m", "mypy", *options, "user.py"]
    env = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=env)
    assert done.stderr == ""
    lines = [line.split(":", 3) for line in done.stdout.splitlines() if line.startswith("user.py:")]
    wrong = {int(line): words for _, line, kind, words in lines if kind == " error"}
    shown = [words for _, _, _, words in lines if words.startswith(" Revealed type is ")]
    return wrong, [each.partition('"')[2].rstrip('"') for each in shown]


@pytest.mark.parametrize("check", [in_pyright, in_mypy])
def test_types_are_known_outside_the_package(check: Checker, tmp_path: Path) -> None:
    """`__getattr__`, which imports names when they are asked for, must not hide what they are."""
    wrong, revealed = check(USER, tmp_path)
    assert not wrong
    assert len(revealed) == USER.count("reveal_type(")
    assert not [each for each in revealed if each in ("Any", "Unknown") or "Unknown" in each]


@pytest.mark.parametrize("check", [in_pyright, in_mypy])
def test_checkers_find_every_mistake_of_a_user(check: Checker, tmp_path: Path) -> None:
    wrong, _ = check(MISTAKES, tmp_path)
    assert sorted(wrong) == list(range(4, 1 + len(MISTAKES.splitlines())))
