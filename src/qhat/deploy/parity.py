"""Proves that an exported policy equals the trained one, on observations of real episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.greedy import CLOSED, best
from qhat.axes.joint_actions import JointActions
from qhat.deploy.copies import Copies, Situation
from qhat.engine.described import Op
from qhat.runtime import Policy, split
from qhat.system.errors import QhatError

BATCHES = (1, 2, 7)
"""Batch sizes into which the copies of a rollout are split."""
COPIES = sum(BATCHES)
OBSERVATIONS = 10_000
TOLERANCE, NEAR_TIE = 1e-5, 2e-5
"""Largest allowed |ΔQ|, and largest gap of the best two choices in a near-tie; both times max(1, |Q|).

|Q| is the largest of an observation's values. Rounding in float32 depends on the size of the summands: if
the values are −15, 0.1 and 30, the one in the middle is as uncertain as the others.
"""
LONGEST = 2_000
"""Steps after which an episode played by the graph alone is truncated."""
PICTURES = 100
"""Number of observations for the NumPy runner if it is slow: with convolutions."""


@dataclasses.dataclass
class Agreement:
    """Compares one runner with the trained policy, and counts."""

    observations: int = 0
    worst: float = 0.0
    """Largest |ΔQ| / max(1, |Q|), with the largest |Q| of the observation."""
    near_ties: int = 0
    differing: int = 0
    """Actions that differ without a near-tie."""

    def take(
        self, expected: np.ndarray, found: np.ndarray, same: np.ndarray, legal: np.ndarray | None
    ) -> np.ndarray:
        """Compare Q `[n, F, C]`, and count actions that are not the `same` `[n]`; return near-ties."""
        scale = magnitude(expected)[:, None, None]
        with np.errstate(invalid="ignore"):
            away = np.where(expected == found, 0.0, np.abs(expected - found) / scale)
        away = np.where(np.isnan(away), np.inf, away)
        legal_q = expected if legal is None else np.where(legal, expected, -np.inf)
        tied = near_ties(legal_q)
        self.observations += len(expected)
        self.worst = max(self.worst, float(away.max(initial=0.0)))
        self.near_ties += int(tied.sum())
        self.differing += int((~same & ~tied).sum())
        return tied

    @property
    def good(self) -> bool:
        return self.observations > 0 and self.worst <= TOLERANCE and self.differing == 0

    def require(self, runner: str) -> None:
        """Raise `QhatError` if the exported policy differs from the trained one."""
        if not self.good:
            raise QhatError(
                f"The exported policy in {runner} is not the trained one: on {self.observations:,}"
                f" observations, Q-values differ by up to {self.worst:.3g}·max(1, |Q|) (expected at most"
                f" {TOLERANCE:g}), and {self.differing:,} actions differ without a near-tie (expected 0)."
                " Nothing was written."
            )

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "actions_equal": self.observations - self.differing}


def magnitude(q: np.ndarray) -> np.ndarray:
    """Return max(1, |Q|) of observations `[n, F, C] → [n]`.

    Choices that do not exist, and commands that are not in use, do not count.
    """
    counts = np.isfinite(q) & (q != np.float32(CLOSED))
    return np.maximum(1.0, np.abs(np.where(counts, q, 0.0)).max(axis=(1, 2)))


def near_ties(q: np.ndarray) -> np.ndarray:
    """Return whether the gap of a factor's best two choices is within rounding errors, `[n]`."""
    if q.shape[-1] == 1:
        return np.zeros(len(q), bool)
    best = np.sort(q, axis=-1)[..., -2:]
    gap = best[..., 1] - best[..., 0]
    return np.any(gap <= NEAR_TIE * magnitude(q)[:, None], axis=-1)


@dataclasses.dataclass(frozen=True)
class Trained:
    """The policy in JAX, and the actions of its environment."""

    values: Callable[[np.ndarray, Any, np.ndarray], tuple[np.ndarray, Any]]
    """From observations `[n, ...]`, the states before them and which begin an episode `[n]`, to Q
    `[n, F, C]` and the states after them; states are `None` without a memory."""
    actions: Actions
    joint: JointActions | None = None
    """Joint actions, if Q is of them: it is `[n, 1, J]` then."""
    units: int = 0
    """Numbers of a memory's state."""

    def any_states(self, count: int) -> np.ndarray | None:
        """Return states before episodes, which nothing may depend on; `None` without a memory."""
        return np.ones((count, self.units), np.float32) if self.units else None

    def greedy(self, q: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """Return the best choices `[n, F]`."""
        return best(q, legal, self.joint)

    def of_values(self, legal: np.ndarray | None) -> np.ndarray | None:
        """Return the mask of Q's values: of joint actions, if Q is of them."""
        return legal if legal is None or self.joint is None else self.joint.legal(legal)


def equal_actions(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return whether actions `[n, *shape]` are equal, also in shape and type, `[n]`."""
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return np.zeros(len(expected), bool)
    return (found == expected).reshape(len(expected), -1).all(axis=1)


class Graph:
    """An ONNX session as a function of whole observations."""

    def __init__(
        self,
        session: Any,
        stack: Op | None,
        actions: Actions,
        masked: bool,
        parts: Op | None = None,
        remembers: bool = False,
    ):
        """Wrap a session, with the operations that stack an observation or split it into parts."""
        self._session, self._stack, self._parts = session, stack, parts
        self._actions, self._masked = actions, masked
        self._keeps = "frames" if stack else "memory" if remembers else ""
        self._names = ["q_values", "action", *([f"{self._keeps}_next"] if self._keeps else [])]

    def whole(
        self,
        observation: np.ndarray,
        legal: np.ndarray | None,
        states: np.ndarray | None,
        start: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return Q and action of whole observations, with a memory's states before them."""
        if self._stack is None:
            return self.run(observation, legal, states, None if states is None else start)[:2]
        width = observation.shape[1] // self._stack["count"]
        # The previous stack is this one, moved by a frame; its oldest frame does not matter.
        before = np.concatenate([observation[:, -width:], observation[:, :-width]], axis=1)
        newest = self.newest(observation)
        return self.run(newest, legal, before, np.zeros(len(observation), bool))[:2]

    def newest(self, observation: np.ndarray) -> np.ndarray:
        """Return the input that a caller gives: of a stack only the newest frame."""
        if self._stack is None:
            return observation
        width = observation.shape[1] // self._stack["count"]
        return observation[:, -1] if width == 1 else observation[:, -width:]

    def run(
        self,
        observation: np.ndarray,
        legal: np.ndarray | None,
        kept: np.ndarray | None = None,
        start: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Return Q `[n, F, C]`, the actions, and the stacks or states of the next call."""
        feed: dict[str, Any] = {"observation": observation}
        if self._parts is not None:
            feed = split(self._parts, observation)
        if self._masked:
            assert legal is not None
            feed["mask"] = legal if self._actions.vector else legal[:, 0]
        if kept is not None:
            feed |= {self._keeps: kept, "start": start}
        q, action, *rest = self._session.run(self._names, feed)
        return q.reshape(len(q), -1, q.shape[-1]), action, rest[0] if rest else None


@dataclasses.dataclass
class Rollouts:
    """The results of the rollouts."""

    graph: Agreement = dataclasses.field(default_factory=Agreement)
    numpy: Agreement = dataclasses.field(default_factory=Agreement)
    batches: dict[int, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(BATCHES, 0))
    distinct: set[int] = dataclasses.field(default_factory=set)
    low: Any = np.inf
    high: Any = -np.inf
    """Range of every number of an observation."""
    last: Any = None
    """Some whole observations, for the measurement of latency."""


def roll_out(
    copies: Copies,
    first: Situation,
    trained: Trained,
    graph: Graph,
    policies: Sequence[Policy],
    count: int,
    slow: bool,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda _: None,
) -> Rollouts:
    """Let the trained policy act, and compare on its observations; copy i acts randomly in i of nine steps.

    Args:
        policies: the NumPy runner, which gets whole stacks; with a memory one for each copy.
        count: smallest number of observations.
        slow: compare the NumPy runner only on `PICTURES` observations.
        progress: called with how many observations were compared.
    """
    found, now = Rollouts(last=first.observation), first
    chance = np.linspace(0.0, 1.0, copies.num_envs)
    states, start = trained.any_states(copies.num_envs), np.ones(copies.num_envs, bool)
    while found.graph.observations < count:
        progress(f"comparing observations: {found.graph.observations:,} of {count:,}")
        batch, legal = now.observation, now.legal
        q, after = trained.values(batch, states, start)
        choice = trained.greedy(q, legal)
        expected = trained.actions.to_env(choice)
        at = 0
        for size in BATCHES:
            part = slice(at, min(at + size, len(batch)))
            mask = None if legal is None else legal[part]
            before = None if states is None else states[part]
            values, action = graph.whole(batch[part], mask, before, start[part])
            same = equal_actions(action, expected[part])
            found.graph.take(q[part], values, same, trained.of_values(mask))
            found.batches[size] += len(values)
            at += size
        if not slow or found.numpy.observations < PICTURES:
            for policy, begins in zip(policies, start, strict=False):
                if begins:
                    policy.reset()
            _compare_numpy(found.numpy, policies, batch, q, expected, legal, trained)
        found.distinct.update(hash(row.tobytes()) for row in batch)
        found.low = np.minimum(found.low, batch.min(axis=0))
        found.high = np.maximum(found.high, batch.max(axis=0))
        possible = np.asarray(trained.actions.all_legal) if legal is None else legal
        drawn = rng.random((*choice.shape, possible.shape[-1])) * possible
        explores = rng.random(len(batch)) < chance
        found.last = batch
        taken = np.where(explores[:, None], drawn.argmax(axis=-1), choice)
        now = copies.step(trained.actions.to_env(taken))
        assert now.closed is not None
        states, start = after, now.closed
    found.graph.require("onnxruntime")
    found.numpy.require("the NumPy runner")
    return found


def _compare_numpy(
    agreement: Agreement,
    policies: Sequence[Policy],
    batch: Any,
    q: np.ndarray,
    expected: np.ndarray,
    legal: np.ndarray | None,
    trained: Trained,
) -> None:
    """Compare on observations `[n, ...]`, or on n readings of sensors."""
    for index, row in enumerate(batch):
        policy = policies[index % len(policies)]
        mask = None if legal is None else legal[index]
        values = policy.q_values(row).reshape(1, *q.shape[1:])
        same = np.array([np.array_equal(policy.act(row, mask), expected[index])])
        mask = trained.of_values(None if mask is None else mask[None])
        agreement.take(q[index : index + 1], values, same, mask)


def readings(terms: Sequence[Op], observation: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the sensors gave at last, by the observation `[D]` that was made of it."""
    found, end = {}, 0
    for term in terms:
        end += term["size"] * term["history"]
        scale = np.array(term["scale"], np.float32)
        # What is multiplied by 0 may have been anything.
        found[term["name"]] = observation[end - term["size"] : end] / np.where(scale == 0, 1, scale)
    return found


def play(
    copies: Copies, trained: Trained, graph: Graph, stack: Op | None, policy: Policy, slow: bool
) -> dict[str, Any]:
    """Let the graph alone play whole episodes, and compare with the trained policy on its observations.

    The environment gets the graph's actions unchanged.

    Args:
        policy: the NumPy runner, which is compared in the first copy and stacks frames itself.
        slow: whether it is compared only in the first `PICTURES` steps.

    Raises:
        QhatError: the policies disagree.
    """
    agreement, beside, playing = Agreement(), Agreement(), np.ones(copies.num_envs, bool)
    now, turn = copies.start(), 0
    returns, lengths = np.zeros(copies.num_envs), np.zeros(copies.num_envs, int)
    states = trained.any_states(copies.num_envs)
    kept = np.zeros_like(now.observation) if stack else states
    first_tie = None
    while playing.any() and turn < LONGEST:
        start = np.full(copies.num_envs, turn == 0)
        values, action, kept = graph.run(graph.newest(now.observation), now.legal, kept, start)
        q, states = trained.values(now.observation, states, start)
        expected = trained.actions.to_env(trained.greedy(q, now.legal))
        same = equal_actions(action, expected)
        if playing[0] and not (slow and turn >= PICTURES):
            first = None if now.legal is None else now.legal[:1]
            newest: Any = graph.newest(now.observation)[:1]
            if policy.about["observation"].get("terms"):
                # From what a robot's sensors give; the histories are the runner's own.
                newest = [readings(policy.about["observation"]["terms"], newest[0])]
            _compare_numpy(beside, [policy], newest, q[:1], expected[:1], first, trained)
        mask = trained.of_values(None if now.legal is None else now.legal[playing])
        tied = agreement.take(q[playing], values[playing], same[playing], mask)
        first_tie = turn if first_tie is None and tied.any() else first_tie
        now = copies.step(action)
        assert now.closed is not None
        assert now.scored is not None
        returns, lengths = returns + playing * now.scored, lengths + playing
        playing &= ~now.closed
        turn += 1
    agreement.require("onnxruntime, in whole episodes that it played alone,")
    beside.require("the NumPy runner, in the first of these episodes,")
    return {
        "played": copies.num_envs,
        "whole": int((~playing).sum()),
        "longest": LONGEST,
        "steps": agreement.observations,
        "mean_return": float(returns.mean()),
        "mean_length": float(lengths.mean()),
        "first_near_tie": first_tie,
        "numpy_steps": beside.observations,
        **agreement.to_json(),
    }
