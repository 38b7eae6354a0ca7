"""A recipe: one value per axis, and the numbers that go with it. An algorithm is a `Recipe`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import tyro

from qhat.axes.actions import BINS
from qhat.axes.axis import AxisValue, check, from_json, to_json
from qhat.axes.behaviour import BEHAVIOURS, Behaviour, NoBehaviour
from qhat.axes.bonus import BONUSES, Bonus, NoBonus
from qhat.axes.dense import LAYERS, Dense, Layer
from qhat.axes.explore import EXPLORES, EpsilonGreedy, Explore
from qhat.axes.heads import HEADS, Expected, Head
from qhat.axes.horizon import HORIZONS, Fixed, Horizon
from qhat.axes.joints import JOINTS, Joints, Together
from qhat.axes.memory import MEMORIES, Memory, NoMemory
from qhat.axes.merge import MERGES, Merge, Plain
from qhat.axes.optimiser import OPTIMISERS, Adam, Optimiser
from qhat.axes.policy import POLICIES, Greedy, Policy
from qhat.axes.relabel import RELABELS, NoRelabel, Relabel
from qhat.axes.reset import RESETS, NoReset, Reset
from qhat.axes.resolution import RESOLUTIONS, Full, Resolution
from qhat.axes.sampler import SAMPLERS, Sampler, Uniform
from qhat.axes.target import TARGETS, Hard, Target
from qhat.axes.torso import TORSOS, Auto, Torso
from qhat.axes.training import TRAININGS, Replay, Training
from qhat.environments.observations import Observations
from qhat.recipes.upgrades import upgraded
from qhat.system.display import card, short
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import quote

AXES: dict[str, tuple[type[AxisValue], ...]] = {
    "head": HEADS,
    "policy": POLICIES,
    "bonus": BONUSES,
    "behaviour": BEHAVIOURS,
    "joints": JOINTS,
    "resolution": RESOLUTIONS,
    "merge": MERGES,
    "dense": LAYERS,
    "torso": TORSOS,
    "memory": MEMORIES,
    "training": TRAININGS,
    "sampler": SAMPLERS,
    "relabel": RELABELS,
    "explore": EXPLORES,
    "target": TARGETS,
    "optimiser": OPTIMISERS,
    "reset": RESETS,
    "horizon": HORIZONS,
}
"""The axes whose values are parts, with the parts that qhat ships."""


HORIZON = 50_000
"""Environment steps that schedules are made for where nobody says how long a run is."""
WIDEST, DEEPEST = 1_000_000, 100
"""Units of a layer, and layers, beyond which numbers are no network's."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An algorithm as a value: how it is fitted to

    G = R⁽ⁿ⁾ + b(s, a) + d · Σ_a' π(a'|s')·[Z̄(s', a') − τ·log π(a'|s')].
    """

    head: Head = Expected()
    """Representation of the return."""
    policy: Policy = Greedy()
    """Choice of a' in the backup."""
    bonus: Bonus = NoBonus()
    """Bonus added to the reward."""
    behaviour: Behaviour = NoBehaviour()
    """What the recorded actions say beside their returns."""
    merge: Merge = Plain()
    """Output layers: plain, or dueling (value + advantage)."""
    dense: Layer = Dense()
    """Fully connected layers: dense, or noisy."""
    torso: Torso = Auto()
    """Layers from an observation to features; auto chooses by the observation's shape."""
    memory: Memory = NoMemory()
    """What the network keeps of earlier observations."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers after the torso; none: the outputs follow the torso."""
    layer_norm: bool = False
    """Normalise the input of each hidden layer's ReLU."""
    n_step: int = 1
    """Rewards summed before bootstrapping (fewer at an episode's end)."""
    n_step_cut: float | None = None
    """End that sum before the first later action that costs more than this share of the value, so that
    exploration does not bias it. 0: before the first that is not greedy (Watkins 1989). None: sum all."""
    random_shift: int = 0
    """Move the pictures of a batch at random, by at most this many pixels (DrQ: 4). 0: do not."""
    mirror: bool = False
    """Learn from the mirror image of every second transition, where the environment says what that is."""
    joints: Joints = Together()
    """How actions of several factors share one target."""
    bins: tuple[int, ...] = BINS
    """Number of commands per joint for continuous actions: one number for all, or one per joint."""
    resolution: Resolution = Full()
    """Whether all of these commands are in use from the start, and whether near ones share values."""
    training: Training = Replay()
    """What gradient updates learn from."""
    sampler: Sampler = Uniform()
    """How batches are drawn from replay."""
    demo_share: float = 0.0
    """Share of every batch that comes from the demonstrations, which then stay beside replay for the whole
    run. 0: they are in replay, until new steps overwrite them."""
    relabel: Relabel = NoRelabel()
    """Whether a step is also learned from with goals that were achieved later."""
    explore: Explore = EpsilonGreedy()
    """Exploration strategy."""
    target: Target = Hard()
    """How the target network is updated."""
    optimiser: Optimiser = Adam()
    """How a gradient is scaled before the learning rate applies."""
    reset: Reset = NoReset()
    """Whether weights are drawn anew in the middle of training."""
    horizon: Horizon = Fixed()
    """Whether the number of summed rewards and the discount change during training."""
    normalise: bool | None = None
    """Normalise observations by their running mean and standard deviation, within ±10. None: only if the
    bounds of their space are large."""
    gamma: float = 0.99
    """γ, the discount per environment step."""
    learning_rate: float = 1e-3
    """Learning rate at the first update."""
    learning_rate_end: float | None = None
    """Learning rate from environment step `learning_rate_steps` on. None: `learning_rate`."""
    learning_rate_steps: int | None = None
    """Environment steps over which the learning rate falls linearly. None: the whole run."""
    max_gradient_norm: float | None = None
    """Gradients are scaled down to this global norm. None: no clipping."""
    batch_size: int = 32
    """Transitions per gradient update."""
    replay_ratio: float = 1.0
    """Gradient updates per environment step."""
    replay_capacity: int = 100_000
    """Rows of replay per seed, over all environments. An episode of L steps takes L + 1 rows."""
    learning_starts: int | None = None
    """Environment steps before the first update. None: a fiftieth of the run, at most 1,000."""
    num_envs: int = 1
    """Number of environments per seed that step together."""
    paper: tyro.conf.Suppress[str] = ""
    """Link to the algorithm's paper."""

    def __repr__(self) -> str:
        """Return what differs from `Recipe()`."""
        return short(self, hide=("paper",))

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        fields = (field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default)
        return card("Recipe", {field.name: short(getattr(self, field.name)) for field in fields})

    def scheduled(self, steps: int = HORIZON) -> Recipe:
        """Return the recipe for a run of `steps` environment steps.

        Every schedule that follows the run gets its number of steps; the others keep theirs.
        """
        starts = self.learning_starts
        recipe = dataclasses.replace(
            self,
            explore=self.explore.scheduled(steps),
            learning_rate_steps=steps if self.learning_rate_steps is None else self.learning_rate_steps,
            learning_starts=min(1_000, steps // 50) if starts is None else starts,
        )
        followers = {"reset": self.reset, "resolution": self.resolution}
        made = {axis: part.scheduled(recipe.updates_in(steps)) for axis, part in followers.items()}
        return dataclasses.replace(recipe, **made)

    def updates_in(self, steps: int) -> int:
        """Return the gradient updates of a run of `steps` environment steps; of a `scheduled` recipe."""
        every, first = self.iterations_per_update, -(-self.first_update // self.num_envs)
        due = steps // self.num_envs // every - (first - 1) // every
        return max(0, due) * self.updates_per_iteration

    @property
    def longest(self) -> int:
        """Largest number of rewards that are summed."""
        return self.horizon.longest(self.n_step)

    @property
    def first_update(self) -> int:
        """Environment steps before the first update of a recipe that is `scheduled`: a batch at least."""
        assert self.learning_starts is not None, "a recipe that follows the run is `scheduled` first"
        return self.training.first(self)

    @property
    def updates_per_iteration(self) -> int:
        """Gradient updates each time that there are any."""
        return self.training.updates(self)

    @property
    def iterations_per_update(self) -> int:
        """(Vectorised) steps from one time to the next; 1 when every step is followed by updates."""
        return self.training.every(self)

    def fitted(self, shape: tuple[int, ...], layout: Observations | None = None) -> Recipe:
        """Return the recipe for observations of `shape`: with the torso that fits, standardised or not.

        Args:
            layout: what they are made of; of pictures beside others each has a torso, and this one stays.
        """
        normalise, torso = self.normalise, self.torso
        if normalise is None:
            normalise = layout is not None and layout.standardises
        if layout is None or not layout.pictures:
            torso = torso.fitted(shape)
        elif layout.is_picture:
            torso = torso.of_image(layout.framed[0].image_shape)
        return dataclasses.replace(self, torso=torso, normalise=normalise)

    def validate(self) -> Recipe:
        """Return self, or raise `UsageError` with the sentence for the first meaningless setting."""
        for axis, kinds in AXES.items():
            part = getattr(self, axis)
            require(
                isinstance(part, AxisValue) and part.axis == axis,
                f"{axis} is {part!r}; expected a value of this axis, for example {kinds[-1].__name__}().",
            )
            check(part)
            part.validate()
        for name, also in (("normalise", ", or none"), ("layer_norm", ""), ("mirror", "")):
            value = getattr(self, name)
            good = isinstance(value, bool) or bool(also and value is None)
            require(good, f"{name} is {value!r}; expected true or false{also}.")
        cut = self.n_step_cut
        require(
            cut is None or (_number(cut) and cut >= 0),
            f"{setting('n_step_cut')} is {quote(cut)}; expected a share of 0 or more, for example 0.1,"
            " or none.",
        )
        at_least_1 = ("n_step", "batch_size", "replay_capacity", "num_envs", "learning_rate_steps")
        for name in at_least_1:
            value = getattr(self, name)
            if name == "learning_rate_steps" and value is None:
                continue
            require(
                _whole(value, 1) and value < 2**31,
                f"{setting(name)} is {quote(value)}; expected a whole number of 1 or more, below"
                " 2147483648.",
            )
        require(
            _number(self.demo_share) and 0 <= self.demo_share < 1,
            f"{setting('demo_share')} is {quote(self.demo_share)}; expected a share from 0 to below 1, for"
            f" example {setting('demo_share', 0.5)}.",
        )
        shift = self.random_shift
        require(
            _whole(shift, 0) and shift < 2**15,
            f"{setting('random_shift')} is {quote(shift)}; expected 0 or more pixels, for example 4.",
        )
        starts = self.learning_starts
        require(
            starts is None or (_whole(starts, 0) and starts < 2**31),
            f"{setting('learning_starts')} is {self.learning_starts}; expected 0 to 2147483647 steps.",
        )
        require(
            isinstance(self.hidden, tuple)
            and len(self.hidden) <= DEEPEST
            and all(_whole(width, 1) and width <= WIDEST for width in self.hidden),
            f"{setting('hidden')} is {quote(self.hidden)}; expected positive widths, for example"
            f" {setting('hidden', (64, 64), '64 64')}; at"
            f" most {DEEPEST} of them, of {WIDEST:,}.",
        )
        require(
            isinstance(self.bins, tuple) and len(self.bins) > 0 and all(_whole(n, 2) for n in self.bins),
            f"{setting('bins')} is {quote(self.bins)}; expected 2 or more for every joint, for example"
            f" {setting('bins', 3)}.",
        )
        require(isinstance(self.paper, str), f"paper is {quote(self.paper)}; expected text.")
        require(
            _number(self.gamma) and 0 <= self.gamma <= 1,
            f"{setting('gamma')} is {self.gamma}; expected a discount within [0, 1].",
        )
        for name in ("learning_rate", "learning_rate_end", "replay_ratio", "max_gradient_norm"):
            value = getattr(self, name)
            may_be_none = name in ("max_gradient_norm", "learning_rate_end") and value is None
            good = may_be_none or _positive(value)
            require(good, f"{setting(name)} is {value}; expected more than 0.")
        for axis in AXES:
            getattr(self, axis).validate_within(self)
        return self

    def to_json(self) -> dict[str, Any]:
        """Write the recipe with every default spelled out."""
        written = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for axis in AXES:
            written[axis] = to_json(written[axis])
        return {**written, "hidden": list(self.hidden), "bins": list(self.bins)}

    @staticmethod
    def from_json(data: Any, extra: Iterable[type[AxisValue]] = ()) -> Recipe:
        """Read what `to_json` wrote. `extra` are parts from outside the package.

        Raises:
            UsageError: unknown fields or parts, or settings that have no meaning.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"A recipe is {quote(data)}; expected an object.")
        fields, values = {field.name for field in dataclasses.fields(Recipe)}, upgraded(data)
        if unknown := [name for name in values if name not in fields]:
            raise UsageError(f"A recipe has no field {quote(unknown[0])}; was it made by another version?")
        for axis, shipped in AXES.items():
            if axis in values:
                kinds = (*shipped, *(kind for kind in extra if kind.axis == axis))
                values[axis] = from_json(values[axis], kinds)
        for name in ("hidden", "bins"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        try:
            return Recipe(**values).validate()
        except TypeError:
            raise UsageError("A recipe has a field of the wrong type.") from None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0
