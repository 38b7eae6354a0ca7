"""Learning from the last steps of every environment, without replay.

Protects against a λ-return over an episode's end, a time limit taken for a terminal state, a step that is
learned from twice or not at all in a pass, and a setting that has no meaning and is accepted in silence.
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
from probes import KINDS, Probes
from qhat.axes import (
    Actions,
    Categorical,
    Double,
    Expected,
    Hard,
    Hindsight,
    HLGauss,
    Implicit,
    Munchausen,
    NoTarget,
    Periodic,
    Prioritised,
    Quantile,
    Receding,
    Regularised,
    Rollout,
    Softmax,
)  # fmt: skip
from qhat.axes.axis import parse, spell
from qhat.axes.greedy import nearly_greedy
from qhat.axes.training import TRAININGS
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.engine.replay.returns import lambda_returns, latest
from qhat.engine.rollout import batch_of, known_returns
from qhat.engine.state import Clock
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

T, E = 6, 3
RECIPE = Recipe(
    head=Expected(delta=None), training=Rollout(steps=T, trace_decay=0.7), target=NoTarget(), hidden=(8,),
    layer_norm=True, gamma=0.9, num_envs=E, batch_size=9, replay_ratio=2 / 9, learning_starts=0,
    normalise=False,
)  # fmt: skip


def clock_at(iterations: int) -> Clock:
    return Clock(jnp.int32(iterations), jnp.int32(0))


def filled(
    recipe: Recipe, steps: int, stack: int = 1, masked: bool = False
) -> tuple[Program, Any, list[list[dict[str, Any]]]]:
    """Return a program, its first state with `steps` random steps stored, and these per environment."""
    draw = np.random.default_rng(steps)
    program = Program.of(recipe, (2 * stack,), "float32", Actions((3,)), masked, stack)
    frames = draw.normal(size=(E, stack, 2)).astype(np.float32)

    def shown() -> np.ndarray:
        return frames.reshape(E, -1).copy()

    def allowed() -> jax.Array:
        drawn = draw.random((E, 1, 3)) < 0.4 if masked else np.ones((E, 1, 3), bool)
        drawn[..., 1] |= ~drawn.any(-1)
        return jnp.asarray(drawn)

    legal = allowed()
    first = (jax.random.key(1), jnp.asarray(shown()), None)
    seed = program.init(*first, legal if masked else None)
    store, ring, rows = jax.jit(replay.store), seed.ring, [[] for _ in range(E)]
    real = np.ones(E, bool)
    for _ in range(steps):
        before, action = shown(), draw.integers(0, 3, (E, 1)).astype(np.int32)
        frames = np.concatenate([frames[:, 1:], draw.normal(size=(E, 1, 2)).astype(np.float32)], axis=1)
        after, reward = shown(), draw.normal(size=E).astype(np.float32)
        terminated = real & (draw.random(E) < 0.2)
        truncated = real & ~terminated & (draw.random(E) < 0.2)
        legal_next = allowed()
        parts = (before, action, reward, after, terminated, truncated, real)
        step = replay.Step(*map(jnp.asarray, parts))
        if masked:
            step = dataclasses.replace(step, legal=legal, legal_next=legal_next)
        ring, *_ = store(ring, step)
        for env in np.flatnonzero(real):
            rows[env].append({
                "observation": before[env], "action": action[env], "reward": reward[env],
                "successor": after[env], "terminated": terminated[env], "truncated": truncated[env],
                "legal_next": np.asarray(legal_next[env, 0]),
            })  # fmt: skip
        ended = terminated | truncated
        # As EnvPool: the step after an episode's end is a reset, and no transition.
        real = ~ended
        fresh = draw.normal(size=(E, stack, 2)).astype(np.float32)
        frames = np.where(ended[:, None, None], fresh, frames)
        legal = jnp.where(ended[:, None, None], allowed(), legal_next)
    return program, dataclasses.replace(seed, ring=ring), rows


def expected(program: Program, parameters: Any, rows: list[dict[str, Any]]) -> list[float]:
    """The λ-returns of one environment's last steps, the newest first, by their definition."""
    recipe: Any = program.recipe
    cut, decay, later, last = recipe.n_step_cut, recipe.training.trace_decay, 0.0, None
    returns = []
    for row in reversed(rows[-T:]):
        q = np.asarray(program.learner.q_values(parameters, jnp.asarray(row["successor"])))[0]
        q = np.where(row["legal_next"], q, -np.inf)
        value = q.max()
        if recipe.policy.has_entropy:
            tau = recipe.policy.tau
            value = tau * np.log(np.exp((q - q.max()) / tau).sum()) + q.max()
        goes_on = last is not None and not row["terminated"] and not row["truncated"]
        if goes_on and cut is not None:
            assert last is not None
            now = program.learner.q_values(parameters, jnp.asarray(last["observation"]))
            goes_on = bool(nearly_greedy(now[None], jnp.asarray(last["action"])[None], cut)[0])
        trace = decay if goes_on else 0.0
        later = row["reward"] + (not row["terminated"]) * recipe.gamma * (
            (1 - trace) * value + trace * later
        )
        returns.append(float(later))
        last = row
    return returns


@pytest.mark.parametrize("steps", [1, 4, 40])
@pytest.mark.parametrize(
    ("changes", "stack", "masked"),
    [
        ({}, 1, False), ({"n_step_cut": 0.0}, 1, False), ({"policy": Softmax(tau=0.3)}, 1, False),
        ({}, 3, False), ({}, 1, True), ({"policy": Softmax(tau=0.3)}, 1, True),
    ],
    ids=["plain", "cut", "soft", "stacks", "masks", "soft_masks"],
)  # fmt: skip
def test_returns_are_those_of_the_definition(changes: Any, stack: int, masked: bool, steps: int) -> None:
    program, seed, rows = filled(dataclasses.replace(RECIPE, **changes), steps, stack, masked)
    got = jax.jit(lambda s: known_returns(program.learner, s.learner, s.ring, jax.random.key(0)))(seed)
    slots, returns, weights = (np.asarray(part).reshape(T, E) for part in got)
    for env in range(E):
        wanted = expected(program, seed.learner.online, rows[env])
        assert weights[:, env].tolist() == [1.0] * len(wanted) + [0.0] * (T - len(wanted))
        np.testing.assert_allclose(returns[: len(wanted), env], wanted, rtol=2e-5, atol=2e-5)
        batch = batch_of(seed.ring, jnp.asarray(slots[: len(wanted), env]), jnp.zeros(len(wanted)))
        for index, row in enumerate(reversed(rows[env][-T:])):
            np.testing.assert_array_equal(batch.observation[index], row["observation"])
            assert batch.action[index] == row["action"]


def test_lambda_0_is_one_step_and_lambda_1_is_all_of_them() -> None:
    reward, value = jnp.array([[3.0], [2.0], [1.0]]), jnp.array([[10.0], [20.0], [30.0]])
    discount = jnp.full((3, 1), 0.5)
    one = lambda_returns(reward, discount, value, jnp.zeros((3, 1)))
    assert one.ravel().tolist() == [8.0, 12.0, 16.0]
    whole = lambda_returns(reward, discount, value, jnp.array([[0.0], [1.0], [1.0]]))
    assert whole.ravel().tolist() == [8.0, 2 + 0.5 * 8, 1 + 0.5 * 6]


def test_an_episode_per_step_leaves_no_step_out() -> None:
    """The ring of a rollout is as small as it may be: each such step takes most rows."""
    for stack in (1, 3):
        _, seed, _ = filled(RECIPE, 2, stack)
        ring, store = seed.ring, jax.jit(replay.store)
        frames = jnp.ones((E, 2 * stack))
        for index in range(50):
            yes, action = jnp.ones(E, bool), jnp.zeros((E, 1), jnp.int32)
            reward = jnp.full(E, float(index))
            ring, *_ = store(ring, replay.Step(frames * index, action, reward, frames, yes, ~yes, yes))
        slots, _ = latest(ring, T)
        assert ring.reward[slots].tolist() == [[float(index)] * E for index in range(49, 49 - T, -1)]
        step = replay.look_up(ring, slots[-1], replay.view(ring, slots[-1], 1, 0.9))
        np.testing.assert_array_equal(step.observation, (50 - T) * frames)


def test_a_pass_has_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a pass is a permutation, another one for each pass; here the updates write it down."""
    program, seed, _ = filled(RECIPE, 40)
    drawn: list[Any] = []
    fit = Learner.fit

    def noting(self: Learner, state: Any, batch: replay.Transition, *rest: Any) -> Any:
        jax.debug.callback(lambda returns: drawn.append(np.asarray(returns)), batch.reward, ordered=True)
        return fit(self, state, batch, *rest)

    monkeypatch.setattr(Learner, "fit", noting)
    jax.block_until_ready(program.learn(clock_at(T - 1), seed, jax.random.key(3), jnp.int32(0)))
    jax.effects_barrier()
    assert len(drawn) == program.recipe.updates_per_iteration == 4
    passes = np.concatenate(drawn).reshape(2, T * E)
    _, returns, _ = known_returns(program.learner, seed.learner, seed.ring, jax.random.key(3))
    for order in passes:
        np.testing.assert_allclose(np.sort(order), np.sort(np.asarray(returns)), rtol=1e-6)
    assert (passes[0] != passes[1]).any()


def test_there_is_no_replay_and_no_target_network() -> None:
    program, seed, _ = filled(RECIPE, 2)
    assert seed.learner.target is None
    assert seed.ring.rows == 2 * T + 3
    counts = [int(program.updates_due(clock_at(at))) for at in range(3 * T)]
    assert counts == ([0] * (T - 1) + [4]) * 3


@pytest.mark.parametrize(("seeds", "head"), [(1, Expected()), (2, Expected()), (2, Categorical(atoms=11))])
def test_how_a_run_is_split_does_not_change_its_bits(seeds: int, head: Any) -> None:
    recipe = dataclasses.replace(RECIPE, head=head, num_envs=KINDS, batch_size=10, replay_ratio=0.2)
    environment = Probes()
    spec = environment.spec
    loop = Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)
    advance, keys = loop.compile(40), jax.random.split(jax.random.key(0), seeds)
    whole, _ = advance(loop.init(keys), 40)
    parts = loop.init(keys)
    for count in (7, 20, 13):
        parts, _ = advance(parts, count)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(one, other)


def test_a_resumed_run_has_the_bits_of_the_whole_one(tmp_path: Path) -> None:
    settings: Any = {
        "recipe": "pqn", "num_envs": 8, "eval_every": 2_048, "eval_episodes": 2, "learning_rate_end": None,
        "explore": "epsilon:steps=1000", "learning_starts": 100, "seeds": 2,
    }  # fmt: skip
    whole = qhat.train("CartPole-v1", steps=4_096, run_dir=tmp_path / "whole", **settings)
    qhat.train("CartPole-v1", steps=2_048, run_dir=tmp_path / "parts", **settings)
    parts = qhat.train("CartPole-v1", steps=4_096, run_dir=tmp_path / "parts", resume=True, **settings)
    leaves = zip(*(jax.tree.leaves(run.weights("last")) for run in (whole, parts)), strict=True)
    for one, other in leaves:
        np.testing.assert_array_equal(one, other)


def test_an_agent_continues_from_a_run_with_replay(tmp_path: Path) -> None:
    settings: Any = {"recipe": "pqn", "num_envs": 8, "eval_every": 1_024, "eval_episodes": 2}
    run = qhat.train("CartPole-v1", steps=1_024, run_dir=tmp_path / "run", **settings)
    agent = qhat.Agent.load(run.folder.path)
    observation = np.array([0.1, 0.2, -0.1, 0.0], np.float32)
    best = jax.tree.map(lambda leaf: leaf[0], run.weights("best"))
    q = run.program.learner.q_values(best, jnp.asarray(observation))[0]
    np.testing.assert_allclose(agent.q_values(observation), q, rtol=1e-5)
    with pytest.raises(UsageError, match="has no target network"):
        agent.update_target_network()
    with pytest.raises(UsageError, match="an Agent learns from replay"):
        qhat.Agent((4,), 2, recipe="pqn")


@pytest.mark.parametrize("kind", TRAININGS)
def test_values_are_spelled(kind: Any) -> None:
    assert parse(spell(kind()), TRAININGS) == kind()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": Rollout(steps=0)}, r"rollout:steps is 0"),
        ({"training": Rollout(trace_decay=1.5)}, r"expected λ within \[0, 1\]"),
        ({"sampler": Prioritised()}, r"draws nothing; expected .*uniform"),
        ({"target": Hard()}, r"has no target network; expected .*none.*hard"),
        ({"bonus": Munchausen()}, r"no target network to take a bonus from"),
        ({"relabel": Hindsight()}, r"keeps no episodes"),
        ({"reset": Periodic()}, r"has no replay to learn from after a reset"),
        ({"horizon": Receding(n_step=4, gamma=0.5)}, r"sums no n rewards"),
        ({"n_step": 3}, r"λ-returns in place of n-step returns"),
        ({"replay_capacity": 50_000}, r"has no replay; expected .*100000"),
        ({"batch_size": 5}, r"learns from 18 steps at a time, and .* is 5; .* batch_size=3\."),
        ({"replay_ratio": 0.25}, r"learns 2.25 times from each step"),
        ({"replay_ratio": 0.01}, r"learns 0.09 times from each step"),
        ({"policy": Double()}, r"needs two networks"),
        ({"joints": Regularised()}, r"keeps values near those of the target network"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(RECIPE, **changes).validate()


@pytest.mark.parametrize(
    "head",
    [
        Categorical(atoms=41, v_min=-6.0, v_max=6.0), Expected(), Quantile(quantiles=5),
        HLGauss(atoms=41, v_min=-6.0, v_max=6.0), Implicit(),
    ],
    ids=lambda head: head.name,
)  # fmt: skip
def test_every_head_is_fitted_to_known_returns(head: Any) -> None:
    """A fixed rollout is overfitted: Q(s, a) becomes G, whatever the representation."""
    program, seed, _ = filled(dataclasses.replace(RECIPE, head=head, hidden=(64,)), 40)
    slots, returns, _ = known_returns(program.learner, seed.learner, seed.ring, jax.random.key(0))
    batch = batch_of(seed.ring, slots, returns)
    fit, state = jax.jit(program.learner.update), seed.learner
    for number in range(1, 1_501):
        state, _ = fit(state, batch, jnp.ones(slots.shape), jax.random.key(number), jnp.int32(number))
    q = jax.vmap(program.learner.q_values, (None, 0))(state.online, batch.observation)[:, 0]
    chosen = jnp.take_along_axis(q, batch.action, axis=1)[:, 0]
    np.testing.assert_allclose(chosen, returns, atol=0.1)


@pytest.mark.parametrize("more", [{"demos": ("some.npz",)}, {"actors": 2}])
def test_what_fills_a_replay_is_refused(more: Any) -> None:
    with pytest.raises(UsageError, match="has no replay that"):
        qhat.TrainConfig.of("CartPole-v1", "pqn", **more).validate()
