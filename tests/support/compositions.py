"""The product of the axes, and small sets of its cells in which every few values meet."""

import itertools
import math
import random
from dataclasses import replace
from typing import Any, NamedTuple

from full import FULL
from qhat import axes
from qhat.axes import Actions, AxisValue, EpsilonGreedy
from qhat.recipes.recipe import AXES as KINDS
from qhat.recipes.recipe import Recipe

TAU = 0.1
# Settings small enough for a test, of every part that is not used at its defaults.
SAMPLES: dict[type[AxisValue], tuple[Any, ...]] = {
    axes.Expected: (axes.Expected(),),
    axes.Categorical: (axes.Categorical(atoms=15), axes.Categorical(atoms=15, v_min=-4.0, v_max=4.0)),
    axes.Quantile: (axes.Quantile(quantiles=7),),
    axes.Implicit: (axes.Implicit(online=4, target=5, policy=6, embedding=8),),
    axes.HLGauss: (axes.HLGauss(atoms=15),),
    axes.Greedy: (axes.Greedy(),),
    axes.Double: (axes.Double(),),
    axes.Softmax: (axes.Softmax(tau=TAU),),
    axes.ExpectedSarsa: (axes.ExpectedSarsa(epsilon=0.3),),
    axes.NoBonus: (axes.NoBonus(),),
    axes.Munchausen: (axes.Munchausen(tau=TAU),),
    axes.NoBehaviour: (axes.NoBehaviour(),),
    axes.Conservative: (axes.Conservative(alpha=0.5),),
    axes.Together: (axes.Together(),),
    axes.Each: (axes.Each(),),
    axes.Pairs: (axes.Pairs(),),
    axes.Regularised: (axes.Regularised(),),
    axes.Plain: (axes.Plain(),),
    axes.Dueling: (axes.Dueling(),),
    axes.Dense: (axes.Dense(),),
    axes.Noisy: (axes.Noisy(),),
    axes.Sparse: (axes.Sparse(zeros=0.5),),
    axes.Replay: (axes.Replay(),),
    axes.Uniform: (axes.Uniform(),),
    axes.Prioritised: (axes.Prioritised(),),
    axes.Hard: (axes.Hard(every=10),),
    axes.NoRelabel: (axes.NoRelabel(),),
    axes.Full: (axes.Full(),),
    axes.Fixed: (axes.Fixed(),),
    axes.Receding: (axes.Receding(n_step=4, gamma=0.5, updates=20),),
    axes.Soft: (axes.Soft(tau=0.1),),
    axes.NoReset: (axes.NoReset(),),
    axes.NoMemory: (axes.NoMemory(),),
    axes.Periodic: (axes.Periodic(every=3),),
    axes.Adam: (axes.Adam(),),
    axes.AdamW: (axes.AdamW(decay=0.1),),
    axes.RAdam: (axes.RAdam(),),
    axes.RMSProp: (axes.RMSProp(momentum=0.9, outside=True),),
    axes.MLP: (axes.MLP(),),
    axes.BroNet: (axes.BroNet(width=8, blocks=1),),
    axes.SimBa: (axes.SimBa(width=8, blocks=1),),
    axes.SimBaV2: (axes.SimBaV2(width=8, blocks=1),),
    axes.MinAtar: (axes.MinAtar(filters=4, layer_norm=True),),
    # Impala takes long to compile, and has tests of its own in test_torsos.py.
    axes.Impala: (axes.Impala(),) if FULL else (),
}
LEFT_OUT: dict[type[AxisValue], str] = {
    axes.GRU: "its batches are of sequences; tests/engine/test_recurrent.py has it",
    axes.MinGRU: "its batches are of sequences; tests/engine/test_recurrent.py has it",
    axes.NoTarget: "its targets move, so that no batch is fixed; tests/engine/test_rollout.py has it",
    axes.Clone: "no return counts; tests/axes/test_behaviour.py has it",
    axes.Constrained: "it fits one head; tests/engine/test_preferences.py has it",
    axes.InSample: "it fits one head; tests/engine/test_preferences.py has it",
    axes.Margin: "it counts for recorded steps alone; tests/axes/test_behaviour.py has it",
    axes.Logs: "nothing is stored in a run; tests/engine/test_logs.py has it",
    axes.Rollout: "nothing is drawn from replay; tests/engine/test_rollout.py has it",
    axes.Stream: "nothing is drawn from replay; tests/engine/test_streaming.py has it",
    axes.ObGD: "it steps along traces; tests/engine/test_streaming.py has it",
    axes.Growing: "the actions here have no order; tests/engine/test_growth.py has it",
    axes.CoarseToFine: "the actions here have no order; tests/axes/test_cells.py has it",
    axes.Hindsight: "the observations here have no goals; tests/engine/test_goals.py has it",
    axes.Auto: "it is one of the other torsos",
    axes.DataEfficient: "as Nature; tests/axes/test_encoders.py has it",
    axes.Mnih2013: "as Nature; tests/axes/test_torsos.py has it",
    axes.Impoola: "Impala but for its end; tests/axes/test_encoders.py has it",
    axes.Nature: "pictures of 36 pixels and more take long; tests/axes/test_torsos.py has it",
    axes.EpsilonGreedy: "no action is chosen here; tests/axes/test_exploration.py has it",
    axes.Pink: "no action is chosen here; tests/axes/test_pink.py has it",
    axes.NoExploration: "no action is chosen here; tests/axes/test_exploration.py has it",
}
"""Parts that are in no composition, and why."""


def samples(kinds: tuple[type[AxisValue], ...]) -> tuple[Any, ...]:
    """Return the sample settings of the parts of one axis."""
    for kind in kinds:
        assert kind in SAMPLES or kind in LEFT_OUT, (
            f"{kind.axis} '{kind.name}' has no sample settings; expected a row in SAMPLES of"
            " tests/support/compositions.py, or the reason for leaving it out in LEFT_OUT."
        )
    return tuple(value for kind in kinds for value in SAMPLES.get(kind, ()))


PARTS = {axis: samples(kinds) for axis, kinds in KINDS.items()}
AXES: dict[str, tuple[Any, ...]] = {
    **{axis: values for axis, values in PARTS.items() if values},
    "n_step": (1, 3),
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
    pictures = {"minatar": (4, 4, 2), "impala": (8, 8, 2)}
    shape = pictures.get(values["torso"].name, (5,))
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
        start = dict(min(missing))
        tries = [
            [start.get(axis, draw.randrange(len(AXES[name]))) for axis, name in enumerate(names)]
            for _ in range(40)
        ]
        met = [_met(row, strength) & missing for row in tries]
        best = max(range(len(tries)), key=lambda index: len(met[index]))
        missing -= met[best]
        rows.append({name: AXES[name][pick] for name, pick in zip(names, tries[best], strict=True)})
    return rows


def drawn(count: int) -> list[dict[str, Any]]:
    """Return cells of the product, which has millions: each is made of its number."""
    total = math.prod(len(values) for values in AXES.values())
    # Drawn, not counted off: a regular step through a product leaves its inner axes where they are.
    return [numbered(index) for index in random.Random(0).sample(range(total), count)]


def numbered(index: int) -> dict[str, Any]:
    """Return the cell of a number; the last axis changes first."""
    picks = {}
    for name, values in reversed(AXES.items()):
        index, place = divmod(index, len(values))
        picks[name] = values[place]
    return {name: picks[name] for name in AXES}


def _met(row: list[int], strength: int) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(row), strength))
