"""n and γ that change while fresh weights learn.

Protects against a schedule that begins or ends elsewhere, that does not begin anew after a reset, or whose
windows are not those of the n that it says.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.axes import Actions, Fixed, NoReset, Periodic, Receding
from qhat.axes.axis import parse, spell
from qhat.axes.horizon import HORIZONS
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.state import SeedState
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

KEY = jax.random.key(5)
RECIPE = Recipe(
    hidden=(8,), n_step=2, gamma=0.9, batch_size=16, replay_capacity=64, learning_starts=8, normalise=False
)


def test_n_and_gamma_begin_and_end_where_they_say() -> None:
    horizon = Receding(n_step=10, gamma=0.97, updates=100)
    n, gamma = jax.vmap(lambda at: horizon.at(at, 3, 0.997))(jnp.array([0, 50, 100, 10_000]))
    assert n is not None
    assert n.tolist() == [10, 5, 3, 3], "10·√0.3 is 5.5, and the half of an even number rounds to it"
    np.testing.assert_allclose(gamma, [0.97, 1 - (0.03 * 0.003) ** 0.5, 0.997, 0.997], rtol=1e-6)
    assert horizon.longest(3) == 10
    assert Fixed().at(jnp.int32(7), 3, 0.997) == (None, 0.997)


def test_it_counts_from_the_last_reset() -> None:
    updates = jnp.arange(45)
    since = jax.vmap(Periodic(every=10, last=29).since)(updates)
    assert since[:30].tolist() == [*range(10)] * 3
    assert since[30:].tolist() == list(range(10, 25)), "29 is the last update with a reset: none at 30"
    assert jax.vmap(NoReset().since)(updates).tolist() == updates.tolist()


@pytest.mark.parametrize("kind", HORIZONS)
def test_values_are_spelled(kind: Any) -> None:
    assert parse(spell(kind()), HORIZONS) == kind()


def filled(program: Program) -> SeedState:
    draw = np.random.default_rng(3)
    rows = draw.normal(size=(61, 1, 3)).astype(np.float32)
    seed = program.init(KEY, jnp.asarray(rows[0]), None)
    ring, state = seed.ring, seed.sampler
    store = jax.jit(replay.store)
    for turn in range(60):
        ends = jnp.array([turn % 13 == 12])
        step = replay.Step(
            observation=jnp.asarray(rows[turn]), action=jnp.asarray(draw.integers(0, 2, (1, 1)), jnp.int32),
            reward=jnp.asarray(draw.normal(size=1), jnp.float32), successor=jnp.asarray(rows[turn + 1]),
            terminated=ends, truncated=~ends & False, real=jnp.array([True]),
        )  # fmt: skip
        ring, slots, starts = store(ring, step)
        state = program.recipe.sampler.store(state, slots, starts)
    return dataclasses.replace(seed, ring=ring, sampler=state)


def updated(number: int, **changes: Any) -> list[np.ndarray]:
    recipe = dataclasses.replace(RECIPE, **changes)
    program = Program.of(recipe.validate(), (3,), "float32", Actions((2,)))
    seed = filled(program)
    learner, _, _, _ = jax.jit(program.update)(
        seed.learner, seed.ring, seed.sampler, KEY, jnp.int32(100), jnp.int32(number)
    )
    return jax.tree.leaves(learner.online)


def test_an_update_has_the_n_and_gamma_of_its_number() -> None:
    receding = {"horizon": Receding(n_step=5, gamma=0.5, updates=3)}
    resets = {"reset": Periodic(every=10, last=100)}
    first, last = updated(1, n_step=5, gamma=0.5), updated(1)
    for number, changes, expected in (
        (1, receding, first),
        (4, receding, last),
        (11, receding, last),
        (11, receding | resets, first),
        (14, receding | resets, last),
    ):
        got = updated(number, **changes)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert not all(map(np.array_equal, first, last))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_limited_window_is_that_of_a_smaller_n(n: int) -> None:
    ring = filled(Program.of(RECIPE, (3,), "float32", Actions((2,)))).ring
    slots = jnp.arange(ring.size)
    view = jax.jit(replay.view, static_argnums=2)
    limited, plain = view(ring, slots, 4, 0.9, jnp.int32(n)), view(ring, slots, n, 0.9)
    for name in ("reward", "discount", "length", "complete"):
        np.testing.assert_allclose(getattr(limited, name), getattr(plain, name), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"horizon": Receding(n_step=2), "n_step": 3}, "expected n to fall"),
        ({"horizon": Receding(gamma=0.99), "gamma": 0.9}, "γ to grow"),
        ({"horizon": Receding(), "gamma": 1.0}, "below 1"),
        ({"horizon": Receding(gamma=1.0)}, "receding:gamma is 1"),
        ({"horizon": Receding(n_step=0)}, "receding:n_step is 0"),
        ({"horizon": Receding(updates=0)}, "receding:updates is 0"),
        ({"horizon": Receding(n_step=90, gamma=0.1), "replay_capacity": 64}, "horizon's n_step . 2 = 92"),
    ],
)
def test_a_horizon_without_a_meaning_is_refused(changes: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(RECIPE, **changes).validate()


def test_a_horizon_that_never_ends_is_refused() -> None:
    settings: Any = {"steps": 1_000, "replay_ratio": 1.0, "learning_starts": 0, "batch_size": 32}

    def config(**more: Any) -> qhat.TrainConfig:
        return qhat.TrainConfig.of("CartPole-v1", "dqn", **settings, **more)

    with pytest.raises(UsageError, match=r"after 970 updates, and the run has 969; .*updates=242"):
        config(horizon="receding:updates=970").validate()
    config(horizon="receding:updates=969").validate()
    with pytest.raises(UsageError, match=r"weights are reset every 200 updates; .*updates=50"):
        config(horizon="receding:updates=201", reset="periodic:every=200").validate()
    config(horizon="receding:updates=200", reset="periodic:every=200").validate()
