"""The product of the axes, and small sets of its cells in which every few values meet."""

import itertools
import random
from dataclasses import replace
from typing import Any, NamedTuple

from full import FULL
from qhat.axes.actions import Actions
from qhat.axes.bonus import Munchausen, NoBonus
from qhat.axes.dense import Dense, Noisy
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Categorical, Expected, HLGauss, Implicit, Quantile
from qhat.axes.joints import Each, Together
from qhat.axes.merge import Dueling, Plain
from qhat.axes.optimiser import Adam, RMSProp
from qhat.axes.policy import Double, Greedy, Softmax
from qhat.axes.sampler import Prioritised, Uniform
from qhat.axes.target import Hard, Soft
from qhat.axes.torso import MLP, Impala, MinAtar
from qhat.recipes.recipe import Recipe

TAU = 0.1
AXES: dict[str, tuple[Any, ...]] = {
    "head": (
        Expected(),
        Categorical(atoms=15),
        Categorical(atoms=15, v_min=-4.0, v_max=4.0),
        Quantile(quantiles=7),
        Implicit(online=4, target=5, policy=6, embedding=8),
        HLGauss(atoms=15),
    ),
    "policy": (Greedy(), Double(), Softmax(tau=TAU)),
    "bonus": (NoBonus(), Munchausen(tau=TAU)),
    "joints": (Together(), Each()),
    "merge": (Plain(), Dueling()),
    "dense": (Dense(), Noisy()),
    "n_step": (1, 3),
    "sampler": (Uniform(), Prioritised()),
    "target": (Hard(every=10), Soft(tau=0.1)),
    "optimiser": (Adam(), RMSProp(momentum=0.9, outside=True)),
    # Impala takes long to compile, and has tests of its own in test_torsos.py.
    "torso": (MLP(), MinAtar(filters=4), *([Impala()] if FULL else [])),
    "normalise": (False, True),
    "layer_norm": (False, True),
    "actions": (Actions((3,)), Actions((2, 4, 3))),
    "masked": (False, True),
}
BASE = Recipe(
    hidden=(16, 16), batch_size=8, learning_starts=8, replay_capacity=64, learning_rate=3e-3,
    explore=EpsilonGreedy(0.5, 0.5),
)  # fmt: skip


class Cell(NamedTuple):
    """One composition on one pair of spaces."""

    recipe: Recipe
    shape: tuple[int, ...]
    actions: Actions
    masked: bool


def cell(values: dict[str, Any]) -> Cell:
    """Compose a cell from one value per axis."""
    parts = {name: value for name, value in values.items() if name not in ("actions", "masked")}
    shape = {"mlp": (5,), "minatar": (4, 4, 2), "impala": (8, 8, 2)}[values["torso"].name]
    return Cell(replace(BASE, **parts), shape, values["actions"], values["masked"])


def covering(strength: int) -> list[dict[str, Any]]:
    """Return cells in which every `strength` values of different axes meet at least once.

    Greedy: of 40 random completions of a tuple that has not been met, take the one that meets most.
    """
    names, draw = list(AXES), random.Random(0)
    missing = {
        tuple(zip(group, picks, strict=True))
        for group in itertools.combinations(range(len(names)), strength)
        for picks in itertools.product(*(range(len(AXES[names[axis]])) for axis in group))
    }
    rows = []
    while missing:
        seedling = dict(min(missing))
        tries = [
            [seedling.get(axis, draw.randrange(len(AXES[name]))) for axis, name in enumerate(names)]
            for _ in range(40)
        ]
        met = [_met(row, strength) & missing for row in tries]
        best = max(range(len(tries)), key=lambda index: len(met[index]))
        missing -= met[best]
        rows.append({name: AXES[name][pick] for name, pick in zip(names, tries[best], strict=True)})
    return rows


def product() -> list[dict[str, Any]]:
    """Return every cell."""
    return [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]


def _met(row: list[int], strength: int) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(row), strength))
