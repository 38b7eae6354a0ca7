"""One step of numbers too large to square does not end a stream's learning.

Protects against statistics that are not finite from then on, a trace that runs over a step that was left
out, and a guard that does not count it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat import recipes
from qhat.axes import Actions
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.replay.reward_scale import RewardScale
from qhat.engine.state import Clock
from qhat.engine.streaming import learn_step
from qhat.system.errors import QhatError

RECIPE = dataclasses.replace(recipes.get("stream_q"), hidden=(8,), learning_starts=0)


def finite(tree: Any) -> bool:
    leaves = (leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


def test_a_return_that_cannot_be_squared_ends_the_sum_alone() -> None:
    see = jax.jit(RewardScale.see)
    scale, no, yes = RewardScale.empty(0.9), jnp.bool_(False), jnp.bool_(True)
    for reward in (1.0, 2.0, 4.0):
        scale = see(scale, jnp.float32(reward), no, yes)
    after = see(scale, jnp.float32(1e20), no, yes)
    assert int(after.refused) == 1
    assert float(after.trace) == 0.0
    for name in ("count", "mean", "variance"):
        assert float(getattr(after, name)) == float(getattr(scale, name))
    assert finite(see(after, jnp.float32(1.0), yes, yes))
    unreal = see(scale, jnp.float32(1e20), no, no)
    np.testing.assert_array_equal(jax.tree.leaves(unreal), jax.tree.leaves(scale))


@pytest.mark.parametrize("field", ["reward", "observation", "successor"])
def test_a_step_that_is_left_out_changes_no_weight_and_is_counted(field: str) -> None:
    program = Program.of(RECIPE, (2,), "float32", Actions((3,)), False, stops=False)
    seed = program.init(jax.random.key(0), jnp.zeros((1, 2)), None)
    draw, now = np.random.default_rng(0), np.zeros((1, 2), np.float32)
    store, learn = (
        jax.jit(replay.store),
        jax.jit(lambda clock, seed: learn_step(program, clock, seed, seed.key)),
    )
    clock = Clock(jnp.int32(0), jnp.int32(0))
    for at in range(30):
        after = draw.normal(size=(1, 2)).astype(np.float32)
        row: dict[str, Any] = {
            "observation": now, "action": np.array([[at % 3]], np.int32), "reward": np.ones(1, np.float32),
            "successor": after, "terminated": np.zeros(1, bool), "truncated": np.zeros(1, bool),
            "real": np.ones(1, bool),
        }  # fmt: skip
        if at == 15:
            row[field] = np.full_like(row[field], 1e20)
        step = replay.Step(**{name: jnp.asarray(part) for name, part in row.items()})
        seed = dataclasses.replace(seed, ring=store(seed.ring, step)[0])
        weights = jax.tree.leaves(seed.learner.online["q"])
        seed, metrics = learn(clock, seed)
        same = all(
            (old == new).all()
            for old, new in zip(weights, jax.tree.leaves(seed.learner.online["q"]), strict=True)
        )
        trace = sum(float(jnp.abs(part).sum()) for part in jax.tree.leaves(seed.learner.optimiser["trace"]))
        assert same == (at == 15)
        if at == 15:
            assert trace == 0.0
        assert bool(metrics.finite) == (at != 15)
        now = after
    assert int(seed.guard.skipped) == 1
    assert finite((seed.learner, seed.ring))
    assert seed.ring.scale is not None
    assert (int(seed.ring.scale.count), int(seed.ring.scale.refused)) == (29, 1)


def test_an_agent_learns_after_a_step_that_is_left_out() -> None:
    agent = qhat.Agent(3, 2, seed=0, recipe="stream_q", hidden=(8,), steps=500)
    draw, now, refused = np.random.default_rng(0), np.zeros(3, np.float32), []
    for at in range(40):
        after = draw.normal(size=3).astype(np.float32)
        agent.remember(now, at % 2, 1e20 if at == 15 else 1.0, after, at % 10 == 9, False)
        try:
            agent.replay()
        except QhatError as error:
            refused.append(str(error))
        now = after
    assert len(refused) == 1
    assert "update 16 has loss nan" in refused[0]
    assert finite(agent._learning.learner)
    agent.remember(now, 0, 1.0, now, False, False)
    numbers = agent.replay()
    assert numbers is not None
    assert np.isfinite(numbers["loss"])
