"""The restraint of joints: what it is, what it keeps from falling, and that others do without it.

Protects against a restraint of the wrong joints or weights, one through which the target network learns,
and one that no loss has.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.axes import Actions, Categorical, Expected, HLGauss, Implicit, Quantile, Regularised, Together
from qhat.axes.axis import parse, spell
from qhat.axes.joints import JOINTS
from qhat.engine.learner import Learner
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

KEY = jax.random.key(2)
ACTIONS = Actions((3, 2))


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def test_the_restraint_is_the_papers() -> None:
    z, before = np.random.default_rng(0).normal(size=(2, 2, 3, 1)).astype(np.float32) * 2
    action, target = [2, 0], 3.0
    value = Regularised(beta=0.5).restraint(
        Expected(), jnp.asarray(z), jnp.asarray(action), jnp.float32(target), (), (jnp.asarray(before), ())
    )
    terms = []
    for joint, choice in enumerate(action):
        weight = 1 - np.exp(-abs(z[joint, choice, 0] - target))
        terms.append(weight * huber(float(before[joint, choice, 0] - z[joint, choice, 0])))
    assert float(value) == pytest.approx(0.5 * np.mean(terms), rel=1e-5)


HEADS = [
    Expected(), Quantile(quantiles=5), Implicit(online=4, target=5, policy=6, embedding=8),
    Categorical(15, -4.0, 4.0), HLGauss(15, -4.0, 4.0),
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_values_are_drawn_to_the_target_networks(head: Any) -> None:
    recipe = Recipe(head=head, joints=Regularised(), hidden=(8,), batch_size=4, learning_starts=4)
    learner, action = Learner.of(recipe, (3,), ACTIONS), jnp.array([1, 0])
    z, basis, *_ = learner._see(learner.init(KEY).online, jnp.ones(3), None, head.fixed_fractions())
    pi = jax.nn.one_hot(action, 3)
    goal = head.backup(jnp.float32(1.0), jnp.float32(0.5), z, pi, jnp.zeros((2, 3)), basis, recipe.policy)

    def moved(tilt: float) -> np.ndarray:
        """Which way a step of gradient descent moves Q(s, ·), with θ⁻'s higher (or lower) by a tilt."""
        kept = z + tilt * jnp.linspace(1.0, 2.0, z.shape[-1])

        def restraint(z: Any, kept: Any) -> Any:
            return recipe.joints.restraint(head, z, action, goal, basis, (kept, basis))

        assert not np.any(jax.grad(restraint, argnums=1)(z, kept))
        change = -0.01 * jax.grad(restraint)(z, kept)
        return np.asarray(head.mean(z + change, basis) - head.mean(z, basis))

    higher, lower = moved(3.0), moved(-3.0)
    assert (higher[[0, 1], [1, 0]] > lower[[0, 1], [1, 0]]).all()
    others = np.ones((2, 3), bool)
    others[[0, 1], [1, 0]] = False
    assert not higher[others].any()
    assert not np.asarray(Together().restraint(head, z, action, goal, basis, (z, basis))).any()


def test_a_joint_that_did_not_explore_keeps_its_value() -> None:
    """Joint 1 explored, and the return is low: joint 0's value falls less than without the restraint."""

    def fall(joints: Any) -> float:
        z = jnp.asarray([[[5.0], [0.0]], [[0.0], [5.0]]])

        def loss(z: Any) -> Any:
            mean = joints.regress(Expected(), z, jnp.array([0, 1]), jnp.float32(0.0), ())[0]
            return mean + joints.restraint(
                Expected(), z, jnp.array([0, 1]), jnp.float32(0.0), (), (z0, ())
            )  # fmt: skip

        z0 = z
        for _ in range(20):
            z = z - 0.1 * jax.grad(loss)(z)
        return 5.0 - float(z[0, 0, 0])

    assert 0.0 < fall(Regularised(beta=5.0)) < 0.6 * fall(Together())


def test_values_are_spelled_and_checked() -> None:
    assert parse(spell(Regularised(beta=2.0)), JOINTS) == Regularised(beta=2.0)
    with pytest.raises(UsageError, match="regularised:beta is 0"):
        parse("regularised:beta=0", JOINTS)
