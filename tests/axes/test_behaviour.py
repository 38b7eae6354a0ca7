"""The terms that recorded actions add to a loss, against their definitions.

Protects against a sum over joint actions that is not the product's, illegal actions that count, and
settings without meaning.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat import recipes
from qhat.axes import Clone, Conservative, Margin, NoBehaviour, Quantile
from qhat.axes.behaviour import Case
from qhat.system.errors import UsageError


def values(shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(3), shape) * 2


def test_cql_sums_over_all_joint_actions() -> None:
    q, action = values((3, 4)), jnp.array([1, 3, 0])
    joint = [
        np.mean([q[f, c] for f, c in enumerate(choice)]) for choice in itertools.product(range(4), repeat=3)
    ]
    chosen = np.mean([q[f, c] for f, c in enumerate(action)])
    gap = np.log(np.sum(np.exp(joint))) - chosen
    loss = Conservative(alpha=0.5).loss(Case(jnp.float32(2.0), q, action))
    assert float(loss) == pytest.approx(2.0 + 0.5 * gap, rel=1e-5)


def test_a_margin_is_the_largest_over_all_joint_actions() -> None:
    q, action = values((3, 4)), jnp.array([1, 3, 0])
    joint = [
        np.mean([q[f, c] for f, c in enumerate(choice)])
        + 0.8 * np.mean([c != a for c, a in zip(choice, action, strict=True)])
        for choice in itertools.product(range(4), repeat=3)
    ]
    gap = max(joint) - np.mean([q[f, c] for f, c in enumerate(action)])
    margin = Margin(weight=0.5)
    for logged, expected in ((None, 2.0 + 0.5 * gap), (True, 2.0 + 0.5 * gap), (False, 2.0)):
        known = None if logged is None else jnp.bool_(logged)
        loss = margin.loss(Case(jnp.float32(2.0), q, action, logged=known))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
    # One factor is the paper's equation; a recorded action that wins by the margin costs nothing.
    one = jnp.array([[1.0, 1.9, 0.0]])
    assert float(Margin().loss(Case(jnp.float32(0.0), one, jnp.array([1])))) == 0
    assert float(Margin().loss(Case(jnp.float32(0.0), one, jnp.array([0])))) == pytest.approx(
        1.9 + 0.8 - 1.0
    )


@pytest.mark.parametrize("value", [Conservative(), Clone(), Margin()], ids=lambda value: value.name)
def test_illegal_actions_do_not_count(value: Conservative | Clone | Margin) -> None:
    q = values((1, 4))
    masked = q.at[0, 2].set(-jnp.inf)
    without = jnp.delete(q, 2, axis=1)

    def loss_of(q: jax.Array) -> jax.Array:
        return value.loss(Case(jnp.float32(0.0), q, jnp.array([1])))

    loss, gradient = jax.value_and_grad(loss_of)(masked)
    assert float(loss) == pytest.approx(float(loss_of(without)), rel=1e-6)
    assert np.isfinite(np.asarray(gradient)).all()
    assert gradient[0, 2] == 0


def test_a_clone_learns_from_no_return() -> None:
    q, action = values((2, 3)), jnp.array([2, 0])
    expected = -sum(
        np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(np.asarray(q), action, strict=True)
    )
    for regression in (0.0, 7.0):
        assert float(Clone().loss(Case(jnp.float32(regression), q, action))) == pytest.approx(
            expected, rel=1e-5
        )


def test_none_is_the_regression() -> None:
    assert NoBehaviour().loss(Case(jnp.float32(7.0), values((1, 2)), jnp.array([0]))) == 7.0


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_an_alpha_without_meaning_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match=r"cql:alpha is .*; expected a number above 0"):
        dataclasses.replace(recipes.get("cql"), behaviour=Conservative(alpha)).validate()


def test_what_does_not_fit_is_refused() -> None:
    cases = {
        "head expected": dataclasses.replace(recipes.get("bc"), head=Quantile()),
        "expected --num-envs 1": dataclasses.replace(recipes.get("cql"), num_envs=2),
        "margin counts for recorded steps": dataclasses.replace(recipes.get("dqn"), behaviour=Margin()),
        "margin:size is 0.0": dataclasses.replace(recipes.get("dqfd"), behaviour=Margin(size=0.0)),
        "no recorded actions": dataclasses.replace(recipes.get("pqn"), behaviour=Conservative()),
    }
    for sentence, recipe in cases.items():
        with pytest.raises(UsageError) as refused:
            recipe.validate()
        assert sentence.replace("--num-envs 1", "num_envs=1") in str(refused.value)
