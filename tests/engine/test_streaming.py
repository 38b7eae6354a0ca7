"""Learning from every step when it happens.

Protects against a trace that runs over an episode's end, a time limit taken for a terminal state, a step
that is learned from twice (a reset is none), rewards scaled by other statistics than those so far, and a
setting that has no meaning and is accepted in silence.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from probes import Probes, expected_q
from qhat import recipes
from qhat.axes import (
    Actions,
    Adam,
    Categorical,
    Double,
    Each,
    EpsilonGreedy,
    Expected,
    Growing,
    Hard,
    Hindsight,
    Munchausen,
    Noisy,
    ObGD,
    Periodic,
    Prioritised,
    Receding,
    Softmax,
    Sparse,
    Stream,
)
from qhat.axes.axis import parse, spell
from qhat.axes.dense import LAYERS, sparse
from qhat.axes.optimiser import OPTIMISERS
from qhat.axes.training import TRAININGS
from qhat.engine.calibration import split_trainable
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.engine.replay.reward_scale import RewardScale
from qhat.engine.streaming import streamed
from qhat.environments.base import Environment, Spec, Timestep
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

RECIPE = dataclasses.replace(recipes.get("stream_q"), hidden=(8,), gamma=0.9, normalise=False)


def filled(
    recipe: Recipe, steps: int, stack: int = 1, masked: bool = False
) -> tuple[Any, list[Any], list[dict]]:
    """Return a program, its state after each of `steps` rows, and the steps among these rows (or none)."""
    draw = np.random.default_rng(steps)
    actions = Actions((3,))
    program = Program.of(recipe, (2 * stack,), "float32", actions, masked, stack=stack)
    frames = draw.normal(size=(1, stack, 2)).astype(np.float32)

    def mask() -> np.ndarray:
        legal = draw.random((1, 1, 3)) < 0.6
        legal[..., 1] = True
        return legal

    legal = mask()
    seed = program.init(
        jax.random.key(1), jnp.asarray(frames.reshape(1, -1)), None, jnp.asarray(legal) if masked else None
    )
    store = jax.jit(replay.store)
    real, rings, rows = True, [], []
    for _ in range(steps):
        before = frames.reshape(1, -1).copy()
        action = draw.integers(0, 3, (1, 1)).astype(np.int32)
        action = action if legal[0, 0, action[0, 0]] or not masked else np.ones_like(action)
        frames = np.concatenate([frames[:, 1:], draw.normal(size=(1, 1, 2)).astype(np.float32)], axis=1)
        after, reward = frames.reshape(1, -1).copy(), draw.normal(size=1).astype(np.float32)
        terminated, truncated = real and draw.random() < 0.15, real and draw.random() < 0.15
        truncated = truncated and not terminated
        later = mask()
        flags = (np.array([flag]) for flag in (terminated, truncated, real))
        masks = tuple(map(jnp.asarray, (legal, later))) if masked else (None, None)
        step = replay.Step(*map(jnp.asarray, (before, action, reward, after, *flags)), *masks)
        seed = dataclasses.replace(seed, ring=store(seed.ring, step)[0])
        rings.append(seed.ring)
        row = {
            "s": before[0], "a": int(action[0, 0]), "r": float(reward[0]), "next": after[0],
            "terminated": terminated, "ended": terminated or truncated, "legal": legal[0],
            "legal_next": later[0],
        }  # fmt: skip
        rows.append(row if real else None)
        # As EnvPool: the row after an episode's end is a reset, and no transition.
        real, legal = not (terminated or truncated), later
        if not real:
            frames = draw.normal(size=(1, stack, 2)).astype(np.float32)
    return program, [seed, *rings], rows


class Naive:
    """Q(λ) by its definition, with the network of a program and traces as a list of gradients."""

    def __init__(self, program: Program, weights: Any, masked: bool):
        self.recipe: Any = program.recipe
        self.network, self.weights, self.masked = program.learner, weights, masked
        self.pairs: list[Any] = []
        self.returns: list[float] = []
        self.running = 0.0

    def q(self, weights: Any, row: dict, which: str) -> Any:
        q = self.network.q_values(weights, jnp.asarray(row[which]))[0]
        legal = row["legal" if which == "s" else "legal_next"][0]
        return jnp.where(jnp.asarray(legal), q, -jnp.inf) if self.masked else q

    def learn(self, row: dict) -> None:
        recipe = self.recipe
        self.running = recipe.gamma * self.running + row["r"]
        self.returns.append(self.running)
        sigma = np.std(self.returns, ddof=1) if len(self.returns) > 1 else 1.0
        reward = row["r"] / np.sqrt(sigma**2 + 1e-8) if recipe.training.scale_rewards else row["r"]
        q, later = self.q(self.weights, row, "s"), self.q(self.weights, row, "next")
        value = jnp.max(later)
        if recipe.policy.has_entropy:
            value = recipe.policy.tau * jax.nn.logsumexp(later / recipe.policy.tau)
        error = reward + (0.0 if row["terminated"] else recipe.gamma) * value - q[row["a"]]
        gradient = jax.grad(lambda weights: self.q(weights, row, "s")[row["a"]])(self.weights)
        gradient = {
            name: jax.tree.map(jnp.zeros_like, part) if name.endswith("_norm") else part
            for name, part in gradient.items()
        }
        self.pairs.append(gradient)
        decay = recipe.gamma * recipe.training.trace_decay
        terms = [jax.tree.map(lambda g, k=k: decay**k * g, g) for k, g in enumerate(reversed(self.pairs))]
        trace = jax.tree.map(lambda *gs: sum(gs), *terms)
        size = sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(trace))
        rate = recipe.learning_rate
        bound = rate * recipe.optimiser.kappa * max(1.0, abs(float(error))) * size
        step = min(rate, rate / bound) * error
        self.weights = jax.tree.map(lambda w, z: w + step * z, self.weights, trace)
        if row["ended"] or (recipe.n_step_cut is not None and q[row["a"]] < jnp.max(q)):
            self.pairs = []
        if row["ended"]:
            self.running = 0.0


@pytest.mark.parametrize(
    ("changes", "stack", "masked"),
    [
        ({}, 1, False),
        ({"n_step_cut": None}, 1, False),
        ({"training": Stream(trace_decay=0.5, scale_rewards=False), "n_step_cut": None}, 1, True),
        ({"policy": Softmax(tau=0.3), "layer_norm": False}, 1, False),
        ({"n_step_cut": None}, 3, False),
    ],
    ids=["watkins", "uncut", "masked", "soft", "stacks"],
)
def test_weights_are_those_of_the_definition(changes: Any, stack: int, masked: bool) -> None:
    program, (seed, *rings), rows = filled(dataclasses.replace(RECIPE, **changes), 60, stack, masked)
    naive = Naive(program, split_trainable(seed.learner.online)[0], masked)
    learn = jax.jit(lambda learner, ring: streamed(program.learner, learner, ring, jnp.int32(0)))
    learner = seed.learner
    for ring, row in zip(rings, rows, strict=True):
        learner, metrics, due = learn(learner, ring)
        assert bool(due) == (row is not None) == bool(jnp.isfinite(metrics.loss))
        if row is not None:
            naive.learn(row)
    trained, _ = split_trainable(learner.online)
    for one, other in zip(jax.tree.leaves(trained), jax.tree.leaves(naive.weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)
    assert any(row is None for row in rows)


def test_a_step_that_does_not_follow_the_last_one_starts_a_trace() -> None:
    """As of an `Agent` that remembers more often than it learns."""
    recipe = dataclasses.replace(RECIPE, n_step_cut=None)
    program, (seed, *rings), rows = filled(recipe, 60)
    learn = jax.jit(lambda learner, ring: streamed(program.learner, learner, ring, jnp.int32(0))[0])
    at = next(i for i in range(2, 60) if all(row and not row["ended"] for row in rows[i - 2 : i + 1]))
    fresh = learn(seed.learner, rings[at])
    skipped = learn(learn(seed.learner, rings[at - 2]), rings[at])
    follows = learn(learn(seed.learner, rings[at - 1]), rings[at])
    sizes = [
        sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(each.optimiser["trace"]))
        for each in (fresh, skipped, follows)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)
    assert sizes[2] > 1.3 * sizes[0]


def test_a_cut_ends_a_trace_and_is_no_step() -> None:
    recipe = dataclasses.replace(RECIPE, n_step_cut=None)
    program, (seed, *rings), rows = filled(recipe, 60)
    at = next(i for i in range(2, 60) if all(row and not row["ended"] for row in rows[i - 2 : i + 1]))
    learner, _, _ = streamed(program.learner, seed.learner, rings[at - 1], jnp.int32(0))
    ring = replay.cut(rings[at - 1])
    assert not bool(streamed(program.learner, learner, ring, jnp.int32(0))[2])
    assert ring.scale is not None
    assert float(ring.scale.trace) == 0.0


def test_the_spread_of_returns_is_that_of_the_definition() -> None:
    draw = np.random.default_rng(0)
    scale, running, returns = RewardScale.empty(0.9), 0.0, []
    see = jax.jit(RewardScale.see)
    for _ in range(300):
        reward, ended, real = draw.normal() + 2, draw.random() < 0.1, draw.random() < 0.9
        scale = see(scale, jnp.float32(reward), jnp.bool_(ended), jnp.bool_(real))
        if real:
            running = 0.9 * running + reward
            returns.append(running)
            running = 0.0 if ended else running
    assert int(scale.count) == len(returns)
    assert float(scale.variance) == pytest.approx(np.var(returns, ddof=1), rel=1e-4)
    rows = (jnp.full(5, 2.0), jnp.array([1, 0, 1, 2, 1], jnp.int32), jnp.array([True] * 4 + [False]))
    block, single = scale.see_all(*rows), scale
    for ended in (False, False, True):
        single = see(single, jnp.float32(2.0), jnp.bool_(ended), jnp.bool_(True))
    np.testing.assert_allclose(jax.tree.leaves(block), jax.tree.leaves(single), rtol=1e-6)


def test_one_step_never_overshoots_a_linear_value() -> None:
    """The bound of the paper: what is corrected changes by no more than 1/κ of its error."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        features, error = draw.uniform(-1, 1, 30), float(draw.normal() * 10**seed)
        size = ObGD().step_size(jnp.float32(1), jnp.float32(error), jnp.float32(np.abs(features).sum()))
        change = float(size) * error * (features**2).sum()
        assert abs(change) <= 0.5 * max(1.0, abs(error)) * 1.0001
        assert float(size) <= 1.0


@pytest.mark.parametrize(("inputs", "stays"), [(4, 1), (10, 1), (50, 5), (1024, 102)])
def test_most_weights_of_every_output_start_at_0(inputs: int, stays: int) -> None:
    drawn = sparse(jax.random.key(0), 16, inputs, 0.9)
    weight = np.asarray(drawn["weight"])
    np.testing.assert_array_equal((weight != 0).sum(axis=1), stays)
    assert not drawn["bias"].any()
    assert np.abs(weight).max() <= inputs**-0.5
    assert len({tuple(np.flatnonzero(row)) for row in weight}) > 1


@pytest.mark.usefixtures("optimised")
def test_it_solves_the_probes() -> None:
    """The two kinds of one step, and those of time limits: values are those of the units of reward."""
    environment = OneOf(Probes())
    recipe = dataclasses.replace(
        RECIPE, training=Stream(scale_rewards=False), explore=EpsilonGreedy(1.0, 0.5, 1_000),
        hidden=(32, 32),
    )  # fmt: skip
    spec = environment.spec
    loop = Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)
    state, _ = loop.compile(40_000)(loop.init(jax.random.split(jax.random.key(0), 3)), 40_000)
    observations, expected = expected_q(0.9)
    q = jax.vmap(jax.vmap(loop.program.learner.q_values, (None, 0)), (0, None))(
        state.seeds.learner.online, observations
    )[:, :, 0]
    np.testing.assert_allclose(jnp.median(q, axis=0), expected, rtol=0.05, atol=0.05)


class OneOf(Environment):
    """One stream of the probes: their episodes in turn."""

    def __init__(self, probes: Probes):
        self._probes, self.num_envs = probes, 1
        self.spec: Spec = probes.spec

    def reset(self, key: Any) -> tuple[Any, Any]:
        state, observation = self._probes.reset(key)
        return (state, jnp.int32(0)), observation[:1]

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Timestep]:
        probes, at = state
        count = self._probes.num_envs
        later, timestep = self._probes.step(probes, jnp.repeat(action, count, axis=0), key)
        here = jnp.arange(count) == at
        probes = jax.tree.map(lambda new, old: jnp.where(here, new, old), later, probes)
        of_one = jax.tree.map(lambda leaf: leaf[at][None], timestep)
        at = jnp.where(of_one.finished[0], (at + 1) % count, at)
        observation = self._probes._observe(*probes)[at][None]
        return (probes, at), of_one._replace(observation=observation)


@pytest.mark.parametrize("seeds", [1, 2])
def test_how_a_run_is_split_does_not_change_its_bits(seeds: int) -> None:
    environment = OneOf(Probes())
    spec = environment.spec
    loop = Loop(Program.of(RECIPE, spec.shape, spec.dtype, spec.actions), environment)
    advance, keys = loop.compile(40), jax.random.split(jax.random.key(0), seeds)
    whole, _ = advance(loop.init(keys), 40)
    parts = loop.init(keys)
    for count in (7, 20, 13):
        parts, _ = advance(parts, count)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", ["", "gymnasium:"])
def test_a_resumed_run_has_the_bits_of_the_whole_one(tmp_path: Path, backend: str) -> None:
    settings: Any = {
        "recipe": "stream_q", "eval_every": 500, "eval_episodes": 2, "explore": "epsilon:steps=400",
        "seeds": 2,
    }  # fmt: skip
    env = f"{backend}CartPole-v1"
    whole = qhat.train(env, steps=1_000, run_dir=tmp_path / "whole", **settings)
    qhat.train(env, steps=500, run_dir=tmp_path / "parts", **settings)
    parts = qhat.train(env, steps=1_000, run_dir=tmp_path / "parts", resume=True, **settings)
    leaves = list(zip(*(jax.tree.leaves(run.weights("last")) for run in (whole, parts)), strict=True))
    if backend:
        # The environment of a host loop begins a new episode.
        assert all(np.isfinite(one).all() and np.isfinite(other).all() for one, other in leaves)
        return
    for one, other in leaves:
        np.testing.assert_array_equal(one, other)


def test_nothing_is_stored_but_the_last_steps() -> None:
    program, (seed, *_), _ = filled(RECIPE, 2)
    assert seed.learner.target is None
    assert seed.ring.rows == 7
    counts = [int(program.updates_due(seed_clock(at))) for at in range(3)]
    assert counts == [1, 1, 1]
    trained, _ = split_trainable(seed.learner.online)
    assert jax.tree.structure(seed.learner.optimiser["trace"]) == jax.tree.structure(trained)


def seed_clock(iterations: int) -> Any:
    from qhat.engine.state import Clock

    return Clock(jnp.int32(iterations), jnp.int32(0))


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [*((kind, TRAININGS) for kind in TRAININGS), (Sparse, LAYERS), (ObGD, OPTIMISERS)],
)
def test_values_are_spelled(kind: Any, kinds: Any) -> None:
    assert parse(spell(kind()), kinds) == kind()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": Stream(trace_decay=1.5)}, r"stream:trace_decay is 1.5; expected λ within \[0, 1\]"),
        ({"optimiser": ObGD(kappa=0.0)}, r"obgd:kappa is 0.0; expected more than 0"),
        ({"dense": Sparse(zeros=1.0)}, r"sparse:zeros is 1.0; expected a share within"),
        ({"batch_size": 32}, r"one step at a time: there is no batch; expected .*1, and it is 32"),
        ({"replay_ratio": 0.25}, r"learns once from every step; expected .*1, and it is 0.25"),
        ({"num_envs": 8}, r"one step at a time, of one environment; .* it is 8\. The recipe stream_q"),
        ({"optimiser": Adam()}, r"takes steps along traces; expected .*obgd.*, and it is adam"),
        ({"sampler": Prioritised()}, r"draws nothing"),
        ({"target": Hard()}, r"has no target network"),
        ({"bonus": Munchausen()}, r"adds nothing to the reward|no target network to take a bonus from"),
        ({"relabel": Hindsight()}, r"keeps no episodes"),
        ({"reset": Periodic()}, r"has no replay to learn from after a reset"),
        ({"horizon": Receding(n_step=4, gamma=0.5)}, r"sums no n rewards"),
        ({"n_step": 3}, r"traces in place of n-step returns"),
        ({"replay_capacity": 50_000}, r"has no replay; expected .*100000"),
        ({"head": Categorical()}, r"one value of each action, and no loss of errors; expected .*expected"),
        ({"head": Expected(delta=2.0)}, r"no loss of errors; expected .*expected.*it is expected:delta=2"),
        ({"joints": Each()}, r"one error of all joints; expected .*together"),
        ({"resolution": Growing()}, r"traces of commands in use from the start"),
        ({"dense": Noisy()}, r"traces of weights without noise"),
        ({"random_shift": 4}, r"one step at a time, as it is"),
        ({"max_gradient_norm": 10.0}, r"bounds steps by their trace; expected max_gradient_norm=None,"),
        ({"policy": Double()}, r"needs two networks"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(RECIPE, **changes).validate()


def test_bounded_steps_without_a_trace_are_refused() -> None:
    with pytest.raises(UsageError, match=r"along eligibility traces, and .*replay.* has none"):
        dataclasses.replace(Recipe(), optimiser=ObGD()).validate()


@pytest.mark.parametrize("more", [{"demos": ("some.npz",)}, {"actors": 2}])
def test_what_fills_a_replay_is_refused(more: Any) -> None:
    with pytest.raises(UsageError, match=r"has no replay that|one step at a time"):
        qhat.TrainConfig.of("CartPole-v1", "stream_q", **more).validate()
