"""A part from outside the package works everywhere without a change inside it: docs/extending.md."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import command_line
import qhat
from facts import some_facts
from goal_envs import Line
from learned import learned_q
from log_cosh import LogCosh
from outside import OUTSIDE, Summary
from places import ROOT, SOURCE
from probes import KINDS, Probes, expected_q
from qhat import axes
from qhat.axes.memory import NoMemory
from qhat.axes.policy import ExpectedSarsa, Softmax
from qhat.axes.relabel import NoRelabel
from qhat.axes.target import Soft
from qhat.axes.torso import MLP
from qhat.cli import main
from qhat.cli.train import read_train
from qhat.engine.iteration import Program
from qhat.environments import catalogue
from qhat.recipes.recipe import AXES, Recipe
from qhat.reports import findings, settings, spelling
from qhat.reports.measure import Measured
from qhat.reports.reading import read_facts
from qhat.runs.folder import RunFolder
from qhat.runs.run import Run
from qhat.system.errors import UsageError

RECIPE = Recipe(
    head=LogCosh(scale=2.0), gamma=0.9, hidden=(32, 32), learning_rate=2e-3, learning_starts=100,
    replay_capacity=5_000,
)  # fmt: skip


def test_the_page_shows_this_head(monkeypatch: pytest.MonkeyPatch):
    """What docs/extending.md tells people to write is run, and does what the head above does."""
    page = (ROOT / "docs" / "extending.md").read_text()
    theirs: Any = types.ModuleType("their_project")
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    exec(page.split("```python\n")[1].split("```")[0], theirs.__dict__)
    shown, ours = theirs.LogCosh(scale=2.0), LogCosh(scale=2.0)
    z = jnp.array([[[1.0], [300.0]]])
    pi, action = jnp.array([[0.25, 0.75]]), jnp.array([1])
    for entropy, policy in ((jnp.zeros((1, 2)), ExpectedSarsa()), (jnp.ones((1, 2)), Softmax())):
        numbers = (jnp.float32(0.5), jnp.float32(0.9))
        goals = [head.backup(*numbers, z, pi, entropy, (), policy) for head in (shown, ours)]
        assert goals[0] == goals[1]

    def loss(head: Any, z: jax.Array) -> jax.Array:
        return head.loss(head.predict(z, action, ()), 2.0, ())[0]

    for evaluate in (loss, jax.grad(loss, argnums=1)):
        one, other = (evaluate(head, z) for head in (shown, ours))
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()
    np.testing.assert_array_equal(shown.mean(z, ()), ours.mean(z, ()))


def test_a_head_from_outside_learns_the_probes():
    recipe = dataclasses.replace(
        RECIPE, num_envs=KINDS, replay_ratio=1 / KINDS, target=Soft(tau=0.05)
    ).validate()
    environment = Probes()
    spec = environment.spec
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)
    observations, expected = expected_q(0.9)
    q = learned_q(program, environment, 6_000, observations)
    np.testing.assert_allclose(q, expected, rtol=0.02, atol=0.05)


def test_a_value_of_every_axis_from_outside_is_composed_trained_saved_and_exported(tmp_path: Path):
    """No file of the package names them: they are handed over as `parts`."""
    assert OUTSIDE.keys() == AXES.keys()
    recipe = Recipe(
        **OUTSIDE, hidden=(8,), learning_starts=50, learning_rate=1e-4, normalise=False, num_envs=2
    )  # fmt: skip
    with pytest.raises(UsageError, match="stores states that met the old goal"):
        recipe.validate()
    plain = dataclasses.replace(recipe, memory=NoMemory()).validate()
    goals = qhat.train(Line(), plain, steps=100, eval_episodes=2, run_dir=tmp_path / "goals")
    assert goals.program.recipe.relabel == OUTSIDE["relabel"]
    recipe = dataclasses.replace(recipe, relabel=NoRelabel()).validate()
    parts = tuple(type(value) for value in OUTSIDE.values())
    assert Recipe.from_json(recipe.to_json(), parts) == recipe
    config = qhat.TrainConfig(
        "CartPole-v1", recipe=recipe, steps=200, eval_episodes=2, run_dir=tmp_path / "run"
    )
    qhat.train("CartPole-v1", config)
    run = Run.open(tmp_path / "run", parts=parts)
    assert run.program.recipe.memory == OUTSIDE["memory"]
    with pytest.raises(UsageError, match="memory 'fading' cannot be exported; expected one whose class"):
        qhat.export(run)
    config = dataclasses.replace(
        config, recipe=dataclasses.replace(recipe, memory=NoMemory()), run_dir=tmp_path / "plain"
    )
    qhat.train("CartPole-v1", config)
    run = Run.open(tmp_path / "plain", parts=parts)
    made = qhat.export(run, observations=200, targets=[Summary()])
    assert made.parity["passed"]
    assert made.targets["summary"].read_text() == "[2]"


def test_the_page_says_for_every_axis_which_file_is_touched():
    page = (ROOT / "docs" / "extending.md").read_text()
    for axis, kinds in AXES.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{axis}` |")]
        base = next(base for base in kinds[0].__mro__ if "axis" in vars(base))
        file = base.__module__.removeprefix("qhat.").replace(".", "/") + ".py"
        assert f"`{base.__name__}`" in row
        assert f"`{file}`" in row
        assert (SOURCE / file).is_file()
        table = next(name for name in axes.__all__ if getattr(axes, name) is kinds)
        assert f"`{table}`" in row


def test_a_run_and_an_agent_with_it_are_saved_and_loaded(tmp_path: Path):
    recipe = dataclasses.replace(RECIPE, learning_starts=50)
    config = qhat.TrainConfig(
        "CartPole-v1", recipe=recipe, steps=200, eval_episodes=2, run_dir=tmp_path / "run"
    )
    run = qhat.train("CartPole-v1", config)
    again = Run.open(tmp_path / "run", parts=(LogCosh,))
    # The run names the torso that fitted its observations, and the schedules that its steps made.
    made = dataclasses.replace(recipe.scheduled(200), torso=MLP(), normalise=False)
    assert again.program.recipe == made
    assert again.evaluate(3).per_seed == run.evaluate(3).per_seed
    with pytest.raises(UsageError, match="log_cosh"):
        Run.open(tmp_path / "run")
    agent = qhat.Agent(4, 2, recipe, seed=1)
    agent.save(tmp_path / "agent")
    loaded = qhat.Agent.load(tmp_path / "agent", parts=(LogCosh,))
    np.testing.assert_array_equal(agent.q_values(np.ones(4)), loaded.q_values(np.ones(4)))


def _blocks(heading: str) -> list[str]:
    """Return the Python blocks of a section of docs/extending.md."""
    page = (ROOT / "docs" / "extending.md").read_text()
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [part.split("```")[0] for part in section.split("```python\n")[1:]]


def test_an_environment_backend_is_one_folder_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its ids are found, listed, trained in from the command line, and scored from the run folder alone."""
    (source,) = _blocks("An environment backend")
    theirs: Any = types.ModuleType("qhat.environments.corridors")
    exec(source, theirs.__dict__)
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    entry = catalogue.Entry("Corridor-v0", "(1,) float32", "2 discrete", None, "corridors", limit=20)
    row = catalogue.Backend("corridors", lambda: (entry,), theirs.__name__)
    monkeypatch.setattr(catalogue, "BACKENDS", (row, *catalogue.BACKENDS))
    assert catalogue.find("corridors:Corridor-v0") is entry
    with pytest.raises(UsageError, match="Did you mean 'corridors'"):
        catalogue.find("corridor:Corridor-v0")
    assert "corridors" in command_line.qhat("envs", "Corridor").stdout
    settings = ["--recipe", "dqn", "--steps", "8000", "--learning-rate", "0.002", "--hidden", "32"]
    settings += ["--eval-episodes", "2", "--run-dir", str(tmp_path / "run")]
    done = command_line.qhat("train", "Corridor-v0", *settings)
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "run").evaluate(3).per_seed == [1.0], "it goes to the end"


def test_a_command_is_one_file_and_one_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (source,) = _blocks("A command")
    hello: Any = types.ModuleType("qhat.cli.hello")
    monkeypatch.setitem(sys.modules, hello.__name__, hello)
    exec(source, hello.__dict__)
    monkeypatch.setitem(main.COMMANDS, "hello", "greet somebody")
    for words, printed in ((["--help"], "greet somebody"), (["hello", "--name", "qhat"], "hello, qhat")):
        with pytest.raises(SystemExit) as done:
            main.main(words)
        assert done.value.code == 0
        assert printed in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main(["hello", "--nane", "qhat"])
    assert "Did you mean '--name'?" in capsys.readouterr().err


def test_every_command_is_a_file_in_the_table():
    files = {path.stem for path in (SOURCE / "cli").glob("*.py") if "\ndef run(words" in path.read_text()}
    assert files == set(main.COMMANDS)


def test_a_finding_is_one_function_and_one_row(monkeypatch: pytest.MonkeyPatch):
    (source,) = _blocks("A finding of the report")
    names = dict(vars(findings))
    exec(source, names)
    monkeypatch.setattr(findings, "FINDINGS", (*findings.FINDINGS, names["_short"]))
    facts = some_facts()
    (found,) = (one for one in findings.findings(facts, Measured()) if one.name == "Steps")
    assert found.status == findings.NOTE
    assert found.next == f"qhat train {facts.env} --resume --run-dir {facts.folder.path} --steps 10000"


def test_a_part_from_outside_works_in_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    parts = ["--parts", "log_cosh:LogCosh"]
    settings = ["--recipe", "dqn", "--steps", "300", "--hidden", "8", "--eval-episodes", "1"]
    settings += ["--eval-every", "300", "--run-dir", "run", "--head", "log_cosh:scale=2"]
    refused = command_line.qhat("train", "CartPole-v1", *settings)
    assert refused.returncode == 2
    done = command_line.qhat("train", *parts, "CartPole-v1", *settings)
    assert done.returncode == 0, done.stderr
    assert RunFolder.open(Path("run")).read_config()["parts"] == {"head": "log_cosh:LogCosh"}
    commands = [
        ["evaluate", "run", "--episodes", "1"],
        ["play", "run"],
        ["export", "run", "--observations", "100"],
        ["report", "run", "--episodes", "1"],
        ["compare", "run", "--episodes", "1"],
        ["train", "--resume", "--run-dir", "run", "--steps", "400"],
    ]
    sentence = "The run uses head log_cosh, which is no part of qhat; expected --parts log_cosh:LogCosh"
    for command in commands:
        if command[0] not in ("report", "compare"):
            without = command_line.qhat(*command)
            assert without.returncode == 2
            assert sentence in without.stderr
        done = command_line.qhat(*command, *parts)
        assert done.returncode == 0, done.stderr
    with pytest.raises(UsageError, match=r"expected parts=\(LogCosh,\), as it was trained with"):
        Run.open("run")


def test_every_proposed_command_names_the_parts_that_it_needs(tmp_path: Path):
    """The commands of the run's card, of the report's next steps, and the one that reproduces the run."""
    folder, named = tmp_path / "run", "--parts log_cosh:LogCosh"
    recipe = dataclasses.replace(RECIPE, head=LogCosh(scale=2.0))
    qhat.train("CartPole-v1", recipe, steps=300, eval_every=300, eval_episodes=1, run_dir=folder)
    card = (folder / "README.md").read_text()
    assert {line.split()[1] for line in card.splitlines() if named in line} == {
        "evaluate",
        "report",
        "train",
    }
    facts = read_facts(folder, (LogCosh,))
    assert " ".join(spelling.words_of(facts)[-2:]) == named
    page = str(settings.reproduce(facts)) + str(
        settings.next_commands(facts, (), ("play", "evaluate", "plot", "compare", "export"))
    )
    assert page.count(named) == 6
    assert read_train([*spelling.words_of(facts)[2:]], (LogCosh,)).recipe.head == LogCosh(scale=2.0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("log_cosh:LogCos", "has no part 'LogCos'.* Did you mean 'LogCosh'"),
        ("no_such_module:Part", "cannot be imported"),
        ("os:path", "has no part 'path'"),
        ("../evil:Part", "expected my_module:MyPart"),
        ("json", "defines no part"),
    ],
)
def test_parts_that_are_none_are_refused(name: str, sentence: str):
    done = command_line.qhat("evaluate", "run", "--parts", name)
    assert done.returncode == 2
    assert re.search(sentence, done.stderr)
