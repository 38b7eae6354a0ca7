"""What the greedy policy's own steps say of its network: is Q too large, and which units are dead.

Overestimation is measured as in van Hasselt et al. (2016, arXiv:1509.06461, figure 3): Q(s, a) of the
actions that the policy takes, against the discounted return that follows from the same states. A return
counts only where the γᵏ of its unseen rest is `TAIL` or less, and whether it counts never hangs on how the
episode went on: states too near the end of the record, or to a time limit, are left out altogether.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.engine.compiler import COMPILER_OPTIONS
from qhat.engine.learner import Learner
from qhat.engine.state import strongly_typed
from qhat.environments.base import Environment
from qhat.environments.finite import sound
from qhat.environments.host import HostEnvironment
from qhat.environments.wrappers import RewardWrapper

TAIL = 0.01
"""γᵏ of what is left out of a return at most: the share of a value that is then missing."""
PIECE = 250
"""Steps of a compiled call."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What T steps of S seeds' greedy policies in E copies each brought, `[T, S, E]` each."""

    q: np.ndarray
    """Q(s, a) of the action that was taken."""
    reward: np.ndarray
    """As the learner sees it."""
    terminated: np.ndarray
    cut: np.ndarray
    """Whether a time limit, or a number that was not finite, ended the episode."""
    real: np.ndarray
    alive: dict[str, np.ndarray]
    """`[S, units]` of every hidden layer: whether a unit was above 0 on any observation."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What a record says, per seed."""

    q: list[float]
    """Mean of Q(s, a) over the states that count; empty where none do."""
    value: list[float]
    """Mean of the discounted returns from the same states and actions."""
    error: list[float]
    """Standard error of `q - value`, from the spread over the copies."""
    scale: float
    """Typical size of a return: the larger of mean |return| and its standard deviation."""
    states: int
    """How many states count, of all seeds together."""
    observations: int
    """How many observations the policies of all seeds saw."""
    horizon: int
    """Steps whose rewards a return needs: γ^horizon ≤ TAIL."""
    dead: list[float]
    """Share of each seed's hidden units that were 0 on every observation; empty without hidden layers."""
    dead_by_layer: dict[str, float]
    """The same of every layer, mean over the seeds."""

    @property
    def bias(self) -> list[float]:
        """Mean of Q(s, a) minus the return, per seed: above 0 is overestimation."""
        return [q - value for q, value in zip(self.q, self.value, strict=True)]


def horizon(gamma: float) -> int:
    """Return the least k with γᵏ ≤ TAIL; 0 where no number of steps is enough."""
    if gamma >= 1:
        return 0
    return max(1, math.ceil(math.log(TAIL) / math.log(gamma))) if gamma > 0 else 1


def comparable(learner: Learner) -> str:
    """Say why a recipe's Q is no expected return; empty where it is one."""
    recipe = learner.recipe
    soft = [part.name for part in (recipe.policy, recipe.bonus) if part.name in ("softmax", "munchausen")]
    if soft:
        return f"the values of {' and '.join(soft)} hold the policy's entropy beside the rewards"
    if recipe.gamma >= 1:
        return "with γ = 1 a return is complete only at an episode's end, which may never come"
    return ""


def record(
    learner: Learner,
    parameters: Any,
    environment: Environment | HostEnvironment,
    steps: int,
    rewards: Sequence[RewardWrapper] = (),
    seed: int = 0,
    seconds: float = math.inf,
) -> Record:
    """Let the greedy policies act, one episode after the other.

    Args:
        parameters: leaves `[S, ...]`.
        environment: its copies' episodes begin anew by themselves.
        rewards: what becomes of a reward before it is learned from.
        seconds: after which the record ends, though it is shorter.
    """
    until = time.monotonic() + seconds
    if isinstance(environment, Environment):
        rows, alive = _play_compiled(learner, parameters, environment, steps, seed, until)
    else:
        rows, alive = _play_hosted(learner, parameters, environment, steps, until)
    joined = [np.concatenate(part) for part in zip(*rows, strict=True)]
    q, reward, terminated, truncated, real, broken = joined
    for part in rewards:
        reward = np.asarray(part.learned(jnp.asarray(reward.reshape(-1)))).reshape(reward.shape)
    cut = (truncated & ~terminated & real) | broken
    return Record(q, np.where(real, reward, 0.0), terminated & real, cut, real, alive)


def diagnose(told: Record, gamma: float, limit: int = 0) -> Diagnosis:
    """Compare Q with returns, and count dead units.

    Args:
        limit: steps after which training cut an episode; later states were never learned from. 0 is none.
    """
    reach = horizon(gamma)
    returns, counts = _returns(told, gamma, reach, limit)
    seeds = told.q.shape[1]
    enough = bool(counts.any(axis=(0, 2)).all())
    q, value, error = [], [], []
    for seed in range(seeds if enough else 0):
        own = counts[:, seed]
        q.append(float(told.q[:, seed][own].mean()))
        value.append(float(returns[:, seed][own].mean()))
        error.append(_standard_error(told.q[:, seed] - returns[:, seed], own))
    counted = returns[counts]
    scale = max(float(np.abs(counted).mean()), float(counted.std())) if counted.size else 0.0
    layers = {name: 1.0 - units.mean(axis=1) for name, units in told.alive.items()}
    every = np.concatenate(list(told.alive.values()), axis=1) if told.alive else np.zeros((0, 0))
    return Diagnosis(
        q=q,
        value=value,
        error=error,
        scale=scale,
        states=int(counts.sum()),
        observations=int(told.real.sum()),
        horizon=reach,
        dead=(1.0 - every.mean(axis=1)).tolist() if every.size else [],
        dead_by_layer={name: float(share.mean()) for name, share in layers.items()},
    )


def effective_share(priorities: np.ndarray) -> float:
    """Return the effective sample size of prioritised replay, as a share of the transitions in it.

    (Σp)² / (n·Σp²) of the n sampling priorities p_i^α above 0: the effective sample size of Kish (1965) and
    Kong (1992), as arXiv:1809.04129 discusses it, of the probabilities that a batch is drawn by. n times it
    is 1 over the chance that two draws are the same transition. 1 is uniform; 1/n one transition for ever.
    """
    p = priorities[np.isfinite(priorities) & (priorities > 0)].astype(np.float64)
    return float(p.sum() ** 2 / (p.size * np.square(p).sum())) if p.size else math.nan


def _returns(told: Record, gamma: float, reach: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the discounted returns `[T, S, E]`, and which of them count."""
    T = len(told.q)
    returns, seen, age = (np.zeros(told.q.shape, kind) for kind in (np.float64, np.float64, np.int64))
    total, steps = np.zeros(told.q.shape[1:]), np.zeros(told.q.shape[1:])
    for t in reversed(range(T)):
        over = told.terminated[t] | told.cut[t]
        total = told.reward[t] + np.where(over, 0.0, gamma * total)
        steps = np.where(told.terminated[t], np.inf, np.where(told.cut[t], 1.0, steps + 1.0))
        returns[t], seen[t] = total, steps
    for t in range(1, T):
        begins = told.terminated[t - 1] | told.cut[t - 1] | ~told.real[t - 1]
        age[t] = np.where(begins, 0, age[t - 1] + 1)
    counts = told.real & (seen >= reach)
    # Near the record's end, and near a time limit, only episodes that ended early would be complete.
    counts[max(0, T - reach + 1) :] = False
    if told.cut.any():
        counts &= age + reach <= int(age[told.cut].min()) + 1
    if limit:
        counts &= age < limit
    return returns, counts if reach else np.zeros_like(counts)


def _standard_error(gap: np.ndarray, counts: np.ndarray) -> float:
    """Of a mean over `[T, E]`: steps of one copy hang together, copies do not."""
    copies = counts.any(axis=0)
    if copies.sum() < 2:
        return math.nan
    weight = counts.sum(axis=0)[copies]
    means = np.where(counts, gap, 0.0).sum(axis=0)[copies] / weight
    share = weight / weight.sum()
    middle = float((share * means).sum())
    n = copies.sum()
    return float(np.sqrt((np.square(share * (means - middle))).sum() * n / (n - 1)))


def _look(learner: Learner, parameters: Any, observation: Array, legal: Array | None) -> tuple:
    """Return the greedy actions `[E, F]`, their Q `[E]`, and which units of each layer are above 0."""
    q = jax.vmap(learner.q_values, in_axes=(None, 0))(parameters, observation)
    q = q if legal is None else jnp.where(legal, q, -jnp.inf)
    units = jax.vmap(learner.activations, in_axes=(None, 0))(parameters, observation)
    alive = {name: jnp.any(values > 0, axis=0) for name, values in units.items()}
    return jnp.argmax(q, axis=-1).astype(jnp.int32), jnp.mean(jnp.max(q, axis=-1), axis=-1), alive


def _play_compiled(
    learner: Learner, parameters: Any, environment: Environment, steps: int, seed: int, until: float
) -> tuple[list[tuple], dict[str, np.ndarray]]:
    def step(own: Any, key: Array, carry: tuple, turn: Array) -> tuple[tuple, tuple]:
        state, observation, legal, alive = carry
        action, q, units = _look(learner, own, observation, legal)
        state, now = environment.step(state, action, jax.random.fold_in(key, turn))
        now = sound(now, jnp, learner.network.layout)
        alive = jax.tree.map(jnp.logical_or, alive, units)
        row = (q, now.reward, now.terminated, now.truncated, now.real, now.broken)
        return (state, now.observation, now.legal, alive), row

    def piece(own: Any, carry: tuple, key: Array, turns: Array) -> tuple[tuple, tuple]:
        return jax.lax.scan(functools.partial(step, own, key), carry, turns)

    start_key, run_key = jax.random.split(jax.random.key(seed))
    if not environment.snapshots:
        parameters = jax.device_put(parameters, jax.local_devices()[0])
    seeds = jax.tree.leaves(parameters)[0].shape[0]

    def begin(own: Any, state: Any, observation: Array) -> tuple:
        alive = jax.tree.map(jnp.zeros_like, _look(learner, own, observation, environment.legal(state))[2])
        return strongly_typed((state, observation, environment.legal(state), alive))

    started = environment.start(jnp.broadcast_to(start_key, seeds))
    carry = jax.jit(jax.vmap(begin))(parameters, *started)
    # Turns second: the first axis of what comes out is the seeds'.
    compiled = jax.jit(jax.vmap(piece, in_axes=(0, 0, None, None)), compiler_options=COMPILER_OPTIONS)
    rows, done = [], 0
    while done < steps and (not rows or time.monotonic() < until):
        carry, row = compiled(parameters, carry, run_key, done + jnp.arange(PIECE))
        rows.append(tuple(np.moveaxis(np.asarray(part), 1, 0) for part in row))
        done += PIECE
    return rows, jax.tree.map(np.asarray, carry[-1])


def _play_hosted(
    learner: Learner, parameters: Any, environment: HostEnvironment, steps: int, until: float
) -> tuple[list[tuple], dict[str, np.ndarray]]:
    look = jax.jit(jax.vmap(functools.partial(_look, learner)))
    observation, legal = environment.start(), environment.legal()
    rows, alive = [], {}
    while len(rows) < steps and (not rows or time.monotonic() < until):
        action, q, units = jax.tree.map(np.asarray, look(parameters, observation, legal))
        environment.send(action)
        now = sound(environment.receive(), np, learner.network.layout)
        alive = {name: alive.get(name, False) | own for name, own in units.items()}
        row = (q, now.reward, now.terminated, now.truncated, now.real, now.broken)
        rows.append(tuple(np.asarray(part)[None] for part in row))
        observation, legal = now.observation, now.legal
    return rows, alive
