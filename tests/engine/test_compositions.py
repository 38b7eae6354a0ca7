"""Any combination of the axes makes a learner that learns.

Every pair of values meets in a real update here; with QHAT_FULL=1 (`make test-full`) every three,
and a thousand of the product's shapes. Protects against parts that only work in the
combinations for which they were written.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compositions import AXES, Cell, cell, covering, drawn, samples
from full import FULL
from qhat.axes import Policy
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay

ROWS = covering(3 if FULL else 2)
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
STEPS = 48
UPDATES = 120


def filled(program: Program, key: jax.Array) -> Any:
    """A seed's first state, and its ring and sampler after storing `STEPS` random steps."""
    draw = np.random.default_rng(0)
    F, C = program.actions.factors, program.actions.width
    exists = np.arange(C) < np.array(program.actions.choices)[:, None]

    def legal() -> np.ndarray | None:
        if not program.masked:
            return None
        mask = exists & (draw.random((1, F, C)) < 0.7)
        mask[..., 0] = True
        return mask

    def taken(allowed: np.ndarray | None) -> np.ndarray:
        """One of the legal actions, as an agent and a recording take."""
        can = np.broadcast_to(exists, (1, F, C)) if allowed is None else allowed
        return np.where(can, draw.random((1, F, C)), -1.0).argmax(axis=2).astype(np.int32)

    def observe() -> np.ndarray:
        return draw.normal(size=(1, *program.shape)).astype(np.float32)

    first_legal, first = legal(), observe()
    observation, allowed = observe(), first_legal
    rows = []
    for turn in range(STEPS):
        after, next_legal = observe(), legal()
        rows.append({
            "observation": observation,
            "action": taken(allowed),
            "reward": draw.normal(size=1).astype(np.float32),
            "successor": after,
            "terminated": np.array([turn % 10 == 9]),
            "truncated": np.array([turn % 14 == 13 and turn % 10 != 9]),
            "real": np.array([True]),
            "legal": allowed,
            "legal_next": next_legal,
        })  # fmt: skip
        observation, allowed = after, next_legal

    def store(state: tuple[Any, Any], row: dict[str, Any]) -> tuple[tuple[Any, Any], None]:
        ring, slots, starts = replay.store(state[0], replay.Step(**row))
        return (ring, program.recipe.sampler.store(state[1], slots, starts)), None

    @quick_jit
    def fill(key: jax.Array, first: Any, first_legal: Any, rows: Any) -> Any:
        seed = program.init(key, first, None, first_legal)
        return seed, *jax.lax.scan(store, (seed.ring, seed.sampler), rows)[0]

    return fill(key, first, first_legal, jax.tree.map(lambda *row: np.stack(row), *rows))


def label(values: dict[str, Any]) -> str:
    return "-".join(str(AXES[name].index(value)) for name, value in values.items())


@pytest.mark.parametrize("values", ROWS, ids=label)
def test_a_composition_learns_a_fixed_batch(values: dict[str, Any]):
    recipe, shape, actions, masked = cell(values)
    program = Program.of(recipe.validate(), shape, "float32", actions, masked)
    learner = program.learner
    seed, ring, sampler = filled(program, jax.random.key(0))

    def fit(state: Any, key: jax.Array) -> tuple[Any, ...]:
        batch, _, weights = replay.sample(
            ring, recipe.sampler, sampler, key, jnp.int32(100), batch=recipe.batch_size,
            n=recipe.n_step, gamma=recipe.gamma,
        )  # fmt: skip

        def turn(state: Any, number: jax.Array) -> tuple[Any, tuple]:
            now = jax.random.fold_in(key, number)
            new, done = learner.fit(state, batch, weights, now, number, ring.outlook, None, ring.moments)
            # The target stays, so that there is one thing to fit.
            kept = new.target if number.size == 0 else state.target
            first = jnp.where(number == 1, 1.0, 0.0)
            kept = jax.tree.map(lambda a, b: first * a + (1 - first) * b, new.target, kept)
            return type(new)(new.online, kept, new.optimiser), (done.metrics, done.errors)

        return jax.lax.scan(turn, state, jnp.arange(1, UPDATES + 1))

    state, (metrics, errors) = quick_jit(fit)(seed.learner, jax.random.key(1))
    for leaf in jax.tree.leaves((state, metrics, errors)):
        assert np.isfinite(np.asarray(leaf)).all()
    assert errors.shape == (UPDATES, recipe.batch_size)
    loss = np.asarray(metrics.loss)
    assert loss[-20:].mean() < loss[1:6].mean()
    action, _ = quick_jit(learner.greedy)(state.online, np.asarray(ring.observation)[:6], jax.random.key(2))
    assert action.shape == (6, actions.factors)
    assert (np.asarray(action) < np.asarray(actions.choices)).all()


def shapes(at: Cell) -> None:
    recipe, shape, actions, masked = at
    program = Program.of(recipe.validate(), shape, "float32", actions, masked)

    def one(key: jax.Array) -> Any:
        F, C = actions.factors, actions.width
        legal = jnp.ones((1, F, C), bool) if masked else None
        seed = program.init(key, jnp.zeros((1, *shape)), None, legal)
        return program.update(
            seed.learner, seed.ring, seed.sampler, key, jnp.int32(0), jnp.int32(1)
        ), seed.learner  # fmt: skip

    (after, _, _, metrics), before = jax.eval_shape(one, jax.random.key(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )
    assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))


PART = drawn(1_000 if FULL else 24)


def test_the_product_keeps_its_shapes():
    """A thousand cells with QHAT_FULL=1, two dozen otherwise: all of them would take many hours."""
    for values in PART:
        try:
            shapes(cell(values))
        except Exception as error:
            raise AssertionError(f"{label(values)}: {values}") from error


def test_a_part_without_sample_settings_is_missed_with_a_sentence():
    class New(Policy):
        name = "new"

    with pytest.raises(AssertionError, match=r"policy 'new' has no sample settings; expected a row"):
        samples((New,))
