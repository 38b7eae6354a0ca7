"""Every recipe finds values that are known exactly: rewards, discounts, actions, time limits.

Protects against a time limit taken for a terminal state, a wrong n-step discount, a loss that
ignores an action, and every recipe that "learns a bit".
"""

from dataclasses import replace

import numpy as np
import pytest

from full import FULL
from learned import learned_q
from probes import KINDS, Chain, Probes, expected_q
from qhat.axes.bonus import Munchausen
from qhat.axes.dense import Noisy
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.target import Hard, NoTarget, Soft
from qhat.axes.torso.residual import Blocks
from qhat.engine.iteration import Program
from qhat.recipes import DEFAULT
from qhat.recipes import RECIPES as ALL
from qhat.recipes.recipe import AXES, Recipe

GAMMA = 0.9
# The probes have no goals and no joints: tests/engine/test_goals.py, test_growth.py and test_cells.py do.
# What they ask for is Q of single observations; test_recurrent.py asks for that of episodes. They are
# several streams of steps: test_streaming.py makes one of them. They are acted in: test_logs.py has logs,
# and test_shares.py has batches with demonstrations.
RECIPES = {
    name: recipe
    for name, recipe in ALL.items()
    if not (recipe.relabel.happens or recipe.memory.remembers or recipe.training.streams)
    and recipe.training.acts
    and not recipe.demo_share
    and recipe.resolution.name == "full"
}
pytestmark = pytest.mark.usefixtures("optimised")


def composition(name: str) -> tuple:
    """The kinds of parts that a recipe is made of."""
    recipe = RECIPES[name]
    return *(getattr(recipe, axis).name for axis in AXES), recipe.n_step > 1


COMPOSITIONS = {composition(name): name for name in reversed(list(RECIPES))}
# Every head, policy, bonus, merge and kind of layer, and what the named recipes make of them together.
FEW = ["dqn", "qhat", "rainbow", "m_iqn", "qr_dqn", "hl_gauss_dqn", "chapter_rainbow_per", "bdq",
       "decqn_pairs", "decqn_regularised", "bro", "simba", "simba2", "pqn"]  # fmt: skip


def test_the_few_have_every_part_of_the_many() -> None:
    for position in range(len(AXES)):
        assert {composition(name)[position] for name in FEW} == {one[position] for one in COMPOSITIONS}


@pytest.mark.parametrize("name", RECIPES if FULL else FEW)
def test_recipe_solves_the_probes(name: str) -> None:
    recipe = RECIPES[name]
    # The composition is the recipe's; only sizes and speeds are those of a tiny task.
    quick = Hard(every=40) if isinstance(recipe.target, Hard) else Soft(tau=0.05)
    quick = recipe.target if isinstance(recipe.target, NoTarget) else quick
    recipe = replace(
        recipe,
        target=quick,
        explore=EpsilonGreedy(1.0, 0.5, 1_000),
        hidden=(32, 32),
        torso=replace(recipe.torso, width=32) if isinstance(recipe.torso, Blocks) else recipe.torso,
        gamma=GAMMA,
        learning_rate=2e-3,
        learning_starts=100,
        replay_capacity=5_000,
        num_envs=KINDS,
        replay_ratio=1 / KINDS,
    )
    if not recipe.training.replays:
        # Four passes over the last 32 steps of each.
        recipe = replace(recipe, replay_capacity=Recipe().replay_capacity, batch_size=4 * KINDS)
    environment = Probes()
    spec = environment.spec
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)
    bonus = recipe.bonus
    observations, expected = expected_q(
        GAMMA, bonus.alpha * bonus.floor if isinstance(bonus, Munchausen) else 0.0
    )
    q = learned_q(program, environment, 4_000, observations)
    # With noise the target is the largest of noisy estimates, which is too high by a few per cent.
    rtol = 0.05 if isinstance(recipe.dense, Noisy) else 0.02
    np.testing.assert_allclose(q, expected, rtol=rtol, atol=0.05)


@pytest.mark.parametrize(
    ("n", "cut", "off"), [(3, 0.1, False), (20, 0.1, False), (20, 0.0, False), (20, None, True)]
)
def test_a_cut_keeps_exploration_out_of_the_values(n: int, cut: float | None, off: bool) -> None:
    """Half of the actions are random, so the sum of twenty rewards contains the cost of many of them."""
    recipe = replace(
        RECIPES[DEFAULT], n_step=n, n_step_cut=cut, gamma=GAMMA, explore=EpsilonGreedy(1.0, 0.5, 1_000),
        hidden=(32, 32), learning_rate=2e-3, learning_starts=200, target=Hard(every=100),
        replay_capacity=20_000,
    )  # fmt: skip
    environment = Chain()
    spec = environment.spec
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)
    observations, expected = environment.q(GAMMA)
    q = learned_q(program, environment, 8_000, observations)
    error = float(np.abs(np.asarray(q) - expected).max())
    assert error > 0.1 if off else error < 0.01
