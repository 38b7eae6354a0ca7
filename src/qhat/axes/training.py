"""The axis `training`: what gradient updates learn from."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from qhat.axes.axis import AxisValue, spell
from qhat.system.devices import dividing
from qhat.system.errors import fitting, require, setting

LARGEST = 4_096
"""Batches up to which one that fits is looked for."""
LEAST = 16_384
"""Rows of the smallest window over the data: some blocks of them, which are read one after the other."""


class Training(AxisValue, abc.ABC):
    """Says how many steps are kept, and how many updates are made of them, and when."""

    axis: ClassVar[str] = "training"
    replays: ClassVar[bool] = True
    """Whether batches are drawn from replay by the recipe's sampler."""
    streams: ClassVar[bool] = False
    """Whether every step is learned from alone, as soon as it is stored."""
    unit: ClassVar[str] = "environment steps"
    """What a step of the run is."""
    acts: ClassVar[bool] = True
    """Whether the run acts in its environment; if not, all that it learns from was recorded before."""

    @abc.abstractmethod
    def rows(self, recipe: Any, stack: int) -> int:
        """Return the rows that each environment keeps, of observations of `stack` frames."""

    @abc.abstractmethod
    def every(self, recipe: Any) -> int:
        """Return the number of (vectorised) steps from one learning to the next."""

    @abc.abstractmethod
    def updates(self, recipe: Any) -> int:
        """Return the gradient updates of each learning, 1 or more."""

    def first(self, recipe: Any) -> int:
        """Return the environment steps before the first update, of a recipe that is `scheduled`."""
        return max(recipe.learning_starts, recipe.batch_size)

    def return_discount(self, recipe: Any) -> float | None:
        """Return the discount of the returns whose spread scales rewards; `None` where none does."""
        return None


@dataclasses.dataclass(frozen=True)
class Replay(Training):
    """Each update draws a batch from the last `replay_capacity` steps (Lin 1992; Mnih et al. 2015)."""

    name: ClassVar[str] = "replay"

    def rows(self, recipe: Any, stack: int) -> int:
        return recipe.replay_capacity // recipe.num_envs

    def every(self, recipe: Any) -> int:
        updates = recipe.num_envs * recipe.replay_ratio
        return 1 if updates >= 1 else round(1 / updates)

    def updates(self, recipe: Any) -> int:
        return max(1, round(recipe.num_envs * recipe.replay_ratio))

    def validate_within(self, recipe: Any) -> None:
        require(
            recipe.batch_size <= recipe.replay_capacity,
            f"{setting('batch_size')} is {recipe.batch_size}, but replay holds only"
            f" {recipe.replay_capacity} rows;"
            f" expected a batch no larger than {setting('replay_capacity')}.",
        )
        rows, least = self.rows(recipe, 1), recipe.longest + 2
        words = "n_step + 2" if recipe.longest == recipe.n_step else f"{setting('horizon')}'s n_step + 2"
        require(
            rows >= least,
            f"{setting('replay_capacity', recipe.replay_capacity)} leaves {rows} rows for each of"
            f" {recipe.num_envs} environments; expected at least {words} = {least}.",
        )
        require_shares(recipe)
        updates = recipe.num_envs * recipe.replay_ratio
        require(
            1e-6 <= updates <= 1e6,
            f"{setting('replay_ratio')} is {recipe.replay_ratio}; expected between a millionth and a"
            " million updates"
            " per vectorised step.",
        )
        whole = updates if updates >= 1 else 1 / updates
        require(
            abs(whole - round(whole)) < 1e-6,
            f"{setting('replay_ratio', recipe.replay_ratio)} with {setting('num_envs', recipe.num_envs)}"
            f" asks for {updates:g}"
            " updates per vectorised step; expected a whole number of updates per step, or of steps"
            " per update.",
        )


@dataclasses.dataclass(frozen=True)
class Logs(Training):
    """Nothing acts: every update draws a batch from recorded steps, and a step of the run is an update.

    Offline, or batch, reinforcement learning (Lange, Gabel & Riedmiller 2012; Levine et al. 2020,
    arXiv:2005.01643). Replay is as large as the data, or as `window`, whatever `replay_capacity` says.
    """

    window: int = 0
    """Rows of the data that replay has at a time; 0: all, or as many as memory has room for."""

    name: ClassVar[str] = "logs"
    unit: ClassVar[str] = "updates"
    acts: ClassVar[bool] = False

    def validate(self) -> None:
        require(
            self.window == 0 or self.window >= LEAST,
            f"{setting('training', f'logs:window={self.window}')} is a window of {self.window} rows;"
            f" expected {LEAST:,} or more, or 0, which is all of the data.",
        )

    def rows(self, recipe: Any, stack: int) -> int:
        return recipe.replay_capacity

    def every(self, recipe: Any) -> int:
        return 1

    def updates(self, recipe: Any) -> int:
        return 1

    def first(self, recipe: Any) -> int:
        return 1

    def validate_within(self, recipe: Any) -> None:
        wrong = {
            "num_envs": (recipe.num_envs != 1, "steps no environment", 1),
            "replay_ratio": (recipe.replay_ratio != 1, "makes one update in every step of the run", 1),
            "relabel": (recipe.relabel.happens, "has no rule for the rewards of other goals", "none"),
            "demo_share": (recipe.demo_share > 0, "learns from recorded steps alone", 0.0),
        }
        _refuse(recipe, "cql", wrong)


@dataclasses.dataclass(frozen=True)
class Rollout(Training):
    """Updates go through the last `steps` steps of every environment a few times, and forget them.

    PQN (Gallici et al. 2025, arXiv:2407.04811, algorithm 1). Targets are Peng's λ-returns (Peng & Williams
    1994), which keep what exploration cost, or are cut where an action costs more than `n_step_cut`:

        G_t = r_t + γ·[(1 − λ)·V(s_{t+1}) + λ·G_{t+1}],

    from θ before the updates. `replay_ratio` times `batch_size` is the number of passes.
    """

    name: ClassVar[str] = "rollout"
    replays: ClassVar[bool] = False

    steps: int = 32
    """Steps of each environment between two learnings."""
    trace_decay: float = 0.65
    """λ: 0 is the one-step target, 1 the observed return."""

    def validate(self) -> None:
        good = 1 <= self.steps <= 1_000_000
        require(good, f"rollout:steps is {self.steps}; expected 1 to 1,000,000 steps.")
        require(
            0 <= self.trace_decay <= 1,
            f"rollout:trace_decay is {self.trace_decay}; expected λ within [0, 1].",
        )

    def rows(self, recipe: Any, stack: int) -> int:
        # A step that begins and ends an episode takes its frames, and a row for its last observation.
        return self.steps * (stack + 1) + 2 * stack + 1

    def every(self, recipe: Any) -> int:
        return self.steps

    def updates(self, recipe: Any) -> int:
        return round(self.steps * recipe.num_envs * recipe.replay_ratio)

    def passes(self, recipe: Any) -> int:
        """Return the number of times that each step is learned from."""
        return round(recipe.replay_ratio * recipe.batch_size)

    def validate_within(self, recipe: Any) -> None:
        n_step = (recipe.n_step != 1, "has λ-returns in place of n-step returns", 1)
        _refuse(recipe, "pqn", {**_without_replay(recipe), "n_step": n_step})
        size = self.steps * recipe.num_envs
        fits = dividing(size, min(recipe.batch_size, size, LARGEST))
        require(
            size % recipe.batch_size == 0,
            f"{setting('training', spell(self))} with {setting('num_envs', recipe.num_envs)} learns from"
            f" {size:,} steps at a time, and {setting('batch_size')} is {recipe.batch_size}; expected a"
            f" batch that divides them, for example {setting('batch_size', fits)}.",
        )
        passes = recipe.replay_ratio * recipe.batch_size
        require(
            passes > 0.5 and abs(passes - round(passes)) < 1e-6,
            f"{setting('replay_ratio', recipe.replay_ratio, f'{recipe.replay_ratio:g}')} with"
            f" {setting('batch_size', recipe.batch_size)} learns {passes:g} times from each step of a"
            " rollout; expected a whole number of times, for example"
            f" {setting('replay_ratio', 2 / recipe.batch_size, f'{2 / recipe.batch_size:g}')}.",
        )


@dataclasses.dataclass(frozen=True)
class Stream(Training):
    """Every step is learned from when it happens, and then forgotten: Q(λ) with eligibility traces.

    Elsayed, Vasan & Mahmood 2024, arXiv:2410.14606. A trace z remembers which weights earlier steps used,

        δ = r/σ + γ·V(s') − Q(s, a),    z ← γλ·z + ∇Q(s, a),    θ ← θ + α·δ·z,

    with the step size α of the optimiser `obgd`, and σ the running standard deviation of the discounted sum
    of past rewards. The trace starts anew with an episode, and after an action that costs more than
    `n_step_cut` of the value; 0 is after one that is not greedy, as in the paper. Layer norms keep their
    scale and offset.
    """

    name: ClassVar[str] = "stream"
    replays: ClassVar[bool] = False
    streams: ClassVar[bool] = True

    trace_decay: float = 0.8
    """λ: 0 learns from the last step alone, 1 keeps all steps of the episode."""
    scale_rewards: bool = True
    """Whether rewards are divided by σ; Q-values are then in units of it."""

    def validate(self) -> None:
        require(
            0 <= self.trace_decay <= 1,
            f"stream:trace_decay is {self.trace_decay}; expected λ within [0, 1].",
        )

    def rows(self, recipe: Any, stack: int) -> int:
        # The last two steps, each of which may begin and end an episode.
        return 2 * (stack + 1) + 2 * stack + 1

    def every(self, recipe: Any) -> int:
        return 1

    def updates(self, recipe: Any) -> int:
        return 1

    def return_discount(self, recipe: Any) -> float | None:
        return recipe.gamma

    def validate_within(self, recipe: Any) -> None:
        head, joints, dense = recipe.head, recipe.joints, recipe.dense
        one = "learns from one step at a time"
        wrong = {
            "batch_size": (recipe.batch_size != 1, f"{one}: there is no batch", 1),
            "replay_ratio": (recipe.replay_ratio != 1, "learns once from every step", 1),
            "num_envs": (recipe.num_envs != 1, f"{one}, of one environment", 1),
            "optimiser": (not recipe.optimiser.takes_traces, "takes steps along traces", "obgd"),
            **_without_replay(recipe),
            "n_step": (recipe.n_step != 1, "has traces in place of n-step returns", 1),
            "head": (
                spell(head) not in ("expected", "expected:delta=None"),
                "has a trace of one value of each action, and no loss of errors",
                "expected",
            ),
            "bonus": (recipe.bonus.name != "none", "adds nothing to the reward", "none"),
            "joints": (joints.name not in ("together", "pairs"), "has one error of all joints", "together"),
            "resolution": (recipe.resolution.grows, "has traces of commands in use from the start", "full"),
            "dense": (dense.noise_size(1, 1) > 0, "has traces of weights without noise", "dense"),
            "random_shift": (recipe.random_shift != 0, f"{one}, as it is", 0),
            "mirror": (recipe.mirror, f"{one}, as it is", False),
            "max_gradient_norm": (
                recipe.max_gradient_norm is not None,
                "bounds steps by their trace",
                None,
            ),
        }
        _refuse(recipe, "stream_q", wrong)


Refusals = dict[str, tuple[bool, str, Any]]
"""By field: whether its value is refused, why, and a value that fits."""


def _without_replay(recipe: Any) -> Refusals:
    """Return what has no meaning where nothing is drawn from replay."""
    kept = type(recipe)().replay_capacity
    return {
        "sampler": (recipe.sampler.name != "uniform", "draws nothing", "uniform"),
        "demo_share": (recipe.demo_share > 0, "draws no batches that demonstrations could share", 0.0),
        "bonus": (recipe.bonus.uses_target, "has no target network to take a bonus from", "none"),
        "behaviour": (recipe.behaviour.counts, "has no recorded actions, only its own", "none"),
        "relabel": (recipe.relabel.happens, "keeps no episodes to take other goals from", "none"),
        "reset": (recipe.reset.happens, "has no replay to learn from after a reset", "none"),
        "horizon": (recipe.horizon.name != "fixed", "sums no n rewards", "fixed"),
        "target": (recipe.target.name != "none", "has no target network", "none"),
        "replay_capacity": (recipe.replay_capacity != kept, "has no replay", kept),
    }


def require_shares(recipe: Any) -> None:
    """Raise `UsageError` for a share that is none, or all, of a batch, or that has no states."""
    share, batch = recipe.demo_share, recipe.batch_size
    if not share:
        return
    fits = setting("demo_share", 0.5)
    fits += f" with {setting('batch_size', 2)} or more" if batch < 2 else ""
    require(
        0 < round(share * batch) < batch,
        f"{setting('demo_share', share)} of {setting('batch_size', batch)} is {round(share * batch)}"
        f" transitions; expected some of both kinds: {fits}.",
    )
    require(
        not recipe.memory.remembers,
        f"{setting('demo_share', share)} has recorded steps in every batch, which have no states of"
        f" {setting('memory', spell(recipe.memory))}; expected {setting('memory', 'none')}.",
    )


def _refuse(recipe: Any, example: str, wrong: Refusals) -> None:
    """Raise `UsageError` for the first field that has no meaning with the recipe's training.

    Args:
        example: name of a recipe that has all that fits.
    """
    name = f"{setting('training')} {recipe.training.name}"
    for field, (is_wrong, why, good) in wrong.items():
        value = getattr(recipe, field)
        value = spell(value) if isinstance(value, AxisValue) else value
        require(
            not is_wrong,
            f"{name} {why}; expected {fitting(field, good)}, and it is {value}. The recipe {example} has"
            " all that fits.",
        )


TRAININGS: tuple[type[Training], ...] = (Replay, Rollout, Stream, Logs)
