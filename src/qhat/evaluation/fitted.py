"""Fitted Q evaluation: what a policy is worth, from steps that others recorded, without running it.

Q is learned for the policy and not for the best action (Le, Voloshin & Yue 2019, arXiv:1903.03738,
algorithm 3): Q(s, a) ← r + γ·Q̄(s', π(s')). It is the engine's update, in which only π's action is legal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes import Categorical, Logs, Soft
from qhat.axes.optimiser import AdamW
from qhat.demonstrations.reading import Demonstrations
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner
from qhat.engine.loop import Loop
from qhat.engine.prefill import rows_of, storing
from qhat.engine.state import TrainState
from qhat.environments.base import Spec
from qhat.environments.recorded import Recorded
from qhat.evaluation.coverage import BLOCK, Coverage, Promise
from qhat.evaluation.importance import Weighted, weighted_return
from qhat.recipes.recipe import Recipe
from qhat.system.errors import require, setting
from qhat.system.host_memory import nbytes, require_memory

RESAMPLES = 10
"""Sets of episodes that are drawn from the data, each with a network of its own."""
UPDATES = 5_000
WIDTH = 3.2
"""Deviations from the mean to an end of a 95% interval: Student's t for ten resamples (2.26), times √2 for
an error that the networks share, and that is as large as the one by which they differ. That is assumed: in
docs/results/offline_calibration.md the truth was outside for 7 of 26 policies without it."""
STILL = 0.01
"""Share of the larger of both values that the estimate may still be from where its networks go."""
DOUBT = 0.2
"""Share of the policy's actions that nobody took in the data, from which on values are guesses."""
ATOMS = 51
"""Of the distribution of returns that each network learns, over all returns that are possible."""
DECAY = 1.0
"""λ of AdamW. Without it the networks fit what chance did in few episodes, and agree on it: one of four
policies of benchmarks/offline_calibration.py was 13 too high, with an interval of ±5."""
CUT = 0.1
"""Discount left where recorded episodes are cut, on average, from which on their returns are no bound."""

Choose = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""Returns a policy's choices `[N, F]` for observations `[N, ...]` and their legal actions."""


@dataclasses.dataclass(frozen=True)
class OfflineScore:
    """What a policy and those who recorded the data earn, as discounted return from the first step."""

    value: float
    """Estimate for the policy: the mean over the first observations of the recorded episodes."""
    interval: tuple[float, float]
    """95%, over resampled episodes."""
    behaviour: float
    """Mean discounted return of the recorded episodes, up to where they end or are cut."""
    behaviour_interval: tuple[float, float]
    gamma: float
    episodes: int
    steps: int
    agreement: float
    """Share of the recorded steps in which the policy takes the recorded action."""
    unseen: float
    """Share of the policy's actions, in recorded observations, that nobody took anywhere."""
    residual: float
    """How far the estimate still has to go: the mean of r + γ·V(s') − Q(s, a) over the data, times the
    discounted length of an episode."""
    ahead: float = 0.0
    """Discount that is left, on average, where recorded episodes end without being terminated."""
    weighted: Weighted | None = None
    """The doubly robust estimate, where the data have the probabilities of the recorded actions."""
    coverage: Coverage | None = None
    calibration: tuple[Promise, ...] = ()
    """Of the policy's own values, from low ones to high ones; empty where they are no returns."""

    @property
    def verdict(self) -> str:
        """Say how the policy compares with the recorded actions, or that these logs cannot say it."""
        (low, high), (below, above) = self.interval, self.behaviour_interval
        if self.unseen > DOUBT:
            return f"cannot be told from these logs: nobody tried {self.unseen:.0%} of its actions"
        if self.coverage is not None and self.coverage.untried > DOUBT:
            return (
                f"cannot be told from these logs: in like observations nobody tried"
                f" {self.coverage.untried:.0%} of its actions"
            )
        still = STILL * max(abs(self.value), abs(self.behaviour))
        if abs(self.residual) > max(still, (high - low) / 2):
            return "cannot be told yet: the networks have not learned the data; give them more updates"
        if self.ahead > CUT:
            return f"cannot be told from these logs: {self.ahead:.0%} of a return is after episodes are cut"
        if low > above:
            return "better than the recorded actions"
        if high < below:
            return "worse than the recorded actions"
        return "cannot be told from these logs: the intervals overlap"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def choose_by(learner: Learner, parameters: Any) -> Choose:
    """Return the greedy policy of one seed's parameters."""
    require(
        not learner.recipe.memory.remembers,
        "A policy with a memory acts on whole episodes; offline evaluation expects memory none.",
    )
    greedy = jax.jit(lambda rows, legal: learner.greedy(parameters, rows, None, legal)[0])

    def choose(observations: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        parts = []
        for begin in range(0, len(observations), BLOCK):
            rows = slice(begin, begin + BLOCK)
            parts.append(np.asarray(greedy(observations[rows], None if legal is None else legal[rows])))
        return np.concatenate(parts)

    return choose


class OfflineEvaluation:
    """Estimates what policies earn from the same recorded steps. Networks are compiled at the first."""

    def __init__(
        self,
        like: Recipe,
        spec: Spec,
        data: Demonstrations,
        *,
        gamma: float,
        updates: int = UPDATES,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        """Prepare the resampled episodes.

        Args:
            like: a recipe whose torso and hidden layers the networks have.
            data: recorded steps; one episode after the other.
            gamma: discount of the returns.
            updates: of each network.
            resamples: sets of episodes, 2 or more.

        Raises:
            UsageError: there are fewer than two episodes.
        """
        ends = np.flatnonzero(data.terminated | data.truncated)
        require(
            len(ends) >= 2,
            "The data have a single episode; an interval needs two or more, and some twenty to say much.",
        )
        require(updates >= 1, f"{setting('updates')} is {updates}; expected 1 or more.")
        require(resamples >= 2, f"resamples is {resamples}; expected 2 or more.")
        self._starts = np.append(0, ends[:-1] + 1)
        self._spans = [np.arange(a, b + 1) for a, b in zip(self._starts, ends, strict=True)]
        self._data, self._gamma, self._updates, self._seed = data, gamma, updates, seed
        rng = np.random.default_rng(seed)
        self._drawn = [rng.integers(len(ends), size=len(ends)) for _ in range(resamples)]
        self._rows = [np.concatenate([self._spans[each] for each in one]) for one in self._drawn]
        returns = [to_go(data.reward[span], gamma) for span in self._spans]
        self._whole = np.array([each[0] for each in returns])
        lengths = np.array([len(span) for span in self._spans])
        self._horizon = float(np.mean([np.sum(gamma ** np.arange(length)) for length in lengths]))
        self._ahead = float(np.mean(np.where(data.terminated[ends], 0.0, gamma**lengths)))
        self._means = [np.mean(rng.choice(self._whole, len(ends))) for _ in range(1_000)]
        head = Categorical(ATOMS, *bounds(data.reward, np.concatenate(returns), gamma))
        capacity = max(rows_of([_rows(data, rows)], 1, spec.stack) for rows in self._rows)
        recipe = dataclasses.replace(_recipe(like, head, gamma, updates), replay_capacity=capacity)
        self._spec = dataclasses.replace(spec, masked=True)
        spaces = (spec.shape, spec.dtype, spec.actions)
        self._program = Program.of(recipe, *spaces, True, stack=spec.stack, layout=spec.layout)
        self._loop = Loop(self._program, Recorded(self._spec))
        self._keys = jax.random.split(jax.random.key(seed), resamples)
        require_memory(
            nbytes(jax.eval_shape(self._loop.init, self._keys)),
            f"Offline evaluation with {resamples} resamples of {len(data):,} rows",
            "expected fewer rows: some of the files",
        )
        self._advance = self._loop.compile(updates)
        self._store = storing(self._program)
        every = jax.vmap(jax.vmap(self._program.learner.q_values, (None, 0)), (0, None))
        self._q_values = jax.jit(every)

    @property
    def episodes(self) -> int:
        """Number of recorded episodes."""
        return len(self._starts)

    def score(self, choose: Choose) -> OfflineScore:
        """Estimate what a policy earns."""
        data, starts, width = self._data, self._starts, self._spec.actions.width
        now, later = choose(data.observation, data.legal), choose(data.successor, data.legal_next)
        single = dataclasses.replace(data, legal=_only(now, width), legal_next=_only(later, width))
        state = self._store(self._loop.init(self._keys), [_rows(single, rows) for rows in self._rows])
        state, _ = self._advance(state, self._updates)
        first = self._values(state, data.observation[starts], now[starts])
        values = np.array([each[one].mean() for each, one in zip(first, self._drawn, strict=True)])
        q, after = (
            self._values(state, *where).mean(axis=0)
            for where in ((data.observation, data.action), (data.successor, later))
        )
        goal = data.reward + self._gamma * np.where(data.terminated, 0.0, after)
        weighted = None
        if data.probability is not None:
            v = self._values(state, data.observation, now).mean(axis=0)
            same = (now == data.action).all(axis=1)
            given = (self._spans, data.reward, same, data.probability, self._gamma, q, v)
            weighted = weighted_return(*given, seed=self._seed)
        taken = [np.isin(now[:, f], np.unique(data.action[:, f])) for f in range(now.shape[1])]
        return OfflineScore(
            value=float(values.mean()),
            interval=_around(float(values.mean()), float(values.std(ddof=1))),
            behaviour=float(self._whole.mean()),
            behaviour_interval=(
                float(np.quantile(self._means, 0.025)),
                float(np.quantile(self._means, 0.975)),
            ),
            gamma=self._gamma,
            episodes=self.episodes,
            steps=len(data),
            agreement=float((now == data.action).all(axis=1).mean()),
            unseen=float(1 - np.logical_and.reduce(taken).mean()),
            residual=float(np.mean(goal - q)) * self._horizon,
            ahead=self._ahead,
            weighted=weighted,
        )

    def _values(self, state: TrainState, observations: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """Return the values `[S, N]` of choices `[N, F]`, by every network."""
        parts = []
        for begin in range(0, len(observations), BLOCK):
            rows = slice(begin, begin + BLOCK)
            q = np.asarray(self._q_values(state.seeds.learner.online, jnp.asarray(observations[rows])))
            parts.append(np.take_along_axis(q, choices[None, rows, :, None], axis=3)[..., 0].mean(axis=2))
        return np.concatenate(parts, axis=1)


def bounds(reward: np.ndarray, to_go: np.ndarray, gamma: float) -> tuple[float, float]:
    """Return the lowest and the highest return that networks may expect.

    No return is beyond what the lowest and the highest reward give for ever. It is also taken to be no
    farther from the recorded returns than these are from each other.

    Args:
        reward: of all steps.
        to_go: discounted rewards from each step to its episode's end.
    """
    low, high = float(to_go.min()), float(to_go.max())
    reach = max(high - low, 1.0, 0.1 * abs(high))
    ever = 1.0 / max(1.0 - gamma, 1e-3)
    least, most = (float(end) * ever for end in (min(reward.min(), 0.0), max(reward.max(), 0.0)))
    low = max(low - reach, least)
    return low, max(min(high + reach, most), low + 1e-3)


def _recipe(like: Recipe, head: Categorical, gamma: float, updates: int) -> Recipe:
    return Recipe(
        head=head, training=Logs(), target=Soft(0.1), torso=like.torso, hidden=like.hidden, layer_norm=True,
        normalise=like.normalise, bins=like.bins, gamma=gamma, batch_size=128, optimiser=AdamW(DECAY),
        learning_rate=1e-3, learning_rate_end=1e-5, max_gradient_norm=10.0,
    ).scheduled(updates)  # fmt: skip


def _only(choices: np.ndarray, width: int) -> np.ndarray:
    """Return masks `[N, F, C]` in which the choices alone are legal."""
    return np.arange(width) == choices[..., None]


def _rows(data: Demonstrations, rows: np.ndarray) -> Demonstrations:
    fields: dict[str, Any] = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    taken: dict[str, Any] = {name: None if each is None else each[rows] for name, each in fields.items()}
    return Demonstrations(**taken)


def to_go(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Return the discounted rewards that follow each step, and its own: `[T]`."""
    found, after = np.zeros(len(rewards)), 0.0
    for row in range(len(rewards) - 1, -1, -1):
        found[row] = after = rewards[row] + gamma * after
    return found


def _around(mean: float, spread: float) -> tuple[float, float]:
    return mean - WIDTH * spread, mean + WIDTH * spread
