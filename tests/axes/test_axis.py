"""Protects the reading and writing of recipes.

A written value must be read back unchanged, from the command line and from a manifest. A value without
meaning is refused with a sentence that has the value, what was expected and a near miss.
"""

import dataclasses
import json
import subprocess
import sys
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhat.axes.axis import AxisValue, from_json, parse, spell, to_json
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Categorical, Expected
from qhat.axes.merge import Dueling
from qhat.axes.optimiser import Adam, RMSProp
from qhat.axes.policy import Double, Softmax
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard, Soft
from qhat.axes.torso import MinAtar
from qhat.recipes import RECIPES, get
from qhat.recipes.recipe import AXES, Recipe
from qhat.system.errors import UsageError

KINDS = [(axis, kind) for axis, kinds in AXES.items() for kind in kinds]
BY_TYPE: dict[Any, st.SearchStrategy] = {
    int: st.integers(0, 10**6),
    float: st.floats(0, 1) | st.floats(-1000, 1000),
    bool: st.booleans(),
    type(None): st.none(),
}


def fields_of(kind: type) -> list[dataclasses.Field]:
    return list(dataclasses.fields(kind))


def strategy_of(hint: Any) -> st.SearchStrategy:
    if typing.get_origin(hint) is tuple:
        return st.lists(strategy_of(typing.get_args(hint)[0]), min_size=1, max_size=3).map(tuple)
    if options := typing.get_args(hint):
        return st.one_of([strategy_of(option) for option in options])
    return BY_TYPE.get(hint, st.nothing())


@st.composite
def values(draw: st.DrawFn, kind: type[AxisValue]) -> AxisValue:
    """Draw a valid value of an axis: a random field that it refuses keeps its default."""
    hints = typing.get_type_hints(kind)
    kept: dict[str, Any] = {}
    for field in fields_of(kind):
        tried = {**kept, field.name: draw(st.just(field.default) | strategy_of(hints[field.name]))}
        try:
            kind(**tried).validate()
        except UsageError:
            continue
        kept = tried
    return kind(**kept)


@pytest.mark.parametrize(("axis", "kind"), KINDS, ids=lambda part: getattr(part, "name", part))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_values_survive_text_and_json(axis: str, kind: type[AxisValue], data: st.DataObject):
    value = data.draw(values(kind))
    assert parse(spell(value), AXES[axis]) == value
    assert from_json(json.loads(json.dumps(to_json(value))), AXES[axis]) == value


@pytest.mark.parametrize(("axis", "kind"), KINDS, ids=lambda part: getattr(part, "name", part))
def test_a_default_value_is_spelled_by_its_name_alone(axis: str, kind: type[AxisValue]):
    assert spell(kind()) == kind.name
    assert type(parse(kind.name, AXES[axis])) is kind
    assert kind.axis == axis
    assert to_json(kind()).keys() == {"name", *(field.name for field in fields_of(kind))}


def test_names_on_an_axis_are_unique():
    for kinds in AXES.values():
        assert len({kind.name for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("axis", "text", "value"),
    [
        ("head", "expected:delta=none", Expected(delta=None)),
        ("head", "expected:delta=2", Expected(delta=2.0)),
        ("target", "hard:every=500", Hard(every=500)),
        ("target", "soft:tau=1e-2", Soft(tau=0.01)),
        ("explore", "epsilon:end=0.01, hold=4", EpsilonGreedy(end=0.01, hold=4)),
        ("sampler", "prioritised:alpha=0.5,beta=1", Prioritised(alpha=0.5, beta=1.0)),
        ("torso", "minatar:filters=8", MinAtar(filters=8)),
        ("merge", "dueling", Dueling()),
    ],
)
def test_the_command_lines_spelling(axis: str, text: str, value: AxisValue):
    assert parse(text, AXES[axis]) == value


REFUSED = [
    ("head", "expcted", ["'expcted'", "expected one of", "Did you mean 'expected'?"]),
    ("target", "Hrad", ["'Hrad'", "Did you mean 'hard'?"]),
    ("sampler", "prioritized", ["Did you mean 'prioritised'?"]),
    ("policy", "xyzzy", ["'xyzzy'", "greedy", "double"]),
    ("policy", "", ["''", "greedy"]),
    ("target", "hard:evry=5", ["no setting 'evry'", "Did you mean 'every'?"]),
    ("policy", "double:x=1", ["no setting 'x'", "none"]),
    ("target", "hard:every=often", ["hard:every", "'often'", "a whole number"]),
    ("target", "hard:every=1.5", ["hard:every", "'1.5'", "a whole number"]),
    ("target", "hard:every", ["hard:every", "a whole number"]),
    ("target", "hard:every=none", ["hard:every", "none", "a whole number"]),
    ("target", "hard:every=0", ["hard:every is 0", "1 or more"]),
    ("target", "soft:tau=0", ["soft:tau", "(0, 1]"]),
    ("target", "soft:tau=nan", ["soft:tau", "a finite number"]),
    ("target", "soft:tau=true", ["soft:tau", "a finite number"]),
    ("explore", "epsilon:end=2", ["epsilon:end is 2", "[0, 1]"]),
    ("explore", "epsilon:hold=0", ["epsilon:hold is 0", "1 or more"]),
    ("explore", "epsilon:steps=-1", ["epsilon:steps is -1", "0 or more"]),
    ("sampler", "prioritised:alpha=1.5", ["prioritised:alpha is 1.5", "[0, 1]"]),
    ("sampler", "prioritised:beta=-0.1", ["prioritised:beta is -0.1", "[0, 1]"]),
    ("sampler", "prioritised:epsilon=0", ["prioritised:epsilon", "more than 0"]),
    ("head", "expected:delta=-1", ["expected:delta is -1", "more than 0"]),
    ("head", "expected:delta=inf", ["expected:delta is inf", "a finite number or none"]),
    ("head", "categorical:v_min=-inf,v_max=inf", ["categorical:v_min is -inf", "a finite number"]),
    ("head", "categorical:v_min=1e39,v_max=2e39", ["categorical:v_min is 1e+39", "a finite number"]),
    ("head", "categorical:v_min=1e9,v_max=1000000001", ["expected a wider range", "float32"]),
    (
        "head",
        "categorical:atoms=99999999999999999999",
        ["atoms is 9999", "number, below 2147483648"],
    ),
    ("dense", "noisy:sigma=inf", ["noisy:sigma is inf", "a finite number"]),
    ("policy", "softmax:tau=inf", ["softmax:tau is inf", "a finite number"]),
]


def assert_sentence(message: str, words: list[str]) -> None:
    for word in words:
        assert word in message
    assert message[-1] in ".?"
    assert "\n" not in message


@pytest.mark.parametrize(("axis", "text", "words"), REFUSED, ids=lambda part: str(part)[:30])
def test_refusals_are_sentences(axis: str, text: str, words: list[str]):
    with pytest.raises(UsageError) as refused:
        parse(text, AXES[axis])
    assert_sentence(str(refused.value), words)
    assert refused.value.exit_code == 2


DAMAGED_PARTS = [
    None,
    [],
    "hard",
    {},
    {"name": 3},
    {"name": "hrad"},
    {"name": "hard", "every": "x"},
    {"name": "hard", "every": 2.5},
    {"name": "hard", "every": True},
    {"name": "hard", "every": None},
    {"name": "hard", "every": [3]},
    {"name": "hard", "every": float("nan")},
    {"name": "hard", "every": float("inf")},
    {"name": "hard", "evry": 3},
]
DAMAGED_RECIPES = [
    {"n_stp": 3},
    {"n_step": "3"},
    {"n_step": None},
    {"n_step": 2.5},
    {"n_step": True},
    {"batch_size": 32.5},
    {"learning_rate": None},
    {"gamma": "high"},
    {"hidden": None},
    {"hidden": 64},
    {"hidden": ["64"]},
    {"hidden": [64.5]},
    {"head": "expected"},
    {"head": None},
    {"head": {"name": "soft"}},
    {"target": {"name": "hard", "every": 0}},
]
NO_RECIPES = [None, [], "dqn", 3]
READ_EACH = """
import json, sys
from qhat.axes.axis import from_json
from qhat.recipes.recipe import AXES, Recipe
from qhat.system.errors import UsageError

def read(kind, data):
    try:
        if kind == "part":
            from_json(data, AXES["target"])
        else:
            Recipe.from_json({**Recipe().to_json(), **data} if kind == "change" else data)
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", "It was accepted."

print(json.dumps([read(kind, data) for kind, data in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def refusals() -> dict[str, tuple[str, str]]:
    """Return what reading each damaged value raises, in a separate process: there, as for users, no type
    checker runs before the readers."""
    cases = [
        *(("part", data) for data in DAMAGED_PARTS),
        *(("change", data) for data in DAMAGED_RECIPES),
        *(("recipe", data) for data in NO_RECIPES),
    ]
    process = subprocess.run(
        [sys.executable, "-c", READ_EACH],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(map(str, cases), json.loads(process.stdout), strict=True))


@pytest.mark.parametrize("data", DAMAGED_PARTS, ids=str)
def test_damaged_parts_are_refused(data: Any, refusals: dict[str, tuple[str, str]]):
    error, message = refusals[str(("part", data))]
    assert error == "UsageError", message
    assert_sentence(message, [])


@pytest.mark.parametrize("change", DAMAGED_RECIPES, ids=str)
def test_damaged_recipes_are_refused(change: Any, refusals: dict[str, tuple[str, str]]):
    error, message = refusals[str(("change", change))]
    assert error == "UsageError", message
    assert_sentence(message, [])


@pytest.mark.parametrize("data", NO_RECIPES, ids=str)
def test_what_is_no_object_is_no_recipe(data: Any, refusals: dict[str, tuple[str, str]]):
    error, message = refusals[str(("recipe", data))]
    assert error == "UsageError", message
    assert_sentence(message, ["expected an object"])


@dataclasses.dataclass(frozen=True)
class Often(Hard):
    """A part from outside the package."""

    name = "often"
    sizes: tuple[int, ...] = (1, 2)
    loud: bool = False


def test_parts_from_outside_are_read_when_they_are_handed_over():
    kinds = (*AXES["target"], Often)
    value = Often(every=3, sizes=(4, 5, 6), loud=True)
    assert spell(value) == "often:every=3,sizes=4x5x6,loud=true"
    assert parse(spell(value), kinds) == value
    assert from_json(json.loads(json.dumps(to_json(value))), kinds) == value
    with pytest.raises(UsageError, match="'often' is not known"):
        parse("often", AXES["target"])
    recipe = Recipe(target=value)
    assert Recipe.from_json(recipe.to_json(), extra=[Often]) == recipe


def mistyped(value: AxisValue, **fields: Any) -> AxisValue:
    """A part with fields of the wrong type, which the shape checker of these tests would not let in."""
    for name, item in fields.items():
        object.__setattr__(value, name, item)
    return value


MEANINGLESS = [
    ({"n_step": 0}, ["n_step is 0", "1 or more"]),
    ({"batch_size": 0}, ["batch_size is 0"]),
    ({"num_envs": 0}, ["num_envs is 0"]),
    ({"replay_capacity": 0}, ["replay_capacity is 0"]),
    ({"learning_starts": -1}, ["learning_starts is -1"]),
    ({"hidden": (64, 0)}, ["hidden", "hidden=(64, 64)"]),
    ({"gamma": 2.0}, ["gamma is 2.0", "[0, 1]"]),
    ({"gamma": -0.1}, ["gamma is -0.1"]),
    ({"gamma": float("nan")}, ["gamma is nan"]),
    ({"learning_rate": 0.0}, ["learning_rate is 0.0", "more than 0"]),
    ({"learning_rate": float("nan")}, ["learning_rate is nan"]),
    ({"optimiser": Adam(-1.0)}, ["adam:epsilon is -1.0", "more than 0"]),
    ({"optimiser": RMSProp(decay=1.0)}, ["rmsprop:decay is 1.0", "[0, 1)"]),
    ({"optimiser": RMSProp(momentum=-0.1)}, ["rmsprop:momentum is -0.1"]),
    ({"max_gradient_norm": 0.0}, ["max_gradient_norm is 0.0"]),
    ({"replay_ratio": 0.0}, ["replay_ratio is 0.0"]),
    ({"replay_ratio": -1.0}, ["replay_ratio is -1.0"]),
    ({"replay_ratio": 0.3}, ["replay_ratio=0.3", "whole number"]),
    ({"replay_ratio": 1.5}, ["replay_ratio=1.5", "whole number"]),
    ({"replay_ratio": 0.3, "num_envs": 4}, ["replay_ratio=0.3", "num_envs=4"]),
    ({"replay_ratio": float("inf")}, ["replay_ratio"]),
    ({"batch_size": 65, "replay_capacity": 64}, ["batch_size is 65", "replay_capacity"]),
    (
        {"num_envs": 64, "replay_capacity": 128, "n_step": 3},
        ["replay_capacity=128", "n_step + 2"],
    ),
    ({"sampler": Prioritised(alpha=1.5)}, ["prioritised:alpha is 1.5"]),
    ({"target": Hard(every=0)}, ["hard:every is 0"]),
    ({"explore": EpsilonGreedy(hold=0)}, ["epsilon:hold is 0"]),
    ({"explore": mistyped(EpsilonGreedy(), start=None)}, ["epsilon:start is None", "a finite number"]),
    ({"head": mistyped(Categorical(), atoms=51.0)}, ["categorical:atoms is 51.0", "a whole number"]),
    ({"head": mistyped(Categorical(), atoms="51")}, ["categorical:atoms is '51'", "a whole number"]),
    ({"policy": mistyped(Softmax(), tau="a")}, ["softmax:tau is 'a'", "a finite number"]),
    ({"policy": Softmax(tau=float("inf"))}, ["softmax:tau is inf", "a finite number"]),
]


@pytest.mark.parametrize(("settings_", "words"), MEANINGLESS, ids=lambda part: str(part)[:40])
def test_a_recipe_without_meaning_is_refused(settings_: dict[str, Any], words: list[str]):
    with pytest.raises(UsageError) as refused:
        dataclasses.replace(Recipe(), **settings_).validate()
    assert_sentence(str(refused.value), words)


@pytest.mark.parametrize(
    ("num_envs", "ratio", "updates", "every"),
    [
        (1, 1.0, 1, 1),
        (1, 0.25, 1, 4),
        (8, 0.25, 2, 1),
        (8, 0.125, 1, 1),
        (4, 0.05, 1, 5),
        (1, 4.0, 4, 1),
    ],
)
def test_the_replay_ratio_is_kept_exactly(num_envs: int, ratio: float, updates: int, every: int):
    recipe = Recipe(num_envs=num_envs, replay_ratio=ratio).validate()
    assert max(recipe.updates_per_iteration, 1) == updates
    assert recipe.iterations_per_update == every
    assert updates / (every * num_envs) == pytest.approx(ratio)


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_are_valid_and_survive_json(name: str):
    recipe = get(name).validate()
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "head": values(Expected),
            "policy": st.just(Double()),
            "sampler": values(Prioritised),
            "explore": values(EpsilonGreedy),
            "target": values(Soft),
            "optimiser": values(RMSProp),
            "hidden": st.lists(st.integers(1, 512), max_size=3).map(tuple),
            "n_step": st.integers(1, 20),
            "gamma": st.floats(0, 1),
            "learning_rate": st.floats(1e-8, 1),
            "max_gradient_norm": st.none() | st.floats(1e-3, 100),
            "num_envs": st.integers(1, 16),
        }
    )
)
def test_recipes_survive_json(settings_: dict[str, Any]):
    recipe = Recipe(**settings_)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_an_unknown_recipe_names_the_near_miss():
    with pytest.raises(UsageError, match="Did you mean 'double_dqn'"):
        get("duble_dqn")
