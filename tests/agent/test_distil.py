"""From a policy that saw what training has to one on a robot's own sensors."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat import runtime
from qhat.agent.distil import _places
from qhat.axes.actions import Actions
from qhat.environments.base import Spec
from qhat.environments.observations import Entry, Observations
from qhat.system.errors import UsageError


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that sees the cue at every step."""
    folder = tmp_path_factory.mktemp("distil") / "teacher"
    run = qhat.train(
        "jax:cue:Cue", "dqn", steps=6_000, eval_every=2_000, eval_episodes=20, gamma=0.9, hidden=(32,),
        env_kwargs={"group": "full"}, run_dir=folder,
    )  # fmt: skip
    assert run.evaluate(50).mean_return == 1.0
    return folder


def test_a_student_with_a_memory_does_what_its_teacher_sees(teacher: Path, tmp_path: Path) -> None:
    """The student sees the cue at the first step alone, and is exported with its proof."""
    said: list[str] = []
    student = qhat.distil(
        teacher, "own", steps=60_000, copies=32, memory="min_gru:units=16", hidden=(32,),
        run_dir=tmp_path / "student", progress=said.append,
    )  # fmt: skip
    assert student.evaluate(100).mean_return >= 0.95
    assert student.env_kwargs == {"group": "own"}
    report = json.loads((tmp_path / "student" / "distilled.json").read_text())
    assert report["teacher_saw"] == "full"
    assert report["same_actions"] > 0.9
    assert "of actions as the teacher's" in said[0]
    exported = qhat.export(tmp_path / "student", observations=64)
    assert exported.parity["passed"]
    policy = runtime.Policy.load(exported.path, "numpy")
    for cue in (-1.0, 1.0):
        policy.reset()
        actions = [policy.act(np.array([cue if turn == 0 else 0.0, turn / 5])) for turn in range(6)]
        assert actions[-1] == (cue + 1) / 2


def test_without_a_memory_it_cannot(teacher: Path, tmp_path: Path) -> None:
    """What the student sees says nothing of the cue at the end: it is as good as a coin."""
    student = qhat.distil(teacher, "own", steps=20_000, copies=32, run_dir=tmp_path / "student")
    assert 0.2 < student.evaluate(100).mean_return < 0.8


def test_values_are_the_teachers_where_both_see_the_same(teacher: Path, tmp_path: Path) -> None:
    """A student is a smaller network as well, and its Q stays in units of the return."""
    student = qhat.distil(teacher, "full", steps=40_000, copies=32, hidden=(16,), run_dir=tmp_path / "s")
    run, observation = qhat.Run.open(teacher), jnp.array([1.0, 1.0])
    pairs = []
    for one in (run, student):
        weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), one.weights())
        pairs.append(np.asarray(one.program.learner.q_values(weights, observation)))
    assert pairs[1].max() == pytest.approx(pairs[0].max(), abs=0.15)
    assert pairs[1].argmax() == pairs[0].argmax() == 1


def test_groups_are_found_in_whatever_order_they_stand() -> None:
    """Simulators join groups in the order in which they are named."""

    def spec(*groups: str) -> Spec:
        sizes = {"actor": 2, "critic": 3}
        paths = [((group, "speed") if len(groups) > 1 else ("speed",), sizes[group]) for group in groups]
        entries = tuple(Entry.array(path, (size,), "float32", -np.inf, np.inf) for path, size in paths)
        layout = Observations(entries)
        return Spec("robot", "mjlab", layout.shape, "float32", Actions((2,)), layout=layout)

    wide = spec("critic", "actor")
    assert _places(wide, spec("critic"), "critic") == (0, 1, 2)
    assert _places(wide, spec("actor"), "actor") == (3, 4)
    assert _places(wide, spec("actor", "critic"), "actor+critic") == (3, 4, 0, 1, 2)
    assert _places(wide, wide, "critic+actor") == (0, 1, 2, 3, 4)
    assert _places(spec("actor"), spec("actor"), "actor") == (0, 1)


def test_what_cannot_be_distilled_is_a_sentence(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no group of observations 'owm'; it has full, own. Did you mean"):
        qhat.distil(teacher, "owm")
    with pytest.raises(UsageError, match="steps is 0"):
        qhat.distil(teacher, "own", steps=0)
    plain = qhat.train("CartPole-v1", "dqn", steps=200, eval_every=200, run_dir=tmp_path / "plain")
    with pytest.raises(UsageError, match="trained without an option group"):
        qhat.distil(plain, "own")
