"""What the greedy policy's steps say of its network: is Q too large, and which units are dead.

Overestimation is measured as in van Hasselt et al. (2016, arXiv:1509.06461, figure 3): Q(s, a) of the
actions that the policy takes, against the discounted return that follows from the same states. A return
counts only where the γᵏ of its unseen rest is `TAIL` or less, and whether it counts never hangs on how the
episode went on: states too near the end of the record, or to a time limit, are left out altogether.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.axes.greedy import best
from qhat.axes.policy import mask_illegal
from qhat.engine.learner import Learner
from qhat.engine.recurrent import Recall, look
from qhat.environments.base import Environment
from qhat.environments.host import HostEnvironment
from qhat.environments.wrappers import RewardWrapper
from qhat.evaluation.plasticity import Plasticity
from qhat.evaluation.rollout import Gathering, Turn, player

TAIL = 0.01
"""γᵏ of what is left out of a return at most: the share of a value that is then missing."""
ROWS = {
    "q": "float32", "reward": "float32",
    "terminated": bool, "truncated": bool, "real": bool, "broken": bool,
}  # fmt: skip
"""What is kept of every step, and its type."""
SAMPLE = 64
"""Steps of which observations are kept."""


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
    sample: np.ndarray | None = None
    """`[S, N, ...]`, some of the observations."""


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
    plasticity: Plasticity | None = None
    """Whether the networks can still learn."""

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


@dataclasses.dataclass(frozen=True)
class Steps(Gathering):
    """The greedy policy, one episode after the other, and every step of it with its Q."""

    steps: int
    """Most that there can be."""
    whole_episode = False

    def act(
        self,
        learner: Learner,
        parameters: Any,
        observation: Array,
        legal: Array | None,
        recall: Recall | None,
    ) -> tuple:
        action, q, alive, recall = _look(learner, parameters, observation, legal, recall)
        return action, (q, alive, observation), recall

    def begin(self, shape: tuple[int, ...], details: Any, xp: Any) -> _Kept:
        rows = {name: xp.zeros((*shape[:-1], self.steps, shape[-1]), kind) for name, kind in ROWS.items()}
        alive = {name: xp.zeros(units.shape, bool) for name, units in details[1].items()}
        lead, (E, *sizes) = shape[:-1], details[2].shape[len(shape) - 1 :]
        rows_of_sample = min(SAMPLE, self.steps)
        sample = xp.zeros((*lead, rows_of_sample, E, *sizes), details[2].dtype)
        return _Kept(rows, alive, sample)

    def add(self, kept: _Kept, turn: Turn, xp: Any) -> _Kept:
        (q, units, observation), now = turn.details, turn.now
        row = {"q": q, **{name: getattr(now, name) for name in ROWS if name != "q"}}
        rows = {name: _put(kept.rows[name], turn.index, row[name], xp) for name in ROWS}
        alive = {name: kept.alive[name] | units[name] for name in units}
        return _Kept(rows, alive, _put_sample(kept.sample, turn.index // self.stride, observation, xp))

    @property
    def stride(self) -> int:
        """Steps of which the last one's observations are kept."""
        return -(-self.steps // min(SAMPLE, self.steps))


class _Kept(NamedTuple):
    rows: dict[str, Any]
    """`[..., T, E]` each."""
    alive: dict[str, Any]
    """`[..., units]` of every hidden layer."""
    sample: Any
    """`[..., rows, E, ...]`, observations of some steps."""


def _put_sample(sample: Any, at: Any, observation: Any, xp: Any) -> Any:
    """Return the sample with a step's observations: of one seed in JAX, of all seeds in NumPy."""
    if xp is not np:
        return sample.at[at].set(observation)
    sample[:, at] = observation
    return sample


def _put(rows: Any, at: Any, row: Any, xp: Any) -> Any:
    """Return rows `[..., T, E]` with the one `at` a step; NumPy's are written in place."""
    if xp is not np:
        return rows.at[..., at, :].set(row)
    rows[..., at, :] = row
    return rows


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
    play = player(learner, environment, Steps(steps), steps, over=lambda: time.monotonic() >= until)
    rollout = play(parameters, jax.random.key(seed))
    rows = {name: np.moveaxis(part, 1, 0)[: rollout.steps] for name, part in rollout.kept.rows.items()}
    reward, terminated, real = rows["reward"], rows["terminated"], rows["real"]
    for part in rewards:
        reward = np.asarray(part.learned(jnp.asarray(reward.reshape(-1)))).reshape(reward.shape)
    cut = (rows["truncated"] & ~terminated & real) | rows["broken"]
    learned = np.where(real, reward, 0.0)
    kept = rollout.kept
    sample = kept.sample[:, : -(-rollout.steps // Steps(steps).stride)]
    sample = sample.reshape(len(sample), -1, *sample.shape[3:])
    return Record(rows["q"], learned, terminated & real, cut, real, kept.alive, sample)


def diagnose(record: Record, gamma: float, limit: int = 0) -> Diagnosis:
    """Compare Q with returns, and count dead units.

    Args:
        limit: steps after which training cut an episode; later states were never learned from. 0 is none.
    """
    reach = horizon(gamma)
    returns, counts = _returns(record, gamma, reach, limit)
    seeds = record.q.shape[1]
    enough = bool(counts.any(axis=(0, 2)).all())
    q, value, error = [], [], []
    for seed in range(seeds if enough else 0):
        counted = counts[:, seed]
        q.append(float(record.q[:, seed][counted].mean()))
        value.append(float(returns[:, seed][counted].mean()))
        error.append(_standard_error(record.q[:, seed] - returns[:, seed], counted))
    every_return = returns[counts]
    scale = 0.0
    if every_return.size:
        scale = max(float(np.abs(every_return).mean()), float(every_return.std()))
    layers = {name: 1.0 - units.mean(axis=1) for name, units in record.alive.items()}
    every = np.concatenate(list(record.alive.values()), axis=1) if record.alive else np.zeros((0, 0))
    return Diagnosis(
        q=q,
        value=value,
        error=error,
        scale=scale,
        states=int(counts.sum()),
        observations=int(record.real.sum()),
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


def _returns(record: Record, gamma: float, reach: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the discounted returns `[T, S, E]`, and which of them count."""
    T = len(record.q)
    returns, complete_after, age = (
        np.zeros(record.q.shape, kind) for kind in (np.float64, np.float64, np.int64)
    )
    total, steps = np.zeros(record.q.shape[1:]), np.zeros(record.q.shape[1:])
    for t in reversed(range(T)):
        over = record.terminated[t] | record.cut[t]
        total = record.reward[t] + np.where(over, 0.0, gamma * total)
        steps = np.where(record.terminated[t], np.inf, np.where(record.cut[t], 1.0, steps + 1.0))
        returns[t], complete_after[t] = total, steps
    for t in range(1, T):
        begins = record.terminated[t - 1] | record.cut[t - 1] | ~record.real[t - 1]
        age[t] = np.where(begins, 0, age[t - 1] + 1)
    counts = record.real & (complete_after >= reach)
    # Near the record's end, and near a time limit, only episodes that ended early would be complete.
    counts[max(0, T - reach + 1) :] = False
    if record.cut.any():
        counts &= age + reach <= int(age[record.cut].min()) + 1
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


def _look(
    learner: Learner, parameters: Any, observation: Array, legal: Array | None, recall: Recall | None
) -> tuple:
    """Return greedy actions `[E, F]`, their Q `[E]`, which units are above 0, and the memories' states."""
    preferred, after = look(learner, learner.preferences, parameters, observation, None, recall)
    q, _ = look(learner, learner.q_values, parameters, observation, None, recall)

    def activations(one: Array, memory: Array | None) -> dict[str, Array]:
        return learner.network.activations(*learner.shown(parameters, one), memory)

    units = jax.vmap(activations)(observation, after and after.after)
    alive = {name: jnp.any(values > 0, axis=0) for name, values in units.items()}
    joint = learner.network.joint
    action = best(preferred, legal, joint, jnp).astype(jnp.int32)
    if learner.recipe.behaviour.acts:
        chosen = jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]
    else:
        masked = legal if legal is None or joint is None else joint.legal(legal, jnp)
        chosen = jnp.max(mask_illegal(q, masked), axis=-1)
    return action, jnp.mean(chosen, axis=-1), alive, after
