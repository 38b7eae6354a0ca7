"""Parts of recipes on the command line: `--parts`, read before everything else, and one flag per axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from qhat.axes.axis import AxisValue, parse, spell
from qhat.axes.behaviour import Behaviour
from qhat.axes.bonus import Bonus
from qhat.axes.dense import Layer
from qhat.axes.explore import Explore
from qhat.axes.heads import Head
from qhat.axes.horizon import Horizon
from qhat.axes.joints import Joints
from qhat.axes.memory import Memory
from qhat.axes.merge import Merge
from qhat.axes.optimiser import Optimiser
from qhat.axes.policy import Policy
from qhat.axes.relabel import Relabel
from qhat.axes.reset import Reset
from qhat.axes.resolution import Resolution
from qhat.axes.sampler import Sampler
from qhat.axes.target import Target
from qhat.axes.torso import Torso
from qhat.axes.training import Training
from qhat.cli.parsing import value_of, values_of
from qhat.environments import options, wrappers
from qhat.recipes.habits import our_word
from qhat.recipes.parts import flags, load, names_of
from qhat.recipes.recipe import AXES, Recipe
from qhat.system.errors import UsageError, require

FLAG = "--parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherParts:
    """Parts that replace those of the recipes that a command trains."""

    head: Head | None = None
    """Head. Default: the recipe's, as for each of the following."""
    policy: Policy | None = None
    """Backup policy."""
    bonus: Bonus | None = None
    """Bonus added to the reward."""
    behaviour: Behaviour | None = None
    """What the recorded actions say beside their returns."""
    merge: Merge | None = None
    """Output layers."""
    dense: Layer | None = None
    """Fully connected layers."""
    torso: Torso | None = None
    """Layers from an observation to features."""
    memory: Memory | None = None
    """What the network keeps of earlier observations."""
    joints: Joints | None = None
    """How actions of several factors share one target."""
    training: Training | None = None
    """What gradient updates learn from."""
    sampler: Sampler | None = None
    """How batches are drawn from replay."""
    explore: Explore | None = None
    """Exploration strategy."""
    target: Target | None = None
    """How the target network is updated."""
    optimiser: Optimiser | None = None
    """How a gradient is scaled."""
    relabel: Relabel | None = None
    """Whether a step is also learned from with goals that were achieved later."""
    reset: Reset | None = None
    """Whether weights are drawn anew in the middle of training."""
    resolution: Resolution | None = None
    """Whether all commands of a joint are in use from the start, and whether near ones share values."""
    horizon: Horizon | None = None
    """Whether the number of summed rewards and the discount change during training."""
    parts: tuple[str, ...] = ()
    """Parts of recipes from outside the package, as my_module:MyPart (docs/extending.md); repeatable."""

    def chosen(self) -> dict[str, Any]:
        """Return the given parts, by axis."""
        given = {axis: getattr(self, axis) for axis in AXES}
        return {axis: part for axis, part in given.items() if part is not None}

    def words(self) -> list[str]:
        """Return the words of the command line that give the same parts."""
        chosen = self.chosen()
        spelled = [word for axis, part in chosen.items() for word in (f"--{axis}", spell(part))]
        return [*spelled, *flags(names_of(Recipe(**chosen)))]


def read_parts(settings: dict[str, Any], kinds: Sequence[type[AxisValue]]) -> dict[str, Any]:
    """Return settings in which parts given as text are values.

    Args:
        kinds: classes of parts from outside the package.

    Raises:
        UsageError: text that spells no part.
    """
    return {
        name: parse(value, (*AXES[name], *(kind for kind in kinds if kind.axis == name)))
        if name in AXES and isinstance(value, str)
        else value
        for name, value in settings.items()
    }


def with_parts(words: Sequence[str]) -> tuple[list[str], tuple[type[AxisValue], ...]]:
    """Return the words with one `--parts` at their end, and the classes that it names.

    Each `--parts` takes one word, names with commas between them, so that an environment's id may follow.
    """
    rest: list[str] = []
    names: list[str] = []
    after = iter(words)
    for word in after:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(after, "")
        require(
            value != "" and not value.startswith("--"), f"{FLAG} has no value; expected my_module:MyPart."
        )
        names += [name for name in value.split(",") if name]
    return [*rest, *([FLAG, *names] if names else [])], load(names)


def check_spelling(words: Sequence[str], parts: Sequence[type[AxisValue]], command: str = "train") -> None:
    """Raise `UsageError` for misspelled axis values, wrappers and options."""
    # Checked before tyro parses: tyro would print its own, longer error.
    for axis, kinds in AXES.items():
        if (spelled := value_of(words, f"--{axis}")) is not None:
            if sentence := our_word(axis, spelled, f"qhat {command}"):
                raise UsageError(sentence)
            parse(spelled, (*kinds, *(part for part in parts if part.axis == axis)))
    for spelled in values_of(words, "--wrap"):
        parse(spelled, wrappers.WRAPPERS)
    options.read_words(values_of(words, "--env-kwargs"))
