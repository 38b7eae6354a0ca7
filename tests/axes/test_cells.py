"""Values of cells of a joint's range, and what a run learns, exports and refuses with them.

Protects against a command that is in the wrong cell, commands that share nothing or everything, joints of
several sizes that are mixed up, and NumPy, ONNX and JAX that disagree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.agent.agent import Agent
from qhat.axes import Actions, CoarseToFine, Pairs
from qhat.axes.axis import parse, spell
from qhat.axes.cells import Cells
from qhat.axes.greedy import best
from qhat.axes.resolution import RESOLUTIONS
from qhat.engine.learner import Learner
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
WHOLE = gymnasium.spaces.Box(0, 2, (1,), np.int32)
UNEQUAL = Actions.of(BOX, "a test", (9, 3))


def test_a_value_is_the_mean_of_its_cells() -> None:
    cells, rng = Cells((27, 9), 3), np.random.default_rng(0)
    assert cells.outputs == (3 + 9 + 27, 3 + 9)
    z = rng.normal(size=(2, 39, 4)).astype(np.float32)
    found = np.asarray(cells.mix(jnp.asarray(z)))
    np.testing.assert_allclose(cells.mix(z[..., None], np)[..., 0], found, atol=1e-6)
    assert not found[1, 9:].any()
    alone = Cells((27, 27), 3).mix(jnp.asarray(z))
    np.testing.assert_allclose(alone[0], found[0], atol=1e-6)
    for command in range(27):
        mean = (z[0, command // 9] + z[0, 3 + command // 3] + z[0, 12 + command]) / 3
        np.testing.assert_allclose(found[0, command], mean, atol=1e-6)
    for command in range(9):
        mean = (z[1, command // 3] + z[1, 3 + command]) / 2
        np.testing.assert_allclose(found[1, command], mean, atol=1e-6)


def test_what_is_learned_of_a_command_tells_of_its_neighbours() -> None:
    """A reward for one of nine commands: those in its third of the range rise with it, others do not."""
    agent = Agent(
        (1,), gymnasium.spaces.Box(-1.0, 1.0, (1,)), bins=(9,), resolution="coarse_to_fine", gamma=0.0,
        hidden=(), batch_size=9, replay_capacity=64, seed=0, learning_rate=1e-2, learning_starts=0,
    )  # fmt: skip
    s = np.ones(1, np.float32)
    before = agent.q_values(s)[0]
    for _ in range(18):
        agent.remember(s, np.array([0.0], np.float32), 5.0, s.copy(), True)
    agent.replay(updates=100)
    moved = agent.q_values(s)[0] - before
    assert moved[4] > moved[3] > 0.2
    assert moved[3] == pytest.approx(moved[5], abs=1e-5)
    np.testing.assert_allclose(moved[[0, 1, 2, 6, 7, 8]], 0.0, atol=1e-5)


def test_jax_and_numpy_choose_alike() -> None:
    agent = Agent((4,), BOX, bins=(9, 3), resolution="coarse_to_fine", hidden=(8,), seed=3)
    learner, rng = agent.program.learner, np.random.default_rng(0)
    parameters = learner.init(jax.random.key(3)).online
    observations = rng.normal(size=(9, 4)).astype(np.float32)
    q = np.asarray(jax.vmap(learner.q_values, (None, 0))(parameters, jnp.asarray(observations)))
    assert q.shape == (9, 2, 9)
    assert np.isneginf(q[:, 1, 3:]).all()
    assert np.isfinite(q[:, 1, :3]).all()
    np.testing.assert_array_equal(
        learner.greedy(parameters, jnp.asarray(observations))[0], best(q, None, None)
    )
    for row in observations:
        values = agent.q_values(row)
        expected = agent.program.actions.to_env(best(values, None, None))
        np.testing.assert_array_equal(agent.act(row, explore=False), expected)


def test_a_run_is_exported_and_continued_by_its_like(tmp_path: Path) -> None:
    settings: Any = {
        "steps": 300, "learning_starts": 60, "eval_every": 100, "eval_episodes": 1, "bins": (27,),
        "resolution": "coarse_to_fine", "hidden": (8,), "batch_size": 8, "seed": 4,
    }  # fmt: skip
    run = qhat.train("Pendulum-v1", "decqn", run_dir=tmp_path / "run", **settings)
    again = qhat.train(
        "Pendulum-v1", "decqn", run_dir=tmp_path / "again", init_from=tmp_path / "run", **settings
    )
    assert again.program.learner.network.cells == run.program.learner.network.cells
    plain = {**settings, "resolution": "full", "bins": (39,)}
    with pytest.raises(UsageError, match="resolution coarse_to_fine; expected full"):
        qhat.train("Pendulum-v1", "decqn", run_dir=tmp_path / "no", init_from=tmp_path / "run", **plain)
    assert run.program.actions.choices == (27,)
    assert qhat.export(run, tmp_path / "out", observations=300).parity["passed"]


@pytest.mark.parametrize("kind", RESOLUTIONS)
def test_values_are_spelled(kind: Any) -> None:
    assert parse(spell(kind()), RESOLUTIONS) == kind()


@pytest.mark.parametrize(
    ("resolution", "actions", "says"),
    [
        (CoarseToFine(), Actions((9,)), "9 choices without an order"),
        (CoarseToFine(), Actions.of(BOX, "a test", (5,)), "5 commands; expected bins of 9, 27 or 81."),
        (CoarseToFine(), Actions.of(BOX, "a test", (3,)), "a joint has 3 commands"),
        (CoarseToFine(parts=2), Actions.of(BOX, "a test", (8, 2)), ""),
        (CoarseToFine(parts=2), Actions.of(BOX, "a test", (2,)), "expected bins of 4, 8 or 16."),
        (CoarseToFine(parts=1000), Actions.of(BOX, "a test", (9,)), "expected bins of 1000000."),
        (CoarseToFine(), Actions.of(WHOLE, "a test", (9,)), "3 commands; .* whole numbers, or resolution="),
    ],
)
def test_levels_that_do_not_fit_are_refused(resolution: Any, actions: Actions, says: str) -> None:
    recipe = Recipe(resolution=resolution)
    if not says:
        assert Learner.of(recipe, (3,), actions).network.actions.choices == (2 + 4 + 8, 2)
        return
    with pytest.raises(UsageError, match=says):
        Learner.of(recipe, (3,), actions)


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(UsageError, match="coarse_to_fine:parts is 1; expected 2"):
        parse("coarse_to_fine:parts=1", RESOLUTIONS)
    with pytest.raises(UsageError, match=re.escape("of parts of single joints' ranges")):
        Recipe(resolution=CoarseToFine(), joints=Pairs()).validate()
